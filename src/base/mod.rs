//! The vocabulary every other module speaks: no input or output, no threads, no imports.

pub mod chunk;
pub mod clock;
pub mod fault;
pub mod foreign;
pub mod ids;
pub mod pool;
pub mod secret;
pub mod units;

pub use chunk::Chunk;
pub use clock::Clock;
pub use fault::{Fault, Faulty};
pub use ids::{DatasetId, JobId, SampleName, ShareId, ShareLetter, SiteId};
pub use pool::Pool;
pub use secret::Secret;
pub use units::{BitRate, ByteCount};
