//! What a volume looks like on its disk: superblock and catalogue, to and from bytes.

use serde::{Deserialize, Serialize};

use crate::base::{Chunk, ShareId};
use crate::io::{self, Disk};
use crate::store::ShareInfo;
use crate::store::stripes::{DIGEST_BYTES, STRIPE_BYTES_MAX};

use super::space::{Extent, FreeSpace};

/// Bytes of a block, the unit in which space is addressed.
pub(super) const BLOCK_BYTES: u64 = 4096;

const SUPERBLOCK_MAGIC: &[u8; 8] = b"DSGDVOLM";
const CATALOGUE_MAGIC: &[u8; 8] = b"DSGDVCAT";
const VERSION: u32 = 1;

/// Bytes of the superblock that its checksum is over.
const SUPERBLOCK_BYTES: usize = 32;

/// Bytes before a catalogue's text: magic, sequence number, length, checksum.
const HEADER_BYTES: usize = 8 + 8 + 8 + 32;

const SLOT_BYTES_MIN: u64 = 64 << 10;
const SLOT_BYTES_MAX: u64 = 16 << 20;

/// The sizes in the superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) total_bytes: u64,
    /// Bytes of each of the two places of the catalogue.
    pub(super) slot_bytes: u64,
}

impl Layout {
    /// The layout of a new volume; None if that is too small for one.
    pub(super) fn of(total_bytes: u64) -> Option<Self> {
        let total_bytes = total_bytes / BLOCK_BYTES * BLOCK_BYTES;
        let slot_bytes = (total_bytes / 256).clamp(SLOT_BYTES_MIN, SLOT_BYTES_MAX);
        let layout = Self { total_bytes, slot_bytes: slot_bytes.next_multiple_of(BLOCK_BYTES) };
        layout.is_possible().then_some(layout)
    }

    fn is_possible(self) -> bool {
        let whole = |bytes: u64| bytes.is_multiple_of(BLOCK_BYTES) && bytes > 0;
        whole(self.total_bytes)
            && whole(self.slot_bytes)
            && self.slot_bytes <= SLOT_BYTES_MAX
            && self.total_bytes >= 2 * self.slot_bytes + 2 * BLOCK_BYTES
    }

    /// The blocks that hold stripes and digests.
    pub(super) fn data(self) -> Extent {
        let start = 1 + 2 * (self.slot_bytes / BLOCK_BYTES);
        Extent { start, blocks: self.total_bytes / BLOCK_BYTES - start }
    }

    /// Where the catalogue with this sequence number lies, in bytes.
    pub(super) fn slot(self, sequence: u64) -> u64 {
        BLOCK_BYTES + sequence % 2 * self.slot_bytes
    }

    pub(super) fn to_block(self) -> Chunk {
        let mut bytes = [0u8; BLOCK_BYTES as usize];
        bytes[..8].copy_from_slice(SUPERBLOCK_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.total_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.slot_bytes.to_le_bytes());
        let checksum = blake3::hash(&bytes[..SUPERBLOCK_BYTES]);
        bytes[SUPERBLOCK_BYTES..][..32].copy_from_slice(checksum.as_bytes());
        Chunk::from_bytes(0, &bytes)
    }

    /// Reads a superblock; the error is the reason why it is none.
    pub(super) fn from_block(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < BLOCK_BYTES as usize || bytes[..8] != *SUPERBLOCK_MAGIC {
            return Err("it is not a dsgd volume (wrong magic)".into());
        }
        let version = number(bytes, 8) as u32;
        if version != VERSION {
            return Err(format!("version {version} is not known, only {VERSION}"));
        }
        let checksum = &bytes[SUPERBLOCK_BYTES..][..32];
        if blake3::hash(&bytes[..SUPERBLOCK_BYTES]) != *checksum {
            return Err("the superblock's checksum is wrong".into());
        }
        let layout = Self { total_bytes: number(bytes, 16), slot_bytes: number(bytes, 24) };
        let fits = number(bytes, 12) as u32 == BLOCK_BYTES as u32 && layout.is_possible();
        if fits { Ok(layout) } else { Err("the superblock's sizes are impossible".into()) }
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

/// What is in a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Catalogue {
    /// Counts the commits.
    #[serde(skip)]
    pub(super) sequence: u64,
    /// Ordered by the shares' identifiers.
    pub(super) shares: Vec<Entry>,
}

/// Where a share lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) share: ShareInfo,
    /// The stripes, each in whole blocks of one extent.
    pub(super) stripes: Vec<Extent>,
    /// The digests of the stripes.
    pub(super) digests: Vec<Extent>,
}

impl Entry {
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.stripes.iter().chain(&self.digests).copied()
    }

    /// Whether the extents are those that the share needs.
    fn is_consistent(&self) -> bool {
        let sum = |extents: &[Extent]| {
            extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.blocks))
        };
        let (stripes, bytes) = (self.share.stripes, self.share.stripe_bytes);
        let unit = blocks_of(u64::from(bytes));
        let digest_bytes = stripes.checked_mul(DIGEST_BYTES as u64);
        (1..=STRIPE_BYTES_MAX).contains(&bytes)
            && self.stripes.iter().all(|extent| extent.blocks.is_multiple_of(unit))
            && sum(&self.stripes).is_some_and(|sum| Some(sum) == stripes.checked_mul(unit))
            && sum(&self.digests).is_some_and(|sum| Some(sum) == digest_bytes.map(blocks_of))
    }
}

/// Blocks that hold so many bytes.
pub(super) fn blocks_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES)
}

impl Catalogue {
    pub(super) fn find(&self, id: &ShareId) -> Option<&Entry> {
        let place = self.shares.binary_search_by(|entry| entry.share.id.cmp(id)).ok()?;
        self.shares.get(place)
    }

    /// The catalogue that follows this one, with `entry` in it.
    pub(super) fn with(&self, entry: Entry) -> Self {
        let place = self.shares.partition_point(|other| other.share.id < entry.share.id);
        let mut next = Self { sequence: self.sequence + 1, shares: self.shares.clone() };
        next.shares.insert(place, entry);
        next
    }

    /// The catalogue that follows this one, without share `id`.
    pub(super) fn without(&self, id: &ShareId) -> Self {
        let shares = self.shares.iter().filter(|entry| entry.share.id != *id).cloned().collect();
        Self { sequence: self.sequence + 1, shares }
    }

    /// The space that no share has; None if shares overlap or contradict themselves.
    pub(super) fn free(&self, layout: Layout) -> Option<FreeSpace> {
        let ordered = self.shares.is_sorted_by(|a, b| a.share.id < b.share.id);
        if !ordered || !self.shares.iter().all(Entry::is_consistent) {
            return None;
        }
        FreeSpace::around(layout.data(), self.shares.iter().flat_map(Entry::extents))
    }

    /// The bytes of its slot.
    pub(super) fn to_chunk(&self) -> Result<Chunk, std::io::Error> {
        let text = serde_json::to_vec(self).map_err(std::io::Error::other)?;
        let mut chunk = Chunk::with_capacity(HEADER_BYTES + text.len());
        chunk.set_len((HEADER_BYTES + text.len()).next_multiple_of(BLOCK_BYTES as usize));
        chunk.fill(0);
        chunk[..8].copy_from_slice(CATALOGUE_MAGIC);
        chunk[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        chunk[16..24].copy_from_slice(&(text.len() as u64).to_le_bytes());
        chunk[24..56].copy_from_slice(checksum(self.sequence, &text).as_bytes());
        chunk[HEADER_BYTES..][..text.len()].copy_from_slice(&text);
        Ok(chunk)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < HEADER_BYTES {
            return Err("it is cut short".into());
        }
        let (sequence, len) = (number(bytes, 8), number(bytes, 16) as usize);
        let text = bytes.get(HEADER_BYTES..HEADER_BYTES + len).ok_or("it is cut short")?;
        if checksum(sequence, text) != bytes[24..56] {
            return Err("its checksum is wrong".into());
        }
        let mut catalogue: Self =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        catalogue.sequence = sequence;
        Ok(catalogue)
    }
}

fn checksum(sequence: u64, text: &[u8]) -> blake3::Hash {
    blake3::Hasher::new().update(&sequence.to_le_bytes()).update(text).finalize()
}

/// What reading a slot came to.
pub(super) type Slot = Result<Catalogue, String>;

/// Reads the catalogue in one of the two slots; the inner error is the reason why there is none.
pub(super) fn read_slot(
    disk: &mut dyn Disk,
    layout: Layout,
    slot: u64,
) -> Result<Slot, std::io::Error> {
    let offset = layout.slot(slot);
    let first = io::read_at(disk, offset, BLOCK_BYTES as usize)?;
    if first.len() < BLOCK_BYTES as usize || first[..8] != *CATALOGUE_MAGIC {
        return Ok(Err("wrong magic".into()));
    }
    let len = number(&first, 16);
    if len > layout.slot_bytes - HEADER_BYTES as u64 {
        return Ok(Err("its length is impossible".into()));
    }
    let whole = (HEADER_BYTES + len as usize).next_multiple_of(BLOCK_BYTES as usize);
    let bytes = if whole > first.len() { io::read_at(disk, offset, whole)? } else { first };
    let misplaced = |catalogue: &Catalogue| catalogue.sequence % 2 != slot;
    Ok(match Catalogue::from_bytes(&bytes) {
        Ok(catalogue) if misplaced(&catalogue) => Err("it belongs in the other place".into()),
        outcome => outcome,
    })
}

/// Reads the newest catalogue; the inner error says what is wrong with both places.
pub(super) fn read_catalogue(disk: &mut dyn Disk, layout: Layout) -> Result<Slot, std::io::Error> {
    let slots = [read_slot(disk, layout, 0)?, read_slot(disk, layout, 1)?];
    Ok(match slots {
        [Ok(even), Ok(odd)] if even.sequence > odd.sequence => Ok(even),
        [_, Ok(odd)] => Ok(odd),
        [Ok(even), _] => Ok(even),
        [Err(even), Err(odd)] => {
            Err(format!("both copies of the catalogue are damaged: {even}; {odd}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_is_read_back_and_refused_with_its_reason() {
        let layout = Layout::of(100 << 20).unwrap();
        let block = layout.to_block();
        assert_eq!(Layout::from_block(&block).unwrap(), layout);
        let reason = |at: usize, bit: u8| {
            let mut bytes = block.to_vec();
            bytes[at] ^= bit;
            Layout::from_block(&bytes).unwrap_err()
        };
        assert!(reason(0, 1).contains("magic"));
        assert!(reason(8, 2).contains("version 3"));
        assert!(reason(17, 1).contains("checksum"));
        assert!(reason(40, 1).contains("checksum"));
        assert!(Layout::from_block(&[]).is_err());
        assert!(Layout::of(100_000).is_none());
    }

    #[test]
    fn slots_and_data_lie_one_after_the_other() {
        for total in [1u64 << 20, 12345678, 80 << 30] {
            let layout = Layout::of(total).unwrap();
            assert_eq!(layout.slot(2), BLOCK_BYTES);
            assert_eq!(layout.slot(7), BLOCK_BYTES + layout.slot_bytes);
            assert_eq!(layout.data().start * BLOCK_BYTES, layout.slot(1) + layout.slot_bytes);
            assert!(layout.data().end() * BLOCK_BYTES <= total);
        }
    }
}
