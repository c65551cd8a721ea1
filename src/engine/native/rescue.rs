//! Mates looked for around the places of the other: for those that found no place together.

use super::candidate::Candidate;
use super::extend::{Bench, Hit, ReadView};
use super::group::Group;
use super::index::Index;
use super::insert::InsertModel;
use super::map::Mapper;
use super::packed::WORDS_MAX;
use super::pair::score_min;
use crate::device::{Error, Queue};
use crate::kernel::ungapped::Job;

/// Places of one mate around which the other is looked for.
const ANCHORS_MAX: usize = 4;

/// Reads shorter than this are not looked for around their mate.
const RESCUED_BASES_MIN: usize = 25;

/// A read that is looked for, and its mate, around which it is.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// The mate, by its number in the group.
    pub anchor: usize,
    /// The read.
    pub read: usize,
}

/// The arrays of a search; kept by a worker from group to group.
#[derive(Default)]
pub struct Search {
    /// Number of the lost read among those that are looked for, and a place where it may lie.
    candidates: Vec<(usize, Candidate)>,
    jobs: Vec<Job>,
    /// Of each lost read.
    hits: Vec<Vec<Hit>>,
}

impl Search {
    /// Looks for reads around the places that their mates have now, and adds what is found to their hits;
    /// tells of each whether anything was. Errors: the device's.
    pub fn run(
        &mut self,
        group: &mut Group,
        lost: &[Lost],
        model: &InsertModel,
        bench: &mut Bench,
        mapper: &Mapper,
        queue: &mut dyn Queue,
    ) -> Result<Vec<bool>, Error> {
        self.scan(group, lost, model, mapper.index());
        self.lay(group, lost, mapper, queue)?;
        for (number, (hits, lost)) in self.hits.iter_mut().zip(lost).enumerate() {
            let view = group.view(lost.read);
            for (at, hit) in hits.iter_mut().enumerate().filter(|(_, hit)| hit.doubtful) {
                bench.add(mapper.index().genome(), &view, (number, at), hit);
            }
        }
        bench.run(queue, mapper.scores(), &mut self.hits)?;
        Ok(lost.iter().zip(&mut self.hits).map(|(lost, hits)| found(group, lost, hits)).collect())
    }

    /// Finds the candidates of all lost reads.
    fn scan(&mut self, group: &Group, lost: &[Lost], model: &InsertModel, index: &Index) {
        self.candidates.clear();
        for (number, lost) in lost.iter().enumerate() {
            let length = group.length(lost.read);
            if length < RESCUED_BASES_MIN {
                continue;
            }
            let anchors = group.hits(lost.anchor);
            let enough = score_min(group.length(lost.anchor));
            let best = anchors.iter().map(|hit| hit.score).max().unwrap_or(0);
            let good = |hit: &&Hit| hit.score >= enough && hit.score >= best - 10;
            for hit in anchors.iter().filter(good).take(ANCHORS_MAX) {
                let within = window(hit, length as u32, model);
                let take = |candidate| self.candidates.push((number, candidate));
                scan(index, &group.view(lost.read), !hit.reverse, within, take);
            }
        }
    }

    /// Lays the lost reads on their candidates.
    fn lay(
        &mut self,
        group: &Group,
        lost: &[Lost],
        mapper: &Mapper,
        queue: &mut dyn Queue,
    ) -> Result<(), Error> {
        let job = |(number, candidate): &(usize, _)| group.job(lost[*number].read, candidate);
        self.jobs.clear();
        self.jobs.extend(self.candidates.iter().map(job));
        let segments = mapper.offload().lay(queue, group.words(), &self.jobs, mapper.scores())?;
        self.hits.resize_with(lost.len(), Vec::new);
        for ((number, candidate), (job, segment)) in
            self.candidates.iter().zip(self.jobs.iter().zip(&segments))
        {
            let hit = Hit::ungapped(candidate, job.length, segment, mapper.scores());
            self.hits[*number].push(hit);
        }
        Ok(())
    }
}

/// Adds what was found of a lost read to its hits; whether anything was.
fn found(group: &mut Group, lost: &Lost, hits: &mut Vec<Hit>) -> bool {
    let enough = score_min(group.length(lost.read));
    let known = &mut group.all_hits()[lost.read];
    let before = known.len();
    for hit in hits.drain(..).filter(|hit| hit.score >= enough) {
        let same =
            |other: &Hit| other.reverse == hit.reverse && other.start.abs_diff(hit.start) <= 10;
        if !known.iter().any(same) {
            known.push(hit);
        }
    }
    known.len() > before
}

/// First and last diagonal where the mate of `anchor` may begin.
fn window(anchor: &Hit, length: u32, model: &InsertModel) -> (u32, u32) {
    if anchor.reverse {
        (anchor.end.saturating_sub(model.high), anchor.end.saturating_sub(model.low))
    } else {
        let end = anchor.start.saturating_sub(length);
        (end.saturating_add(model.low), end.saturating_add(model.high))
    }
}

/// Compares a read at every diagonal of a window: the best as a whole and the best by one word,
/// which finds reads with a gap too.
fn scan(
    index: &Index,
    view: &ReadView<'_>,
    reverse: bool,
    (low, high): (u32, u32),
    mut take: impl FnMut(Candidate),
) {
    let words = view.oriented(reverse);
    let mut marks = [0u64; WORDS_MAX];
    let marks = &mut marks[..words.len()];
    // A last word of a few bases would match by chance.
    let full = (view.codes.len() / 64).max(1);
    let (mut whole, mut part) = ((u32::MAX, 0), (u32::MAX, 0));
    for diagonal in low..=high {
        let count = index.genome().mismatches(words, diagonal, marks);
        whole = whole.min((count, diagonal));
        let least = marks[..full].iter().map(|mark| mark.count_ones()).min().unwrap_or(u32::MAX);
        part = part.min((least, diagonal));
    }
    let limit = view.codes.len() as u32 / 5;
    let mut add = |diagonal: u32| {
        take(Candidate { reverse, diagonal, low: diagonal, high: diagonal, votes: 1 });
    };
    if whole.0 <= limit {
        add(whole.1);
    }
    if part.0 <= 5 && (part.1 != whole.1 || whole.0 > limit) {
        add(part.1);
    }
}
