//! What may leave: access rights, the filter that keeps to them, and the receipt of a delivery.

pub mod filter;
#[cfg(test)]
mod filter_tests;
mod header;
pub mod receipt;
mod record;
pub mod right;
mod select;
mod timestamp;

use std::io;
use std::path::PathBuf;

pub use filter::{FilterOptions, FilterReport, filter};
pub use receipt::Receipt;
pub use right::{Permit, Right};
pub use timestamp::Timestamp;

use crate::base::{Fault, Faulty, SiteId};
use crate::genome::{bed, genes};

/// Why nothing was disclosed. Lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A right's own text is wrong.
    #[error("right '{right}': {what}")]
    Right {
        /// Its identifier.
        right: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A region in a right is malformed.
    #[error("right '{right}': '{region}' is not a region")]
    Region {
        /// Its identifier.
        right: String,
        /// The region.
        region: String,
    },
    /// A file that a right names cannot be opened.
    #[error("right '{right}': {path}")]
    Open {
        /// Its identifier.
        right: String,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A right's BED file is wrong.
    #[error("right '{right}': {path}")]
    Bed {
        /// Its identifier.
        right: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: bed::Error,
    },
    /// A right's genes are not to be had.
    #[error("right '{right}': genes")]
    Genes {
        /// Its identifier.
        right: String,
        /// What is wrong with them.
        source: genes::Error,
    },
    /// The right has ended.
    #[error("right '{right}' ended at {at}")]
    Expired {
        /// Its identifier.
        right: String,
        /// When.
        at: Timestamp,
    },
    /// The right is somebody else's.
    #[error("right '{right}' is not for {user}")]
    OtherUser {
        /// Its identifier.
        right: String,
        /// Who asked.
        user: SiteId,
    },
    /// The input could not be read.
    #[error("reading the VCF to filter")]
    Read(#[source] io::Error),
    /// The input is compressed but damaged.
    #[error(transparent)]
    Compressed(#[from] crate::flow::Error),
    /// The input is not a VCF of one sample in coordinate order.
    #[error("line {line}: {what}")]
    Malformed {
        /// The line.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The output could not be written.
    #[error("writing the filtered VCF")]
    Write(#[source] io::Error),
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Right { .. } | Error::Region { .. } => Fault::Config,
            Error::Open { source, .. } => Fault::of_io(source),
            Error::Bed { source, .. } => source.fault(),
            Error::Genes { source, .. } => source.fault(),
            Error::Expired { .. } | Error::OtherUser { .. } => Fault::Refused,
            Error::Read(source) => Fault::of_io(source),
            Error::Compressed(error) => error.fault(),
            Error::Malformed { .. } => Fault::Data,
            Error::Write(_) => Fault::Disk,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Genes { source, .. } => source.hint(),
            Error::Compressed(error) => error.hint(),
            _ => None,
        }
    }
}
