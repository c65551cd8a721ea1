//! The index of a reference: where each seed lies, in one table made for few cache misses.
//!
//! A seed's hash is split: its upper bits name a bucket, the rest is kept in the entry, so a
//! look-up is exact and costs two memory accesses. An entry is eight bytes: 31 bits of hash, one
//! bit of strand, 32 bits of position; the entries of a bucket are in order, so the table does not
//! depend on how many threads built it.

use std::ops::Range;
use std::sync::Arc;

use super::packed::PackedGenome;
use super::seed::HASH_BITS;
use crate::base::{Fault, Faulty};
use crate::device::cpu::pages::Mapped;
use crate::kernel::lookup::Seeds;
use crate::kernel::ungapped::GenomeWord;

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Positions have 32 bits.
    #[error("the reference has {bases} bases, more than 32-bit positions can name")]
    TooLarge {
        /// Bases in all contigs.
        bases: u64,
    },
    /// The file could not be read or written.
    #[error("{action} the index")]
    File {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file does not begin like an index.
    #[error("this is not an index, or one of another version (expected {expected:?})")]
    NotAnIndex {
        /// The first bytes of an index of this version.
        expected: &'static str,
    },
    /// The file was made for another reference.
    #[error("the index belongs to another reference: it names {found}, this one is {expected}")]
    OtherReference {
        /// BLAKE3 digest in the file.
        found: String,
        /// BLAKE3 digest of the reference at hand.
        expected: String,
    },
    /// The file ends early, or its digest is wrong.
    #[error("the index is damaged: {what}")]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::TooLarge { .. } | Error::NotAnIndex { .. } => Fault::Data,
            Error::OtherReference { .. } => Fault::Config,
            Error::Damaged { .. } => Fault::Integrity,
            Error::File { source, .. } => Fault::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::TooLarge { .. } => None,
            _ => Some("build the index again from the reference".into()),
        }
    }
}

/// The seeds of a reference and its packed bases.
#[derive(Debug)]
pub struct Index {
    pub(super) genome: PackedGenome,
    /// BLAKE3 of the reference: names, lengths and bases.
    pub(super) digest: [u8; 32],
    pub(super) bucket_bits: u32,
    /// Where each bucket's entries begin; one more at the end.
    pub(super) buckets: Numbers<u32>,
    /// Hash remainder << 33 | reverse strand << 32 | global position of the seed.
    pub(super) entries: Numbers<u64>,
}

/// The numbers of a table.
#[derive(Debug)]
pub(super) enum Numbers<T> {
    /// In memory of their own.
    Own(Vec<T>),
    /// Where they stand in a mapped file.
    Mapped(Arc<Mapped>, Range<usize>),
}

impl<T: bytemuck::AnyBitPattern + bytemuck::NoUninit> Numbers<T> {
    /// The numbers.
    pub(super) fn all(&self) -> &[T] {
        match self {
            Self::Own(numbers) => numbers,
            // Ranges were checked when the file was opened.
            Self::Mapped(file, range) => bytemuck::cast_slice(&file.bytes()[range.clone()]),
        }
    }
}

/// Fewest bits of a bucket number: what is left of a hash must fit 31 bits.
pub(super) const BUCKET_BITS_MIN: u32 = HASH_BITS - 31;
/// Most bits of a bucket number: 2 GiB of bucket starts.
pub(super) const BUCKET_BITS_MAX: u32 = 29;

/// Places that are kept of a seed: one more than are ever looked at, so that a seed that lies at
/// too many is known by their number.
pub(super) const OCCURRENCES_KEPT: usize = 601;

impl Index {
    /// The BLAKE3 digest of the reference that this is the index of.
    pub fn reference_digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The packed reference.
    pub(super) fn genome(&self) -> &PackedGenome {
        &self.genome
    }

    /// The tables, as the kernel that looks seeds up takes them.
    pub(super) fn seeds(&self) -> Seeds<'_> {
        let (buckets, entries) = (self.buckets.all(), self.entries.all());
        Seeds { buckets, entries, hash_bits: HASH_BITS, bucket_bits: self.bucket_bits }
    }
}

// For the tables of devices, which keep the index as theirs in this machine's memory.

impl AsRef<[GenomeWord]> for Index {
    fn as_ref(&self) -> &[GenomeWord] {
        self.genome.words()
    }
}

impl AsRef<[u32]> for Index {
    fn as_ref(&self) -> &[u32] {
        self.buckets.all()
    }
}

impl AsRef<[u64]> for Index {
    fn as_ref(&self) -> &[u64] {
        self.entries.all()
    }
}

/// Position and strand of an entry.
#[inline(always)]
pub(super) fn place_of(entry: u64) -> (u32, bool) {
    (entry as u32, entry >> 32 & 1 == 1)
}

/// Bits of a bucket number that give about one entry a bucket.
pub(super) fn bucket_bits_for(bases: u64) -> u32 {
    (bases / 5).max(1).next_power_of_two().ilog2().clamp(BUCKET_BITS_MIN, BUCKET_BITS_MAX)
}

/// The bucket of a hash.
#[inline(always)]
pub(super) fn bucket_of(hash: u64, bucket_bits: u32) -> usize {
    (hash >> (HASH_BITS - bucket_bits)) as usize
}

#[inline(always)]
fn remainder(hash: u64, bucket_bits: u32) -> u64 {
    hash & ((1 << (HASH_BITS - bucket_bits)) - 1)
}

/// An entry of the table.
#[inline(always)]
pub(super) fn entry(hash: u64, reverse: bool, position: u32, bucket_bits: u32) -> u64 {
    remainder(hash, bucket_bits) << 33 | u64::from(reverse) << 32 | u64::from(position)
}
