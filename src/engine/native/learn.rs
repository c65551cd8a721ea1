//! Learning the insert-size models: one for each read group, from its first templates.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::insert::{InsertModel, LEARNT_TEMPLATES};
use super::map::Mapper;
use crate::flow::{Error, Result, Stage};
use crate::genome::{Layout, ReadBatch};

/// The insert-size model of each read group, once it is learnt.
pub struct Models {
    groups: Vec<OnceLock<InsertModel>>,
    usual: InsertModel,
}

impl Models {
    /// Models of `groups` read groups, none of them learnt.
    pub fn new(groups: usize) -> Self {
        let groups = (0..groups).map(|_| OnceLock::new()).collect();
        Self { groups, usual: InsertModel::default() }
    }

    /// The model of a read group; the usual one for a group that is not learnt.
    pub fn of(&self, group: u16) -> &InsertModel {
        self.groups.get(usize::from(group)).and_then(OnceLock::get).unwrap_or(&self.usual)
    }

    fn set(&self, group: usize, model: InsertModel) {
        if let Some(place) = self.groups.get(group) {
            place.get_or_init(|| model);
        }
    }
}

/// Holds batches back until the models of their read groups are learnt, in input order.
///
/// A model depends on the first [`LEARNT_TEMPLATES`] templates of its group, and on those alone
/// that come within [`WAITED_TEMPLATES`] of the group's first, whatever the batches.
pub struct Learn {
    mapper: Arc<Mapper>,
    models: Arc<Models>,
    groups: Vec<Group>,
    held: VecDeque<ReadBatch>,
}

/// Templates of any group that are waited for, from a group's first on: what is held is bounded.
pub const WAITED_TEMPLATES: u64 = 20_000;

/// What is known of a read group.
#[derive(Default)]
struct Group {
    /// Number of its first template, once there is one.
    first: Option<u64>,
    templates: u64,
    lengths: Vec<u32>,
    learnt: bool,
}

impl Learn {
    /// Learns with `mapper` and puts the models into `models`.
    pub fn new(mapper: Arc<Mapper>, models: Arc<Models>) -> Self {
        Self { mapper, models, groups: Vec::new(), held: VecDeque::new() }
    }

    fn look_at(&mut self, batch: &ReadBatch) -> Result<()> {
        let number = usize::from(batch.read_group);
        if self.groups.len() <= number {
            self.groups.resize_with(number + 1, Group::default);
        }
        let group = &mut self.groups[number];
        if group.learnt {
            return Ok(());
        }
        let first = *group.first.get_or_insert(batch.first_template);
        let in_batch = match batch.layout {
            Layout::Single => batch.len(),
            Layout::Paired => batch.len() / 2,
        };
        let waited = (first + WAITED_TEMPLATES).saturating_sub(batch.first_template);
        let wanted = (LEARNT_TEMPLATES - group.templates).min(in_batch as u64).min(waited);
        self.mapper
            .template_lengths(batch, wanted as usize, &mut group.lengths)
            .map_err(|error| Error::in_stage(Self::NAME, error))?;
        group.templates += wanted;
        if group.templates == LEARNT_TEMPLATES {
            self.learn(number);
        }
        Ok(())
    }

    fn learn(&mut self, number: usize) {
        let group = &mut self.groups[number];
        group.learnt = true;
        let lengths = std::mem::take(&mut group.lengths);
        self.models.set(number, InsertModel::learn(lengths));
    }

    /// Learns the groups that have been waited for long enough.
    fn learn_until(&mut self, template: u64) {
        for number in 0..self.groups.len() {
            let group = &self.groups[number];
            let over = group.first.is_some_and(|first| template >= first + WAITED_TEMPLATES);
            if !group.learnt && over {
                self.learn(number);
            }
        }
    }

    fn let_go(&mut self, out: &mut VecDeque<ReadBatch>) {
        let learnt = |batch: &ReadBatch| self.groups[usize::from(batch.read_group)].learnt;
        while self.held.front().is_some_and(learnt) {
            out.extend(self.held.pop_front());
        }
    }
}

impl Stage for Learn {
    type In = ReadBatch;
    type Out = ReadBatch;
    const NAME: &'static str = "learn";

    fn push(&mut self, batch: ReadBatch, out: &mut VecDeque<ReadBatch>) -> Result<()> {
        self.learn_until(batch.first_template);
        self.look_at(&batch)?;
        self.held.push_back(batch);
        self.let_go(out);
        Ok(())
    }

    fn finish(&mut self, out: &mut VecDeque<ReadBatch>) -> Result<()> {
        self.learn_until(u64::MAX);
        self.let_go(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Index;
    use super::super::simulate::{
        Random, batches, mapper, random_bases, reference_of, reverse_complement,
    };
    use super::*;

    /// Pairs of two groups in turn, whose templates have 300 and 700 bases.
    fn input(genome: &[u8], templates: usize, batch_templates: usize) -> Vec<ReadBatch> {
        let mut random = Random::new(6);
        let mut reads = Vec::new();
        for template in 0..templates {
            let insert = if template / 1000 % 2 == 0 { 300 } else { 700 } + random.below(40);
            let start = random.below(genome.len() - insert);
            let piece = &genome[start..start + insert];
            reads.push(piece[..80].to_vec());
            reads.push(reverse_complement(&piece[insert - 80..]));
        }
        let mut input = batches(&reads, Layout::Paired, batch_templates);
        for batch in &mut input {
            batch.read_group = (batch.first_template / 1000 % 2) as u16;
        }
        input
    }

    fn learnt(mapper: &Arc<Mapper>, input: Vec<ReadBatch>) -> (Arc<Models>, usize) {
        let models = Arc::new(Models::new(3));
        let mut learn = Learn::new(mapper.clone(), models.clone());
        let (mut out, mut held) = (VecDeque::new(), 0);
        for batch in input {
            learn.push(batch, &mut out).unwrap();
            held = held.max(learn.held.iter().map(|batch| batch.len() / 2).sum());
        }
        learn.finish(&mut out).unwrap();
        assert!(out.iter().zip(0..).all(|(batch, seq)| batch.seq == seq));
        (models, held)
    }

    #[test]
    fn each_read_group_has_its_own_model_whatever_the_batches() {
        let genome = random_bases(5, 60_000);
        let index = Index::build(&reference_of(std::slice::from_ref(&genome)), 1).unwrap();
        let mapper = Arc::new(mapper(index));
        let (models, held) = learnt(&mapper, input(&genome, 24_000, 100));
        assert!((models.of(0).mean - 320.0).abs() < 3.0, "{}", models.of(0).mean);
        assert!((models.of(1).mean - 720.0).abs() < 3.0, "{}", models.of(1).mean);
        assert_eq!(models.of(2), &InsertModel::default());
        assert!(held <= WAITED_TEMPLATES as usize + 100, "{held}");
        let (again, _) = learnt(&mapper, input(&genome, 24_000, 500));
        assert!((0..3).all(|group| models.of(group) == again.of(group)));
    }

    #[test]
    fn a_group_that_ends_early_is_not_waited_for() {
        let genome = random_bases(7, 60_000);
        let index = Index::build(&reference_of(std::slice::from_ref(&genome)), 1).unwrap();
        let mapper = Arc::new(mapper(index));
        let mut input = input(&genome, 26_000, 1000);
        input.iter_mut().skip(1).for_each(|batch| batch.read_group = 1);
        let (models, held) = learnt(&mapper, input);
        assert!((models.of(0).mean - 320.0).abs() < 3.0, "{}", models.of(0).mean);
        assert!(held <= WAITED_TEMPLATES as usize + 1000, "{held}");
    }
}
