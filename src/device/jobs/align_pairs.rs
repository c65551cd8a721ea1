//! Alignments for a device whose words hold two of them: `align.cu`.
//!
//! Pairs are put together by their shape, so that the two of a thread, and the threads that go in step,
//! have as many rows and diagonals as each other.

use crate::kernel::align::{Placement, Scores, width};

use super::align::{Alignments, RESULT_WORDS};
use super::{Batch, Jobs, Need};
use crate::device::lane::Function;

/// Threads that go in step: their words lie next to each other.
const THREADS: usize = 32;

/// Diagonals of the rows that stay in a multiprocessor.
const SHARED_WIDTH_MAX: usize = 191;

/// Alignments by their shape, a group of threads a job.
pub(in crate::device) struct Paired<'a> {
    alignments: Alignments<'a>,
    /// Two of the same shape a thread; one that is left over is done twice.
    units: Vec<[usize; 2]>,
    /// What the device cannot do.
    left_out: Vec<usize>,
}

impl<'a> Paired<'a> {
    /// Puts alignments together.
    pub(in crate::device) fn new(alignments: Alignments<'a>) -> Self {
        let all = 0..alignments.pairs.len();
        let shape = |&job: &usize| {
            let pair = alignments.pairs[job];
            (pair.query.len(), pair.target.len())
        };
        let (mut fitting, left_out): (Vec<usize>, Vec<usize>) =
            all.partition(|&job| fits(&alignments, job));
        fitting.sort_by_key(shape);
        let mut units: Vec<[usize; 2]> = Vec::with_capacity(fitting.len().div_ceil(2));
        let mut single: Option<usize> = None;
        for job in fitting {
            match single {
                Some(other) if shape(&other) == shape(&job) => {
                    units.push([other, job]);
                    single = None;
                }
                _ => {
                    units.extend(single.map(|other| [other, other]));
                    single = Some(job);
                }
            }
        }
        units.extend(single.map(|other| [other, other]));
        Self { alignments, units, left_out }
    }

    /// The placements of all alignments, in order, from those of the groups.
    pub(in crate::device) fn in_order(&self, groups: Vec<Group>) -> Vec<Option<Placement>> {
        let mut placed = vec![None; self.alignments.pairs.len()];
        for (job, placement) in groups.into_iter().flatten() {
            placed[job] = placement;
        }
        for &job in &self.left_out {
            placed[job] = self.alignments.on_cpu(job);
        }
        placed
    }

    fn group(&self, group: usize) -> &[[usize; 2]] {
        &self.units[group * THREADS..self.units.len().min((group + 1) * THREADS)]
    }

    /// The words of a unit: its query's codes, then its target's, four places of both pairs a word.
    fn words(&self, [one, other]: [usize; 2]) -> Vec<u32> {
        let [one, other] = [one, other].map(|job| self.alignments.pairs[job]);
        let words = |one: &[u8], other: &[u8], unknown: u8| -> Vec<u32> {
            let code = |code: u8| u32::from(if code < 4 { code } else { unknown });
            let place = |(&one, &other): (&u8, &u8)| code(one) | code(other) << 4;
            let four = |(one, other): (&[u8], &[u8])| {
                one.iter().zip(other).map(place).rev().fold(0, |word, place| word << 8 | place)
            };
            one.chunks(4).zip(other.chunks(4)).map(four).collect()
        };
        // Unknown bases of both sides differ from each other, too.
        let mut all = words(one.query, other.query, 8);
        all.extend(words(one.target, other.target, 4));
        // The last row may look a word beyond the target.
        all.push(0);
        all
    }
}

/// Whether an alignment's scores stay within halves of words.
fn fits(alignments: &Alignments<'_>, job: usize) -> bool {
    let pair = alignments.pairs[job];
    let Some(width) = width(pair.query, pair.target).filter(|_| alignments.scores_are_small())
    else {
        return false;
    };
    let Scores { matched, mismatch, gap_open, gap_extend, clip } = *alignments.scores;
    let [matched, mismatch, open, extend, clip] =
        [matched, mismatch, gap_open, gap_extend, clip].map(i64::from);
    let most = pair.query.len() as i64 * matched;
    let lowest = clip + 1 + open + 2 * extend + mismatch;
    most + lowest <= i64::from(i16::MAX) && (most + clip + 1) << place_bits(width) <= 1 << 16
}

/// Bits that the number of a diagonal takes.
fn place_bits(width: usize) -> u32 {
    width.next_power_of_two().ilog2()
}

/// Alignments with their numbers.
pub(in crate::device) type Group = Vec<(usize, Option<Placement>)>;

impl Jobs for Paired<'_> {
    type Output = Group;
    const FUNCTION: Function = Function::Align;
    const HEADER_WORDS: usize = 8;
    const ENTRY_WORDS: usize = 4;
    const THREADS: usize = THREADS;

    fn count(&self) -> usize {
        self.units.len().div_ceil(THREADS)
    }

    fn result_words(&self) -> usize {
        2 * RESULT_WORDS
    }

    fn header(&self, part: usize) -> Vec<u32> {
        self.alignments.header(part)
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<Need> {
        let group = self.group(job);
        let words: Vec<Vec<u32>> = group.iter().map(|unit| self.words(*unit)).collect();
        let longest = words.iter().map(Vec::len).max().unwrap_or(0);
        let word = |at: usize| words.get(at % THREADS)?.get(at / THREADS).copied();
        let data_at = batch.append((0..longest * THREADS).map(|at| word(at).unwrap_or(0)));
        let mut need = Need::default();
        for thread in 0..THREADS {
            let Some(&[one, _]) = group.get(thread) else {
                batch.enter(&[0; 4]);
                continue;
            };
            let pair = self.alignments.pairs[one];
            let rows = pair.query.len();
            let width = pair.target.len() - rows + 1;
            batch.enter(&[data_at + thread as u32, rows as u32, width as u32, place_bits(width)]);
            let row = 2 * (width + 1);
            let directions = rows * width.div_ceil(4);
            need = need.max(match width <= SHARED_WIDTH_MAX {
                true => Need { scratch_words: directions, shared_words: row },
                false => Need { scratch_words: directions + row, shared_words: 0 },
            });
        }
        Some(need)
    }

    fn result(&self, job: usize, words: &[u32]) -> Option<Group> {
        let halves = self.group(job).iter().flatten().zip(words.chunks(RESULT_WORDS));
        let each = halves.map(|(&job, words)| {
            let placed = self.alignments.result(job, words);
            (job, placed.unwrap_or_else(|| self.alignments.on_cpu(job)))
        });
        Some(each.collect())
    }

    fn on_cpu(&self, job: usize) -> Group {
        let each = self.group(job).iter().flatten();
        each.map(|&job| (job, self.alignments.on_cpu(job))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::align::Pair;

    #[test]
    fn every_alignment_is_done_once_with_one_of_its_shape() {
        let bases = [1; 780];
        let shapes = [(150, 181), (150, 181), (30, 40), (150, 182), (150, 181), (0, 9), (650, 780)];
        let pair = |&(query, target): &(usize, usize)| Pair {
            query: &bases[..query],
            target: &bases[..target],
        };
        let pairs: Vec<_> = shapes.iter().map(pair).collect();
        let scores = &Scores::default();
        let paired = Paired::new(Alignments { pairs: &pairs, scores });
        // The band of the last is so wide, and its scores so high, that a word cannot hold both.
        assert_eq!(paired.units, [[2, 2], [0, 1], [4, 4], [3, 3]]);
        assert_eq!(paired.left_out, [5, 6]);
    }

    #[test]
    fn reads_of_the_usual_lengths_are_aligned_by_the_device() {
        let bases = [2; 600];
        for (read, width) in [(100, 32), (150, 32), (150, 190), (250, 129), (300, 64), (500, 64)] {
            let pairs = [Pair { query: &bases[..read], target: &bases[..read + width - 1] }];
            let alignments = Alignments { pairs: &pairs, scores: &Scores::default() };
            assert!(fits(&alignments, 0), "{read} bases, {width} diagonals");
        }
    }
}
