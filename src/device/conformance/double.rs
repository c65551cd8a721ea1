//! A queue for tests of what works through queues: another queue does the work, and a hook sees what it gave
//! before the caller does.

use crate::base::ShareLetter;
use crate::device::table::{Genome, SeedTable};
use crate::device::{Error, Kernel, Queue};
use crate::kernel::otp::{BLOCK_BYTES, Pad};
use crate::kernel::{align, pack, pairhmm, ungapped};

/// What a call gave: a hook may change it.
pub enum Given<'a> {
    /// What was worked on in place, then what else was written.
    Bytes(&'a mut [u8], &'a mut [u8]),
    /// Of [`Queue::align`].
    Alignments(&'a mut [Option<align::Placement>]),
    /// Of [`Queue::pairhmm`].
    Penalties(&'a mut [i32]),
    /// Of [`Queue::pack`].
    Packed(&'a mut [pack::Packed]),
    /// Of [`Queue::ungapped`].
    Segments(&'a mut [ungapped::Segment]),
    /// Of [`Queue::lookup`].
    Entries(&'a mut [(u32, u32)]),
}

/// A queue with a hook; the hook's error becomes the call's.
pub struct Double<H> {
    /// What does the work.
    pub queue: Box<dyn Queue>,
    /// Gets which kernel it was and what it gave.
    pub hook: H,
}

impl<H: FnMut(Kernel, Given<'_>) -> Result<(), Error> + Send> Queue for Double<H> {
    fn split(&mut self, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        self.queue.split(secret_to_a, random, b)?;
        (self.hook)(Kernel::Split, Given::Bytes(secret_to_a, b))
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.queue.restore(first, second, letters)?;
        (self.hook)(Kernel::Restore, Given::Bytes(first, &mut []))
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.queue.rebuild(first, second, letters)?;
        (self.hook)(Kernel::Rebuild, Given::Bytes(first, &mut []))
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        self.queue.xor(data, pad)?;
        (self.hook)(Kernel::Xor, Given::Bytes(data, &mut []))
    }

    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        let mut tag = self.queue.seal(data, pad, key)?;
        (self.hook)(Kernel::Seal, Given::Bytes(data, &mut tag))?;
        Ok(tag)
    }

    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        let mut tag = self.queue.open(data, pad, key)?;
        (self.hook)(Kernel::Open, Given::Bytes(data, &mut tag))?;
        Ok(tag)
    }

    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error> {
        let mut placed = self.queue.align(pairs, scores)?;
        (self.hook)(Kernel::Align, Given::Alignments(&mut placed))?;
        Ok(placed)
    }

    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        let mut penalties = self.queue.pairhmm(batch)?;
        (self.hook)(Kernel::Pairhmm, Given::Penalties(&mut penalties))?;
        Ok(penalties)
    }

    fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error> {
        let mut packed = self.queue.pack(reads)?;
        (self.hook)(Kernel::Pack, Given::Packed(&mut packed))?;
        Ok(packed)
    }

    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[pack::ReadWord],
        jobs: &[ungapped::Job],
        scores: &align::Scores,
    ) -> Result<Vec<ungapped::Segment>, Error> {
        let mut segments = self.queue.ungapped(genome, reads, jobs, scores)?;
        (self.hook)(Kernel::Ungapped, Given::Segments(&mut segments))?;
        Ok(segments)
    }

    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        let mut found = self.queue.lookup(table, hashes)?;
        (self.hook)(Kernel::Lookup, Given::Entries(&mut found))?;
        Ok(found)
    }
}
