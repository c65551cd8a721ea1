//! Banded affine-gap alignment: one pair a row of diagonals at a time, or many pairs a lane each.
//!
//! Many pairs ([`align_all`]) go together by like width and length. Their scores are numbers of eight bits
//! where these hold the difference between the best and what can still become the best, which is
//! checked for each pair at its end, and of sixteen bits otherwise. Results are those of
//! the scalar twin to the last run, whatever goes with what.

mod group;
mod rows;
mod trace;

use crate::kernel::align::{Matrix, Pair, Placement, Scores, scalar, width};

pub use rows::{Rows, align, fill};

use group::{Cell, Group, Plan};
use trace::Runs;

/// Fewer pairs than this are faster one at a time.
const TOGETHER_MIN: usize = 3;
/// Pairs of a group differ by less than this in the number of their diagonals.
const MARGIN_MAX: usize = 64;
/// Pairs of a group differ by less than this in length, or by less than a quarter.
const LONGER_MAX: usize = 32;
/// Memory of the states of a group.
const GROUP_BYTES_MAX: usize = 32 << 20;
/// Scores beyond these could leave 16 bits on the way.
const SCORE_MAX: i16 = 2000;

/// Memory of many alignments; kept from batch to batch.
#[derive(Debug)]
pub struct Lanes {
    alone: Alone,
    groups: Groups,
}

/// Scores of eight bits, and of sixteen, in vectors of one kind of processor.
#[derive(Debug)]
enum Groups {
    #[cfg(target_arch = "x86_64")]
    Bits512(Group<u8, 64>, Group<i16, 32>),
    #[cfg(target_arch = "x86_64")]
    Bits256(Group<u8, 32>, Group<i16, 16>),
    Bits128(Group<u8, 16>, Group<i16, 16>),
}

impl Groups {
    /// All that this processor can do, widest vectors first.
    fn all() -> impl Iterator<Item = Self> {
        let plain = std::iter::once_with(|| Self::Bits128(Group::plain(), Group::plain()));
        #[cfg(target_arch = "x86_64")]
        let plain = {
            let wide = || Some(Self::Bits512(Group::avx512()?, Group::avx512()?));
            let half = || Some(Self::Bits256(Group::avx2()?, Group::avx2()?));
            wide().into_iter().chain(half()).chain(plain)
        };
        plain
    }
}

impl Default for Lanes {
    fn default() -> Self {
        let groups = Groups::all().next().expect("vectors of 128 bits are on every processor");
        Self { alone: Alone::default(), groups }
    }
}

/// Memory of one alignment at a time.
#[derive(Debug, Default)]
struct Alone {
    matrix: Matrix,
    rows: Rows,
}

/// Aligns every query to its target, in order, as [`kernel::align::scalar`](scalar).
pub fn align_all(pairs: &[Pair<'_>], scores: &Scores, lanes: &mut Lanes) -> Vec<Option<Placement>> {
    let mut placements = vec![None; pairs.len()];
    let (fit, odd): (Vec<_>, Vec<_>) = (0..pairs.len())
        .filter_map(|pair| Some((pair, width(pairs[pair].query, pairs[pair].target)?)))
        .partition(|(pair, _)| scores_fit(scores, pairs[*pair].query.len()));
    for (pair, _) in odd {
        placements[pair] =
            scalar(pairs[pair].query, pairs[pair].target, scores, &mut lanes.alone.matrix);
    }
    let jobs = fit.into_iter().map(|(pair, width)| Job::new(pair, pairs[pair].query.len(), width));
    let (mut bytes, mut words): (Vec<Job>, Vec<Job>) =
        jobs.partition(|job| Plan::<u8>::new(scores, job.length).is_some());
    let shape = |job: &Job| (job.length.div_ceil(LONGER_MAX / 2), job.width, job.pair);
    let mut batch = Batch { pairs, scores, placements: &mut placements, again: Vec::new() };
    bytes.sort_unstable_by_key(shape);
    lanes.align(&mut batch, &bytes, true);
    words.append(&mut batch.again);
    words.sort_unstable_by_key(shape);
    lanes.align(&mut batch, &words, false);
    placements
}

/// Whether all sums of scores stay within 16 bits.
fn scores_fit(scores: &Scores, length: usize) -> bool {
    let Scores { matched, mismatch, gap_open, gap_extend, clip } = *scores;
    let all = [matched, mismatch, gap_open, gap_extend, clip];
    let small = all.iter().all(|score| (0..=SCORE_MAX).contains(score));
    small && length * matched as usize <= i16::MAX as usize
}

/// One pair to be aligned.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// Its number in the batch.
    pair: usize,
    /// Query bases.
    length: usize,
    /// Diagonals.
    width: usize,
}

impl Job {
    fn new(pair: usize, length: usize, width: usize) -> Self {
        Self { pair, length, width }
    }
}

/// What is to be done, and what has been.
struct Batch<'a> {
    pairs: &'a [Pair<'a>],
    scores: &'a Scores,
    placements: &'a mut [Option<Placement>],
    /// Pairs for which eight bits were too few.
    again: Vec<Job>,
}

impl Lanes {
    /// Aligns sorted jobs, with eight bits a score when `narrow`.
    fn align(&mut self, batch: &mut Batch<'_>, jobs: &[Job], narrow: bool) {
        let alone = &mut self.alone;
        match &mut self.groups {
            #[cfg(target_arch = "x86_64")]
            Groups::Bits512(bytes, _) if narrow => align_groups(bytes, alone, batch, jobs),
            #[cfg(target_arch = "x86_64")]
            Groups::Bits512(_, words) => align_groups(words, alone, batch, jobs),
            #[cfg(target_arch = "x86_64")]
            Groups::Bits256(bytes, _) if narrow => align_groups(bytes, alone, batch, jobs),
            #[cfg(target_arch = "x86_64")]
            Groups::Bits256(_, words) => align_groups(words, alone, batch, jobs),
            Groups::Bits128(bytes, _) if narrow => align_groups(bytes, alone, batch, jobs),
            Groups::Bits128(_, words) => align_groups(words, alone, batch, jobs),
        }
    }
}

/// Aligns sorted jobs, as many as there are lanes at a time.
fn align_groups<T: Cell, const LANES: usize>(
    group: &mut Group<T, LANES>,
    alone: &mut Alone,
    batch: &mut Batch<'_>,
    mut jobs: &[Job],
) {
    let mut runs = Runs::default();
    while !jobs.is_empty() {
        let (together, rest) = jobs.split_at(alike(&jobs[..jobs.len().min(LANES)]));
        jobs = rest;
        let longest = together.iter().map(|job| job.length).max().unwrap_or(0);
        let plan = Plan::<T>::new(batch.scores, longest).filter(|_| together.len() >= TOGETHER_MIN);
        let Some(plan) = plan else {
            for job in together {
                let Pair { query, target } = batch.pairs[job.pair];
                batch.placements[job.pair] =
                    align(query, target, batch.scores, &mut alone.matrix, &mut alone.rows);
            }
            continue;
        };
        let (filled, ends) = group.align(&plan, batch.pairs, together);
        for (lane, job) in together.iter().enumerate() {
            let pair = &batch.pairs[job.pair];
            batch.placements[job.pair] = filled.placement(lane, ends, pair, job.width, &mut runs);
            if batch.placements[job.pair].is_none() {
                batch.again.push(*job);
            }
        }
    }
}

/// How many of the first jobs go together.
fn alike(jobs: &[Job]) -> usize {
    let Some(first) = jobs.first() else { return 0 };
    let (mut narrow, mut wide, mut longest) = (first.width, first.width, first.length);
    let differs = jobs.iter().position(|job| {
        (narrow, wide) = (narrow.min(job.width), wide.max(job.width));
        longest = longest.max(job.length);
        let vectors = (longest + 1) * wide;
        wide - narrow >= MARGIN_MAX
            || longest - first.length > LONGER_MAX
            || vectors > GROUP_BYTES_MAX / size_of::<[u8; 64]>()
    });
    differs.unwrap_or(jobs.len()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const DEFAULT: Scores = Scores { matched: 1, mismatch: 4, gap_open: 6, gap_extend: 1, clip: 5 };
    /// No clips; free clips; no points at all; more than a byte holds at a time; more than is allowed.
    const OTHERS: [Scores; 5] = [
        Scores { clip: 1000, ..DEFAULT },
        Scores { matched: 3, mismatch: 2, gap_open: 1, gap_extend: 1, clip: 0 },
        Scores { matched: 0, mismatch: 0, gap_open: 0, gap_extend: 0, clip: 0 },
        Scores { matched: 7, mismatch: 1, gap_open: 40, gap_extend: 2, clip: 90 },
        Scores { matched: 2, mismatch: 4, gap_open: 2500, gap_extend: 1, clip: 5 },
    ];

    type Sequences = (Vec<u8>, Vec<u8>);

    /// Compares every form with the twin, with memory that other alignments have used.
    fn compare(sequences: &[Sequences], scores: &Scores) -> Result<(), TestCaseError> {
        let pairs: Vec<Pair<'_>> =
            sequences.iter().map(|(query, target)| Pair { query, target }).collect();
        let mut matrix = Matrix::default();
        let want: Vec<_> =
            pairs.iter().map(|pair| scalar(pair.query, pair.target, scores, &mut matrix)).collect();
        for groups in Groups::all() {
            let mut lanes = Lanes { groups, ..Lanes::default() };
            let used = [Pair { query: &[3; 40], target: &[3; 90] }; 40];
            align_all(&used, &DEFAULT, &mut lanes);
            let have = align_all(&pairs, scores, &mut lanes);
            for (pair, (have, want)) in have.iter().zip(&want).enumerate() {
                prop_assert_eq!(have, want, "pair {}, {:?}", pair, lanes.groups.name());
            }
        }
        Ok(())
    }

    impl Groups {
        fn name(&self) -> &'static str {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Bits512(..) => "512 bits",
                #[cfg(target_arch = "x86_64")]
                Self::Bits256(..) => "256 bits",
                Self::Bits128(..) => "128 bits",
            }
        }
    }

    /// A window, and a read from it with bases changed, put in, taken out, and foreign ends.
    fn related(length: std::ops::Range<usize>) -> impl Strategy<Value = Sequences> {
        let changes = vec((any::<prop::sample::Index>(), 0u8..6, 0usize..9, 0u8..3), 0..8);
        (vec(0u8..5, length), changes, 0usize..40, 0usize..40, 0usize..30).prop_map(
            |(mut target, changes, start, end, foreign)| {
                target.iter_mut().for_each(|base| *base %= 4 + u8::from(start == 7));
                let start = start.min(target.len() - 1);
                let end = target.len().saturating_sub(end).max(start + 1);
                let mut query = target[start..end].to_vec();
                for (at, base, count, kind) in changes {
                    let at = at.index(query.len());
                    match kind {
                        0 => query[at] = base,
                        1 => drop(query.splice(at..at, vec![base; count])),
                        _ => drop(query.drain(at..(at + count).min(query.len() - 1))),
                    }
                }
                let foreign = foreign.saturating_sub(20).min(query.len());
                query[..foreign].iter_mut().for_each(|base| *base = (*base + 1) % 4);
                (query, target)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn many_pairs_are_aligned_as_by_the_twin(
            sequences in vec(related(1..330), 0..90), other in 0usize..9,
        ) {
            compare(&sequences, OTHERS.get(other).unwrap_or(&DEFAULT))?;
        }

        #[test]
        fn short_ones_too(sequences in vec(related(1..24), 0..200), other in 0usize..9) {
            compare(&sequences, OTHERS.get(other).unwrap_or(&DEFAULT))?;
        }
    }

    fn noise(count: usize, seed: usize) -> Vec<u8> {
        let hash = |at: usize| (at + seed * 7919).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..count).map(|at| (hash(hash(at) >> 7) >> 62) as u8).collect()
    }

    /// Equal sequences, one of every four with a base changed, one with the wrong window.
    fn alike(count: usize, length: usize, width: usize) -> Vec<Sequences> {
        let one = |pair: usize| {
            let target = noise(length + width - 1, pair);
            let mut query = target[pair % width..][..length].to_vec();
            match pair % 4 {
                1 => query[pair * 31 % length] ^= 1,
                2 => query = noise(length, pair + 1000),
                _ => {}
            }
            (query, target)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn groups_that_are_not_full_hold_what_they_have() {
        for count in [0, 1, 2, 3, 15, 16, 17, 31, 33, 63, 65, 129] {
            compare(&alike(count, 20, 9), &DEFAULT).unwrap();
        }
    }

    #[test]
    fn scores_around_the_greatest_byte_are_those_of_the_twin() {
        for length in [90, 226, 229, 241, 242, 243, 250, 251, 256, 287, 400] {
            compare(&alike(35, length, 12), &DEFAULT).unwrap();
        }
        for (length, scores) in
            [(60, OTHERS[1]), (150, OTHERS[1]), (150, OTHERS[0]), (250, OTHERS[0])]
        {
            compare(&alike(35, length, 40), &scores).unwrap();
        }
    }

    #[test]
    fn the_longest_queries_are_aligned_and_longer_ones_are_not() {
        compare(&alike(5, 4096, 70), &DEFAULT).unwrap();
        let twin = |query: &[u8], target: &[u8]| (query.to_vec(), target.to_vec());
        let odd = [
            twin(&[], &[]),
            twin(&[], &[1, 2]),
            twin(&[1, 2], &[1]),
            twin(&[4], &[4]),
            twin(&[0; 4097], &[0; 4097]),
            twin(&[2; 9], &[2; 3000]),
            twin(&[255; 9], &[255; 12]),
        ];
        compare(&odd, &DEFAULT).unwrap();
        compare(&[odd.to_vec(), odd.to_vec(), odd.to_vec()].concat(), &OTHERS[0]).unwrap();
    }
}
