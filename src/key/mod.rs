//! Key and random blocks in one format, and the promise that no byte of them is used twice.
//!
//! A link joins two sites and has two streams, one for each direction. Only the `sender` of a
//! stream encrypts with it. A [`Sender`] reserves positions durably ([`mark`]) before it hands out
//! the first of them; a [`Follower`] reads the same positions at the other end and claims each
//! reservation durably before anything that was opened with it is used. What was reserved or
//! claimed stands in a [`ledger`] at either end, which [`ledger::check`] compares. The bytes come
//! from a [`KeySource`]; each kind is a file of its own with one line in [`SOURCES`].

pub mod admission;
pub mod allowance;
pub mod chunks;
pub mod device;
pub mod error;
pub mod expansion;
pub mod follower;
pub mod generator;
mod greet;
pub mod greeting;
pub mod journal;
pub mod lease;
pub mod ledger;
pub mod mark;
pub mod pad;
pub mod pool;
pub mod preshared;
pub mod provenance;
pub mod random;
pub mod sender;
pub mod sim;
pub mod source;
pub mod store;

#[cfg(test)]
mod conformance;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::SiteId;

pub use admission::{Floors, Priority};
pub use error::Error;
pub use follower::Follower;
pub use greet::{CONTROL_FLOOR_BYTES, Greeting};
pub use lease::KeyLease;
pub use pool::Pool;
pub use provenance::{AtRest, Class, Kind, Provenance, Source};
pub use random::{RandomSettings, RandomSource};
pub use sender::Sender;
pub use sim::SimulatedLink;
pub use source::{KeySource, LinkSettings, SOURCES};
pub use store::{KeyStore, LinkLevel, StreamLevel};

/// Bytes of one unit of key position.
pub const UNIT_BYTES: u64 = 16;

/// Most bytes of one lease: bounds the memory that a damaged frame header can ask for.
pub const LEASE_BYTES_MAX: u64 = 256 << 20;

/// One direction of one link: the keys that `sender` spends towards `receiver`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// The only site that encrypts with this stream.
    pub sender: SiteId,
    /// The site that decrypts with it.
    pub receiver: SiteId,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}", self.sender, self.receiver)
    }
}

/// Where key bytes lie in a stream: `[position, position + units)` in units of 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// First unit.
    pub position: u64,
    /// Number of units.
    pub units: u64,
}

impl KeyRange {
    /// The units from `start` up to and without `end`; none when `end` is not after `start`.
    pub fn between(start: u64, end: u64) -> Self {
        Self { position: start, units: end.saturating_sub(start) }
    }

    /// One past the last unit.
    pub fn end(&self) -> u64 {
        self.position + self.units
    }

    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.units * UNIT_BYTES
    }

    /// Whether all of `other` lies inside.
    pub fn contains(&self, other: &KeyRange) -> bool {
        self.position <= other.position && other.end() <= self.end()
    }

    /// Whether the two share a unit.
    pub fn overlaps(&self, other: &KeyRange) -> bool {
        self.position.max(other.position) < self.end().min(other.end())
    }

    /// Whether a range from outside names at least one unit and none beyond the last position.
    pub(crate) fn is_sound(&self) -> bool {
        self.units > 0
            && self.units.checked_mul(UNIT_BYTES).is_some()
            && self.position.checked_add(self.units).is_some()
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.position, self.units)
    }
}
