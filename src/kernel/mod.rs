//! See ARCHITECTURE.md.

pub mod align;
