//! Where the engine's kernels run: on the devices of an assignment, whose tables are put there once, or
//! in place on the CPU, over the index as it lies in memory.

use std::sync::Arc;

use super::index::Index;
use super::packed::ReadWord;
use crate::device::assign::Assignment;
use crate::device::steady::Steady;
use crate::device::table::{Genome, SeedTable};
use crate::device::{Error, Kernel, Queue, cpu};
use crate::engine::KernelDevice;
use crate::kernel::align::Scores;
use crate::kernel::ungapped::{Job, Segment};

/// The kernels of the engine, in the order of their use.
const KERNELS: [Kernel; 4] = [Kernel::Lookup, Kernel::Ungapped, Kernel::Align, Kernel::Pairhmm];

/// An index, and the devices that work over it.
pub struct Offload {
    index: Arc<Index>,
    devices: Arc<Assignment>,
    /// The reference, where a device lays reads on it.
    genome: Option<Genome>,
    /// The seeds, where a device looks them up.
    seeds: Option<SeedTable>,
}

/// How many reads go through the steps of mapping together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Those whose seeds are looked up and that are laid without gaps.
    pub tile: usize,
    /// Those that are aligned with gaps: some tiles.
    pub group: usize,
}

impl Sizes {
    /// For the CPU: the arrays of a tile lie in its first caches, and a group gives its vectors many
    /// alignments that are alike.
    pub const CPU: Self = Self { tile: 64, group: 4096 };

    /// For devices: all reads of a batch.
    pub const DEVICE: Self = Self { tile: usize::MAX, group: usize::MAX };
}

impl Offload {
    /// Puts the tables where they are used. Errors: the CPU's; a device that cannot hold them is told of
    /// in the assignment's notices, and the CPU does its work.
    pub fn new(index: Arc<Index>, devices: Arc<Assignment>) -> Result<Self, Error> {
        let on_device = |kernel| !devices.on_cpu(kernel);
        let genome =
            on_device(Kernel::Ungapped).then(|| devices.genome(index.clone())).transpose()?;
        let seeds = on_device(Kernel::Lookup).then(|| {
            let bits = (index.seeds().hash_bits, index.seeds().bucket_bits);
            devices.seeds(index.clone(), index.clone(), bits)
        });
        Ok(Self { genome, seeds: seeds.transpose()?, index, devices })
    }

    /// Whether it is for these devices, and they still use the tables that were put there.
    pub fn runs_on(&self, devices: &Arc<Assignment>) -> bool {
        Arc::ptr_eq(&self.devices, devices) && !self.has_idle_tables()
    }

    /// Whether the CPU has taken over what a table was made for.
    pub fn has_idle_tables(&self) -> bool {
        let on_cpu = |kernel| self.devices.on_cpu(kernel);
        self.genome.is_some() && on_cpu(Kernel::Ungapped)
            || self.seeds.is_some() && on_cpu(Kernel::Lookup)
    }

    /// The index.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Which device each kernel of the engine was given to.
    pub fn described(&self) -> Vec<KernelDevice> {
        self.devices.described(&KERNELS)
    }

    /// A queue for one worker. Errors: the CPU's.
    pub fn queue(&self) -> Result<Steady, Error> {
        self.devices.queue()
    }

    /// How many reads should go together for the devices of now.
    pub fn sizes(&self) -> Sizes {
        let on_device = |kernel| !self.devices.on_cpu(kernel);
        let Sizes { tile, group } = Sizes::CPU;
        if on_device(Kernel::Lookup) || on_device(Kernel::Ungapped) {
            Sizes::DEVICE
        } else {
            Sizes { tile, group: if on_device(Kernel::Align) { usize::MAX } else { group } }
        }
    }

    /// The first entry of each seed, and how many it has. Errors: the device's.
    pub fn look_up(&self, queue: &mut dyn Queue, hashes: &[u64]) -> Result<Vec<(u32, u32)>, Error> {
        match &self.seeds {
            Some(table) if !hashes.is_empty() => queue.lookup(table, hashes),
            _ => Ok(cpu::lookup::lookup(self.index.seeds(), hashes)),
        }
    }

    /// The best stretch of each read where it is laid. Errors: the device's.
    pub fn lay(
        &self,
        queue: &mut dyn Queue,
        reads: &[ReadWord],
        jobs: &[Job],
        scores: &Scores,
    ) -> Result<Vec<Segment>, Error> {
        if let Some(genome) = self.genome.as_ref().filter(|_| !jobs.is_empty()) {
            return queue.ungapped(genome, reads, jobs, scores);
        }
        let mut segments = Vec::with_capacity(jobs.len());
        cpu::ungapped::ungapped(self.index.genome().words(), reads, jobs, scores, &mut segments);
        Ok(segments)
    }
}
