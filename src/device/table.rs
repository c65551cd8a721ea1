//! Tables that stay on a device for many batches: a packed reference, an index of seeds.

use std::any::Any;
use std::sync::Arc;

use crate::kernel::lookup::Seeds;
use crate::kernel::ungapped::GenomeWord;

use super::{Device, Error};

/// What a device made of the words of a table; only that device can use it.
pub type Resident = Arc<dyn Any + Send + Sync>;

/// Numbers in this machine's memory, whoever has them there: a vector, a mapped file.
pub type Shared<T> = Arc<dyn AsRef<[T]> + Send + Sync>;

/// A packed reference, in this machine's memory and on a device.
pub struct Genome {
    words: Shared<GenomeWord>,
    pub(super) resident: Resident,
}

impl Genome {
    /// Copies the reference to a device.
    ///
    /// Errors: the device's, when its memory cannot hold it.
    pub fn load(device: &dyn Device, words: Shared<GenomeWord>) -> Result<Self, Error> {
        let resident = device.table(&[bytemuck::cast_slice((*words).as_ref())])?;
        Ok(Self { words, resident })
    }

    /// The reference in this machine's memory.
    pub fn words(&self) -> &[GenomeWord] {
        (*self.words).as_ref()
    }
}

/// An index of seeds, in this machine's memory and on a device.
pub struct SeedTable {
    buckets: Shared<u32>,
    entries: Shared<u64>,
    hash_bits: u32,
    bucket_bits: u32,
    pub(super) resident: Resident,
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
        let resident = device.table(&[seeds.buckets, bytemuck::cast_slice(seeds.entries)])?;
        Ok(Self { buckets, entries, hash_bits, bucket_bits, resident })
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
}
