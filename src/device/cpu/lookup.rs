//! Seed look-up for many seeds at once: the waits for memory overlap.
//!
//! A look-up waits for two lines of memory, one after the other: its bucket, then its entries. So each seed
//! is begun long before it is needed: twice `AHEAD` seeds ahead its bucket is asked for, once that far ahead
//! its entries.
#![allow(unsafe_code)]

use crate::kernel::lookup::Seeds;

/// Seeds between the steps of one look-up: enough to hide the wait, few enough for what the processor can
/// wait for at a time.
const AHEAD: usize = 16;
/// Entries that are all looked at; of more than these half are left out at each step.
const FEW: usize = 32;

/// The entries of each seed, as [`kernel::lookup::scalar`](crate::kernel::lookup::scalar).
pub fn lookup(seeds: Seeds<'_>, hashes: &[u64]) -> Vec<(u32, u32)> {
    let rest_bits = seeds.hash_bits - seeds.bucket_bits;
    let ask_for_bucket = |hash: &u64| ask_for(seeds.buckets, (hash >> rest_bits) as usize);
    let bounds = |hash: &u64| {
        let bucket = (hash >> rest_bits) as usize;
        let bounds = (seeds.buckets[bucket], seeds.buckets[bucket + 1]);
        ask_for(seeds.entries, bounds.0 as usize);
        bounds
    };
    hashes.iter().take(2 * AHEAD).for_each(ask_for_bucket);
    let mut coming = [(0, 0); AHEAD];
    for (coming, hash) in coming.iter_mut().zip(hashes) {
        *coming = bounds(hash);
    }
    let mut found = Vec::with_capacity(hashes.len());
    for (at, hash) in hashes.iter().enumerate() {
        if let Some(hash) = hashes.get(at + 2 * AHEAD) {
            ask_for_bucket(hash);
        }
        let here = coming[at % AHEAD];
        if let Some(hash) = hashes.get(at + AHEAD) {
            coming[at % AHEAD] = bounds(hash);
        }
        found.push(search(seeds.entries, here, hash & ((1 << rest_bits) - 1)));
    }
    found
}

/// Asks for the memory of one element; beyond the end that does nothing.
#[inline(always)]
fn ask_for<T>(table: &[T], at: usize) {
    let place = table.as_ptr().wrapping_add(at);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: this reads nothing that the program could see, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) place, options(nostack, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}

/// The entries of one seed within its bucket. Most buckets are short: to count them through is one line of
/// memory, and no branch that the processor could guess wrongly.
#[inline(always)]
fn search(entries: &[u64], (begin, end): (u32, u32), rest: u64) -> (u32, u32) {
    let entries = &entries[begin as usize..end as usize];
    let (first, count) = if entries.len() <= FEW {
        entries.iter().fold((0, 0), |(below, equal), entry| {
            let here = entry >> 33;
            (below + u32::from(here < rest), equal + u32::from(here == rest))
        })
    } else {
        let first = entries.partition_point(|entry| entry >> 33 < rest);
        let count = entries[first..].partition_point(|entry| entry >> 33 == rest);
        (first as u32, count as u32)
    };
    (begin + first, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lookup::scalar;
    use proptest::prelude::*;

    proptest! {
        /// Buckets of none, few and many entries, seeds that are there and seeds that are not, and more of
        /// them than are begun at a time.
        #[test]
        fn agrees_with_the_twin(
            mut hashes in proptest::collection::vec(0u64..1 << 12, 0..400),
            crowd in 0usize..100,
            asked in proptest::collection::vec(0u64..1 << 12, 0..120),
        ) {
            hashes.extend((0..crowd).map(|at| 0x700 + (at as u64 / 3)));
            hashes.sort_unstable();
            let (hash_bits, bucket_bits) = (12, 4);
            let entries: Vec<u64> = hashes.iter().map(|hash| (hash & 0xff) << 33 | 5).collect();
            let begin = |bucket| hashes.partition_point(|hash| hash >> 8 < bucket) as u32;
            let buckets: Vec<u32> = (0..=16).map(begin).collect();
            let seeds = Seeds { buckets: &buckets, entries: &entries, hash_bits, bucket_bits };
            let want: Vec<_> = asked.iter().map(|hash| scalar(seeds, *hash)).collect();
            prop_assert_eq!(lookup(seeds, &asked), want);
        }
    }
}
