//! Our own engine on the CPU: mapping, ordering, calling.

pub mod aligned;
pub mod call;

pub use aligned::AlignedRead;
