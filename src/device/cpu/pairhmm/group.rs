//! Jobs of one band width that are computed together.
//!
//! Two rows of the recurrence are computed in one go along the band, the second one diagonal behind
//! the first: they lie on the same base of the haplotype then, and the first row is never stored.
//!
//! The twin brings every sum back to [`NEVER`]. Here this is done only every fourth row, and numbers
//! of sixteen bits start from their lowest, which leaves room for three penalties in between: what is above
//! [`NEVER`] is so in both forms, and below it they are the same.
#![allow(unsafe_code)]

use crate::device::cpu::lanes::{Part, Vectors, transpose_words};
use crate::kernel::pairhmm::{Batch, Job, LIMIT_MAX, NEVER, OUTSIDE, width};

use super::ReadTables;
use super::words::{Any, Words};
#[cfg(target_arch = "x86_64")]
use super::words::{Avx2, Avx512};

/// No penalty.
const NONE: i16 = i16::MIN;
/// A path that does not exist.
const FAR: i16 = NONE + NEVER;
/// Rows from one look at the penalties to the next, at which they are brought back to [`FAR`].
///
/// A pair of bases costs at most 2100. So between two looks no sum is above `NEVER` and four of
/// these, the opening of a gap and its extension, each at most `NEVER`: less than sixteen bits hold.
const LOOK_ROWS: usize = 4;

/// The steps in instructions of one kind of processor.
type Run<W, const LANES: usize> =
    unsafe fn(&mut Group<W, LANES>, &Batch<'_>, &ReadTables, &[usize]) -> [i32; LANES];

/// Memory of jobs that are computed together.
#[derive(Debug)]
pub(super) struct Group<W, const LANES: usize> {
    run: Run<W, LANES>,
    width: usize,
    /// Read bases and the penalties of their agreeing and differing, by row.
    bases: Vectors<i16, LANES>,
    agree: Vectors<i16, LANES>,
    differ: Vectors<i16, LANES>,
    /// Haplotype bases and gap penalties, from the lowest diagonal of the first row on.
    from: Vectors<i16, LANES>,
    open: Vectors<i16, LANES>,
    extend: Vectors<i16, LANES>,
    /// Best of all states of one row, with a border at the end.
    all: Vectors<i16, LANES>,
    /// Best that ends in an insertion, likewise.
    inserted: Vectors<i16, LANES>,
    lengths: [usize; LANES],
    limits: [i32; LANES],
}

impl Group<Any, 8> {
    /// For any processor.
    pub(super) fn plain() -> Self {
        Self::by(Self::run_rows)
    }
}

#[cfg(target_arch = "x86_64")]
impl Group<Avx2, 16> {
    /// For processors with AVX2.
    pub(super) fn avx2() -> Option<Self> {
        #[target_feature(enable = "avx2")]
        fn run(
            group: &mut Group<Avx2, 16>,
            batch: &Batch<'_>,
            tables: &ReadTables,
            jobs: &[usize],
        ) -> [i32; 16] {
            group.run_rows(batch, tables, jobs)
        }
        is_x86_feature_detected!("avx2").then(|| Self::by(run))
    }
}

#[cfg(target_arch = "x86_64")]
impl Group<Avx512, 32> {
    /// For processors with AVX-512 for words.
    pub(super) fn avx512() -> Option<Self> {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        fn run(
            group: &mut Group<Avx512, 32>,
            batch: &Batch<'_>,
            tables: &ReadTables,
            jobs: &[usize],
        ) -> [i32; 32] {
            group.run_rows(batch, tables, jobs)
        }
        crate::device::cpu::has_avx512().then(|| Self::by(run))
    }
}

impl<W: Words<LANES>, const LANES: usize> Group<W, LANES> {
    /// With steps whose instructions the processor has.
    fn by(run: Run<W, LANES>) -> Self {
        Self {
            run,
            width: 0,
            bases: Vectors::default(),
            agree: Vectors::default(),
            differ: Vectors::default(),
            from: Vectors::default(),
            open: Vectors::default(),
            extend: Vectors::default(),
            all: Vectors::default(),
            inserted: Vectors::default(),
            lengths: [0; LANES],
            limits: [0; LANES],
        }
    }

    /// Penalties of jobs of one width, as many at a time as there are lanes.
    pub(super) fn run_all(
        &mut self,
        batch: &Batch<'_>,
        tables: &ReadTables,
        jobs: &[usize],
        results: &mut [i32],
    ) {
        for jobs in jobs.chunks(LANES) {
            // SAFETY: whoever made the group has asked whether the processor has these instructions.
            let penalties = unsafe { (self.run)(self, batch, tables, jobs) };
            for (&job, penalty) in jobs.iter().zip(penalties) {
                results[job] = penalty;
            }
        }
    }

    #[inline(always)]
    fn run_rows(&mut self, batch: &Batch<'_>, tables: &ReadTables, jobs: &[usize]) -> [i32; LANES] {
        self.lengths = [0; LANES];
        for ((&job, length), limit) in jobs.iter().zip(&mut self.lengths).zip(&mut self.limits) {
            let Job { read, limit: given, diagonals, .. } = batch.jobs[job];
            self.width = width(diagonals);
            *length = batch.reads[read].bases.len();
            *limit = given.min(LIMIT_MAX);
        }
        let rows = self.lengths.iter().copied().max().unwrap_or(0);
        self.lay_out(batch, tables, jobs, rows);
        let mut results = self.limits;
        let (mut row, mut looked) = (0, 0);
        while row < rows {
            let both = row + 1 < rows;
            let end = row + 1 + usize::from(both);
            let ends = self.lengths.iter().any(|length| (row + 1..=end).contains(length));
            if !ends && end - looked < LOOK_ROWS {
                self.two_rows::<false>(row);
                row = end;
                continue;
            }
            let bests = if both { self.two_rows::<true>(row) } else { self.last_row(row) };
            looked = end;
            let mut running = false;
            for lane in 0..LANES {
                let length = self.lengths[lane];
                if (row + 1..=end).contains(&length) {
                    let best = i32::from(bests[length - 1 - row][lane]) - i32::from(NONE);
                    results[lane] = best.min(self.limits[lane]);
                }
                let best = i32::from(bests[end - 1 - row][lane]) - i32::from(NONE);
                running |= length > end && best < self.limits[lane];
            }
            if !running {
                break;
            }
            row = end;
        }
        results
    }

    #[inline(always)]
    fn lay_out(&mut self, batch: &Batch<'_>, tables: &ReadTables, jobs: &[usize], rows: usize) {
        let width = self.width;
        for vectors in [&mut self.bases, &mut self.agree, &mut self.differ] {
            vectors.make_room(rows);
        }
        for vectors in [&mut self.from, &mut self.open, &mut self.extend] {
            vectors.make_room(rows + width);
        }
        let mut bytes: [Part<'_, u8>; LANES] = [(&[], 0); LANES];
        let mut words: [[Part<'_, i16>; LANES]; 2] = [[(&[], 0); LANES]; 2];
        for (lane, &job) in jobs.iter().enumerate() {
            let read = batch.jobs[job].read;
            bytes[lane].0 = batch.reads[read].bases;
            [words[0][lane].0, words[1][lane].0] = tables.of(read);
        }
        transpose_words(&bytes, 0, &mut self.bases[..rows]);
        transpose_words(&words[0], 0, &mut self.agree[..rows]);
        transpose_words(&words[1], 0, &mut self.differ[..rows]);
        for (lane, &job) in jobs.iter().enumerate() {
            let Job { haplotype, diagonals: (low, _), .. } = batch.jobs[job];
            let haplotype = batch.haplotypes[haplotype];
            bytes[lane] = (haplotype.bases, low as isize);
            words[0][lane] = (haplotype.gap_open, low as isize);
            words[1][lane] = (haplotype.gap_extend, low as isize);
        }
        transpose_words(&bytes, OUTSIDE, &mut self.from[..rows + width]);
        transpose_words(&words[0], NEVER, &mut self.open[..rows + width]);
        transpose_words(&words[1], NEVER, &mut self.extend[..rows + width]);
        self.all.make_room(width + 1);
        self.inserted.make_room(width + 1);
        self.all[..width].fill([NONE; LANES]);
        self.all[width] = [FAR; LANES];
        self.inserted[..=width].fill([FAR; LANES]);
    }

    /// Two rows; the best of each, when `LOOK`.
    #[inline(always)]
    fn two_rows<const LOOK: bool>(&mut self, row: usize) -> [[i16; LANES]; 2] {
        let (width, far) = (self.width, W::all(FAR));
        let bases = [self.base(row), self.base(row + 1)];
        let columns = Columns {
            from: &self.from[row..row + width + 1],
            open: &self.open[row..row + width + 1],
            extend: &self.extend[row..row + width + 1],
        };
        let all = &mut self.all[..width + 1];
        let inserted = &mut self.inserted[..width + 1];
        let [mut upper, mut lower] = [Running::new(), Running::new()];
        let mut before = W::load(&all[0]);
        let mut last = far;
        for d in 0..width {
            let column = columns.at(d);
            let next = W::load(&all[d + 1]);
            let cell =
                upper.cell::<LOOK>(&bases[0], &column, before, next, W::load(&inserted[d + 1]));
            before = next;
            if d > 0 {
                let below = lower.cell::<LOOK>(&bases[1], &column, last, cell, upper.inserted);
                (if LOOK { below.lesser(far) } else { below }).store(&mut all[d - 1]);
                lower.inserted.store(&mut inserted[d - 1]);
            }
            last = cell;
        }
        if let Some(d) = width.checked_sub(1) {
            let below = lower.cell::<LOOK>(&bases[1], &columns.at(width), last, far, far);
            (if LOOK { below.lesser(far) } else { below }).store(&mut all[d]);
            lower.inserted.store(&mut inserted[d]);
        }
        [upper.best(), lower.best()]
    }

    /// The last row, when there is no other with it: its best.
    #[inline(always)]
    fn last_row(&mut self, row: usize) -> [[i16; LANES]; 2] {
        let columns = Columns {
            from: &self.from[row..],
            open: &self.open[row..],
            extend: &self.extend[row..],
        };
        let (base, mut running) = (self.base(row), Running::new());
        for d in 0..self.width {
            let (all, next) = (W::load(&self.all[d]), W::load(&self.all[d + 1]));
            let inserted = W::load(&self.inserted[d + 1]);
            running.cell::<true>(&base, &columns.at(d), all, next, inserted);
        }
        [running.best(); 2]
    }

    #[inline(always)]
    fn base(&self, row: usize) -> Base<W> {
        Base {
            base: W::load(&self.bases[row]),
            agree: W::load(&self.agree[row]),
            differ: W::load(&self.differ[row]),
        }
    }
}

/// A base of every read, with the penalties of its agreeing and differing.
struct Base<W> {
    base: W,
    agree: W,
    differ: W,
}

/// Bases of every haplotype, with the penalties of gaps there.
struct Columns<'a, const LANES: usize> {
    from: &'a [[i16; LANES]],
    open: &'a [[i16; LANES]],
    extend: &'a [[i16; LANES]],
}

/// One of them.
struct Column<W> {
    from: W,
    open: W,
    extend: W,
}

impl<const LANES: usize> Columns<'_, LANES> {
    #[inline(always)]
    fn at<W: Words<LANES>>(&self, d: usize) -> Column<W> {
        Column {
            from: W::load(&self.from[d]),
            open: W::load(&self.open[d]),
            extend: W::load(&self.extend[d]),
        }
    }
}

/// What goes along a row.
struct Running<W, const LANES: usize> {
    /// Best path that ends in the last pair of bases, in a deletion, in an insertion.
    matched: W,
    deleted: W,
    inserted: W,
    /// Best of the row.
    best: W,
}

impl<W: Words<LANES>, const LANES: usize> Running<W, LANES> {
    #[inline(always)]
    fn new() -> Self {
        let far = W::all(FAR);
        Self { matched: far, deleted: far, inserted: far, best: far }
    }

    /// The penalty of the row's next state, from that above on its diagonal and that above on the next.
    #[inline(always)]
    fn cell<const LOOK: bool>(
        &mut self,
        read: &Base<W>,
        column: &Column<W>,
        above: W,
        next: W,
        next_inserted: W,
    ) -> W {
        let pair = column.from.choose(read.base, read.agree, read.differ);
        self.inserted = next.sum(column.open).lesser(next_inserted.sum(column.extend));
        self.deleted = self.matched.sum(column.open).lesser(self.deleted.sum(column.extend));
        self.matched = above.sum(pair);
        let cell = self.inserted.lesser(self.matched).lesser(self.deleted);
        if LOOK {
            self.best = self.best.lesser(cell);
        }
        cell
    }

    #[inline(always)]
    fn best(&self) -> [i16; LANES] {
        let mut best = [0; LANES];
        self.best.store(&mut best);
        best
    }
}
