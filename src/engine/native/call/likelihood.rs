//! How well each haplotype of a window explains each template.
//!
//! The windows of a part of the genome are judged together, in three passes: every read on every
//! haplotype without gaps; then, as one batch of the kernel [`pairhmm`](crate::kernel::pairhmm), those
//! that a gap may explain better; then what that says of each template.

use super::evidence::{Evidence, Kind};
use super::haplotype::{Haplotype, Stretch};
use super::repeat::GapPenalties;
use super::slips::Slips;
use crate::device::{self, Queue};
use crate::kernel::pairhmm::{
    BasePenalties, Batch, HaplotypePart, Job, PER_PHRED, ReadPart, ungapped,
};

/// A read says at most this much against a haplotype, in Phred: it may be misplaced.
const READ_WEIGHT_MAX: u8 = 40;
/// Diagonals on both sides of the expected ones.
const BAND_REACH: i32 = 6;
/// Penalty in Phred for each base above which a read fits no haplotype and says nothing.
const MISFIT_PER_BASE: f32 = 1.6;
/// The same for short parts of reads.
const MISFIT_MIN: f32 = 120.0;
const FAR: i32 = i32::MAX / 8;

/// What is asked in one window: how well each haplotype explains each read.
pub(super) struct Question<'a> {
    pub(super) reads: Vec<&'a Evidence>,
    pub(super) stretch: Stretch<'a>,
    pub(super) haplotypes: Vec<Haplotype>,
    /// Whether a gap may explain a read better than no gap.
    pub(super) gapped: bool,
}

impl Question<'_> {
    /// Pairs of a read and a haplotype.
    pub(super) fn pairs(&self) -> usize {
        self.reads.len() * self.haplotypes.len()
    }

    /// The cost of gaps along each haplotype; none where no gap is looked for.
    fn gaps(&self, slips: &Slips) -> Vec<GapPenalties> {
        let haplotypes = self.haplotypes.iter().filter(|_| self.gapped);
        haplotypes.map(|haplotype| GapPenalties::of(&haplotype.bases, slips)).collect()
    }
}

/// What one template says about the haplotypes.
#[derive(Clone, Debug)]
pub(super) struct Testimony {
    pub(super) template: u64,
    /// Penalty of each haplotype.
    pub(super) penalties: Vec<i32>,
    /// First and one past the last reference base it covers.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Where its two reads begin and end; of one read twice the same.
    pub(super) parts: [(u32, u32); 2],
    pub(super) reverse: bool,
    pub(super) mapping_quality: u8,
}

/// The part of a read inside a window.
struct Slice<'a> {
    read: &'a Evidence,
    part: ReadPart<'a>,
    /// Reference base of the first base, counted from the stretch's start; of clipped bases, where
    /// they would lie without a gap.
    first: i32,
    /// Diagonal of the last aligned base.
    last_diagonal: i32,
    /// Aligned reference bases.
    start: u32,
    end: u32,
    /// Bases in gaps of its own alignment.
    gaps: i32,
}

impl Slice<'_> {
    /// What the read can say against a haplotype.
    fn weight(&self) -> i32 {
        i32::from(self.read.mapping_quality.min(READ_WEIGHT_MAX)) * PER_PHRED
    }

    /// Penalty from which on the read fits a haplotype no more.
    fn misfit(&self) -> i32 {
        (MISFIT_PER_BASE * self.part.bases.len() as f32).max(MISFIT_MIN) as i32 * PER_PHRED
    }

    /// The diagonals of the first and of the last aligned base on a haplotype.
    fn diagonals(&self, haplotype: &Haplotype) -> [i32; 2] {
        let last = self.last_diagonal + haplotype.shift_at(self.end);
        [self.first + haplotype.shift_at(self.start), last]
    }

    /// The least penalty of opening a gap where the read lies.
    fn cheapest_gap(&self, [head, tail]: [i32; 2], gaps: &GapPenalties) -> i32 {
        let within = |at: i32| usize::try_from(at).unwrap_or(0).min(gaps.open.len());
        let from = within(head.min(tail));
        let to = within(head.max(tail).max(0) + self.part.bases.len() as i32).max(from);
        gaps.open[from..to].iter().min().map_or(FAR, |&open| i32::from(open))
    }

    /// Penalty without gaps, on the better of two diagonals; above `stop` any number above it.
    fn ungapped(
        &self,
        bases: &[u8],
        [head, tail]: [i32; 2],
        all: &BasePenalties,
        stop: i32,
    ) -> i32 {
        let on = |diagonal: i32| ungapped(self.part, bases, diagonal, all, stop);
        if head == tail { on(head) } else { on(head).min(on(tail)) }
    }
}

/// What each template says in each window, in order of template.
///
/// The penalty of a read on a haplotype is `P`: without gaps `U`, or, where a gap may be cheaper than
/// `U`, the kernel's `G`, if that is less. What is kept is `min(P, B + weight)`, `B` being the least `P`
/// of all haplotypes, and nothing where `B` is a misfit. No penalty is wanted beyond `B + weight`, so
/// both steps may stop there: `U` at the least `U` so far plus the weight (or at the cheapest gap,
/// where that is more: whether a gap may be cheaper is then known, too), and `G` at the least of all
/// `U` plus the weight. Since `B` is no more than any `U`, neither stops too early, and the result does
/// not depend on where it stops, nor on the order of the haplotypes, nor on what else is in the batch.
///
/// Errors: the device's.
pub(super) fn testimonies(
    questions: &[Question<'_>],
    slips: &Slips,
    queue: &mut dyn Queue,
) -> Result<Vec<Vec<Testimony>>, device::Error> {
    let penalties = &BasePenalties::default();
    let gaps: Vec<_> = questions.iter().map(|question| question.gaps(slips)).collect();
    let mut sheet = Sheet::default();
    for (question, gaps) in questions.iter().zip(&gaps) {
        sheet.add(question, gaps, penalties);
    }
    let (reads, haplotypes, jobs) = (&sheet.parts[..], &sheet.haplotypes[..], &sheet.jobs[..]);
    if !jobs.is_empty() {
        let found = queue.pairhmm(&Batch { reads, haplotypes, jobs, penalties })?;
        for (&cell, found) in sheet.asked.iter().zip(found) {
            sheet.cells[cell] = found;
        }
    }
    Ok(sheet.conclude(questions))
}

/// The reads and haplotypes of some windows, and the penalties of each pair within a window.
#[derive(Default)]
struct Sheet<'a> {
    slices: Vec<Slice<'a>>,
    /// How many slices there are at the end of each window.
    ends: Vec<usize>,
    /// Penalties: of each slice those of all haplotypes of its window.
    cells: Vec<i32>,
    /// The kernel's reads, haplotypes and jobs, and the cell of each job.
    parts: Vec<ReadPart<'a>>,
    haplotypes: Vec<HaplotypePart<'a>>,
    jobs: Vec<Job>,
    asked: Vec<usize>,
}

impl<'a> Sheet<'a> {
    /// Lays the reads of a window on its haplotypes without gaps, and notes what the kernel has to do.
    fn add(
        &mut self,
        question: &'a Question<'_>,
        gaps: &'a [GapPenalties],
        penalties: &BasePenalties,
    ) {
        let first = self.haplotypes.len();
        self.haplotypes.extend(question.haplotypes.iter().zip(gaps).map(|(haplotype, gaps)| {
            let (gap_open, gap_extend) = (&gaps.open[..], &gaps.extend[..]);
            HaplotypePart { bases: &haplotype.bases, gap_open, gap_extend }
        }));
        for read in &question.reads {
            if let Some(slice) = slice(read, question.stretch) {
                self.lay(&slice, question, gaps, first, penalties);
                self.parts.push(slice.part);
                self.slices.push(slice);
            }
        }
        self.ends.push(self.slices.len());
    }

    /// Lays one read; the window's haplotypes are the kernel's from `first` on.
    fn lay(
        &mut self,
        slice: &Slice<'_>,
        question: &Question<'_>,
        gaps: &[GapPenalties],
        first: usize,
        penalties: &BasePenalties,
    ) {
        let (mut best, weight) = (slice.misfit(), slice.weight());
        let (row, before) = (self.cells.len(), self.jobs.len());
        for (number, haplotype) in question.haplotypes.iter().enumerate() {
            let diagonals = slice.diagonals(haplotype);
            let gap = gaps.get(number).map_or(FAR, |gaps| slice.cheapest_gap(diagonals, gaps));
            let stop = (best + weight).max(if question.gapped { gap } else { 0 });
            let penalty = slice.ungapped(&haplotype.bases, diagonals, penalties, stop);
            best = best.min(penalty);
            self.cells.push(penalty);
            if question.gapped && penalty > gap {
                let [head, tail] = diagonals;
                let reach = BAND_REACH + slice.gaps;
                let diagonals = (head.min(tail) - reach, head.max(tail) + reach);
                let (read, haplotype) = (self.slices.len(), first + number);
                self.jobs.push(Job { read, haplotype, diagonals, limit: penalty });
                self.asked.push(row + number);
            }
        }
        for job in &mut self.jobs[before..] {
            job.limit = job.limit.min(best + weight);
        }
    }

    /// What the penalties say, window by window.
    fn conclude(self, questions: &[Question<'_>]) -> Vec<Vec<Testimony>> {
        let mut cells = &self.cells[..];
        let mut start = 0;
        let windows = questions.iter().zip(&self.ends);
        let conclude = windows.map(|(question, &end)| {
            let mut found = Vec::with_capacity(end - start);
            for slice in &self.slices[start..end] {
                let (own, rest) = cells.split_at(question.haplotypes.len());
                found.extend(testimony(slice, own));
                cells = rest;
            }
            start = end;
            found.sort_by_key(|testimony| testimony.template);
            join_mates(found)
        });
        conclude.collect()
    }
}

/// What a read says, or `None` when it fits no haplotype.
fn testimony(slice: &Slice<'_>, penalties: &[i32]) -> Option<Testimony> {
    let best = penalties.iter().copied().min().filter(|&best| best < slice.misfit())?;
    let most = best + slice.weight();
    let Evidence { template, reverse, mapping_quality, .. } = *slice.read;
    let (start, end) = (slice.start, slice.end);
    Some(Testimony {
        template,
        penalties: penalties.iter().map(|&penalty| penalty.min(most)).collect(),
        start,
        end,
        parts: [(start, end); 2],
        reverse,
        mapping_quality,
    })
}

/// Adds up what the mates of one template say.
fn join_mates(found: Vec<Testimony>) -> Vec<Testimony> {
    let mut joined: Vec<Testimony> = Vec::with_capacity(found.len());
    for testimony in found {
        match joined.last_mut().filter(|last| last.template == testimony.template) {
            Some(before) => {
                for (sum, penalty) in before.penalties.iter_mut().zip(testimony.penalties) {
                    *sum += penalty;
                }
                before.parts[1] = testimony.parts[0];
                before.start = before.start.min(testimony.start);
                before.end = before.end.max(testimony.end);
                before.mapping_quality = before.mapping_quality.max(testimony.mapping_quality);
            }
            None => joined.push(testimony),
        }
    }
    joined
}

fn slice<'a>(read: &'a Evidence, stretch: Stretch<'_>) -> Option<Slice<'a>> {
    let (low, high) = (stretch.start, stretch.start + stretch.bases.len() as u32);
    let mut first: Option<(u32, u32)> = None;
    let mut last = (0, 0);
    let mut gaps = 0;
    for run in read.placed() {
        match run.kind {
            Kind::Match => {
                let from = run.reference.max(low);
                let to = (run.reference + run.length).min(high);
                if from < to {
                    let at = run.read + (from - run.reference);
                    first.get_or_insert((at, from));
                    last = (at + (to - from), to);
                }
            }
            Kind::Insertion | Kind::Deletion if first.is_some() && run.reference < high => {
                gaps += run.length as i32;
            }
            _ => {}
        }
    }
    let (mut from, start) = first?;
    let (mut to, end) = last;
    let mut first = (start - low) as i32;
    let last_diagonal = (end - low) as i32 - (to - from) as i32;
    let mut last_diagonal = last_diagonal;
    if start == read.start {
        let clip = from.min(start - low);
        from -= clip;
        first -= clip as i32;
        last_diagonal -= clip as i32;
    }
    if end == read.end {
        to += read.trailing_clip().min(high - end);
    }
    let range = from as usize..to as usize;
    let part = ReadPart { bases: &read.bases[range.clone()], qualities: &read.qualities[range] };
    Some(Slice { read, part, first, last_diagonal, start, end, gaps })
}

/// Bases and qualities of a read between two positions, clipped ends included.
pub(super) fn part_inside(read: &Evidence, start: u32, end: u32) -> Option<(&[u8], &[u8])> {
    let from = if read.start >= start { 0 } else { read.read_base_at(start) };
    let to = if read.end <= end { read.bases.len() as u32 } else { read.read_base_at(end) };
    let range = from as usize..to.max(from) as usize;
    (from < to).then(|| (&read.bases[range.clone()], &read.qualities[range]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::evidence::Run;
    use super::*;
    use crate::device::open;
    use crate::kernel::pairhmm::{LIMIT_MAX, Rows, banded};

    /// What one read says, by the definition, without any limit but the kernel's own.
    fn plain(slice: &Slice<'_>, question: &Question<'_>, slips: &Slips) -> Option<Vec<i32>> {
        let all = BasePenalties::default();
        let of = |haplotype: &Haplotype| {
            let bases = &haplotype.bases[..];
            let [head, tail] = slice.diagonals(haplotype);
            let [on_head, on_tail] =
                [head, tail].map(|diagonal| ungapped(slice.part, bases, diagonal, &all, i32::MAX));
            let least = on_head.min(on_tail);
            let gaps = GapPenalties::of(bases, slips);
            if !question.gapped || least <= slice.cheapest_gap([head, tail], &gaps) {
                return least;
            }
            let part = HaplotypePart { bases, gap_open: &gaps.open, gap_extend: &gaps.extend };
            let reach = BAND_REACH + slice.gaps;
            let diagonals = head.min(tail) - reach..=head.max(tail) + reach;
            least.min(banded(slice.part, part, diagonals, &all, LIMIT_MAX, &mut Rows::default()))
        };
        let penalties: Vec<i32> = question.haplotypes.iter().map(of).collect();
        let best = penalties.iter().copied().min().filter(|&best| best < slice.misfit())?;
        Some(penalties.iter().map(|&penalty| penalty.min(best + slice.weight())).collect())
    }

    /// Haplotypes of a stretch, each with one change: where, bases removed, bases inserted.
    fn haplotypes(stretch: Stretch<'_>, changes: &[(usize, usize, Vec<u8>)]) -> Vec<Haplotype> {
        let changed = changes.iter().map(|(at, removed, inserted)| {
            let at = at % stretch.bases.len();
            let end = (at + removed).min(stretch.bases.len());
            let bases = [&stretch.bases[..at], inserted, &stretch.bases[end..]].concat();
            Haplotype::from_bases(stretch, bases)
        });
        let reference = Haplotype { bases: stretch.bases.to_vec(), events: Vec::new() };
        std::iter::once(reference).chain(changed).collect()
    }

    /// A read of a haplotype from `at` on, laid there without a gap; every so many bases one is wrong.
    fn read(from: &Haplotype, template: u64, at: usize, wrong: usize, quality: u8) -> Evidence {
        let at = at % (from.bases.len() - 10);
        let mut bases: Vec<u8> = from.bases.iter().skip(at).take(70).copied().collect();
        bases.iter_mut().step_by(wrong).for_each(|base| *base = (*base + 1) % 5);
        let (start, length) = (1000 + at as u32, bases.len() as u32);
        let runs = vec![Run { kind: Kind::Match, length }];
        let (qualities, end) = (vec![quality; bases.len()], start + length);
        let mapping_quality = 20 + quality;
        let reverse = false;
        Evidence { template, start, end, reverse, mapping_quality, runs, bases, qualities }
    }

    proptest! {
        #[test]
        fn limits_and_company_change_no_testimony(
            windows in prop::collection::vec((
                prop::collection::vec(0u8..3, 40..120),
                prop::collection::vec(
                    (0usize..120, 0usize..9, prop::collection::vec(0u8..4, 0..9)), 1..5),
                prop::collection::vec((0usize..5, 0usize..120, 3usize..80, 2u8..41), 1..20),
                any::<bool>(),
            ), 1..4),
        ) {
            let slips = Slips::default();
            let made: Vec<_> = windows.iter().map(|(bases, changes, reads, gapped)| {
                let stretch = Stretch { start: 1000, bases };
                let haplotypes = haplotypes(stretch, changes);
                let reads: Vec<Evidence> = (0..).zip(reads).map(|(template, &(of, at, wrong, quality))| {
                    read(&haplotypes[of % haplotypes.len()], template, at, wrong, quality)
                }).collect();
                (stretch, haplotypes, reads, *gapped)
            }).collect();
            let questions: Vec<Question<'_>> = made.iter().map(|(stretch, haplotypes, reads, gapped)| {
                let (reads, haplotypes) = (reads.iter().collect(), haplotypes.clone());
                Question { reads, stretch: *stretch, haplotypes, gapped: *gapped }
            }).collect();
            let mut queue = open("cpu").and_then(|cpu| cpu.queue(1 << 20)).unwrap();
            let found = testimonies(&questions, &slips, queue.as_mut()).unwrap();
            for (question, found) in questions.iter().zip(found) {
                let of = |read: &&Evidence| {
                    let slice = slice(read, question.stretch)?;
                    Some((read.template, plain(&slice, question, &slips)?))
                };
                let expected: Vec<_> = question.reads.iter().filter_map(of).collect();
                let found: Vec<_> =
                    found.into_iter().map(|found| (found.template, found.penalties)).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
