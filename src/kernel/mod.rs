//! See ARCHITECTURE.md.
//! What each kernel computes: its parameters and its scalar twin, nothing else.
//!
//! The twin defines the kernel; every device form must give the same bits.

pub mod align;
pub mod otp;
pub mod share;
