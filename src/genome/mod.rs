//! Formats and genomic values, from and to byte slices and readers; opens no file itself.

pub mod reads;
pub mod reference;
pub mod region;
pub mod variant;

pub use reads::{Layout, ReadBatch, ReadGroup};
pub use reference::Reference;
pub use region::{Region, Regions};
pub use variant::Variant;
