//! The CPU's forms of the kernels, chosen at run time by what the processor has.

pub mod align;
pub mod otp;
pub mod pages;
pub mod share;
