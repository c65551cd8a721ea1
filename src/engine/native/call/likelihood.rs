//! How well each haplotype of a window explains each template.

use super::evidence::{Evidence, Kind};
use super::haplotype::{Haplotype, Stretch};
use super::repeat::GapPenalties;
use super::slips::Slips;
use crate::kernel::pairhmm::{
    BasePenalties, HaplotypePart, PER_PHRED, ReadPart, Rows, banded, ungapped,
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

/// Scratch memory and tables, kept between windows.
#[derive(Default)]
pub(super) struct Model {
    penalties: BasePenalties,
    rows: Rows,
}

impl Model {
    /// What each template says, in order of template.
    pub(super) fn testimonies(
        &mut self,
        reads: &[&Evidence],
        stretch: Stretch<'_>,
        haplotypes: &[Haplotype],
        slips: &Slips,
        gapped: bool,
    ) -> Vec<Testimony> {
        let gaps: Vec<GapPenalties> =
            haplotypes.iter().map(|haplotype| GapPenalties::of(&haplotype.bases, slips)).collect();
        let mut found: Vec<Testimony> = Vec::with_capacity(reads.len());
        for read in reads {
            let Some(slice) = slice(read, stretch) else { continue };
            let Some(penalties) = self.read(read, &slice, haplotypes, &gaps, gapped) else {
                continue;
            };
            let (start, end) = (slice.start, slice.end);
            let (reverse, mapping_quality) = (read.reverse, read.mapping_quality);
            let (template, parts) = (read.template, [(start, end); 2]);
            found.push(Testimony {
                template,
                penalties,
                start,
                end,
                parts,
                reverse,
                mapping_quality,
            });
        }
        found.sort_by_key(|testimony| testimony.template);
        join_mates(found)
    }

    /// Penalties of one read, or `None` when it fits no haplotype.
    fn read(
        &mut self,
        read: &Evidence,
        slice: &Slice<'_>,
        haplotypes: &[Haplotype],
        gaps: &[GapPenalties],
        gapped: bool,
    ) -> Option<Vec<i32>> {
        let weight = i32::from(read.mapping_quality.min(READ_WEIGHT_MAX)) * PER_PHRED;
        let misfit = (MISFIT_PER_BASE * slice.part.bases.len() as f32).max(MISFIT_MIN);
        let mut best = (misfit as i32) * PER_PHRED;
        let mut penalties = Vec::with_capacity(haplotypes.len());
        for (haplotype, gaps) in haplotypes.iter().zip(gaps) {
            let limit = best + weight;
            let penalty = self.pair(slice, haplotype, gaps, gapped, limit);
            best = best.min(penalty);
            penalties.push(penalty);
        }
        if best >= (misfit as i32) * PER_PHRED {
            return None;
        }
        for penalty in &mut penalties {
            *penalty = (*penalty).min(best + weight);
        }
        Some(penalties)
    }

    fn pair(
        &mut self,
        slice: &Slice<'_>,
        haplotype: &Haplotype,
        gaps: &GapPenalties,
        gapped: bool,
        limit: i32,
    ) -> i32 {
        let bases = &haplotype.bases[..];
        let head = slice.first + haplotype.shift_at(slice.start);
        let tail = slice.last_diagonal + haplotype.shift_at(slice.end);
        let mut best = ungapped(slice.part, bases, head, &self.penalties, limit);
        if tail != head {
            best = best.min(ungapped(slice.part, bases, tail, &self.penalties, limit));
        }
        let from = (head.min(tail).max(0) as usize).min(bases.len());
        let to = (head.max(tail).max(0) as usize + slice.part.bases.len()).min(bases.len());
        let cheapest =
            gaps.open[from..to.max(from)].iter().min().map_or(FAR, |&open| i32::from(open));
        if !gapped || best <= cheapest {
            return best.min(limit);
        }
        let reach = BAND_REACH + slice.gaps;
        let diagonals = head.min(tail) - reach..=head.max(tail) + reach;
        let part = HaplotypePart { bases, gap_open: &gaps.open, gap_extend: &gaps.extend };
        let limit = limit.min(best);
        banded(slice.part, part, diagonals, &self.penalties, limit, &mut self.rows)
    }
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
    Some(Slice { part, first, last_diagonal, start, end, gaps })
}

/// Bases and qualities of a read between two positions, clipped ends included.
pub(super) fn part_inside(read: &Evidence, start: u32, end: u32) -> Option<(&[u8], &[u8])> {
    let from = if read.start >= start { 0 } else { read.read_base_at(start) };
    let to = if read.end <= end { read.bases.len() as u32 } else { read.read_base_at(end) };
    let range = from as usize..to.max(from) as usize;
    (from < to).then(|| (&read.bases[range.clone()], &read.qualities[range]))
}
