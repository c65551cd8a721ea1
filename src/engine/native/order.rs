//! Ordering without a global sort: reads are dropped into bins by position as they are placed, and
//! each bin is put in order when its region is called.

use std::ops::Range;

use zeroize::{Zeroize, Zeroizing};

use super::aligned::AlignedRead;
use super::duplicates::Duplicates;
use super::place::{DUPLICATE, LAST, UNMAPPED};
use super::record::Packed;
use super::spill::{self, Extent, Spill};
use crate::base::ByteCount;
use crate::engine::Room;
use crate::genome::Reference;

/// Width of a bin, which is also that of the regions that are called at once.
pub const BIN_BASES: u32 = 1 << 15;

/// The bin of reads that lie nowhere.
pub const UNPLACED: usize = 0;

const BLOCK_BYTES_MIN: usize = 1 << 10;
const BLOCK_BYTES_MAX: usize = 1 << 18;

/// Blocks of a bin that are sealed as one extent.
const EXTENT_BLOCKS: usize = 64;

/// Where bins begin: 0 holds what is unplaced, then each contig has its own.
#[derive(Clone, Debug)]
pub struct BinMap {
    firsts: Vec<usize>,
    count: usize,
}

impl BinMap {
    /// The bins of a reference.
    pub fn new(reference: &Reference) -> Self {
        let mut count = UNPLACED + 1;
        let mut firsts = Vec::with_capacity(reference.contigs.len());
        for contig in &reference.contigs {
            firsts.push(count);
            count += contig.bases.len() / BIN_BASES as usize + 1;
        }
        Self { firsts, count }
    }

    /// The bin of a position.
    pub fn bin(&self, contig: u32, position: u32) -> usize {
        let first = self.firsts.get(contig as usize);
        first.map_or(UNPLACED, |first| first + (position / BIN_BASES) as usize)
    }

    /// Number of bins.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Packed reads by bin. Wiped when dropped.
pub struct Bins {
    map: BinMap,
    blocks: Vec<Vec<Vec<u8>>>,
    /// What of each bin is in the scratch file.
    extents: Vec<Vec<Extent>>,
    /// Bytes of all blocks in memory.
    held: u64,
    room: Room,
    spill: Option<Spill>,
}

/// A bin's packed reads, those of the scratch file first.
struct Loaded<'a> {
    spilled: Vec<Zeroizing<Vec<u8>>>,
    blocks: &'a [Vec<u8>],
}

impl Loaded<'_> {
    fn packed(&self) -> impl Iterator<Item = Packed<'_>> {
        let blocks = self.spilled.iter().map(|bytes| &bytes[..]);
        blocks.chain(self.blocks.iter().map(|block| &block[..])).flat_map(|block| {
            let mut rest = block;
            std::iter::from_fn(move || {
                let (packed, behind) = Packed::split(rest)?;
                rest = behind;
                Some(packed)
            })
        })
    }
}

impl Bins {
    /// Empty bins that keep to `room`.
    pub fn new(map: BinMap, room: Room) -> Self {
        let count = map.count();
        let (blocks, extents) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        Self { map, blocks, extents, held: 0, room, spill: None }
    }

    /// Where bins begin.
    pub fn map(&self) -> &BinMap {
        &self.map
    }

    /// Adds one packed read to a bin; writes all bins to the scratch file when memory has run out.
    ///
    /// Errors: the scratch file's.
    pub fn add(&mut self, bin: usize, packed: &[u8]) -> Result<(), spill::Error> {
        let blocks = &mut self.blocks[bin];
        match blocks.last_mut() {
            Some(block) if block.capacity() - block.len() >= packed.len() => {
                block.extend_from_slice(packed);
                return Ok(());
            }
            last => {
                // Blocks never grow, so no copy is left behind in freed memory; each is twice the
                // one before, so that small bins stay small.
                let size = last.map_or(BLOCK_BYTES_MIN, |block| block.capacity() * 2);
                let size = size.clamp(packed.len(), BLOCK_BYTES_MAX.max(packed.len()));
                let mut block = Vec::with_capacity(size);
                block.extend_from_slice(packed);
                self.held += block.capacity() as u64;
                blocks.push(block);
            }
        }
        if self.held > self.room.memory.0 { self.set_aside() } else { Ok(()) }
    }

    /// Writes all bins to the scratch file.
    fn set_aside(&mut self) -> Result<(), spill::Error> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::new(&self.room.scratch)?),
        };
        for (blocks, extents) in self.blocks.iter_mut().zip(&mut self.extents) {
            // A bin of reads without a place may be larger than all others.
            for part in blocks.chunks(EXTENT_BLOCKS) {
                extents.push(spill.add(part)?);
            }
            blocks.drain(..).for_each(|mut block| block.zeroize());
        }
        self.held = 0;
        spill.flush()
    }

    /// Bytes in the scratch file.
    pub fn spilled(&self) -> ByteCount {
        ByteCount(self.spill.as_ref().map_or(0, Spill::bytes))
    }

    /// Reads that overlap `[start, end)` of a contig, in order of position, template and mate.
    ///
    /// Reads span less than a bin, so those that overlap begin in the bins of the range or the one
    /// before. Errors: the scratch file's.
    pub fn overlapping(
        &self,
        contig: u32,
        start: u32,
        end: u32,
        duplicates: &Duplicates,
    ) -> Result<Vec<AlignedRead>, spill::Error> {
        let mut reads = Vec::new();
        let first = self.map.bin(contig, start.saturating_sub(BIN_BASES));
        let last = self.map.bin(contig, end.saturating_sub(1)).min(self.last_bin(contig));
        for bin in first..=last {
            for packed in self.load(bin)?.packed() {
                let position = packed.position();
                let overlaps = position < end && position + packed.span() > start;
                if overlaps && packed.flags() & UNMAPPED == 0 {
                    reads.push(marked(&packed, duplicates));
                }
            }
        }
        reads.sort_unstable_by_key(order_of);
        Ok(reads)
    }

    /// Whether any read begins in the bins that [`overlapping`](Self::overlapping) looks at.
    pub fn any_near(&self, contig: u32, start: u32, end: u32) -> bool {
        let first = self.map.bin(contig, start.saturating_sub(BIN_BASES));
        let last = self.map.bin(contig, end.saturating_sub(1)).min(self.last_bin(contig));
        (first..=last).any(|bin| !self.is_empty(bin))
    }

    /// All reads of a bin in order, with their names.
    ///
    /// Errors: the scratch file's.
    pub fn ordered(
        &self,
        bin: usize,
        duplicates: &Duplicates,
    ) -> Result<Vec<(AlignedRead, Vec<u8>)>, spill::Error> {
        let loaded = self.load(bin)?;
        let named = |packed: Packed<'_>| (marked(&packed, duplicates), packed.name().to_vec());
        let mut reads: Vec<_> = loaded.packed().map(named).collect();
        reads.sort_unstable_by_key(|(read, _)| order_of(read));
        Ok(reads)
    }

    /// Passes the reads without a place to `take`, in order of template and mate.
    ///
    /// They were added in that order, so they need not be held all at once. Errors: the scratch
    /// file's, and whatever `take` ends with.
    pub fn each_unplaced<E: From<spill::Error>>(
        &self,
        mut take: impl FnMut(AlignedRead, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pass = |loaded: &Loaded<'_>| {
            loaded.packed().try_for_each(|packed| take(packed.unpack(), packed.name()))
        };
        if let Some(spill) = &self.spill {
            for extent in &self.extents[UNPLACED] {
                pass(&Loaded { spilled: vec![spill.read(extent)?], blocks: &[] })?;
            }
        }
        pass(&Loaded { spilled: Vec::new(), blocks: &self.blocks[UNPLACED] })
    }

    /// Runs of neighbouring bins of one contig, each with `bytes` of reads or a little more where
    /// there are so many; bins without reads are left out.
    pub fn runs(&self, bytes: u64) -> Vec<Range<usize>> {
        let ends = self.map.firsts.iter().skip(1).copied().chain([self.map.count]);
        let mut runs: Vec<Range<usize>> = Vec::new();
        for (first, end) in self.map.firsts.iter().copied().zip(ends) {
            let mut room = 0;
            for bin in (first..end).filter(|&bin| !self.is_empty(bin)) {
                match runs.last_mut().filter(|_| room > 0) {
                    Some(run) => run.end = bin + 1,
                    None => {
                        runs.push(bin..bin + 1);
                        room = bytes;
                    }
                }
                room = room.saturating_sub(self.bytes(bin));
            }
        }
        runs
    }

    /// Bytes of a bin's packed reads.
    fn bytes(&self, bin: usize) -> u64 {
        let held = self.blocks[bin].iter().map(|block| block.len() as u64);
        held.sum::<u64>() + self.extents[bin].iter().map(Extent::bytes).sum::<u64>()
    }

    /// Whether a bin has no reads.
    pub fn is_empty(&self, bin: usize) -> bool {
        self.blocks[bin].is_empty() && self.extents[bin].is_empty()
    }

    fn last_bin(&self, contig: u32) -> usize {
        let next = self.map.firsts.get(contig as usize + 1).copied();
        next.unwrap_or(self.map.count).saturating_sub(1)
    }

    fn load(&self, bin: usize) -> Result<Loaded<'_>, spill::Error> {
        let mut spilled = Vec::with_capacity(self.extents[bin].len());
        if let Some(spill) = &self.spill {
            for extent in &self.extents[bin] {
                spilled.push(spill.read(extent)?);
            }
        }
        Ok(Loaded { spilled, blocks: &self.blocks[bin] })
    }
}

fn marked(packed: &Packed<'_>, duplicates: &Duplicates) -> AlignedRead {
    let mut read = packed.unpack();
    if read.flags & UNMAPPED == 0 && duplicates.contains(read.template) {
        read.flags |= DUPLICATE;
    }
    read
}

fn order_of(read: &AlignedRead) -> (u32, u64, bool) {
    (read.position, read.template, read.flags & LAST != 0)
}

impl Drop for Bins {
    fn drop(&mut self) {
        for block in self.blocks.iter_mut().flatten() {
            block[..].zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::duplicates::Collector;
    use super::super::record::pack;
    use super::super::simulate::{Random, reference_of};
    use super::*;

    fn read(template: u64, contig: u32, position: u32) -> AlignedRead {
        AlignedRead {
            template,
            flags: 0,
            contig,
            position,
            mapping_quality: 60,
            cigar: vec![100 << 4],
            bases: vec![1; 100],
            qualities: vec![30; 100],
            mate_contig: u32::MAX,
            mate_position: u32::MAX,
            template_length: 0,
            read_group: 0,
        }
    }

    #[test]
    fn a_region_gets_the_reads_that_overlap_it_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for memory in [u64::MAX, 20_000, 0] {
            let room = Room { memory: ByteCount(memory), scratch: folder.path().into() };
            check_regions(room);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn runs_hold_every_bin_with_reads_once_and_no_two_contigs() {
        let reference = reference_of(&[vec![0; 200_000], vec![0; 40_000], vec![0; 10]]);
        let map = BinMap::new(&reference);
        let mut bins = Bins::new(map.clone(), Room::default());
        for (contig, position) in [(0, 5), (0, 40_000), (0, 41_000), (0, 190_000), (1, 7), (2, 0)] {
            let mut bytes = Vec::new();
            pack(&read(1, contig, position), b"", &mut bytes);
            bins.add(map.bin(contig, position), &bytes).unwrap();
        }
        let whole = bins.runs(1 << 20);
        assert_eq!(whole, [1..7, 8..9, 10..11]);
        let one = bins.bytes(1);
        assert_eq!(bins.runs(1), [1..2, 2..3, 6..7, 8..9, 10..11]);
        assert_eq!(bins.runs(2 * one), [1..3, 6..7, 8..9, 10..11]);
    }

    fn check_regions(room: Room) {
        let spills = room.memory.0 < u64::MAX;
        let reference = reference_of(&[vec![0; 100_000], vec![0; 40_000]]);
        let map = BinMap::new(&reference);
        let mut bins = Bins::new(map.clone(), room);
        let mut random = Random::new(2);
        let mut all = Vec::new();
        for template in 0..3000 {
            let contig = random.below(2) as u32;
            let length = reference.contigs[contig as usize].bases.len();
            all.push(read(template, contig, random.below(length - 100) as u32));
        }
        for read in &all {
            let mut bytes = Vec::new();
            pack(read, b"name", &mut bytes);
            bins.add(map.bin(read.contig, read.position), &bytes).unwrap();
        }
        assert_eq!(bins.spilled().0 > 0, spills);
        all.sort_by_key(|read| (read.position, read.template));
        let duplicates = Collector::new(Room::default()).mark(1).unwrap();
        for (contig, start, end) in [
            (0, 0, 1000),
            (0, 32_760, 65_600),
            (0, 99_000, 101_000),
            (1, 0, 40_000),
            (1, 32_800, 32_801),
        ] {
            let found = bins.overlapping(contig, start, end, &duplicates).unwrap();
            let overlaps = |read: &&AlignedRead| {
                read.contig == contig && read.position < end && read.position + 100 > start
            };
            let expected: Vec<AlignedRead> = all.iter().filter(overlaps).cloned().collect();
            assert_eq!(found, expected, "{contig} {start} {end}");
        }
    }
}
