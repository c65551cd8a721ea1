//! Reads made ready as evidence: filtered, mates counted once, indels at the left of repeats.

use std::collections::HashMap;

use super::quality::Qualities;
use crate::engine::native::AlignedRead;

/// Lowest MAPQ of a read that counts.
const MAPPING_QUALITY_MIN: u8 = 20;
/// Base qualities below this say nothing.
const BASE_QUALITY_MIN: u8 = 6;

/// Stretches of the contig in which reads are sampled, and most reads that begin in one and count:
/// those of a depth of 1200 if they have 150 bases.
const TILE_BASES: u32 = 256;
const TILE_READS_MAX: usize = 2048;

/// A read with more bases clipped at each end says nothing.
const CLIPPED_BOTH_MAX: u32 = 10;

const UNMAPPED_SECONDARY_FAILED_DUPLICATE: u16 = 0x4 | 0x100 | 0x200 | 0x400;
const PAIRED: u16 = 0x1;
const MATE_UNMAPPED: u16 = 0x8;
const REVERSE: u16 = 0x10;
const MATE_REVERSE: u16 = 0x20;

/// What an alignment does with a run of bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Match,
    Insertion,
    Deletion,
    Clip,
}

/// One run of an alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) kind: Kind,
    pub(super) length: u32,
}

impl Run {
    fn reference_bases(self) -> u32 {
        if matches!(self.kind, Kind::Match | Kind::Deletion) { self.length } else { 0 }
    }

    fn read_bases(self) -> u32 {
        if self.kind == Kind::Deletion { 0 } else { self.length }
    }
}

/// A read, or what of it is not already counted with its mate.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) template: u64,
    /// First aligned reference base.
    pub(super) start: u32,
    /// One past the last aligned reference base.
    pub(super) end: u32,
    pub(super) reverse: bool,
    pub(super) mapping_quality: u8,
    pub(super) runs: Vec<Run>,
    pub(super) bases: Vec<u8>,
    /// 0 where a base says nothing.
    pub(super) qualities: Vec<u8>,
}

/// Position of a run in the read and on the reference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) kind: Kind,
    pub(super) length: u32,
    /// First base in the read.
    pub(super) read: u32,
    /// First base on the reference.
    pub(super) reference: u32,
}

impl Evidence {
    /// The runs with their places.
    pub(super) fn placed(&self) -> impl Iterator<Item = Placed> + '_ {
        let (mut read, mut reference) = (0, self.start);
        self.runs.iter().map(move |run| {
            let placed = Placed { kind: run.kind, length: run.length, read, reference };
            read += run.read_bases();
            reference += run.reference_bases();
            placed
        })
    }

    /// Clipped bases before the first aligned one.
    pub(super) fn leading_clip(&self) -> u32 {
        self.runs.first().filter(|run| run.kind == Kind::Clip).map_or(0, |run| run.length)
    }

    /// Clipped bases after the last aligned one.
    pub(super) fn trailing_clip(&self) -> u32 {
        let last = self.runs.last().filter(|run| run.kind == Kind::Clip && self.runs.len() > 1);
        last.map_or(0, |run| run.length)
    }

    fn aligned(read: &AlignedRead, reference: &[u8], worth: &Qualities) -> Option<Self> {
        let mut runs = Vec::with_capacity(read.cigar.len());
        for &operation in &read.cigar {
            let kind = match operation & 15 {
                0 | 7 | 8 => Kind::Match,
                1 => Kind::Insertion,
                2 => Kind::Deletion,
                4 => Kind::Clip,
                _ => return None,
            };
            runs.push(Run { kind, length: operation >> 4 });
        }
        let read_bases: u32 = runs.iter().map(|run| run.read_bases()).sum();
        let reference_bases: u32 = runs.iter().map(|run| run.reference_bases()).sum();
        let end = read.position.checked_add(reference_bases)?;
        let whole = read_bases as usize == read.bases.len()
            && read.bases.len() == read.qualities.len()
            && end as usize <= reference.len();
        if !whole || reference_bases == 0 || is_mostly_clipped(&runs, read_bases) {
            return None;
        }
        let cap = read.mapping_quality;
        let quality = |(&quality, &base): (&u8, &u8)| {
            if quality < BASE_QUALITY_MIN || base > 3 { 0 } else { worth.of(quality).min(cap) }
        };
        let mut evidence = Self {
            template: read.template,
            start: read.position,
            end,
            reverse: read.flags & REVERSE != 0,
            mapping_quality: read.mapping_quality,
            runs,
            qualities: read.qualities.iter().zip(&read.bases).map(quality).collect(),
            bases: read.bases.clone(),
        };
        evidence.shift_left(reference);
        Some(evidence)
    }

    /// Moves each insertion and deletion to the left end of the repeat it lies in.
    fn shift_left(&mut self, reference: &[u8]) {
        for at in 1..self.runs.len() {
            let gap = self.runs[at];
            if !matches!(gap.kind, Kind::Insertion | Kind::Deletion)
                || self.runs[at - 1].kind != Kind::Match
                || self.runs.get(at + 1).is_none_or(|next| next.kind != Kind::Match)
            {
                continue;
            }
            let Some(place) = self.placed().nth(at) else { continue };
            let (mut read, mut on) = (place.read as usize, place.reference as usize);
            let length = gap.length as usize;
            let mut steps = 0;
            // The base before the gap must equal the gap's last base, in read and reference.
            while steps + 1 < self.runs[at - 1].length {
                let last = if gap.kind == Kind::Deletion {
                    reference[on + length - 1]
                } else {
                    self.bases[read + length - 1]
                };
                if reference[on - 1] != last || self.bases[read - 1] != last {
                    break;
                }
                (read, on, steps) = (read - 1, on - 1, steps + 1);
            }
            self.runs[at - 1].length -= steps;
            self.runs[at + 1].length += steps;
        }
    }

    /// Removes read bases at the end, and whatever of the alignment has none left.
    fn drop_right(&mut self, mut bases: u32) {
        let kept = self.bases.len() - bases.min(self.bases.len() as u32) as usize;
        while bases > 0 || self.runs.last().is_some_and(|run| run.kind == Kind::Deletion) {
            let Some(run) = self.runs.last_mut() else { break };
            let cut = run.read_bases().min(bases);
            bases -= cut;
            let gone = if run.kind == Kind::Deletion { run.length } else { cut };
            self.end -= Run { length: gone, ..*run }.reference_bases();
            run.length -= gone;
            if run.length == 0 {
                self.runs.pop();
            }
        }
        self.bases.truncate(kept);
        self.qualities.truncate(kept);
    }

    /// Removes read bases at the start, and whatever of the alignment has none left.
    fn drop_left(&mut self, mut bases: u32) {
        let gone_bases = bases.min(self.bases.len() as u32) as usize;
        while bases > 0 || self.runs.first().is_some_and(|run| run.kind == Kind::Deletion) {
            let Some(run) = self.runs.first_mut() else { break };
            let cut = run.read_bases().min(bases);
            bases -= cut;
            let gone = if run.kind == Kind::Deletion { run.length } else { cut };
            self.start += Run { length: gone, ..*run }.reference_bases();
            run.length -= gone;
            if run.length == 0 {
                self.runs.remove(0);
            }
        }
        self.bases.drain(..gone_bases);
        self.qualities.drain(..gone_bases);
    }

    /// Read base that lies on reference base `position`, or the next one that lies on any.
    pub(super) fn read_base_at(&self, position: u32) -> u32 {
        for run in self.placed() {
            let end = run.reference + Run { kind: run.kind, length: run.length }.reference_bases();
            if run.kind == Kind::Match && position < end {
                return run.read + position.saturating_sub(run.reference);
            }
        }
        self.bases.len() as u32
    }
}

/// Whether so much is clipped that the read is likely of another place.
fn is_mostly_clipped(runs: &[Run], read_bases: u32) -> bool {
    let clip =
        |run: Option<&Run>| run.filter(|run| run.kind == Kind::Clip).map_or(0, |run| run.length);
    let (before, after) = (clip(runs.first()), clip(runs.last()));
    before.min(after) >= CLIPPED_BOTH_MAX || 4 * (read_bases - before - after) < read_bases
}

/// Where reads lie whose place is too doubtful to count: first and one past the last base, ordered
/// by the first.
pub(super) fn doubtful_places(reads: &[AlignedRead], contig: u32) -> Vec<(u32, u32)> {
    let doubtful = reads.iter().filter(|read| {
        read.flags & UNMAPPED_SECONDARY_FAILED_DUPLICATE == 0
            && read.contig == contig
            && read.mapping_quality < MAPPING_QUALITY_MIN
    });
    let place = |read: &AlignedRead| {
        let on_reference =
            read.cigar.iter().filter(|&operation| matches!(operation & 15, 0 | 2 | 3 | 7 | 8));
        let bases = on_reference.fold(0u32, |sum, operation| sum.saturating_add(operation >> 4));
        (read.position, read.position.saturating_add(bases))
    };
    let mut places: Vec<(u32, u32)> = doubtful.map(place).collect();
    places.sort_unstable();
    places
}

/// Makes evidence of all reads that may count, ordered by start.
///
/// Errors: none; reads that contradict themselves are left out.
///
/// Where more reads begin than [`TILE_READS_MAX`] a tile, a sample of the templates counts: those
/// whose mixed numbers are least. It depends on the reads that begin in the tile and on nothing
/// else, so that cuts of the genome and orders of the reads do not matter.
pub(super) fn prepare(
    reads: &[AlignedRead],
    contig: u32,
    reference: &[u8],
    worth: &Qualities,
) -> Vec<Evidence> {
    let mut all: Vec<Evidence> = Vec::new();
    let mut waiting: HashMap<u64, usize> = HashMap::new();
    for read in sampled(reads, contig) {
        let Some(mut evidence) = Evidence::aligned(read, reference, worth) else {
            continue;
        };
        drop_adapter(&mut evidence, read);
        if mates_may_overlap(read, &evidence) {
            if let Some(first) = waiting.remove(&read.template) {
                count_once(&mut all[first], &mut evidence);
            } else {
                waiting.insert(read.template, all.len());
            }
        }
        all.push(evidence);
    }
    all.retain(|evidence| evidence.start < evidence.end && !evidence.bases.is_empty());
    all.sort_by_key(|evidence| (evidence.start, evidence.template, evidence.reverse));
    all
}

/// The same reads by themselves, with the qualities that were reported.
pub(super) fn unjoined(reads: &[AlignedRead], contig: u32, reference: &[u8]) -> Vec<Evidence> {
    let reported = Qualities::default();
    let reads = sampled(reads, contig);
    reads.filter_map(|read| Evidence::aligned(read, reference, &reported)).collect()
}

/// The reads that may count, of each tile a sample.
fn sampled(reads: &[AlignedRead], contig: u32) -> impl Iterator<Item = &AlignedRead> {
    let counts = move |read: &&AlignedRead| {
        read.flags & UNMAPPED_SECONDARY_FAILED_DUPLICATE == 0
            && read.contig == contig
            && read.mapping_quality >= MAPPING_QUALITY_MIN
    };
    let tiles = reads.chunk_by(|a, b| a.position / TILE_BASES == b.position / TILE_BASES);
    tiles.flat_map(move |tile| {
        let limit = template_limit(tile, counts);
        tile.iter().filter(counts).filter(move |read| mixed(read.template) <= limit)
    })
}

/// The greatest mixed number of a template that counts in a tile.
fn template_limit(tile: &[AlignedRead], counts: impl Fn(&&AlignedRead) -> bool) -> u64 {
    if tile.len() <= TILE_READS_MAX {
        return u64::MAX;
    }
    let mut numbers: Vec<u64> =
        tile.iter().filter(counts).map(|read| mixed(read.template)).collect();
    if numbers.len() <= TILE_READS_MAX {
        return u64::MAX;
    }
    *numbers.select_nth_unstable(TILE_READS_MAX - 1).1
}

/// A number of a template that looks random, other ones for other templates (the finalizer of
/// MurmurHash3, a bijection).
pub(super) fn mixed(template: u64) -> u64 {
    let mut number = template ^ template >> 33;
    number = number.wrapping_mul(0xff51_afd7_ed55_8ccd);
    number ^= number >> 33;
    number = number.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ number >> 33
}

fn mates_may_overlap(read: &AlignedRead, evidence: &Evidence) -> bool {
    let length = evidence.bases.len() as u32 + (evidence.end - evidence.start);
    read.flags & PAIRED != 0
        && read.flags & MATE_UNMAPPED == 0
        && read.mate_contig == read.contig
        && read.mate_position.abs_diff(read.position) <= length
}

/// Drops clipped bases beyond the other end of the fragment: they are of the adapter.
fn drop_adapter(evidence: &mut Evidence, read: &AlignedRead) {
    let reverse = read.flags & REVERSE != 0;
    let facing = read.flags & PAIRED != 0
        && read.flags & MATE_UNMAPPED == 0
        && (read.flags & MATE_REVERSE != 0) != reverse
        && read.template_length != 0;
    if !facing {
        return;
    }
    if reverse {
        let first = read.mate_position;
        let clip = evidence.leading_clip();
        let beyond = (first + clip).saturating_sub(evidence.start).min(clip);
        if read.mate_position <= evidence.end && beyond > 0 {
            evidence.drop_left(beyond);
        }
    } else {
        let end = read.position.saturating_add(read.template_length.unsigned_abs());
        let clip = evidence.trailing_clip();
        let beyond = (evidence.end + clip).saturating_sub(end).min(clip);
        if read.template_length > 0 && beyond > 0 {
            evidence.drop_right(beyond);
        }
    }
}

/// Leaves the bases that both mates cover to the one that spans more, with the better of both
/// qualities where they agree and the rest of it where they do not.
fn count_once(first: &mut Evidence, second: &mut Evidence) {
    let (start, end) = (first.start.max(second.start), first.end.min(second.end));
    if start >= end {
        return;
    }
    let (keeper, other) = if second.end - second.start > first.end - first.start {
        (second, first)
    } else {
        (first, second)
    };
    merge_qualities(keeper, other);
    if other.end > keeper.end {
        other.drop_left(other.read_base_at(keeper.end));
    } else if other.start < keeper.start {
        let kept = other.read_base_at(keeper.start);
        other.drop_right(other.bases.len() as u32 - kept);
    } else {
        other.drop_right(other.bases.len() as u32);
    }
}

fn merge_qualities(keeper: &mut Evidence, other: &Evidence) {
    let runs: Vec<Placed> = keeper.placed().filter(|run| run.kind == Kind::Match).collect();
    for theirs in other.placed().filter(|run| run.kind == Kind::Match) {
        for ours in &runs {
            let start = ours.reference.max(theirs.reference);
            let end = (ours.reference + ours.length).min(theirs.reference + theirs.length);
            for position in start..end {
                let at = (ours.read + position - ours.reference) as usize;
                let by = (theirs.read + position - theirs.reference) as usize;
                let (a, b) = (keeper.qualities[at], other.qualities[by]);
                if keeper.bases[at] == other.bases[by] {
                    keeper.qualities[at] = a.max(b);
                } else {
                    if b > a {
                        keeper.bases[at] = other.bases[by];
                    }
                    let rest = a.abs_diff(b);
                    keeper.qualities[at] = if rest < BASE_QUALITY_MIN { 0 } else { rest };
                }
            }
        }
    }
}
