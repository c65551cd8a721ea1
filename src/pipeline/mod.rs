//! Which stages, in which order: deposit, restore, analyse, deliver.

pub mod analyse;
pub mod deliver;
pub mod intake;
pub mod restore;
pub mod share_out;

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::base::{Fault, Faulty};

/// What the operator should know although the work went on: shown as it happens, kept for the report.
#[derive(Clone, Default)]
pub struct Notices {
    seen: Arc<Mutex<Seen>>,
    show: Option<Show>,
}

/// Most notices that are kept: a daemon adds to one list for as long as it lives.
const NOTICES_MAX: usize = 1000;

#[derive(Default)]
struct Seen {
    kept: Vec<String>,
    further: u64,
}

/// Shows one notice.
type Show = Arc<dyn Fn(&str) + Send + Sync>;

impl Notices {
    /// Notices that are shown by `show` as they happen.
    pub fn shown_by(show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { seen: Arc::default(), show: Some(Arc::new(show)) }
    }

    /// An empty list, shown in the same way.
    pub fn begun_anew(&self) -> Self {
        Self { seen: Arc::default(), show: self.show.clone() }
    }

    /// Adds a notice.
    pub fn add(&self, notice: impl Into<String>) {
        let notice = notice.into();
        if let Some(show) = &self.show {
            show(&notice);
        }
        let mut seen = self.lock();
        if seen.kept.len() < NOTICES_MAX {
            seen.kept.push(notice);
        } else {
            seen.further += 1;
        }
    }

    /// The notices so far; past the first thousand a last line says how many there were.
    pub fn all(&self) -> Vec<String> {
        let seen = self.lock();
        let further = (seen.further > 0).then(|| format!("and {} notices more", seen.further));
        seen.kept.iter().cloned().chain(further).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What one link carried for a piece of work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkUse {
    /// The peer.
    pub peer: String,
    /// Payload bytes, both ways.
    pub payload_bytes: u64,
    /// Key bytes, both ways.
    pub key_bytes: u64,
    /// Where the keys came from, and what that means for secrecy.
    pub keys: String,
}

/// Why a pipeline ended without its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A stage failed.
    #[error(transparent)]
    Stage(#[from] crate::flow::Error),
    /// A store failed outside a stage.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] crate::control::Error),
    /// A thread of the pipeline died.
    #[error("a thread of the stage '{stage}' died")]
    Died {
        /// Which stage.
        stage: &'static str,
    },
    /// Fewer than two shares of a file can be had.
    #[error("{reachable} of 3 shares of '{name}' can be had; 2 are needed")]
    TooFewShares {
        /// The deposit.
        name: String,
        /// How many shares there are.
        reachable: usize,
        /// Why each of the others cannot be had.
        reasons: Vec<String>,
        /// The fault of the first of them.
        fault: Fault,
    },
    /// A sample has no file with reads.
    #[error("'{name}' has no file with reads")]
    NoReads {
        /// The sample.
        name: String,
    },
    /// A file of second mates does not follow one of first mates.
    #[error("{file}: second mates without a file of first mates before it")]
    Mates {
        /// The file.
        file: String,
    },
    /// A file could not be read.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The reason.
        source: crate::io::Error,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] crate::engine::Error),
    /// The stripes do not agree with the catalogue.
    #[error(
        "'{name}', file {member}: the shares have {found} stripes, the catalogue says {expected}"
    )]
    Stripes {
        /// The deposit.
        name: String,
        /// Which file.
        member: usize,
        /// Stripes in the stores.
        found: u64,
        /// Stripes in the catalogue.
        expected: u64,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Stage(error) => error.fault(),
            Error::Store(error) => error.fault(),
            Error::Catalogue(error) => error.fault(),
            Error::Died { .. } => Fault::Bug,
            Error::TooFewShares { fault, .. } => *fault,
            Error::Stripes { .. } => Fault::Integrity,
            Error::NoReads { .. } | Error::Mates { .. } => Fault::Data,
            Error::Engine(error) => error.fault(),
            Error::File { source, .. } => source.fault(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Stage(error) => error.hint(),
            Error::Store(error) => error.hint(),
            Error::Catalogue(error) => error.hint(),
            Error::TooFewShares { reasons, .. } => Some(reasons.join("; ")),
            Error::Engine(error) => error.hint(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_past_the_bound_are_counted_not_kept() {
        let notices = Notices::default();
        for number in 0..NOTICES_MAX + 7 {
            notices.add(format!("notice {number}"));
        }
        let all = notices.all();
        assert_eq!(all.len(), NOTICES_MAX + 1);
        assert_eq!(all[NOTICES_MAX], "and 7 notices more");
        assert!(notices.begun_anew().all().is_empty());
    }
}
