//! Key that is useless without what was only ever in memory: Fig. 5 of the paper.
//!
//! Of the delivered key `K0 = K1 . K2` every sub-block of 1 MiB has 48 bytes of `K2`, an AES-256 key and
//! a first counter block. `K1` lies on the disk, `K2` in the memory of the [`keeper`] and in no file. The
//! key that is used is `K4 = K1 ^ AES-256-CTR(K2)`, worked out in registers while it is applied, and the
//! same at both ends, because both have all of `K0`. Used key is destroyed in this order: `K2`, at once;
//! then `K1`, overwritten on a medium that may keep a copy all the same.
//!
//! | against | the key is | because |
//! |---|---|---|
//! | somebody on the link | information-theoretically secure | K1 is uniform, independent of K2 and used once, so K4 is |
//! | a disk that is stolen, or was not really erased | computationally secure | without K2 it is AES-256 in counter mode on K1 |
//! | somebody in the running machine | not secure | K2 is there |
//!
//! `K2` outlives every process but the keeper, and no power cut: what was not used then is lost at this
//! end. A sender has no such key any more and goes on behind it; a receiver refuses it as
//! [`Error::Lost`], and its operator gives it up at both ends (`dsgd keys retire`). A sub-block of which a
//! part is used is protected against the disk's memory from when all of it is used.
//!
//! Source: Fujiwara et al. 2022, Sci. Rep. 12:18530, "Key management", Fig. 5; Wei et al. 2011,
//! "Reliably erasing data from flash-based solid state drives", FAST'11.

pub mod keeper;
mod vault;

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::chunks::LeaseChunks;
use super::{Error, KeyLease, KeyRange, StreamId, UNIT_BYTES};
use crate::base::Chunk;
use crate::kernel::otp::Expansion;

pub use vault::Vault;

/// Bytes of a sub-block.
pub const SUB_BLOCK_BYTES: u64 = 1 << 20;
/// Bytes of `K2` for each.
pub const SEED_BYTES: usize = 48;

const SUB_BLOCK_UNITS: u64 = SUB_BLOCK_BYTES / UNIT_BYTES;
/// Most sub-blocks asked for at once: more than the longest lease has.
const SEEDS_MAX: usize = 1024;

/// How stored key becomes the key that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// This module's.
    Fig5,
}

/// The `K2` of one sub-block.
pub struct Seed(Zeroizing<Box<[u8]>>);

impl Seed {
    /// Copies the bytes once; moving the seed does not copy them again.
    ///
    /// # Panics
    /// When there are not [`SEED_BYTES`] of them.
    pub fn of(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), SEED_BYTES, "the caller cut the seeds out");
        Self(Zeroizing::new(bytes.into()))
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key stream from `unit` of the sub-block on, for the pad from byte `start` on.
    fn expansion(&self, start: usize, unit: u64) -> Expansion {
        let (key, counter) = self.bytes().split_at(32);
        let key = key.try_into().expect("the first 32 bytes of 48");
        let counter = u128::from_be_bytes(counter.try_into().expect("the last 16 bytes of 48"));
        Expansion::new(start, key, counter.wrapping_add(u128::from(unit)))
    }

    fn is(&self, other: &[u8]) -> bool {
        self.bytes().ct_eq(other).into()
    }
}

/// Names a body of key at both ends: a pad or block, and which part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyId(pub [u8; 17]);

impl BodyId {
    /// Part `part` of the pad or block `id`.
    pub fn new(id: u128, part: u8) -> Self {
        let mut name = [part; 17];
        name[..16].copy_from_slice(&id.to_be_bytes());
        Self(name)
    }
}

/// Consecutive key of one stream, cut into sub-blocks from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its name.
    pub id: BodyId,
    /// Where it lies in its stream.
    pub range: KeyRange,
}

/// Sub-blocks of so many units.
pub fn sub_blocks(units: u64) -> u64 {
    units.div_ceil(SUB_BLOCK_UNITS)
}

/// Bytes of `K2` that so many units need besides.
pub fn seed_bytes(units: u64) -> u64 {
    sub_blocks(units) * SEED_BYTES as u64
}

/// Where the seeds are: in memory, and nowhere else.
pub trait Seeds: Send {
    /// Takes the seeds of the sub-blocks from `first` on of a body of `units` units. What is there
    /// already may be put again.
    ///
    /// Errors: when another seed is or was there, or there is no more room.
    fn put(&self, body: BodyId, units: u64, first: u64, seeds: &[Seed]) -> Result<(), Error>;

    /// The seeds of `count` sub-blocks from `first` on; `None` where there is none any more.
    fn fetch(&self, body: BodyId, first: u64, count: usize) -> Result<Vec<Option<Seed>>, Error>;

    /// Destroys the seeds of sub-blocks of which all units are now spent.
    fn spend(&self, body: BodyId, units: KeyRange) -> Result<(), Error>;

    /// The sub-blocks that have a seed, as ranges of them.
    fn present(&self, body: BodyId) -> Result<Vec<KeyRange>, Error>;
}

/// The seeds of this site, which the keeper in its state folder holds.
///
/// Errors: [`Error::Keeper`] when none runs there.
pub fn connect(state: &Path) -> Result<Box<dyn Seeds>, Error> {
    Ok(Box::new(keeper::Client::connect(&keeper::socket(state))?))
}

impl Body {
    /// The units of `range` as this body counts them.
    fn within(&self, range: KeyRange) -> KeyRange {
        assert!(self.range.contains(&range), "the caller chose the body by the range");
        KeyRange { position: range.position - self.range.position, units: range.units }
    }

    /// Gives the seeds to `seeds`, in as many pieces as it takes; `bytes` are [`seed_bytes`] long.
    pub fn deposit(&self, seeds: &dyn Seeds, bytes: &[u8]) -> Result<(), Error> {
        for (piece, bytes) in bytes.chunks(SEEDS_MAX * SEED_BYTES).enumerate() {
            let list: Vec<Seed> = bytes.chunks_exact(SEED_BYTES).map(Seed::of).collect();
            seeds.put(self.id, self.range.units, (piece * SEEDS_MAX) as u64, &list)?;
        }
        Ok(())
    }

    /// The keys at `range`, of which `stored` is what the disk has.
    ///
    /// Errors: [`Error::Lost`] where a seed is gone.
    pub fn lease(
        &self,
        seeds: &dyn Seeds,
        stream: &StreamId,
        range: KeyRange,
        stored: Chunk,
        chunks: &Arc<LeaseChunks>,
    ) -> Result<KeyLease, Error> {
        let expansions = self.expansions(seeds, stream, range, 0)?;
        Ok(KeyLease::expanded(range, Some(stored), expansions, chunks))
    }

    /// What makes the stored keys at `range` those that are used, for a lease in which they begin at
    /// byte `begin`: one lease may have keys of several bodies.
    ///
    /// Errors: [`Error::Lost`] where a seed is gone.
    pub fn expansions(
        &self,
        seeds: &dyn Seeds,
        stream: &StreamId,
        range: KeyRange,
        begin: usize,
    ) -> Result<Vec<Expansion>, Error> {
        let here = self.within(range);
        let first = here.position / SUB_BLOCK_UNITS;
        let count = sub_blocks(here.end()) - first;
        let fetched = seeds.fetch(self.id, first, count as usize)?;
        let lost = || Error::Lost { stream: stream.clone(), range };
        let expansions = (first..).zip(fetched).map(|(block, seed)| {
            let start = here.position.max(block * SUB_BLOCK_UNITS);
            let at = (start - here.position) * UNIT_BYTES;
            let unit = start - block * SUB_BLOCK_UNITS;
            Ok(seed.ok_or_else(lost)?.expansion(begin + at as usize, unit))
        });
        expansions.collect()
    }

    /// Destroys the `K2` of what is spent with `range`: before its `K1` is overwritten.
    pub fn spend(&self, seeds: &dyn Seeds, range: KeyRange) -> Result<(), Error> {
        seeds.spend(self.id, self.within(range))
    }

    /// The parts of the body whose seeds are there.
    pub fn ready(&self, seeds: &dyn Seeds) -> Result<Vec<KeyRange>, Error> {
        let ranges = seeds.present(self.id)?.into_iter().map(|blocks| {
            let start = self.range.position + blocks.position * SUB_BLOCK_UNITS;
            let end = self.range.position + blocks.end() * SUB_BLOCK_UNITS;
            KeyRange::between(start, end.min(self.range.end()))
        });
        Ok(ranges.collect())
    }
}

#[cfg(test)]
mod tests;
