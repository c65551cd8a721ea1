//! Throughput scenarios and the samples they run on.

pub mod sample;
