//! See ARCHITECTURE.md.

mod replace;

pub use replace::replace_file;
