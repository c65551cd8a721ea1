//! Formats and genomic values, from and to byte slices and readers; opens no file itself.

pub mod alignment;
pub mod bed;
pub mod bgzf;
pub mod blocks;
pub mod detect;
pub mod fastq;
pub mod genes;
pub mod inflate;
pub mod lanes;
pub mod reads;
pub mod reference;
pub mod region;
pub mod tabix;
pub mod variant;
pub mod vcf;

pub use detect::Format;
pub use reads::{Layout, ReadBatch, ReadGroup};
pub use reference::Reference;
pub use region::{Region, Regions};
pub use variant::Variant;
