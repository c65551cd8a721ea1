//! The index of a reference: where each seed lies, in one table made for few cache misses.
//!
//! A seed's hash is split: its upper bits name a bucket, the rest is kept in the entry, so a
//! look-up is exact and costs two memory accesses. An entry is eight bytes: 31 bits of hash, one
//! bit of strand, 32 bits of position; the entries of a bucket are in order, so the table does not
//! depend on how many threads built it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::packed::PackedGenome;
use super::seed::{HASH_BITS, Seed, seeds};
use crate::base::{Fault, Faulty};
use crate::device::cpu::pages;
use crate::genome::Reference;

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
    pub(super) buckets: Vec<u32>,
    /// Hash remainder << 33 | reverse strand << 32 | global position of the seed.
    pub(super) entries: Vec<u64>,
}

/// Fewest bits of a bucket number: what is left of a hash must fit 31 bits.
pub(super) const BUCKET_BITS_MIN: u32 = HASH_BITS - 31;
/// Most bits of a bucket number: 2 GiB of bucket starts.
pub(super) const BUCKET_BITS_MAX: u32 = 29;

/// Bases whose seeds one worker takes at a time while building.
const BUILD_CHUNK_BASES: usize = 1 << 18;

impl Index {
    /// Builds the index of a reference on `threads` threads.
    ///
    /// Needs about 13 bytes for each five bases of the reference, at the end as well as on the way.
    /// Errors: [`Error::TooLarge`].
    pub fn build(reference: &Reference, threads: usize) -> Result<Self, Error> {
        let bases = reference.contigs.iter().map(|contig| contig.bases.len() as u64).sum();
        let genome = PackedGenome::new(reference).ok_or(Error::TooLarge { bases })?;
        let bucket_bits = bucket_bits_for(bases);
        // One more in front: a counter that moved to its bucket's end is the next one's start.
        let mut counts = pages::vector((1 << bucket_bits) + 2, || AtomicU32::new(0));
        each_seed(reference, &genome, threads, |seed, _| {
            counts[bucket_of(seed.hash, bucket_bits) + 1].fetch_add(1, Relaxed);
        });
        let mut total = 0u32;
        for count in &mut counts[1..] {
            total += std::mem::replace(count.get_mut(), total);
        }
        let entries = pages::vector(total as usize, || AtomicU64::new(0));
        each_seed(reference, &genome, threads, |seed, position| {
            let place = counts[bucket_of(seed.hash, bucket_bits) + 1].fetch_add(1, Relaxed);
            let entry = entry(&seed, position, bucket_bits);
            entries[place as usize].store(entry, Relaxed);
        });
        let mut buckets: Vec<u32> = counts.into_iter().map(AtomicU32::into_inner).collect();
        buckets.pop();
        let mut entries: Vec<u64> = entries.into_iter().map(AtomicU64::into_inner).collect();
        sort_buckets(&buckets, &mut entries, threads);
        let digest = *reference.digest().as_bytes();
        Ok(Self { genome, digest, bucket_bits, buckets, entries })
    }

    /// The BLAKE3 digest of the reference that this is the index of.
    pub fn reference_digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The packed reference.
    pub(super) fn genome(&self) -> &PackedGenome {
        &self.genome
    }

    /// The entries among which those of a seed with this hash are.
    #[inline(always)]
    pub(super) fn bucket(&self, hash: u64) -> (u32, u32) {
        let bucket = bucket_of(hash, self.bucket_bits);
        (self.buckets[bucket], self.buckets[bucket + 1])
    }

    /// The first entry of a bucket: touched early, so that it is there when needed.
    #[inline(always)]
    pub(super) fn touch(&self, first: u32) -> u64 {
        self.entries.get(first as usize).copied().unwrap_or(0)
    }

    /// The entries of one seed within its bucket.
    #[inline(always)]
    pub(super) fn occurrences(&self, hash: u64, bucket: (u32, u32)) -> &[u64] {
        let entries = &self.entries[bucket.0 as usize..bucket.1 as usize];
        let rest = remainder(hash, self.bucket_bits);
        if entries.len() > 16 {
            let first = entries.partition_point(|entry| entry >> 33 < rest);
            let count = entries[first..].partition_point(|entry| entry >> 33 == rest);
            return &entries[first..first + count];
        }
        let first = entries.iter().position(|entry| entry >> 33 == rest).unwrap_or(entries.len());
        let count = entries[first..].iter().take_while(|&&entry| entry >> 33 == rest).count();
        &entries[first..first + count]
    }
}

/// Position and strand of an entry.
#[inline(always)]
pub(super) fn place_of(entry: u64) -> (u32, bool) {
    (entry as u32, entry >> 32 & 1 == 1)
}

fn bucket_bits_for(bases: u64) -> u32 {
    (bases / 5).max(1).next_power_of_two().ilog2().clamp(BUCKET_BITS_MIN, BUCKET_BITS_MAX)
}

#[inline(always)]
fn bucket_of(hash: u64, bucket_bits: u32) -> usize {
    (hash >> (HASH_BITS - bucket_bits)) as usize
}

#[inline(always)]
fn remainder(hash: u64, bucket_bits: u32) -> u64 {
    hash & ((1 << (HASH_BITS - bucket_bits)) - 1)
}

fn entry(seed: &Seed, position: u32, bucket_bits: u32) -> u64 {
    remainder(seed.hash, bucket_bits) << 33 | u64::from(seed.reverse) << 32 | u64::from(position)
}

/// Calls `take` with each seed of the reference and its global position, in no order.
fn each_seed(
    reference: &Reference,
    genome: &PackedGenome,
    threads: usize,
    take: impl Fn(Seed, u32) + Sync,
) {
    let mut chunks = Vec::new();
    for (contig, &start) in reference.contigs.iter().zip(genome.starts()) {
        for first in (0..contig.bases.len()).step_by(BUILD_CHUNK_BASES) {
            // A seed belongs to the chunk that it begins in, so chunks overlap by its length less 1.
            let end = first + BUILD_CHUNK_BASES + super::seed::SEED_BASES - 1;
            let end = end.min(contig.bases.len());
            chunks.push((&contig.bases[first..end], start + first as u32));
        }
    }
    in_parallel(threads, chunks, |(bases, start)| {
        seeds(bases, |seed| take(seed, start + seed.offset));
    });
}

fn sort_buckets(buckets: &[u32], entries: &mut [u64], threads: usize) {
    let mut parts = Vec::new();
    let mut rest = entries;
    for buckets in buckets.windows(1 << 14 | 1).step_by(1 << 14).chain(last_part(buckets)) {
        let count = buckets[buckets.len() - 1] - buckets[0];
        let (part, behind) = rest.split_at_mut(count as usize);
        parts.push((buckets, part));
        rest = behind;
    }
    in_parallel(threads, parts, |(buckets, part)| {
        for pair in buckets.windows(2) {
            let range = (pair[0] - buckets[0]) as usize..(pair[1] - buckets[0]) as usize;
            if range.len() > 1 {
                part[range].sort_unstable();
            }
        }
    });
}

/// The buckets that are left behind the whole runs of 2^14: they are fewer than a run.
fn last_part(buckets: &[u32]) -> Option<&[u32]> {
    let whole = (buckets.len() - 1) >> 14 << 14;
    (whole + 1 < buckets.len()).then(|| &buckets[whole..])
}

/// Runs `work` over all items on `threads` threads, each item once, in no order.
pub(super) fn in_parallel<T: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    if threads <= 1 {
        return items.into_iter().for_each(work);
    }
    let items = std::sync::Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::simulate::{random_bases, reference_of};
    use super::*;

    #[test]
    fn every_seed_of_the_reference_is_found_where_it_lies() {
        let reference =
            reference_of(&[random_bases(1, 40_000), vec![4; 100], random_bases(2, 777)]);
        let index = Index::build(&reference, 2).unwrap();
        for (contig, &start) in reference.contigs.iter().zip(index.genome().starts()) {
            seeds(&contig.bases, |seed| {
                let found = index.occurrences(seed.hash, index.bucket(seed.hash));
                let place = (start + seed.offset, seed.reverse);
                assert!(found.iter().any(|&entry| place_of(entry) == place));
            });
        }
    }

    #[test]
    fn the_table_does_not_depend_on_the_threads() {
        let reference = reference_of(&[random_bases(1, 700_000), random_bases(1, 10_000)]);
        let one = Index::build(&reference, 1).unwrap();
        let seven = Index::build(&reference, 7).unwrap();
        assert_eq!((&one.buckets, &one.entries), (&seven.buckets, &seven.entries));
        assert!(one.entries.len() > 100_000);
    }

    #[test]
    fn references_without_seeds_have_an_index() {
        for contigs in [vec![], vec![vec![]], vec![vec![0; 5]]] {
            let index = Index::build(&reference_of(&contigs), 2).unwrap();
            assert!(index.entries.is_empty());
        }
    }
}
