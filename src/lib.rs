//! Information-theoretically secure storage and secondary use of human genomes.
//!
//! The modules stand in layers (see `ARCHITECTURE.md`); a module imports only from layers above it
//! in this list, which is also the order to read them in.

pub mod base;

pub mod flow;
pub mod kernel;

pub mod device;
pub mod genome;
pub mod io;

pub mod engine;
pub mod key;
pub mod share;

pub mod otp;

pub mod disclosure;
pub mod net;

pub mod etsi014;
pub mod management;
pub mod store;

pub mod control;

pub mod pipeline;

pub mod site;

pub mod bench;

pub mod config;

pub mod cli;
