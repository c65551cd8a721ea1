//! Candidate places of a read: the diagonals that its seeds vote for.

use super::index::{OCCURRENCES_KEPT, place_of};
use super::seed::{SEED_BASES, Seed};

/// A place where a read may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether the read's reverse complement lies there.
    pub reverse: bool,
    /// Global position of the oriented read's first base by most of its seeds.
    pub diagonal: u32,
    /// Lowest diagonal of the seeds.
    pub low: u32,
    /// Highest diagonal of the seeds.
    pub high: u32,
    /// Seeds that agree.
    pub votes: u16,
}

/// Longest gap that joins the seeds of one candidate, in bases.
pub const GAP_BASES_MAX: u32 = 64;

/// Most candidates of a read.
const CANDIDATES_MAX: usize = 32;

/// Seeds that lie at more places than this say little and are used only if nothing else is there.
const OCCURRENCES_USUAL: usize = 64;

/// Seeds that lie at more places than this are never used.
const OCCURRENCES_MAX: usize = OCCURRENCES_KEPT - 1;

/// Common seeds that are used when a read has no other.
const COMMON_SEEDS: usize = 3;

/// Votes of one read, and the memory for them.
#[derive(Default)]
pub struct Ballot {
    /// Orientation << 32 | diagonal of each vote.
    votes: Vec<u64>,
    common: Vec<(usize, usize)>,
    found: Vec<Candidate>,
}

impl Ballot {
    /// Finds the candidates of a read of `length` bases; most votes first.
    ///
    /// `found` holds, for each seed, its first entry and how many it has. The second value counts the
    /// seeds that were left out because they lie at too many places.
    pub fn count(
        &mut self,
        entries: &[u64],
        seeds: &[Seed],
        found: &[(u32, u32)],
        length: usize,
    ) -> (&[Candidate], usize) {
        let places = |(first, count): (u32, u32)| &entries[first as usize..][..count as usize];
        self.votes.clear();
        self.common.clear();
        for (number, (seed, &found)) in seeds.iter().zip(found).enumerate() {
            if found.1 as usize > OCCURRENCES_USUAL {
                self.common.push((found.1 as usize, number));
            } else {
                vote(&mut self.votes, seed, places(found), length);
            }
        }
        let left_out = self.common.len();
        if self.votes.is_empty() {
            self.common.sort_unstable();
            for &(count, number) in self.common.iter().take(COMMON_SEEDS) {
                if count <= OCCURRENCES_MAX {
                    vote(&mut self.votes, &seeds[number], places(found[number]), length);
                }
            }
        }
        let all = self.gather();
        // Where places are many, those that were cut off count as so many seeds not looked at.
        (&self.found, if all { left_out } else { left_out.max(seeds.len() * 3 / 4) })
    }

    /// Joins votes for near diagonals into candidates; whether all could be kept.
    fn gather(&mut self) -> bool {
        self.found.clear();
        if self.votes.iter().any(|&vote| vote != self.votes[0]) {
            self.votes.sort_unstable();
        }
        let near = |a: &u64, b: &u64| b - a <= u64::from(GAP_BASES_MAX);
        for group in self.votes.chunk_by(near) {
            for part in spans(group) {
                candidates(part, &mut self.found);
            }
        }
        let most = self.found.iter().map(|candidate| candidate.votes).max().unwrap_or(0);
        self.found.retain(|candidate| candidate.votes >= most.div_ceil(4));
        self.found.sort_unstable_by_key(|candidate| {
            (std::cmp::Reverse(candidate.votes), candidate.diagonal, candidate.reverse)
        });
        let all = self.found.len() <= CANDIDATES_MAX;
        self.found.truncate(CANDIDATES_MAX);
        all
    }
}

#[inline(always)]
fn vote(votes: &mut Vec<u64>, seed: &Seed, places: &[u64], length: usize) {
    let ahead = seed.offset;
    let behind = (length - SEED_BASES) as u32 - seed.offset;
    for &place in places {
        let (position, backward) = place_of(place);
        let reverse = backward != seed.reverse;
        // Contigs lie further from 0 than the longest read is long, so this never wraps.
        let diagonal = position.wrapping_sub(if reverse { behind } else { ahead });
        votes.push(u64::from(reverse) << 32 | u64::from(diagonal));
    }
}

/// Cuts a sorted group of votes so that no part is wider than two gaps.
fn spans(group: &[u64]) -> impl Iterator<Item = &[u64]> {
    let mut rest = group;
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let count = rest.partition_point(|&vote| vote - first <= u64::from(2 * GAP_BASES_MAX));
        let (part, behind) = rest.split_at(count);
        rest = behind;
        Some(part)
    })
}

/// Diagonals of one group that are further apart and have nearly as many votes may be the copies of
/// a tandem repeat: each is a candidate.
const COPIES_APART_BASES: u64 = 12;

/// Adds the candidates of a group: the diagonal with most votes and those nearly as good.
fn candidates(votes: &[u64], found: &mut Vec<Candidate>) {
    let candidate = |diagonal: u64| Candidate {
        reverse: diagonal >> 32 == 1,
        diagonal: diagonal as u32,
        low: votes[0] as u32,
        high: votes[votes.len() - 1] as u32,
        votes: votes.len().min(usize::from(u16::MAX)) as u16,
    };
    if votes[0] == votes[votes.len() - 1] {
        return found.push(candidate(votes[0]));
    }
    let runs = || votes.chunk_by(|a, b| a == b);
    let most = runs().map(<[u64]>::len).max().unwrap_or(0);
    let first = runs().find(|run| run.len() == most).map_or(votes[0], |run| run[0]);
    found.push(candidate(first));
    let mut last = None;
    for run in runs().filter(|run| run.len() >= 2 && run.len() * 4 >= most * 3) {
        let apart = |other: u64| run[0].abs_diff(other) > COPIES_APART_BASES;
        if apart(first) && last.is_none_or(apart) {
            found.push(candidate(run[0]));
            last = Some(run[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Index;
    use super::super::seed::seeds;
    use super::super::simulate::{random_bases, reference_of, reverse_complement};
    use super::*;
    use crate::kernel::lookup::scalar;

    fn candidates(index: &Index, read: &[u8]) -> Vec<Candidate> {
        let mut found = Vec::new();
        seeds(read, |seed| found.push(seed));
        let table = index.seeds();
        let places: Vec<_> = found.iter().map(|seed| scalar(table, seed.hash)).collect();
        Ballot::default().count(table.entries, &found, &places, read.len()).0.to_vec()
    }

    #[test]
    fn a_read_is_a_candidate_where_it_was_taken_from() {
        let contig = random_bases(3, 20_000);
        let index = Index::build(&reference_of(std::slice::from_ref(&contig)), 1).unwrap();
        let start = index.genome().starts()[0];
        for at in (0..19_000).step_by(500) {
            let read = &contig[at..at + 150];
            let forward = candidates(&index, read);
            assert_eq!((forward[0].diagonal, forward[0].reverse), (start + at as u32, false));
            let backward = candidates(&index, &reverse_complement(read));
            assert_eq!((backward[0].diagonal, backward[0].reverse), (start + at as u32, true));
        }
    }

    #[test]
    fn the_seeds_beside_a_gap_belong_together() {
        let contig = random_bases(3, 5000);
        let index = Index::build(&reference_of(std::slice::from_ref(&contig)), 1).unwrap();
        let read = [&contig[1000..1080], &contig[1120..1200]].concat();
        let found = candidates(&index, &read);
        assert!(found.len() <= 2);
        assert!(found.iter().all(|candidate| candidate.high - candidate.low == 40));
    }

    #[test]
    fn every_copy_of_a_repeat_is_a_candidate() {
        let unit = random_bases(9, 400);
        let copies: Vec<Vec<u8>> =
            (0..20).map(|copy| [random_bases(50 + copy, 300), unit.clone()].concat()).collect();
        let index = Index::build(&reference_of(&[copies.concat()]), 1).unwrap();
        assert_eq!(candidates(&index, &unit[100..250]).len(), 20);
    }
}
