//! Seed look-up for many seeds at once: the waits for memory overlap.

use crate::kernel::lookup::Seeds;

/// Seeds whose buckets are asked for before the first is searched.
const AHEAD: usize = 16;

/// The entries of each seed, as [`kernel::lookup::scalar`](crate::kernel::lookup::scalar).
pub fn lookup(seeds: Seeds<'_>, hashes: &[u64]) -> Vec<(u32, u32)> {
    let rest_bits = seeds.hash_bits - seeds.bucket_bits;
    let mut found = Vec::with_capacity(hashes.len());
    for group in hashes.chunks(AHEAD) {
        let mut bounds = [(0, 0); AHEAD];
        for (bounds, hash) in bounds.iter_mut().zip(group) {
            let bucket = (hash >> rest_bits) as usize;
            *bounds = (seeds.buckets[bucket], seeds.buckets[bucket + 1]);
        }
        let mut first = [0; AHEAD];
        for (first, bounds) in first.iter_mut().zip(bounds) {
            *first = seeds.entries.get(bounds.0 as usize).copied().unwrap_or(0);
        }
        // The loads above have all begun before the searches need them.
        std::hint::black_box(&first);
        let search = |(hash, bounds): (&u64, (u32, u32))| {
            search(seeds.entries, bounds, hash & ((1 << rest_bits) - 1))
        };
        found.extend(group.iter().zip(bounds).map(search));
    }
    found
}

/// The entries of one seed within its bucket. Most buckets are short: a search from the front is one
/// cache line.
#[inline(always)]
fn search(entries: &[u64], (begin, end): (u32, u32), rest: u64) -> (u32, u32) {
    let entries = &entries[begin as usize..end as usize];
    let bound = |entries: &[u64], below: &dyn Fn(u64) -> bool| match entries.len() {
        0..16 => entries.iter().take_while(|entry| below(**entry)).count(),
        _ => entries.partition_point(|entry| below(*entry)),
    };
    let first = bound(entries, &|entry| entry >> 33 < rest);
    let count = bound(&entries[first..], &|entry| entry >> 33 == rest);
    (begin + first as u32, count as u32)
}
