//! Tables that stay on a device for many batches: a packed reference, an index of seeds.
//!
//! A device may bind less at a time than a table takes: WebGPU 128 MiB, of a human reference's 1.2 GB. Then the
//! table is cut into parts that a job finds all it needs in one of, and jobs of one part go together.

use std::any::Any;
use std::sync::Arc;

use crate::kernel::lookup::Seeds;
use crate::kernel::ungapped::{GenomeWord, WORDS_MAX};

use super::{Device, Error};

/// What a device made of the words of a table; only that device can use it.
pub type Resident = Arc<dyn Any + Send + Sync>;

/// Numbers in this machine's memory, whoever has them there: a vector, a mapped file.
pub type Shared<T> = Arc<dyn AsRef<[T]> + Send + Sync>;

/// A packed reference, in this machine's memory and on a device.
pub struct Genome {
    words: Shared<GenomeWord>,
    parts: Vec<Resident>,
    /// Words of each part, besides those that a read may reach over into the next.
    part_words: usize,
}

/// Words of a part that the next one has, too: as far as the longest read that begins in it reaches.
const OVERLAP_WORDS: usize = WORDS_MAX + 1;

impl Genome {
    /// Copies the reference to a device.
    ///
    /// Errors: the device's, when its memory cannot hold it.
    pub fn load(device: &dyn Device, shared: Shared<GenomeWord>) -> Result<Self, Error> {
        let words = (*shared).as_ref();
        let most = device.table_bytes_max() / size_of::<GenomeWord>();
        let part_words = most.saturating_sub(OVERLAP_WORDS).clamp(1, words.len().max(1));
        let part = |begin: usize| {
            let end = words.len().min(begin + part_words + OVERLAP_WORDS);
            device.table(&[bytemuck::cast_slice(&words[begin..end])])
        };
        let parts: Result<Vec<_>, _> =
            (0..words.len().max(1)).step_by(part_words).map(part).collect();
        Ok(Self { parts: parts?, part_words, words: shared })
    }

    /// The reference in this machine's memory.
    pub fn words(&self) -> &[GenomeWord] {
        (*self.words).as_ref()
    }

    /// The part that a read laid at `position` needs.
    pub(super) fn part_of(&self, position: u32) -> usize {
        (position as usize / 64 / self.part_words).min(self.parts.len() - 1)
    }

    /// A part, and its first word's number.
    pub(super) fn part(&self, part: usize) -> (&Resident, usize) {
        (&self.parts[part], part * self.part_words)
    }

    /// What the device made of the beginning.
    pub(super) fn resident(&self) -> &Resident {
        &self.parts[0]
    }
}

/// An index of seeds, in this machine's memory and on a device.
pub struct SeedTable {
    buckets: Shared<u32>,
    entries: Shared<u64>,
    hash_bits: u32,
    bucket_bits: u32,
    /// Each with its first bucket.
    parts: Vec<(usize, Resident)>,
}

impl SeedTable {
    /// Copies an index to a device; the numbers are those of [`Seeds`].
    ///
    /// Errors: the device's, when its memory cannot hold it.
    ///
    /// # Panics
    /// When the index is not sound ([`Seeds::is_sound`]): whoever reads one from a file checks that.
    pub fn load(
        device: &dyn Device,
        buckets: Shared<u32>,
        entries: Shared<u64>,
        (hash_bits, bucket_bits): (u32, u32),
    ) -> Result<Self, Error> {
        let seeds = Seeds {
            buckets: (*buckets).as_ref(),
            entries: (*entries).as_ref(),
            hash_bits,
            bucket_bits,
        };
        assert!(seeds.is_sound(), "an index of seeds is sound");
        let mut parts = Vec::new();
        let mut first = 0;
        while parts.is_empty() || first + 1 < seeds.buckets.len() {
            let end = part_end(seeds.buckets, first, device.table_bytes_max());
            let own = seeds.buckets[first] as usize..seeds.buckets[end] as usize;
            let words = [&seeds.buckets[first..=end], bytemuck::cast_slice(&seeds.entries[own])];
            parts.push((first, device.table(&words)?));
            first = end;
        }
        Ok(Self { buckets, entries, hash_bits, bucket_bits, parts })
    }

    /// The index in this machine's memory.
    pub fn seeds(&self) -> Seeds<'_> {
        Seeds {
            buckets: (*self.buckets).as_ref(),
            entries: (*self.entries).as_ref(),
            hash_bits: self.hash_bits,
            bucket_bits: self.bucket_bits,
        }
    }

    /// The part that has a hash's bucket.
    pub(super) fn part_of(&self, hash: u64) -> usize {
        let bucket = (hash >> (self.hash_bits - self.bucket_bits)) as usize;
        self.parts.partition_point(|(first, _)| *first <= bucket) - 1
    }

    /// A part, its first bucket's number, and how many buckets it has.
    pub(super) fn part(&self, part: usize) -> (&Resident, usize, usize) {
        let (first, resident) = &self.parts[part];
        let end =
            self.parts.get(part + 1).map_or(self.seeds().buckets.len() - 1, |(next, _)| *next);
        (resident, *first, end - first)
    }

    /// What the device made of the beginning.
    pub(super) fn resident(&self) -> &Resident {
        &self.parts[0].1
    }
}

/// One past the last bucket of a part that begins with bucket `first`: as many as fit, but one.
fn part_end(buckets: &[u32], first: usize, bytes_max: usize) -> usize {
    let bytes = |end: usize| {
        let entries = (buckets[end] - buckets[first]) as usize;
        size_of::<u32>() * (end - first + 1) + size_of::<u64>() * entries
    };
    let (mut fits, mut beyond) = (first + 1, buckets.len());
    while fits + 1 < beyond {
        let middle = fits.midpoint(beyond);
        if bytes(middle) <= bytes_max { fits = middle } else { beyond = middle }
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_as_many_buckets_as_fit_and_one_at_least() {
        let buckets = [0, 3, 3, 10, 50, 51];
        assert_eq!(part_end(&buckets, 0, usize::MAX), 5);
        assert_eq!(part_end(&buckets, 0, 4 * 4 + 8 * 10), 3);
        assert_eq!(part_end(&buckets, 0, 4 * 4 + 8 * 10 - 1), 2);
        assert_eq!(part_end(&buckets, 3, 8), 4);
        assert_eq!(part_end(&buckets, 4, 8), 5);
    }
}
