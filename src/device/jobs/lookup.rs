//! Seeds to be looked up as words: `lookup.cu`, `lookup.wgsl`.

use crate::device::lane::Function;
use crate::device::table::{Resident, SeedTable};
use crate::kernel::lookup::scalar;

use super::{Batch, Jobs, Need};

/// Seeds to be looked up.
pub(in crate::device) struct Lookups<'a> {
    pub(in crate::device) table: &'a SeedTable,
    pub(in crate::device) hashes: &'a [u64],
}

impl Jobs for Lookups<'_> {
    type Output = (u32, u32);
    const FUNCTION: Function = Function::Lookup;
    const HEADER_WORDS: usize = 8;
    const ENTRY_WORDS: usize = 2;

    fn count(&self) -> usize {
        self.hashes.len()
    }

    fn result_words(&self) -> usize {
        2
    }

    fn part(&self, job: usize) -> usize {
        let (hash, bits) = (self.hashes[job], self.table.seeds().hash_bits);
        assert!(bits == 64 || hash >> bits == 0, "a hash has as many bits as the index says");
        self.table.part_of(hash)
    }

    fn header(&self, part: usize) -> Vec<u32> {
        let seeds = self.table.seeds();
        let (_, first, count) = self.table.part(part);
        let rest_bits = seeds.hash_bits - seeds.bucket_bits;
        vec![count as u32 + 1, rest_bits, first as u32, seeds.buckets[first]]
    }

    fn table(&self, part: usize) -> Option<&Resident> {
        Some(self.table.part(part).0)
    }

    fn add(&self, job: usize, batch: &mut Batch) -> Option<Need> {
        let hash = self.hashes[job];
        batch.enter(&[hash as u32, (hash >> 32) as u32]);
        Some(Need::default())
    }

    fn result(&self, _: usize, words: &[u32]) -> Option<(u32, u32)> {
        Some((words[0], words[1]))
    }

    fn on_cpu(&self, job: usize) -> (u32, u32) {
        scalar(self.table.seeds(), self.hashes[job])
    }
}
