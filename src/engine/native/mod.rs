//! Our own engine on the CPU: mapping, ordering, calling.

pub mod aligned;
pub mod call;
mod candidate;
mod extend;
pub mod index;
mod index_file;
mod insert;
mod map;
mod packed;
mod pair;
mod place;
mod seed;
#[cfg(test)]
mod simulate;

pub use aligned::AlignedRead;
pub use index::Index;
