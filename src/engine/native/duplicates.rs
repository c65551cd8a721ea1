//! Duplicate marking: templates whose outer ends lie at the same places come from one molecule.
//!
//! The ends are the first sequenced bases, clips undone, with their strands and the library; of
//! equal templates the one with the highest base qualities stays, of equally good ones the first.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::aligned::AlignedRead;
use super::extend::{SOFT_CLIP, span};
use super::index_build::in_parallel;
use super::place::{REVERSE, UNMAPPED};
use super::spill::{self, Extent, Spill};
use crate::engine::Room;

/// What makes a template a duplicate of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// Hash of the ends, their strands and the library.
    ends: u64,
    /// Lowest for the best template: inverted quality << 40 | template.
    rank: u64,
}

/// Base qualities below this do not count (as in Picard's MarkDuplicates).
const QUALITY_COUNTED_MIN: u8 = 15;

const TEMPLATE_BITS: u32 = 40;
const QUALITY_SUM_MAX: u64 = (1 << (64 - TEMPLATE_BITS)) - 1;

/// The signature of a template; `None` when none of its reads has a place.
///
/// Shape: one read, or two mates. A template with one placed read is compared with its likes only.
pub fn signature(reads: &[&AlignedRead], starts: &[u32], library: u16) -> Option<Signature> {
    let placed = || reads.iter().filter(|read| read.flags & UNMAPPED == 0);
    let end = |read: &&&AlignedRead| {
        let first = starts.get(read.contig as usize).copied().unwrap_or(0);
        let (position, reverse) = outer_end(read);
        u64::from(first).wrapping_add_signed(position) << 1 | u64::from(reverse)
    };
    let mut ends: Vec<u64> = placed().map(|read| end(&read)).collect();
    ends.sort_unstable();
    let first = *ends.first()?;
    let second = ends.get(1).copied().unwrap_or(u64::MAX);
    let counted = |read: &&&AlignedRead| -> u64 {
        let good = |quality: &&u8| **quality >= QUALITY_COUNTED_MIN;
        read.qualities.iter().filter(good).map(|&quality| u64::from(quality)).sum()
    };
    let sum: u64 = placed().map(|read| counted(&read)).sum();
    let template = reads[0].template & ((1 << TEMPLATE_BITS) - 1);
    Some(Signature {
        ends: mix(mix(first ^ u64::from(library) << 48) ^ second),
        rank: (QUALITY_SUM_MAX - sum.min(QUALITY_SUM_MAX)) << TEMPLATE_BITS | template,
    })
}

/// Position of the first sequenced base with clips undone, and whether the strand is reverse.
fn outer_end(read: &AlignedRead) -> (i64, bool) {
    let clip = |op: Option<&u32>| match op {
        Some(op) if op & 15 == SOFT_CLIP => i64::from(op >> 4),
        _ => 0,
    };
    let start = i64::from(read.position);
    if read.flags & REVERSE == 0 {
        (start - clip(read.cigar.first()), false)
    } else {
        (start + i64::from(span(&read.cigar)) + clip(read.cigar.last()), true)
    }
}

/// A hash in which every bit of the input reaches every bit of the output (SplitMix64's).
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

/// Signatures of all templates, by the first bits of their hash; beyond the memory's limit they go
/// sealed through a scratch file.
pub struct Collector {
    parts: Vec<Vec<Signature>>,
    extents: Vec<Vec<Extent>>,
    /// Signatures in memory.
    held: usize,
    templates: u64,
    room: Room,
    spill: Option<Spill>,
}

const PARTS: usize = 256;

/// Bytes of a signature in the scratch file.
const SIGNATURE_BYTES: usize = 16;

impl Collector {
    /// None yet; at most `room.memory` bytes of signatures are held.
    pub fn new(room: Room) -> Self {
        let (parts, extents) = (vec![Vec::new(); PARTS], vec![Vec::new(); PARTS]);
        Self { parts, extents, held: 0, templates: 0, room, spill: None }
    }

    /// Adds a template's signature. Errors: the scratch file's.
    pub fn add(&mut self, signature: Signature) -> Result<(), spill::Error> {
        self.templates = self.templates.max((signature.rank & ((1 << TEMPLATE_BITS) - 1)) + 1);
        self.parts[(signature.ends >> 56) as usize].push(signature);
        self.held += 1;
        // Lists grow by doubling: up to half of their memory is empty.
        let full = 2 * self.held * SIGNATURE_BYTES > self.room.memory.0 as usize;
        if full { self.set_aside() } else { Ok(()) }
    }

    fn set_aside(&mut self) -> Result<(), spill::Error> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::new(&self.room.scratch)?),
        };
        for (part, extents) in self.parts.iter_mut().zip(&mut self.extents) {
            if !part.is_empty() {
                let bytes = |own: &Signature| [own.ends.to_le_bytes(), own.rank.to_le_bytes()];
                extents.push(spill.add(&[part.iter().flat_map(bytes).flatten().collect()])?);
                part.clear();
            }
        }
        self.held = 0;
        spill.flush()
    }

    /// Bytes in the scratch file.
    pub fn spilled(&self) -> u64 {
        self.spill.as_ref().map_or(0, Spill::bytes)
    }

    /// Finds the duplicates. Errors: the scratch file's.
    pub fn mark(self, threads: usize) -> Result<Duplicates, spill::Error> {
        let bits: Vec<AtomicU64> =
            (0..self.templates.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let (spill, failed) = (self.spill.as_ref(), Mutex::new(None));
        let parts = self.parts.into_iter().zip(self.extents).collect();
        in_parallel(threads, parts, |(mut part, extents)| {
            if let Err(error) = read_back(spill, &extents, &mut part) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return;
            }
            part.sort_unstable();
            for same in part.chunk_by(|a, b| a.ends == b.ends) {
                for copy in &same[1..] {
                    let template = copy.rank & ((1 << TEMPLATE_BITS) - 1);
                    bits[(template / 64) as usize].fetch_or(1 << (template % 64), Relaxed);
                }
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(Duplicates { bits: bits.into_iter().map(AtomicU64::into_inner).collect() }),
        }
    }
}

/// Adds the signatures of some extents to `part`.
fn read_back(
    spill: Option<&Spill>,
    extents: &[Extent],
    part: &mut Vec<Signature>,
) -> Result<(), spill::Error> {
    let Some(spill) = spill else { return Ok(()) };
    for extent in extents {
        let bytes = spill.read(extent)?;
        part.extend(bytes.as_chunks::<SIGNATURE_BYTES>().0.iter().map(|bytes| {
            let both = u128::from_le_bytes(*bytes);
            Signature { ends: both as u64, rank: (both >> 64) as u64 }
        }));
    }
    Ok(())
}

/// The templates that are duplicates.
pub struct Duplicates {
    bits: Vec<u64>,
}

impl Duplicates {
    /// Whether a template is a duplicate.
    #[inline]
    pub fn contains(&self, template: u64) -> bool {
        let word = self.bits.get((template / 64) as usize).copied().unwrap_or(0);
        word >> (template % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ByteCount;

    fn read(template: u64, position: u32, reverse: bool, quality: u8, clip: u32) -> AlignedRead {
        let mut cigar = vec![(50 - clip) << 4];
        if clip > 0 {
            cigar.insert(if reverse { 1 } else { 0 }, clip << 4 | SOFT_CLIP);
        }
        AlignedRead {
            template,
            flags: if reverse { REVERSE } else { 0 },
            contig: 0,
            position: if reverse { position } else { position + clip },
            mapping_quality: 60,
            cigar,
            bases: vec![0; 50],
            qualities: vec![quality; 50],
            mate_contig: 0,
            mate_position: 0,
            template_length: 0,
            read_group: 0,
        }
    }

    fn duplicates(pairs: &[[AlignedRead; 2]], libraries: &[u16]) -> Vec<u64> {
        let folder = tempfile::tempdir().unwrap();
        let mut found = [0, 100, 1 << 20].map(|bytes| {
            let room = Room { memory: ByteCount(bytes), scratch: folder.path().into() };
            let mut collector = Collector::new(room);
            for (pair, &library) in pairs.iter().zip(libraries) {
                collector.add(signature(&[&pair[0], &pair[1]], &[5000], library).unwrap()).unwrap();
            }
            assert_eq!(collector.spilled() > 0, 32 * pairs.len() as u64 > bytes);
            let found = collector.mark(3).unwrap();
            (0..pairs.len() as u64).filter(|&template| found.contains(template)).collect()
        });
        assert!(found.windows(2).all(|two: &[Vec<u64>]| two[0] == two[1]));
        std::mem::take(&mut found[0])
    }

    fn pair(template: u64, start: u32, end: u32, quality: u8, clip: u32) -> [AlignedRead; 2] {
        [read(template, start, false, quality, clip), read(template, end, true, quality, 0)]
    }

    #[test]
    fn the_best_of_equal_templates_stays() {
        let pairs = [pair(0, 100, 300, 30, 0), pair(1, 100, 300, 35, 0), pair(2, 100, 301, 20, 0)];
        assert_eq!(duplicates(&pairs, &[0, 0, 0]), [0]);
        let equal = [pair(0, 100, 300, 30, 0), pair(1, 100, 300, 30, 0), pair(2, 100, 300, 30, 0)];
        assert_eq!(duplicates(&equal, &[0, 0, 0]), [1, 2]);
    }

    #[test]
    fn clips_are_undone_and_libraries_kept_apart() {
        let pairs = [pair(0, 100, 300, 30, 0), pair(1, 100, 300, 20, 7), pair(2, 100, 300, 10, 0)];
        assert_eq!(duplicates(&pairs, &[0, 0, 1]), [1]);
    }

    #[test]
    fn the_order_of_mates_does_not_matter_but_the_strands_do() {
        let mut swapped = pair(1, 100, 300, 20, 0);
        swapped.swap(0, 1);
        let mut same_strand = pair(2, 100, 300, 10, 0);
        same_strand[1].flags = 0;
        assert_eq!(duplicates(&[pair(0, 100, 300, 30, 0), swapped, same_strand], &[0; 3]), [1]);
    }
}
