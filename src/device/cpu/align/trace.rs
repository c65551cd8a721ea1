//! From a filled matrix of a group back along the best alignment of each lane.
//!
//! A diagonal loses nothing exactly where every pair on it was the best step. A whole piece of it is
//! therefore tested by its two ends: their scores differ by the points of the pairs between.

use crate::kernel::align::{Pair, Placement, Scores, Step};

use super::Job;
use super::group::{Cell, Plan};

/// Pairs of a diagonal that are tested at once.
const PIECE: usize = 16;

/// What a group has computed.
pub(super) struct Filled<'a, T, const LANES: usize> {
    /// Numbers of all states, `width` a row.
    pub(super) matrix: &'a [[T; LANES]],
    /// Greatest number of every row.
    pub(super) tops: &'a [[T; LANES]],
    /// What is to be added to the numbers of every row.
    pub(super) lifts: &'a [i32],
    /// Rows whose numbers were lowered for the next row.
    pub(super) lowerings: &'a [usize],
    pub(super) width: usize,
    pub(super) plan: &'a Plan<T>,
}

/// Where the best alignment of every lane ends, without its diagonal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<const LANES: usize> {
    scores: [i16; LANES],
    rows: [i16; LANES],
}

impl<const LANES: usize> Default for Ends<LANES> {
    fn default() -> Self {
        Self { scores: [i16::MIN; LANES], rows: [0; LANES] }
    }
}

impl<T: Cell, const LANES: usize> Filled<'_, T, LANES> {
    /// Of equal ends the one furthest down.
    #[inline(always)]
    pub(super) fn ends(&self, jobs: &[Job]) -> Ends<LANES> {
        let mut lengths = [0_i16; LANES];
        for (length, job) in lengths.iter_mut().zip(jobs) {
            *length = job.length as i16;
        }
        let mut ends = Ends::default();
        let shortest = jobs.iter().map(|job| job.length).min().unwrap_or(0);
        for (row, tops) in self.tops.iter().enumerate().rev() {
            let (at, add) = (row as i16, (self.lifts[row] - self.plan.bias) as i16);
            for lane in 0..LANES {
                let clip = if at == lengths[lane] { 0 } else { self.plan.scores.clip };
                let score = (tops[lane].number() as i16).wrapping_add(add).wrapping_sub(clip);
                let better = at <= lengths[lane] && score > ends.scores[lane];
                ends.scores[lane] = if better { score } else { ends.scores[lane] };
                ends.rows[lane] = if better { at } else { ends.rows[lane] };
            }
            // Rows further up cannot have as many points.
            let most =
                row as i32 * i32::from(self.plan.scores.matched) - i32::from(self.plan.scores.clip);
            if row <= shortest && row.is_multiple_of(8) {
                let least = ends.scores[..jobs.len()].iter().min().copied().unwrap_or(0);
                if most < i32::from(least) {
                    break;
                }
            }
        }
        ends
    }

    /// The best alignment of a lane; `None` when its numbers do not tell.
    #[inline(always)]
    pub(super) fn placement(
        &self,
        lane: usize,
        ends: &Ends<LANES>,
        pair: &Pair<'_>,
        width: usize,
        runs: &mut Runs,
    ) -> Option<Placement> {
        let score = i32::from(ends.scores[lane]);
        if score <= self.doubt(pair.query.len()) {
            return None;
        }
        let row = usize::try_from(ends.rows[lane]).unwrap_or(0);
        let top = self.tops[row][lane];
        let cells = &self.matrix[row * self.width..row * self.width + width];
        let d = cells.iter().position(|cell| cell[lane] == top).unwrap_or(0);
        let mut trace = Trace { filled: self, lane, pair, width, runs, row, d };
        Some(trace.back(score))
    }

    /// Most points that an alignment can have that comes from states that were raised to a floor.
    #[inline(always)]
    fn doubt(&self, length: usize) -> i32 {
        let Plan { least, scores: Scores { matched, clip, .. }, .. } = *self.plan;
        let from = |above: usize, floor: i32| floor + (length - above) as i32 * i32::from(matched);
        let first = if least > -i32::from(clip) { from(0, least) } else { i32::MIN };
        let lowered = self.lowerings.iter().filter(|&&above| above < length);
        lowered.map(|&above| from(above, least + self.lifts[above + 1])).fold(first, i32::max)
    }

    #[inline(always)]
    fn score(&self, row: usize, d: usize, lane: usize) -> i32 {
        self.matrix[row * self.width + d][lane].number() + self.lifts[row] - self.plan.bias
    }
}

/// Runs of an alignment from its end to its start.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<(Step, u32)>);

impl Runs {
    #[inline]
    fn add(&mut self, step: Step, count: usize) {
        match self.0.last_mut() {
            Some(last) if last.0 == step => last.1 += count as u32,
            _ => self.0.push((step, count as u32)),
        }
    }
}

/// A walk back through one lane.
struct Trace<'a, T, const LANES: usize> {
    filled: &'a Filled<'a, T, LANES>,
    lane: usize,
    pair: &'a Pair<'a>,
    width: usize,
    runs: &'a mut Runs,
    row: usize,
    d: usize,
}

impl<T: Cell, const LANES: usize> Trace<'_, T, LANES> {
    #[inline(always)]
    fn back(&mut self, score: i32) -> Placement {
        let query_end = self.row;
        let Scores { clip, .. } = self.filled.plan.scores;
        self.runs.0.clear();
        let mut here = self.at(self.row, self.d);
        loop {
            here = self.along_the_diagonal(here);
            if self.row == 0 || here == -i32::from(clip) {
                break;
            }
            here = self.through_a_gap(here);
        }
        Placement {
            score,
            query_start: self.row,
            query_end,
            target_start: self.row + self.d,
            runs: self.runs.0.iter().rev().copied().collect(),
        }
    }

    #[inline(always)]
    fn at(&self, row: usize, d: usize) -> i32 {
        self.filled.score(row, d, self.lane)
    }

    /// Goes back as long as pairs of bases are the best step; gives the score where it ends.
    #[inline(always)]
    fn along_the_diagonal(&mut self, mut here: i32) -> i32 {
        let Scores { matched, mismatch, .. } = self.filled.plan.scores;
        let (matched, mismatch) = (i32::from(matched), i32::from(mismatch));
        let (start, Pair { query, target }) = (self.row, *self.pair);
        let target = &target[self.d..];
        while let (Some(bases), Some(from)) =
            (query[..self.row].last_chunk(), target[..self.row].last_chunk())
        {
            let (before, equal) = (self.row - PIECE, equal_bases(bases, from));
            let points = equal * matched - (PIECE as i32 - equal) * mismatch;
            if self.at(before, self.d) + points != here {
                break;
            }
            (self.row, here) = (before, here - points);
        }
        while self.row > 0 {
            let (base, from) = (query[self.row - 1], target[self.row - 1]);
            let points = if base == from && base < 4 { matched } else { -mismatch };
            if self.at(self.row - 1, self.d) + points != here {
                break;
            }
            (self.row, here) = (self.row - 1, here - points);
        }
        if self.row < start {
            self.runs.add(Step::Match, start - self.row);
        }
        here
    }

    /// Goes back through the shortest deletion there is, else through the shortest insertion.
    #[inline(always)]
    fn through_a_gap(&mut self, here: i32) -> i32 {
        let Scores { gap_open, gap_extend, .. } = self.filled.plan.scores;
        let before = |count| here + i32::from(gap_open) + count as i32 * i32::from(gap_extend);
        let (row, d) = (self.row, self.d);
        if let Some(count) = (1..=d).find(|&count| self.at(row, d - count) == before(count)) {
            self.d -= count;
            self.runs.add(Step::Deletion, count);
            return before(count);
        }
        let most = row.min(self.width - 1 - d);
        let count = (1..=most)
            .find(|&count| self.at(row - count, d + count) == before(count))
            .expect("every score has a state that it came from");
        self.row -= count;
        self.d += count;
        self.runs.add(Step::Insertion, count);
        before(count)
    }
}

/// Number of known bases that are equal, eight at a time.
#[inline(always)]
fn equal_bases(query: &[u8; PIECE], target: &[u8; PIECE]) -> i32 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const UNKNOWN: u64 = 0xfcfc_fcfc_fcfc_fcfc;
    let mut differing = 0;
    for (bases, from) in query.as_chunks().0.iter().zip(target.as_chunks().0) {
        let (bases, from) = (u64::from_le_bytes(*bases), u64::from_le_bytes(*from));
        // A byte of this is zero where both are the same known base.
        let unequal = (bases ^ from) | (bases & UNKNOWN);
        let marks = (((unequal & LOW) + LOW) | unequal) & !LOW;
        differing += (marks >> 7).wrapping_mul(0x0101_0101_0101_0101) >> 56;
    }
    PIECE as i32 - differing as i32
}
