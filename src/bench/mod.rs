//! Throughput scenarios and the samples they run on.

pub mod chart;
pub mod environment;
pub mod kernels;
pub mod kme;
pub mod local_daemon;
pub mod local_kmes;
pub mod local_sites;
pub mod pads;
pub mod sample;
pub mod table2;
pub mod table3;
