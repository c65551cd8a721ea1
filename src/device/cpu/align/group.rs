//! Pairs that are aligned together, each in a lane of vectors.
//!
//! Every step of the recurrence is then the same for all lanes, deletions too, and the compiler makes one
//! instruction of each loop over lanes. Queries of a group may differ in length: what a lane computes
//! beyond its own query is not looked at. Diagonals beyond a lane's own band are held at the score of a
//! clip, from which nothing within the band can gain.
#![allow(unsafe_code)]

use crate::device::cpu::lanes::{Part, Vectors, transpose_bytes};
use crate::kernel::align::{Pair, Scores};

use super::Job;
use super::trace::{Ends, Filled};

/// Rows between two looks at whether the numbers must be lowered.
const LOWERING_ROWS: usize = 32;

/// A number that holds a score.
pub(super) trait Cell: bytemuck::Pod + Ord + std::fmt::Debug {
    /// Greatest one.
    const MAX: i32;
    /// Whether there are numbers below zero.
    const SIGNED: bool;

    /// A number that fits, as everything that a [`Plan`] makes does.
    fn of(number: i32) -> Self;
    fn number(self) -> i32;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
}

macro_rules! cell {
    ($number:ty) => {
        impl Cell for $number {
            const MAX: i32 = <$number>::MAX as i32;
            const SIGNED: bool = <$number>::MIN != 0;

            #[inline(always)]
            fn of(number: i32) -> Self {
                number as $number
            }

            #[inline(always)]
            fn number(self) -> i32 {
                i32::from(self)
            }

            #[inline(always)]
            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
        }
    };
}

cell!(u8);
cell!(i16);

/// Scores as numbers of the kind `T`: each is raised by `bias`, so that none is below the least of `T`.
///
/// Bytes may be too few for an alignment and for what is far from it. Rows further down then count from
/// a higher score on, and what is below the `floor` is raised to it. That is seen at the end: an alignment
/// has come from raised states only if it has at most [`Filled::doubt`] points.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<T> {
    matched: T,
    mismatch: T,
    open: T,
    extend: T,
    /// No state is worth less.
    floor: T,
    /// No gap is worth less.
    low: T,
    /// By how much the numbers are lowered at a time.
    step: T,
    pub(super) bias: i32,
    /// Points of the first floor.
    pub(super) least: i32,
    pub(super) scores: Scores,
}

/// Floors are at least as low as this, or as a clip.
const LEAST_MAX: i32 = -64;

impl<T: Cell> Plan<T> {
    /// `None` when the numbers do not do for a query of this length.
    #[inline(always)]
    pub(super) fn new(scores: &Scores, length: usize) -> Option<Self> {
        let [matched, mismatch, gap_open, extend, clip] =
            [scores.matched, scores.mismatch, scores.gap_open, scores.gap_extend, scores.clip]
                .map(i32::from);
        let open = gap_open + extend;
        let below = mismatch.max(open + extend);
        let most = matched * i32::try_from(length.min(2 * LOWERING_ROWS)).ok()?;
        let (least, bias, step) = if T::SIGNED {
            (-clip, 0, 0)
        } else {
            let least = (-clip).max(most + below - T::MAX);
            (least, below - least, matched * LOWERING_ROWS as i32)
        };
        let fits = T::SIGNED || least <= LEAST_MAX.max(-clip);
        fits.then(|| Self {
            matched: T::of(matched),
            mismatch: T::of(mismatch),
            open: T::of(open),
            extend: T::of(extend),
            floor: T::of(bias + least),
            low: T::of(bias + least - open),
            step: T::of(step),
            bias,
            least,
            scores: *scores,
        })
    }
}

/// Memory of the pairs that are aligned together.
#[derive(Debug)]
pub(super) struct Group<T, const LANES: usize> {
    fill: Fill<T, LANES>,
    /// Query bases by row, target bases from the first row's lowest diagonal on.
    queries: Vectors<T, LANES>,
    targets: Vectors<T, LANES>,
    /// Best scores of all states, row after row.
    matrix: Vectors<T, LANES>,
    /// Best of every row.
    tops: Vectors<T, LANES>,
    /// Of one row: what an insertion after each state is worth, with a border at the end.
    insertions: Vectors<T, LANES>,
    /// A row of which the numbers were lowered.
    lowered: Vectors<T, LANES>,
    /// What must be added to the numbers of each row to have scores.
    lifts: Vec<i32>,
    /// Rows whose numbers were lowered for the next row.
    lowerings: Vec<usize>,
    width: usize,
    ends: Ends<LANES>,
}

/// The steps of a group in instructions of one kind of processor.
type Fill<T, const LANES: usize> = unsafe fn(&mut Group<T, LANES>, &Plan<T>, &[Pair<'_>], &[Job]);

impl<T: Cell, const LANES: usize> Group<T, LANES> {
    /// For any processor.
    pub(super) fn plain() -> Self {
        Self::by(Self::fill)
    }

    /// For processors with AVX2.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn avx2() -> Option<Self> {
        #[target_feature(enable = "avx2")]
        fn fill<T: Cell, const LANES: usize>(
            group: &mut Group<T, LANES>,
            plan: &Plan<T>,
            pairs: &[Pair<'_>],
            jobs: &[Job],
        ) {
            group.fill(plan, pairs, jobs);
        }
        is_x86_feature_detected!("avx2").then(|| Self::by(fill))
    }

    /// For processors with AVX-512 for bytes and words.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn avx512() -> Option<Self> {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn fill<T: Cell, const LANES: usize>(
            group: &mut Group<T, LANES>,
            plan: &Plan<T>,
            pairs: &[Pair<'_>],
            jobs: &[Job],
        ) {
            group.fill(plan, pairs, jobs);
        }
        crate::device::cpu::has_avx512().then(|| Self::by(fill))
    }

    /// With steps whose instructions the processor has.
    fn by(fill: Fill<T, LANES>) -> Self {
        Self {
            fill,
            queries: Vectors::default(),
            targets: Vectors::default(),
            matrix: Vectors::default(),
            tops: Vectors::default(),
            insertions: Vectors::default(),
            lowered: Vectors::default(),
            lifts: Vec::new(),
            lowerings: Vec::new(),
            width: 0,
            ends: Ends::default(),
        }
    }

    /// Aligns up to `LANES` pairs: what it gives is to be traced.
    pub(super) fn align<'a>(
        &'a mut self,
        plan: &'a Plan<T>,
        pairs: &[Pair<'_>],
        jobs: &[Job],
    ) -> (Filled<'a, T, LANES>, &'a Ends<LANES>) {
        // SAFETY: whoever made the group has asked whether the processor has these instructions.
        unsafe { (self.fill)(self, plan, pairs, jobs) };
        (self.filled(plan), &self.ends)
    }

    #[inline(always)]
    fn filled<'a>(&'a self, plan: &'a Plan<T>) -> Filled<'a, T, LANES> {
        Filled {
            matrix: &self.matrix,
            tops: &self.tops[..self.lifts.len()],
            lifts: &self.lifts,
            lowerings: &self.lowerings,
            width: self.width,
            plan,
        }
    }
}

/// The band of a group.
#[derive(Clone, Copy, Debug)]
struct Band<T, const LANES: usize> {
    /// Diagonals of the narrowest and of the widest band of a pair.
    narrow: usize,
    width: usize,
    /// By how many diagonals each lane's band is wider than the narrowest.
    margins: [T; LANES],
}

impl<T: Cell, const LANES: usize> Group<T, LANES> {
    #[inline(always)]
    fn fill(&mut self, plan: &Plan<T>, pairs: &[Pair<'_>], jobs: &[Job]) {
        let rows = jobs.iter().map(|job| job.length).max().unwrap_or(0);
        let width = jobs.iter().map(|job| job.width).max().unwrap_or(0);
        let narrow = jobs.iter().map(|job| job.width).min().unwrap_or(0);
        let mut margins = [T::of(0); LANES];
        for (margin, job) in margins.iter_mut().zip(jobs) {
            *margin = T::of((job.width - narrow) as i32);
        }
        let band = Band { narrow, width, margins };
        self.lay_out(pairs, jobs, rows, width);
        self.first_row(plan, &band);
        for row in 1..=rows {
            let lowered = self.lower(plan, row, rows, width);
            let (done, here) = self.matrix.split_at_mut(row * width);
            let above = if lowered { &self.lowered } else { &done[(row - 1) * width..] };
            self.tops[row] = next_row(
                plan,
                &band,
                (&self.queries[row - 1], &self.targets[row - 1..]),
                above,
                &mut here[..width],
                &mut self.insertions,
            );
        }
        self.ends = self.filled(plan).ends(jobs);
    }

    #[inline(always)]
    fn lay_out(&mut self, pairs: &[Pair<'_>], jobs: &[Job], rows: usize, width: usize) {
        self.width = width;
        self.queries.make_room(rows);
        self.targets.make_room(rows + width);
        self.matrix.make_room((rows + 1) * width);
        self.tops.make_room(rows + 1);
        self.lowered.make_room(width);
        self.insertions.make_room(width + 1);
        let mut parts: [Part<'_, u8>; LANES] = [(&[], 0); LANES];
        // What is unknown equals nothing, and least of all what is unknown on the other side.
        let code = |code: u8, unknown: i32| T::of(if code < 4 { i32::from(code) } else { unknown });
        for (part, job) in parts.iter_mut().zip(jobs) {
            part.0 = pairs[job.pair].query;
        }
        transpose_bytes(&parts, 4, |base| code(base, 5), &mut self.queries[..rows]);
        for (part, job) in parts.iter_mut().zip(jobs) {
            part.0 = pairs[job.pair].target;
        }
        transpose_bytes(&parts, 4, |base| code(base, 4), &mut self.targets[..rows + width]);
    }

    #[inline(always)]
    fn first_row(&mut self, plan: &Plan<T>, band: &Band<T, LANES>) {
        let start = T::of(plan.bias);
        for d in 0..band.width {
            let within = T::of((d + 1).saturating_sub(band.narrow) as i32);
            for lane in 0..LANES {
                let outside = within > band.margins[lane];
                let here = if outside { plan.floor } else { start };
                self.matrix[d][lane] = here;
                self.insertions[d][lane] = here.minus(plan.open);
            }
        }
        self.insertions[band.width] = [plan.low; LANES];
        self.tops[0] = [start; LANES];
        self.lifts.clear();
        self.lifts.push(0);
        self.lowerings.clear();
    }

    /// Lowers the numbers of the row above when those of the next rows might be too large otherwise.
    #[inline(always)]
    fn lower(&mut self, plan: &Plan<T>, row: usize, rows: usize, width: usize) -> bool {
        let lift = self.lifts[row - 1];
        let until = rows.min(row - 1 + LOWERING_ROWS) as i32;
        let most = plan.bias + until * i32::from(plan.scores.matched) - lift;
        let lowered = (row - 1).is_multiple_of(LOWERING_ROWS) && most > T::MAX;
        if lowered {
            self.lowerings.push(row - 1);
            let step = plan.step;
            let above = &self.matrix[(row - 1) * width..row * width];
            for (to, from) in self.lowered[..width].iter_mut().zip(above) {
                for lane in 0..LANES {
                    to[lane] = from[lane].max(plan.floor.plus(step)).minus(step);
                }
            }
            for insertion in &mut self.insertions[..width] {
                for lane in insertion {
                    *lane = (*lane).max(plan.low.plus(step)).minus(step);
                }
            }
        }
        self.lifts.push(lift + if lowered { plan.step.number() } else { 0 });
        lowered
    }
}

/// One row of every lane: its best.
#[inline(always)]
fn next_row<T: Cell, const LANES: usize>(
    plan: &Plan<T>,
    band: &Band<T, LANES>,
    (query, targets): (&[T; LANES], &[[T; LANES]]),
    above: &[[T; LANES]],
    here: &mut [[T; LANES]],
    insertions: &mut [[T; LANES]],
) -> [T; LANES] {
    let Band { narrow, width, ref margins } = *band;
    let (targets, above, here) = (&targets[..width], &above[..width], &mut here[..width]);
    let insertions = &mut insertions[..width + 1];
    let mut running = Running { deletion: [plan.low; LANES], top: [plan.floor; LANES] };
    let query = &{ *query };
    for d in 0..narrow.min(width) {
        let insertion = insertions[d + 1];
        here[d] = running.cell(plan, query, &targets[d], &above[d], &insertion);
        insertions[d] = running.leave(plan, &here[d], &insertion);
    }
    for d in narrow..width {
        let insertion = insertions[d + 1];
        let mut best = running.cell(plan, query, &targets[d], &above[d], &insertion);
        let within = T::of((d + 1 - narrow) as i32);
        for lane in 0..LANES {
            best[lane] = if within > margins[lane] { plan.floor } else { best[lane] };
        }
        here[d] = best;
        insertions[d] = running.leave(plan, &best, &insertion);
    }
    running.top
}

/// What goes along a row.
struct Running<T, const LANES: usize> {
    /// What a deletion up to here is worth.
    deletion: [T; LANES],
    /// Best state so far.
    top: [T; LANES],
}

impl<T: Cell, const LANES: usize> Running<T, LANES> {
    /// Best score of a state.
    #[inline(always)]
    fn cell(
        &self,
        plan: &Plan<T>,
        query: &[T; LANES],
        target: &[T; LANES],
        above: &[T; LANES],
        insertion: &[T; LANES],
    ) -> [T; LANES] {
        let mut best = [plan.floor; LANES];
        for lane in 0..LANES {
            let (more, less) = (above[lane].plus(plan.matched), above[lane].minus(plan.mismatch));
            let pair = if query[lane] == target[lane] { more } else { less };
            best[lane] = pair.max(insertion[lane]).max(plan.floor).max(self.deletion[lane]);
        }
        best
    }

    /// Goes on to the next state of the row; gives what an insertion after this one is worth.
    #[inline(always)]
    fn leave(&mut self, plan: &Plan<T>, best: &[T; LANES], insertion: &[T; LANES]) -> [T; LANES] {
        let mut inserted = [plan.low; LANES];
        for lane in 0..LANES {
            let opened = best[lane].minus(plan.open);
            self.top[lane] = self.top[lane].max(best[lane]);
            self.deletion[lane] = opened.max(self.deletion[lane].minus(plan.extend));
            inserted[lane] = opened.max(insertion[lane].minus(plan.extend));
        }
        inserted
    }
}
