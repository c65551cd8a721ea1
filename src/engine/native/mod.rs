//! Our own engine on the CPU: mapping, ordering, calling.

pub mod aligned;
pub mod call;
pub mod index;
mod index_file;
mod packed;
mod seed;
#[cfg(test)]
mod simulate;

pub use aligned::AlignedRead;
pub use index::Index;
