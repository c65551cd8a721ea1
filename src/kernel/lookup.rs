//! Seed look-up: which entries of an index a seed has.
//!
//! The index is a table of buckets. A seed's hash is split: its upper bits name a bucket, the rest is
//! the upper 31 bits of an entry, so a look-up is exact. The entries of a bucket are in order.

/// An index of seeds.
#[derive(Clone, Copy, Debug)]
pub struct Seeds<'a> {
    /// Where each bucket's entries begin; one more at the end.
    pub buckets: &'a [u32],
    /// Rest of the hash in bits 33 and up; what lies below is the index's own.
    pub entries: &'a [u64],
    /// Bits of a hash.
    pub hash_bits: u32,
    /// Bits of a bucket's number: at least `hash_bits - 31`, less than `hash_bits`.
    pub bucket_bits: u32,
}

impl Seeds<'_> {
    /// Whether the table is one: as many buckets as it says, in order, and within the entries.
    ///
    /// What is no table must not be given to a device.
    pub fn is_sound(&self) -> bool {
        let bits = self.hash_bits.checked_sub(self.bucket_bits);
        bits.is_some_and(|bits| (1..32).contains(&bits))
            && self.hash_bits <= 64
            && self.bucket_bits < 32
            && self.buckets.len() == (1 << self.bucket_bits) + 1
            && self.buckets.is_sorted()
            && self.buckets.last().is_some_and(|&end| end as usize <= self.entries.len())
    }
}

/// The entries of a seed: the first, and how many.
///
/// A seed that the index does not have gets the place where it would be, and none.
#[inline(always)]
pub fn scalar(seeds: Seeds<'_>, hash: u64) -> (u32, u32) {
    let rest_bits = seeds.hash_bits - seeds.bucket_bits;
    let bucket = (hash >> rest_bits) as usize;
    let rest = hash & ((1 << rest_bits) - 1);
    let begin = seeds.buckets[bucket];
    let entries = &seeds.entries[begin as usize..seeds.buckets[bucket + 1] as usize];
    let first = entries.partition_point(|entry| entry >> 33 < rest);
    let count = entries[first..].partition_point(|entry| entry >> 33 == rest);
    (begin + first as u32, count as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_found_is_all_there_is(
            mut hashes in proptest::collection::vec(0u64..1 << 12, 0..120), asked: u16,
        ) {
            hashes.sort_unstable();
            let (hash_bits, bucket_bits) = (12, 4);
            let entry = |(at, hash): (usize, &u64)| (hash & 0xff) << 33 | at as u64;
            let entries: Vec<u64> = hashes.iter().enumerate().map(entry).collect();
            let begin = |bucket| hashes.partition_point(|hash| hash >> 8 < bucket) as u32;
            let buckets: Vec<u32> = (0..=16).map(begin).collect();
            let seeds = Seeds { buckets: &buckets, entries: &entries, hash_bits, bucket_bits };
            prop_assert!(seeds.is_sound());
            let hash = u64::from(asked) & 0xfff;
            let (first, count) = scalar(seeds, hash);
            let expected: Vec<usize> =
                (0..hashes.len()).filter(|&at| hashes[at] == hash).collect();
            let found: Vec<usize> = (first as usize..(first + count) as usize).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_table_that_is_none_is_told() {
        let sound = Seeds { buckets: &[0, 1, 2], entries: &[1, 2], hash_bits: 9, bucket_bits: 1 };
        assert!(sound.is_sound());
        assert!(!Seeds { buckets: &[0, 2, 1], ..sound }.is_sound());
        assert!(!Seeds { buckets: &[0, 2, 3], ..sound }.is_sound());
        assert!(!Seeds { bucket_bits: 2, ..sound }.is_sound());
        assert!(!Seeds { hash_bits: 40, ..sound }.is_sound());
    }
}
