//! Our own engine: mapping, ordering, calling.
//!
//! What it computes are kernels over many jobs at once (look-up of seeds, extension without gaps, banded
//! alignment, penalties of reads on haplotypes), run by the devices that an assignment names or by the CPU:
//! the same bytes either way.
//!
//! It is made for short reads. Reads of more than 1024 bases are taken without error, stay without
//! a place (in a BAM they stand at the end) and are counted in the report, which carries a notice.
//!
//! Memory: the index with its reference (2.5 bytes and 1 byte a base), and besides, for one sample,
//! [`Room::memory`](crate::engine::Room) for placed reads and signatures of templates, one bit a
//! template for duplicates, and what is under way: a few batches and bins for each thread.

#[cfg(test)]
mod accuracy;
pub mod aligned;
mod alignments;
mod bam;
pub mod call;
mod candidate;
mod cram;
mod cram_block;
mod cram_slice;
mod duplicates;
mod extend;
mod group;
pub mod index;
mod index_build;
mod index_file;
mod insert;
mod learn;
mod map;
#[cfg(test)]
mod map_tests;
mod metrics;
mod mismatch;
mod offload;
mod order;
mod packed;
mod pair;
mod place;
mod record;
mod refine;
mod rescue;
mod run;
mod seed;
#[cfg(test)]
mod simulate;
pub mod spill;
mod stock;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Arc;

pub use aligned::AlignedRead;
pub use index::Index;
use offload::Offload;

use super::{CallReport, CallRequest, Engine, Error};
use crate::device::{self, assign::Assignment};
use crate::flow::{Flow, Meters};
use crate::genome::ReadBatch;

/// Our own engine. It serves any number of samples; a clone shares the index and the tables on devices.
#[derive(Clone)]
pub struct Native {
    offload: Arc<Offload>,
}

impl Native {
    /// An engine over the index of the reference that requests will name, whose kernels run where
    /// `devices` says; tables that a device needs are put there now. Errors: the CPU's.
    pub fn new(index: Arc<Index>, devices: Arc<Assignment>) -> Result<Self, device::Error> {
        Ok(Self { offload: Arc::new(Offload::new(index, devices)?) })
    }

    /// Whether its kernels run where `devices` says, over tables that are still used.
    pub fn runs_on(&self, devices: &Arc<Assignment>) -> bool {
        self.offload.runs_on(devices)
    }

    /// Whether it keeps a table on a device that does not use it any more.
    pub fn has_idle_tables(&self) -> bool {
        self.offload.has_idle_tables()
    }

    /// The index.
    pub fn index(&self) -> &Arc<Index> {
        self.offload.index()
    }
}

impl Engine for Native {
    fn name(&self) -> &str {
        "native"
    }

    fn version(&self) -> String {
        env!("CARGO_PKG_VERSION").into()
    }

    fn call(
        &self,
        request: &CallRequest<'_>,
        reads: Flow<'_, ReadBatch>,
        meters: &Meters,
        vcf: &mut (dyn Write + Send),
        bam: Option<&mut (dyn Write + Send)>,
    ) -> Result<CallReport, Error> {
        run::run(self, request, reads, meters, vcf, bam)
    }
}
