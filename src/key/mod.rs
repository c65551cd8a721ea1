//! Key and random blocks in one format, and the promise that no byte of them is used twice.

use serde::{Deserialize, Serialize};

use crate::base::{Chunk, SiteId};

/// Bytes of one unit of key position.
pub const UNIT_BYTES: u64 = 16;

/// One direction of one link: the keys that `sender` spends towards `receiver`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// The only site that encrypts with this stream.
    pub sender: SiteId,
    /// The site that decrypts with it.
    pub receiver: SiteId,
}

/// Where key bytes lie in a stream: `[position, position + units)` in units of 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// First unit.
    pub position: u64,
    /// Number of units.
    pub units: u64,
}

impl KeyRange {
    /// One past the last unit.
    pub fn end(&self) -> u64 {
        self.position + self.units
    }
}

/// Key bytes handed out for one use. Neither `Clone` nor `Copy`: sealing consumes it by value, and
/// its memory is wiped on drop.
pub struct KeyLease {
    range: KeyRange,
    bytes: Chunk,
}

impl KeyLease {
    /// Takes charge of the bytes at `range`; marks them secret.
    pub(crate) fn new(range: KeyRange, mut bytes: Chunk) -> Self {
        bytes.mark_secret();
        Self { range, bytes }
    }

    /// Where the bytes lie in their stream.
    pub fn range(&self) -> KeyRange {
        self.range
    }

    /// The bytes, `16 * range().units` of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives up the lease for its bytes: for key that becomes a share (S = pad of an all-zero text).
    pub fn into_chunk(self) -> Chunk {
        self.bytes
    }
}
