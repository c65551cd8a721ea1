//! Our own engine on the CPU: mapping, ordering, calling.
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
pub mod index;
mod index_build;
mod index_file;
mod insert;
mod learn;
mod map;
mod metrics;
mod mismatch;
mod order;
mod packed;
mod pair;
mod place;
mod record;
mod run;
mod seed;
#[cfg(test)]
mod simulate;
pub mod spill;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Arc;

pub use aligned::AlignedRead;
pub use index::Index;

use super::{CallReport, CallRequest, Engine, Error};
use crate::flow::{Flow, Meters};
use crate::genome::ReadBatch;

/// Our own engine. The index may be shared: one serves any number of samples.
pub struct Native {
    index: Arc<Index>,
}

impl Native {
    /// An engine over the index of the reference that requests will name.
    pub fn new(index: Arc<Index>) -> Self {
        Self { index }
    }

    /// The index.
    pub fn index(&self) -> &Arc<Index> {
        &self.index
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
