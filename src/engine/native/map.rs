//! Mapping: reads in, each read's place out.
//!
//! Reads are taken in groups, and each step is a pass over the arrays of a group: encode, take seeds,
//! look them up, vote, lay without gaps ([`group`](super::group)), align with gaps
//! ([`refine`](super::refine)), choose pairs, look for lost mates ([`rescue`](super::rescue)). Steps that
//! compute are kernels over jobs that do not depend on each other, done through the worker's queue, so that
//! a device can take them; the passes whose cost is memory latency do nothing else, so that many accesses
//! are under way at once. How many reads go together changes no result.

use std::sync::Arc;

use super::extend::{Bench, Hit};
use super::group::Group;
use super::index::Index;
use super::insert::InsertModel;
use super::offload::{Offload, Sizes};
use super::pair::{PairChoice, choose_pair, choose_single, template_length};
use super::refine::refine;
use super::rescue::{Lost, Search};
use crate::device::assign::Assignment;
use crate::device::{Error, Queue};
use crate::genome::reference::base_code;
use crate::genome::{Layout, ReadBatch};
use crate::kernel::align::Scores;

/// Maps reads to the reference of an index.
pub struct Mapper {
    offload: Arc<Offload>,
    sizes: Sizes,
    scores: Scores,
}

/// A read's chosen place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it lies.
    pub hit: Hit,
    /// MAPQ.
    pub quality: u8,
}

/// The places of a template's reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// First and second read; a single read is the first.
    pub reads: [Option<Place>; 2],
    /// Whether they lie as the two ends of one template.
    pub proper: bool,
}

/// The code of every letter.
pub const CODES: [u8; 256] = {
    let mut codes = [4; 256];
    let mut letter = 0;
    while letter < 256 {
        codes[letter] = base_code(letter as u8);
        letter += 1;
    }
    codes
};

/// What a worker needs for itself: its queue, and the arrays of a group.
pub struct Workspace {
    queue: Box<dyn Queue>,
    group: Group,
    bench: Bench,
    search: Search,
}

impl Workspace {
    fn new(queue: impl Queue + 'static) -> Self {
        let (group, bench, search) = Default::default();
        Self { queue: Box::new(queue), group, bench, search }
    }
}

/// The templates of a group that are placed.
#[derive(Clone, Copy)]
struct Templates<'a> {
    /// What equally good places are drawn by, of the first.
    salt: u64,
    count: usize,
    /// Reads of a template, but for a last one without its mate.
    reads: usize,
    model: &'a InsertModel,
}

impl Mapper {
    /// A mapper over an index.
    pub fn new(offload: Arc<Offload>) -> Self {
        let sizes = offload.sizes();
        Self { offload, sizes, scores: Scores::default() }
    }

    /// The same with groups of another size.
    #[cfg(test)]
    pub fn with_sizes(self, sizes: Sizes) -> Self {
        Self { sizes, ..self }
    }

    /// Memory and a queue for a worker. Errors: the device's.
    pub fn workspace(&self) -> Result<Workspace, Error> {
        Ok(Workspace::new(self.offload.queue()?))
    }

    /// Where kernels run.
    pub fn offload(&self) -> &Offload {
        &self.offload
    }

    /// The index.
    pub fn index(&self) -> &Index {
        self.offload.index()
    }

    /// The points of alignments.
    pub fn scores(&self) -> &Scores {
        &self.scores
    }

    /// Places the templates of a batch; `take` gets each with its number within the batch, in order.
    ///
    /// Errors: the device's.
    pub fn place(
        &self,
        batch: &ReadBatch,
        model: &InsertModel,
        work: &mut Workspace,
        mut take: impl FnMut(usize, Placed),
    ) -> Result<(), Error> {
        let reads = reads_per_template(batch.layout);
        self.groups(batch, usize::MAX, work, |work, first, count| {
            refine(&mut work.group, &mut work.bench, self, work.queue.as_mut())?;
            let salt = batch.first_template.wrapping_add(first as u64);
            let templates = Templates { salt, count, reads, model };
            let mut choices: Vec<PairChoice> =
                (0..count).map(|number| templates.choose(&work.group, number)).collect();
            self.rescue(work, templates, &mut choices)?;
            for (number, choice) in choices.iter().enumerate() {
                take(first + number, templates.placed(&work.group, number, choice));
            }
            Ok(())
        })
    }

    /// Lengths of the templates whose two ends lie surely and face each other, of the first `templates`.
    ///
    /// Errors: the CPU's.
    pub fn template_lengths(
        &self,
        batch: &ReadBatch,
        templates: usize,
        lengths: &mut Vec<u32>,
    ) -> Result<(), Error> {
        if batch.layout == Layout::Single || templates == 0 {
            return Ok(());
        }
        // A few thousand templates: no queue of a device is opened for them.
        let mut work = Workspace::new(Assignment::cpu().queue()?);
        self.groups(batch, templates, &mut work, |work, _, count| {
            for number in 0..count.min(work.group.len() / 2) {
                let sure = [0, 1].map(|mate| {
                    let hits = work.group.hits(2 * number + mate);
                    let length = work.group.length(2 * number + mate);
                    choose_single(hits, length, 0, 0)
                        .filter(|choice| choice.quality >= 40)
                        .map(|choice| &hits[choice.hit])
                });
                if let [Some(first), Some(second)] = sure {
                    let length = template_length(first, second);
                    lengths.extend(length.and_then(|length| u32::try_from(length).ok()));
                }
            }
            Ok(())
        })
    }

    /// Passes a batch through the steps up to hits, a group at a time: `each` gets the number of
    /// the group's first template and how many there are.
    fn groups(
        &self,
        batch: &ReadBatch,
        templates: usize,
        work: &mut Workspace,
        mut each: impl FnMut(&mut Workspace, usize, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let per_template = reads_per_template(batch.layout);
        let templates = templates.min(batch.len().div_ceil(per_template));
        let group = (self.sizes.group / per_template).max(1);
        for first in (0..templates).step_by(group) {
            let count = group.min(templates - first);
            let end = ((first + count) * per_template).min(batch.len());
            work.group.clear();
            for start in (first * per_template..end).step_by(self.sizes.tile) {
                let reads = start..start.saturating_add(self.sizes.tile).min(end);
                work.group.add(batch, reads, self, work.queue.as_mut())?;
            }
            each(work, first, count)?;
        }
        Ok(())
    }

    /// Looks for the mates of templates that are no proper pair, each around the other, and chooses
    /// again where one was found.
    fn rescue(
        &self,
        work: &mut Workspace,
        templates: Templates<'_>,
        choices: &mut [PairChoice],
    ) -> Result<(), Error> {
        let Workspace { queue, group, bench, search } = work;
        let apart = |number: &usize| templates.is_pair(group, *number) && !choices[*number].proper;
        let apart: Vec<usize> = (0..templates.count).filter(apart).collect();
        let mut found = vec![false; apart.len()];
        // Second mates first: the places found of them then serve for the first ones.
        for mate in [0, 1] {
            let lost =
                |&number: &usize| Lost { anchor: 2 * number + mate, read: 2 * number + 1 - mate };
            let lost: Vec<Lost> = apart.iter().map(lost).collect();
            let new = search.run(group, &lost, templates.model, bench, self, queue.as_mut())?;
            found.iter_mut().zip(new).for_each(|(found, new)| *found |= new);
        }
        for (&number, _) in apart.iter().zip(found).filter(|(_, found)| *found) {
            choices[number] = templates.choose(group, number);
        }
        Ok(())
    }
}

impl Templates<'_> {
    fn is_pair(&self, group: &Group, number: usize) -> bool {
        self.reads == 2 && 2 * number + 1 < group.len()
    }

    fn choose(&self, group: &Group, number: usize) -> PairChoice {
        let (read, salt) = (number * self.reads, self.salt.wrapping_add(number as u64));
        let (length, left_out) = (|read| group.length(read), |read| group.left_out(read));
        if !self.is_pair(group, number) {
            let choice = choose_single(group.hits(read), length(read), salt, left_out(read));
            return PairChoice { mates: [choice, None], ..PairChoice::default() };
        }
        let mates = [read, read + 1];
        let hits = mates.map(|read| group.hits(read));
        choose_pair(hits, mates.map(length), self.model, salt, mates.map(left_out))
    }

    fn placed(&self, group: &Group, number: usize, choice: &PairChoice) -> Placed {
        let place = |mate: usize| {
            choice.mates[mate].map(|choice| Place {
                hit: group.hits(number * self.reads + mate)[choice.hit].clone(),
                quality: choice.quality,
            })
        };
        Placed { reads: [place(0), place(1)], proper: choice.proper }
    }
}

fn reads_per_template(layout: Layout) -> usize {
    match layout {
        Layout::Single => 1,
        Layout::Paired => 2,
    }
}
