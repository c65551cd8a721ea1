//! Extending a candidate over the whole read: by counting mismatches where that decides, by
//! banded alignment where a gap may explain more.

use super::aligned::CigarOp;
use super::candidate::{Candidate, GAP_BASES_MAX};
use super::packed::{PackedGenome, READ_BASES_MAX, ReadWord};
use crate::device::{Error, Queue};
use crate::kernel::align::{self, Pair, Placement, Scores, Step};
use crate::kernel::ungapped::Segment;

/// A read laid on the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Whether the read's reverse complement lies there.
    pub reverse: bool,
    /// Global position where the oriented read would begin, were nothing clipped.
    pub start: u32,
    /// Global position where it would end, were nothing clipped.
    pub end: u32,
    /// Points.
    pub score: i32,
    /// First oriented read base that is aligned.
    pub query_start: u32,
    /// One past the last.
    pub query_end: u32,
    /// Whether a gap may give a better score.
    pub doubtful: bool,
    /// The candidate's lowest and highest diagonal.
    pub diagonals: (u32, u32),
    /// The columns when there are gaps.
    pub runs: Option<Box<[(Step, u32)]>>,
}

/// One read in the forms that the steps need.
#[derive(Clone, Copy)]
pub struct ReadView<'a> {
    /// Base codes as sequenced.
    pub codes: &'a [u8],
    /// Bit planes as sequenced, then of the reverse complement.
    pub words: &'a [ReadWord],
}

impl<'a> ReadView<'a> {
    /// Bit planes of one orientation.
    #[inline(always)]
    pub fn oriented(&self, reverse: bool) -> &'a [ReadWord] {
        let (forward, backward) = self.words.split_at(self.words.len() / 2);
        if reverse { backward } else { forward }
    }
}

impl Hit {
    /// A read of `length` bases on a candidate's diagonal without gaps.
    pub fn ungapped(
        candidate: &Candidate,
        length: u32,
        segment: &Segment,
        scores: &Scores,
    ) -> Self {
        let clean = length as i32 - i32::from(scores.gap_open + scores.gap_extend);
        let gap_seen = candidate.low != candidate.high;
        Self {
            reverse: candidate.reverse,
            start: candidate.diagonal,
            end: candidate.diagonal.wrapping_add(length),
            score: segment.score,
            query_start: segment.start,
            query_end: segment.end,
            doubtful: segment.score < clean && (segment.crowded || gap_seen),
            diagonals: (candidate.low, candidate.high),
            runs: None,
        }
    }
}

/// One alignment to do: whose it is, and where its query and window end in their arrays.
struct Job {
    read: usize,
    hit: usize,
    low: u32,
    query_end: usize,
    target_end: usize,
}

/// Bases of queries and windows that are kept for one batch; with more it is done.
const BENCH_BASES_MAX: usize = 16 << 20;

/// Banded alignments that are done at once, and the memory for them.
///
/// Queries and windows stand one after the other as base codes.
#[derive(Default)]
pub struct Bench {
    jobs: Vec<Job>,
    queries: Vec<u8>,
    targets: Vec<u8>,
}

impl Bench {
    /// Whether so much is to be done that nothing more should be added before.
    pub fn is_full(&self) -> bool {
        self.queries.len() + self.targets.len() >= BENCH_BASES_MAX
    }

    /// Adds the alignment of a doubtful hit, number `number` of read number `read`, unless no gap can
    /// make it better; either way it is not doubtful any more.
    pub fn add(
        &mut self,
        genome: &PackedGenome,
        view: &ReadView<'_>,
        (read, number): (usize, usize),
        hit: &mut Hit,
    ) {
        hit.doubtful = false;
        let length = view.codes.len();
        let clipped = hit.query_start.max(length as u32 - hit.query_end);
        // A gap costs its opening and its length, and must gain more than that.
        let pad = clipped.saturating_sub(8).clamp(10, GAP_BASES_MAX);
        let low = hit.diagonals.0.saturating_sub(pad);
        let width = (hit.diagonals.1 + pad - low + 1) as usize;
        if hit.diagonals.0 == hit.diagonals.1 && !gap_is_possible(genome, view, hit, pad) {
            return;
        }
        genome.unpack(low, length + width - 1, &mut self.targets);
        if hit.reverse {
            let complement = |&code: &u8| if code < 4 { 3 - code } else { 4 };
            self.queries.extend(view.codes.iter().rev().map(complement));
        } else {
            self.queries.extend_from_slice(view.codes);
        }
        let (query_end, target_end) = (self.queries.len(), self.targets.len());
        self.jobs.push(Job { read, hit: number, low, query_end, target_end });
    }

    /// Does all alignments, puts what is better than without gaps into `hits`, those of each read, and
    /// forgets them. Errors: the device's.
    pub fn run(
        &mut self,
        queue: &mut dyn Queue,
        scores: &Scores,
        hits: &mut [Vec<Hit>],
    ) -> Result<(), Error> {
        let (mut query, mut target) = (0, 0);
        let pairs = self.jobs.iter().map(|job| {
            let queries = &self.queries[query..job.query_end];
            let targets = &self.targets[target..job.target_end];
            (query, target) = (job.query_end, job.target_end);
            Pair { query: queries, target: targets }
        });
        let pairs: Vec<Pair<'_>> = pairs.collect();
        let placed = if pairs.is_empty() { Vec::new() } else { queue.align(&pairs, scores)? };
        for ((job, pair), placed) in self.jobs.iter().zip(&pairs).zip(placed) {
            let hit = &mut hits[job.read][job.hit];
            if let Some(placed) = placed.filter(|placed| placed.score > hit.score) {
                replace(hit, job.low, pair.query.len(), placed);
            }
        }
        self.jobs.clear();
        self.queries.clear();
        self.targets.clear();
        Ok(())
    }
}

/// Whether the read matches on some other diagonal in a run that may be worth a gap.
///
/// A gap of `n` bases costs 6 + n points. What lies beyond it must gain more: 8 + n matches, or
/// with a mismatch among them 12 + n, of which a half and more are in one run.
fn gap_is_possible(genome: &PackedGenome, read: &ReadView<'_>, hit: &Hit, pad: u32) -> bool {
    let words = read.oriented(hit.reverse);
    (1..=pad).any(|gap| {
        let run = (8 + gap / 2).min(16);
        [hit.start.saturating_sub(gap), hit.start.saturating_add(gap)]
            .into_iter()
            .any(|diagonal| genome.matches_in_run(words, diagonal, run))
    })
}

fn replace(hit: &mut Hit, low: u32, length: usize, placed: Placement) {
    let spanned: u32 =
        placed.runs.iter().filter(|run| run.0 != Step::Insertion).map(|run| run.1).sum();
    let first = low + placed.target_start as u32;
    hit.score = placed.score;
    hit.query_start = placed.query_start as u32;
    hit.query_end = placed.query_end as u32;
    hit.start = first.wrapping_sub(hit.query_start);
    hit.end = first + spanned + (length as u32 - hit.query_end);
    hit.runs = Some(placed.runs.into_boxed_slice());
}

impl Hit {
    /// Global position of the first aligned base.
    pub fn position(&self) -> u32 {
        self.start.wrapping_add(self.query_start)
    }

    /// The alignment as a CIGAR, clips included.
    pub fn cigar(&self, length: u32) -> Vec<CigarOp> {
        let mut cigar = Vec::with_capacity(3);
        let mut add = |count: u32, code: u32| {
            if count > 0 {
                cigar.push(count << 4 | code);
            }
        };
        add(self.query_start, SOFT_CLIP);
        match &self.runs {
            None => add(self.query_end - self.query_start, MATCH),
            Some(runs) => {
                for &(step, count) in runs {
                    add(count, code_of(step));
                }
            }
        }
        add(length - self.query_end, SOFT_CLIP);
        cigar
    }
}

/// CIGAR code `M`.
pub const MATCH: u32 = 0;
/// CIGAR code `I`.
pub const INSERTION: u32 = 1;
/// CIGAR code `D`.
pub const DELETION: u32 = 2;
/// CIGAR code `S`.
pub const SOFT_CLIP: u32 = 4;

fn code_of(step: Step) -> u32 {
    match step {
        Step::Match => MATCH,
        Step::Insertion => INSERTION,
        Step::Deletion => DELETION,
    }
}

/// Reference bases that a CIGAR spans.
pub fn span(cigar: &[CigarOp]) -> u32 {
    cigar.iter().filter(|&&op| matches!(op & 15, MATCH | DELETION)).map(|op| op >> 4).sum()
}

/// Clips an alignment to the reference range `[low, high)`; `None` when nothing is left of it.
///
/// Gaps that come to lie at an end are clipped or dropped with what was cut.
pub fn trim(position: u32, cigar: &[CigarOp], low: u32, high: u32) -> Option<(u32, Vec<CigarOp>)> {
    // What is kept of each operation: (index, first read base, first reference base, count).
    let mut kept: Vec<(usize, u32, u32, u32)> = Vec::with_capacity(cigar.len());
    let (mut query, mut at) = (0, position);
    for (index, &op) in cigar.iter().enumerate() {
        let (count, code) = (op >> 4, op & 15);
        if code == MATCH {
            let (first, end) = (at.max(low), (at + count).min(high));
            if first < end {
                kept.push((index, query + first - at, first, end - first));
            }
        }
        query += if code == DELETION { 0 } else { count };
        at += if matches!(code, MATCH | DELETION) { count } else { 0 };
    }
    let (&first, &last) = (kept.first()?, kept.last()?);
    let mut out = Vec::with_capacity(cigar.len() + 2);
    if first.1 > 0 {
        out.push(first.1 << 4 | SOFT_CLIP);
    }
    let mut matches = kept.iter();
    for &op in &cigar[first.0..=last.0] {
        let count = if op & 15 == MATCH { matches.next().map_or(0, |run| run.3) } else { op >> 4 };
        out.push(count << 4 | op & 15);
    }
    let behind = query - last.1 - last.3;
    if behind > 0 {
        out.push(behind << 4 | SOFT_CLIP);
    }
    Some((first.2, out))
}

const _: () = assert!(READ_BASES_MAX <= align::QUERY_BASES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn trimming_clips_what_lies_outside() {
        let cigar = [10 << 4 | MATCH, 3 << 4 | INSERTION, 10 << 4 | MATCH, 5 << 4 | SOFT_CLIP];
        let whole = trim(100, &cigar, 0, 1000).unwrap();
        assert_eq!(whole, (100, cigar.to_vec()));
        let right = trim(100, &cigar, 0, 110).unwrap();
        assert_eq!(right, (100, vec![10 << 4 | MATCH, 18 << 4 | SOFT_CLIP]));
        let left = trim(100, &cigar, 112, 1000).unwrap();
        assert_eq!(left, (112, vec![15 << 4 | SOFT_CLIP, 8 << 4 | MATCH, 5 << 4 | SOFT_CLIP]));
        assert_eq!(trim(100, &cigar, 200, 300), None);
        assert_eq!(trim(100, &cigar, 0, 50), None);
    }

    proptest! {
        #[test]
        fn trimming_keeps_every_base_and_stays_inside(
            runs in proptest::collection::vec((1u32..9, 0u32..3), 1..7),
            clips in (0u32..4, 0u32..4), low in 90u32..130, width in 0u32..40,
        ) {
            let mut cigar = vec![5 << 4 | MATCH];
            cigar.extend(runs.iter().map(|run| run.0 << 4 | run.1));
            cigar.push(4 << 4 | MATCH);
            if clips.0 > 0 { cigar.insert(0, clips.0 << 4 | SOFT_CLIP); }
            if clips.1 > 0 { cigar.push(clips.1 << 4 | SOFT_CLIP); }
            let bases = |cigar: &[u32]| -> u32 {
                cigar.iter().filter(|&&op| op & 15 != DELETION).map(|op| op >> 4).sum()
            };
            if let Some((position, trimmed)) = trim(100, &cigar, low, low + width) {
                prop_assert_eq!(bases(&trimmed), bases(&cigar));
                prop_assert!(position >= low.max(100) && position + span(&trimmed) <= low + width);
                let inner: Vec<u32> =
                    trimmed.iter().map(|op| op & 15).filter(|&code| code != SOFT_CLIP).collect();
                prop_assert!(inner[0] == MATCH && inner[inner.len() - 1] == MATCH);
            }
        }
    }
}
