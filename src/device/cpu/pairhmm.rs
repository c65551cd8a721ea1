//! Penalties of many reads on many haplotypes at once, a job a vector lane.
//!
//! Jobs of one band width go together; every step of the recurrence is then the same for all lanes,
//! deletions too, and the compiler vectorises it. A lane whose read is shorter keeps its penalty.
#![allow(unsafe_code)]

use crate::kernel::pairhmm::{Batch, Job, LIMIT_MAX, NEVER, OUTSIDE, Rows, width};

/// Jobs that go together: 16-bit numbers of a vector of 512 bits.
const LANES: usize = 32;

type Vector = [i16; LANES];

/// The penalty of every job, as [`Batch::scalar`].
pub fn pairhmm(batch: &Batch<'_>) -> Vec<i32> {
    let mut results = vec![0; batch.jobs.len()];
    let (mut order, alone): (Vec<usize>, Vec<usize>) =
        (0..batch.jobs.len()).partition(|&job| fits(batch, &batch.jobs[job]));
    let mut rows = Rows::default();
    for job in alone {
        results[job] = batch.scalar(job, &mut rows);
    }
    let shape = |&job: &usize| {
        let Job { read, diagonals, .. } = batch.jobs[job];
        (width(diagonals), batch.reads[read].bases.len())
    };
    order.sort_by_key(shape);
    let mut group = Group::default();
    for alike in order.chunk_by(|a, b| shape(a).0 == shape(b).0) {
        for jobs in alike.chunks(LANES) {
            group.lay_out(batch, jobs, shape(&jobs[0]).0);
            group.run();
            for (lane, &job) in jobs.iter().enumerate() {
                results[job] = group.results[lane].expect("every lane has come to its end");
            }
        }
    }
    results
}

/// Whether sums stay within 16 bits, and there is something to sum.
fn fits(batch: &Batch<'_>, job: &Job) -> bool {
    let (read, haplotype) = (batch.reads[job.read], batch.haplotypes[job.haplotype]);
    let gaps = haplotype.gap_open.iter().chain(haplotype.gap_extend);
    let mut gaps = gaps.map(|gap| (0..=NEVER).contains(gap));
    !read.bases.is_empty() && read.bases.len() == read.qualities.len() && gaps.all(|fits| fits)
}

/// Jobs that go together, with the memory of their recurrences.
#[derive(Default)]
struct Group {
    width: usize,
    /// Read bases and the penalties of their agreeing and differing, by row.
    reads: Vec<[Vector; 3]>,
    /// Haplotype bases and gap penalties, from the lowest diagonal of the first row on.
    haplotypes: Vec<[Vector; 3]>,
    /// Best of all states and best that ends in an insertion, of one row, with a border at the end.
    state: Vec<[Vector; 2]>,
    lengths: Vec<usize>,
    limits: Vec<i32>,
    /// What is known of the penalties: a limit may be any number.
    results: [Option<i32>; LANES],
}

impl Group {
    fn lay_out(&mut self, batch: &Batch<'_>, jobs: &[usize], width: usize) {
        let job = |&job: &usize| &batch.jobs[job];
        let bases = |job: &Job| batch.reads[job.read].bases.len();
        self.width = width;
        self.lengths = jobs.iter().map(job).map(bases).collect();
        self.limits = jobs.iter().map(job).map(|job| job.limit.min(LIMIT_MAX)).collect();
        let rows = self.lengths.iter().copied().max().unwrap_or(0);
        self.reads.clear();
        self.reads.resize(rows, [[0; LANES]; 3]);
        self.haplotypes.clear();
        let outside = [[i16::from(OUTSIDE); LANES], [NEVER; LANES], [NEVER; LANES]];
        self.haplotypes.resize(rows + width, outside);
        self.state.clear();
        self.state.resize(width, [[0; LANES], [NEVER; LANES]]);
        self.state.push([[NEVER; LANES]; 2]);
        for (lane, job) in jobs.iter().map(job).enumerate() {
            self.lay_out_lane(batch, lane, job);
        }
    }

    fn lay_out_lane(&mut self, batch: &Batch<'_>, lane: usize, job: &Job) {
        let (read, haplotype) = (batch.reads[job.read], batch.haplotypes[job.haplotype]);
        for ((row, &base), &quality) in self.reads.iter_mut().zip(read.bases).zip(read.qualities) {
            let [agree, differ] = batch.penalties.pair(quality);
            let differ = if base > 3 { agree } else { differ };
            for (vector, value) in row.iter_mut().zip([i16::from(base), agree, differ]) {
                vector[lane] = value;
            }
        }
        let low = i64::from(job.diagonals.0);
        let first = usize::try_from(low).unwrap_or(0).min(haplotype.bases.len());
        let before = usize::try_from(-low).unwrap_or(0).min(self.haplotypes.len());
        let gaps = haplotype.gap_open.iter().zip(haplotype.gap_extend).skip(first);
        let bases = haplotype.bases[first..].iter().zip(gaps);
        for (column, (&base, (&open, &extend))) in self.haplotypes[before..].iter_mut().zip(bases) {
            for (vector, value) in column.iter_mut().zip([i16::from(base), open, extend]) {
                vector[lane] = value;
            }
        }
    }

    fn run(&mut self) {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn avx512(group: &mut Group) {
                group.run_rows();
            }
            #[target_feature(enable = "avx2")]
            fn avx2(group: &mut Group) {
                group.run_rows();
            }
            if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                // SAFETY: the processor has these instructions, as asked just now.
                return unsafe { avx512(self) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has these instructions, as asked just now.
                return unsafe { avx2(self) };
            }
        }
        self.run_rows();
    }

    #[inline(always)]
    fn run_rows(&mut self) {
        self.results = [None; LANES];
        let mut running = self.lengths.len();
        for row in 0..self.reads.len() {
            let haplotypes = &self.haplotypes[row..row + self.width];
            let best = next_row(&self.reads[row], haplotypes, &mut self.state);
            for (lane, (&length, &limit)) in self.lengths.iter().zip(&self.limits).enumerate() {
                let best = i32::from(best[lane]);
                let ends = best >= limit || row + 1 == length;
                if ends && row < length && self.results[lane].is_none() {
                    self.results[lane] = Some(best.min(limit));
                    running -= 1;
                }
            }
            if running == 0 {
                return;
            }
        }
    }
}

/// One row of every lane: its best.
#[inline(always)]
fn next_row(read: &[Vector; 3], haplotypes: &[[Vector; 3]], state: &mut [[Vector; 2]]) -> Vector {
    let [bases, agree, differ] = read;
    let (mut before, mut deleted, mut best) = ([NEVER; LANES], [NEVER; LANES], [NEVER; LANES]);
    for (d, [from, open, extend]) in haplotypes.iter().enumerate() {
        let [next_all, next_inserted] = state[d + 1];
        let [all, inserted] = &mut state[d];
        for lane in 0..LANES {
            let pair = if from[lane] == bases[lane] { agree[lane] } else { differ[lane] };
            let matched = (all[lane] + pair).min(NEVER);
            let opened = next_all[lane] + open[lane];
            let insertion = opened.min(next_inserted[lane] + extend[lane]).min(NEVER);
            let opened = before[lane] + open[lane];
            deleted[lane] = opened.min(deleted[lane] + extend[lane]).min(NEVER);
            before[lane] = matched;
            let cell = matched.min(insertion).min(deleted[lane]);
            best[lane] = best[lane].min(cell);
            all[lane] = cell;
            inserted[lane] = insertion;
        }
    }
    best
}
