//! The CPU's forms of the kernels, chosen at run time by what the processor has.

use std::sync::Arc;

use super::table::{Genome, Resident, SeedTable};
use super::{Device, Error, Queue};
use crate::base::ShareLetter;
use crate::kernel;
use crate::kernel::otp::{BLOCK_BYTES, Pad};

pub mod align;
pub mod chacha20;
pub mod keystream;
mod lanes;
pub mod lookup;
pub mod otp;
pub mod pack;
pub mod pages;
pub mod pairhmm;
pub mod secret_pages;
pub mod share;
pub mod ungapped;

/// Whether this processor has AVX-512 for bytes and words, for vectors of every length.
#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl")
}

/// The processor this program runs on: always there.
struct Cpu;

/// Opens the CPU.
pub(super) fn open() -> Result<Box<dyn Device>, Error> {
    Ok(Box::new(Cpu))
}

impl Device for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn model(&self) -> String {
        std::env::consts::ARCH.into()
    }

    fn queue(&self, _piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        Ok(Box::<Memory>::default())
    }

    /// Nothing: the CPU reads tables where they are.
    fn table(&self, _parts: &[&[u32]]) -> Result<Resident, Error> {
        Ok(Arc::new(()))
    }
}

/// What the kernels keep from batch to batch.
#[derive(Default)]
struct Memory {
    align: align::Lanes,
    pairhmm: pairhmm::Lanes,
}

impl Queue for Memory {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        share::split(secret_to_a, random, b);
        Ok(())
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        share::restore(first, second, letters);
        Ok(())
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        share::rebuild(first, second, letters);
        Ok(())
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        otp::xor(data, pad);
        Ok(())
    }

    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        let key = otp::HashKey::new(key);
        let mut hash = otp::Hash::new(&key);
        hash.seal(data, pad);
        Ok(hash.finish())
    }

    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        let key = otp::HashKey::new(key);
        let mut hash = otp::Hash::new(&key);
        hash.open(data, pad);
        Ok(hash.finish())
    }

    fn align(
        &mut self,
        pairs: &[kernel::align::Pair<'_>],
        scores: &kernel::align::Scores,
    ) -> Result<Vec<Option<kernel::align::Placement>>, Error> {
        Ok(align::align_all(pairs, scores, &mut self.align))
    }

    fn pairhmm(&mut self, batch: &kernel::pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        Ok(pairhmm::pairhmm(batch, &mut self.pairhmm))
    }

    fn pack(
        &mut self,
        reads: &[kernel::pack::Read<'_>],
    ) -> Result<Vec<kernel::pack::Packed>, Error> {
        Ok(reads.iter().map(|read| pack::pack(*read)).collect())
    }

    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[kernel::pack::ReadWord],
        jobs: &[kernel::ungapped::Job],
        scores: &kernel::align::Scores,
    ) -> Result<Vec<kernel::ungapped::Segment>, Error> {
        let mut segments = Vec::new();
        ungapped::ungapped(genome.words(), reads, jobs, scores, &mut segments);
        Ok(segments)
    }

    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        Ok(lookup::lookup(table.seeds(), hashes))
    }
}
