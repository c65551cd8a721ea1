//! Building the index: seeds are gathered by the first bits of their hash, and each such part is
//! put in order by itself, within the processor's cache.

use std::sync::Mutex;

use super::index::{Error, Index, bucket_bits_for, bucket_of, entry};
use super::packed::PackedGenome;
use super::seed::{HASH_BITS, SEED_BASES, seeds};
use crate::device::cpu::pages;
use crate::genome::Reference;

/// Bases whose seeds one worker takes at a time.
const CHUNK_BASES: usize = 1 << 18;

/// Bits of the hash that name a part.
const PART_BITS: u32 = 8;

/// Bases whose seeds are gathered at once, 16 bytes for each five bases: larger references are
/// gone through several times, each time for some of the parts.
const ROUND_BASES: u64 = 1 << 28;

/// A seed's hash, with the strand in bit 63, and its global position.
type Gathered = (u64, u32);

const REVERSE: u64 = 1 << 63;

impl Index {
    /// Builds the index of a reference on `threads` threads.
    ///
    /// Needs about 2.5 bytes a base at the end, and up to 0.9 GB besides on the way.
    /// Errors: [`Error::TooLarge`].
    pub fn build(reference: &Reference, threads: usize) -> Result<Self, Error> {
        let bases = reference.bases();
        let genome = PackedGenome::new(reference).ok_or(Error::TooLarge { bases })?;
        let bucket_bits = bucket_bits_for(bases);
        let mut buckets = pages::with_capacity((1 << bucket_bits) + 1);
        // One base in five begins a seed, a little less where bases are unknown.
        let mut entries = pages::with_capacity((bases / 5 + bases / 50) as usize);
        buckets.push(0);
        let parts = 1u64 << PART_BITS;
        let rounds = bases.div_ceil(ROUND_BASES).clamp(1, parts);
        for round in 0..rounds {
            let wanted = round * parts / rounds..(round + 1) * parts / rounds;
            let gathered = gather(reference, &genome, wanted, threads);
            arrange(gathered, bucket_bits, &mut buckets, &mut entries, threads);
        }
        let digest = *reference.digest().as_bytes();
        Ok(Self { genome, digest, bucket_bits, buckets, entries })
    }
}

fn part_of(hash: u64) -> u64 {
    hash >> (HASH_BITS - PART_BITS)
}

/// The seeds of the wanted parts, each part as a few lists in no order.
fn gather(
    reference: &Reference,
    genome: &PackedGenome,
    wanted: std::ops::Range<u64>,
    threads: usize,
) -> Vec<Vec<Vec<Gathered>>> {
    let count = (wanted.end - wanted.start) as usize;
    let chunks = Mutex::new(chunks(reference, genome).into_iter());
    let lists = Mutex::new(vec![Vec::new(); count]);
    let work = || {
        let mut own: Vec<Vec<Gathered>> = vec![Vec::new(); count];
        let next = || lock(&chunks).next();
        while let Some((bases, start)) = next() {
            seeds(bases, |seed| {
                let part = part_of(seed.hash);
                if wanted.contains(&part) {
                    let strand = if seed.reverse { REVERSE } else { 0 };
                    let gathered = (seed.hash | strand, start + seed.offset);
                    own[(part - wanted.start) as usize].push(gathered);
                }
            });
        }
        for (lists, own) in lock(&lists).iter_mut().zip(own) {
            lists.push(own);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    lists.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn chunks<'a>(reference: &'a Reference, genome: &PackedGenome) -> Vec<(&'a [u8], u32)> {
    let mut chunks = Vec::new();
    for (contig, &start) in reference.contigs.iter().zip(genome.starts()) {
        for first in (0..contig.bases.len()).step_by(CHUNK_BASES) {
            // A seed belongs to the chunk that it begins in, so chunks overlap by its length less 1.
            let end = (first + CHUNK_BASES + SEED_BASES - 1).min(contig.bases.len());
            chunks.push((&contig.bases[first..end], start + first as u32));
        }
    }
    chunks
}

/// Appends the buckets and entries of some parts, in order.
fn arrange(
    parts: Vec<Vec<Vec<Gathered>>>,
    bucket_bits: u32,
    buckets: &mut Vec<u32>,
    entries: &mut Vec<u64>,
    threads: usize,
) {
    let buckets_in_part = 1usize << (bucket_bits - PART_BITS);
    let (first_bucket, first_entry) = (buckets.len(), entries.len());
    let count_of = |lists: &[Vec<Gathered>]| lists.iter().map(Vec::len).sum::<usize>();
    let counts: Vec<usize> = parts.iter().map(|lists| count_of(lists)).collect();
    buckets.resize(first_bucket + parts.len() * buckets_in_part, 0);
    entries.resize(first_entry + counts.iter().sum::<usize>(), 0);
    let (mut buckets, mut entries) = (&mut buckets[first_bucket..], &mut entries[first_entry..]);
    let mut start = first_entry as u32;
    let mut jobs = Vec::with_capacity(parts.len());
    for (lists, count) in parts.into_iter().zip(counts) {
        let (own_buckets, other_buckets) = buckets.split_at_mut(buckets_in_part);
        let (own_entries, other_entries) = entries.split_at_mut(count);
        jobs.push((lists, start, own_buckets, own_entries));
        (buckets, entries) = (other_buckets, other_entries);
        start += count as u32;
    }
    in_parallel(threads, jobs, |(lists, start, ends, entries)| {
        arrange_part(&lists, bucket_bits, start, ends, entries);
    });
}

/// Sorts one part into its buckets. `ends` becomes where each bucket ends, which is where the next
/// begins; `start` is where the first begins.
fn arrange_part(
    lists: &[Vec<Gathered>],
    bucket_bits: u32,
    start: u32,
    ends: &mut [u32],
    entries: &mut [u64],
) {
    let mask = ends.len() - 1;
    let bucket = |hash: u64| bucket_of(hash & !REVERSE, bucket_bits) & mask;
    for &(hash, _) in lists.iter().flatten() {
        ends[bucket(hash)] += 1;
    }
    let mut total = 0;
    for end in ends.iter_mut() {
        total += std::mem::replace(end, total);
    }
    // Each counter moves from its bucket's start to its end.
    for &(hash, position) in lists.iter().flatten() {
        let place = &mut ends[bucket(hash)];
        entries[*place as usize] =
            entry(hash & !REVERSE, hash & REVERSE != 0, position, bucket_bits);
        *place += 1;
    }
    let mut first = 0;
    for end in ends.iter_mut() {
        let last = *end as usize;
        if last - first > 1 {
            entries[first..last].sort_unstable();
        }
        first = last;
        *end += start;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs `work` over all items on `threads` threads, each item once, in no order.
pub(super) fn in_parallel<T: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) + Sync) {
    if threads <= 1 {
        return items.into_iter().for_each(work);
    }
    let items = Mutex::new(items.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let next = || lock(&items).next();
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::index::place_of;
    use super::super::simulate::{random_bases, reference_of};
    use super::*;

    #[test]
    fn every_seed_of_the_reference_is_found_where_it_lies() {
        let reference =
            reference_of(&[random_bases(1, 40_000), vec![4; 100], random_bases(2, 777)]);
        let index = Index::build(&reference, 2).unwrap();
        let mut count = 0;
        for (contig, &start) in reference.contigs.iter().zip(index.genome().starts()) {
            seeds(&contig.bases, |seed| {
                let found = index.occurrences(seed.hash, index.bucket(seed.hash));
                let place = (start + seed.offset, seed.reverse);
                assert!(found.iter().any(|&entry| place_of(entry) == place));
                count += 1;
            });
        }
        assert_eq!(index.entries.len(), count);
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
    fn gathering_in_rounds_gives_the_same_table() {
        let reference = reference_of(&[random_bases(1, 300_000)]);
        let whole = Index::build(&reference, 1).unwrap();
        let (mut buckets, mut entries) = (vec![0], Vec::new());
        for wanted in [0..100, 100..101, 101..256] {
            let gathered = gather(&reference, &whole.genome, wanted, 2);
            arrange(gathered, whole.bucket_bits, &mut buckets, &mut entries, 2);
        }
        assert_eq!((&buckets, &entries), (&whole.buckets, &whole.entries));
    }

    #[test]
    fn references_without_seeds_have_an_index() {
        for contigs in [vec![], vec![vec![]], vec![vec![0; 5]]] {
            let index = Index::build(&reference_of(&contigs), 2).unwrap();
            assert!(index.entries.is_empty());
        }
    }
}
