//! Throughput scenarios and the samples they run on.

pub mod environment;
pub mod kernels;
pub mod local_sites;
pub mod sample;
pub mod table2;
