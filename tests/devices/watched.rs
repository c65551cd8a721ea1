//! A device that counts what is launched on it, and is lost when it is told to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dsgd::base::ShareLetter;
use dsgd::device::table::{Genome, Resident, SeedTable};
use dsgd::device::{Device, Error, Kernel, Queue};
use dsgd::kernel::otp::{BLOCK_BYTES, Pad};
use dsgd::kernel::{align, pack, pairhmm, ungapped};

/// What happened to a device.
#[derive(Clone, Default)]
pub struct Watch(Arc<Counts>);

#[derive(Default)]
struct Counts {
    launches: [AtomicUsize; Kernel::ALL.len()],
    left: AtomicUsize,
}

impl Watch {
    /// Counts anew; after so many launches the device is lost.
    pub fn begin(&self, lost_after: usize) {
        self.0.left.store(lost_after, SeqCst);
        self.0.launches.iter().for_each(|count| count.store(0, SeqCst));
    }

    /// Launches of all kernels.
    pub fn launches(&self) -> usize {
        Kernel::ALL.into_iter().map(|kernel| self.launches_of(kernel)).sum()
    }

    /// Launches of one kernel.
    pub fn launches_of(&self, kernel: Kernel) -> usize {
        self.0.launches[kernel as usize].load(SeqCst)
    }

    fn launch(&self, device: &'static str, kernel: Kernel) -> Result<(), Error> {
        let less = |left: usize| left.checked_sub(1);
        if self.0.left.fetch_update(SeqCst, SeqCst, less).is_err() {
            return Err(Error::Failed { device, step: "go on", source: "it was lost".into() });
        }
        self.0.launches[kernel as usize].fetch_add(1, SeqCst);
        Ok(())
    }
}

/// A device under watch.
pub struct Watched {
    device: Arc<dyn Device>,
    watch: Watch,
}

impl Watched {
    /// Watches a device.
    pub fn over(device: &Arc<dyn Device>, watch: &Watch) -> Box<dyn Device> {
        Box::new(Self { device: Arc::clone(device), watch: watch.clone() })
    }
}

impl Device for Watched {
    fn name(&self) -> &'static str {
        self.device.name()
    }

    fn model(&self) -> String {
        self.device.model()
    }

    fn queue(&self, piece_bytes: usize) -> Result<Box<dyn Queue>, Error> {
        let (queue, watch) = (self.device.queue(piece_bytes)?, self.watch.clone());
        Ok(Box::new(WatchedQueue { queue, watch, name: self.device.name() }))
    }

    fn table(&self, parts: &[&[u32]]) -> Result<Resident, Error> {
        // A table of the CPU's says that it is the CPU's; that of a second one is another.
        let table = self.device.table(parts)?;
        Ok(if self.name() == "cpu" { Arc::new("another") } else { table })
    }

    fn has(&self, kernel: Kernel) -> bool {
        self.device.has(kernel)
    }

    fn is_simulated(&self) -> bool {
        self.device.is_simulated()
    }

    fn room(&self, wanted: u64) -> u64 {
        self.device.room(wanted)
    }
}

struct WatchedQueue {
    queue: Box<dyn Queue>,
    watch: Watch,
    name: &'static str,
}

impl WatchedQueue {
    fn on(&mut self, kernel: Kernel) -> Result<&mut dyn Queue, Error> {
        self.watch.launch(self.name, kernel)?;
        Ok(self.queue.as_mut())
    }
}

impl Queue for WatchedQueue {
    fn split(&mut self, s: &mut [u8], random: &[u8], b: &mut [u8]) -> Result<(), Error> {
        self.on(Kernel::Split)?.split(s, random, b)
    }

    fn restore(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.on(Kernel::Restore)?.restore(first, second, letters)
    }

    fn rebuild(
        &mut self,
        first: &mut [u8],
        second: &[u8],
        letters: (ShareLetter, ShareLetter),
    ) -> Result<(), Error> {
        self.on(Kernel::Rebuild)?.rebuild(first, second, letters)
    }

    fn xor(&mut self, data: &mut [u8], pad: &[u8]) -> Result<(), Error> {
        self.on(Kernel::Xor)?.xor(data, pad)
    }

    fn seal(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.on(Kernel::Seal)?.seal(data, pad, key)
    }

    fn open(
        &mut self,
        data: &mut [u8],
        pad: Pad<'_>,
        key: &[u8; BLOCK_BYTES],
    ) -> Result<[u8; BLOCK_BYTES], Error> {
        self.on(Kernel::Open)?.open(data, pad, key)
    }

    fn align(
        &mut self,
        pairs: &[align::Pair<'_>],
        scores: &align::Scores,
    ) -> Result<Vec<Option<align::Placement>>, Error> {
        self.on(Kernel::Align)?.align(pairs, scores)
    }

    fn pairhmm(&mut self, batch: &pairhmm::Batch<'_>) -> Result<Vec<i32>, Error> {
        self.on(Kernel::Pairhmm)?.pairhmm(batch)
    }

    fn pack(&mut self, reads: &[pack::Read<'_>]) -> Result<Vec<pack::Packed>, Error> {
        self.on(Kernel::Pack)?.pack(reads)
    }

    fn ungapped(
        &mut self,
        genome: &Genome,
        reads: &[pack::ReadWord],
        jobs: &[ungapped::Job],
        scores: &align::Scores,
    ) -> Result<Vec<ungapped::Segment>, Error> {
        self.on(Kernel::Ungapped)?.ungapped(genome, reads, jobs, scores)
    }

    fn lookup(&mut self, table: &SeedTable, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        self.on(Kernel::Lookup)?.lookup(table, hashes)
    }
}
