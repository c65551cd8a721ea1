//! Why the key management layer could not do what was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{ByteCount, Fault, Faulty, SiteId};
use crate::{key, net};

/// Why the key management layer could not do what was asked. No variant holds a byte of key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A topology is not there or makes no sense.
    #[error("topology '{name}': {what}")]
    Topology {
        /// Its name or file.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// No node of the network has that name.
    #[error("no node of the key network is called '{node}'")]
    UnknownNode {
        /// The name.
        node: SiteId,
    },
    /// The links that are up do not join the two nodes often enough.
    #[error("{disjoint} path(s) from {from} to {to} that share no node are not there")]
    NoPath {
        /// Where the key is to begin.
        from: SiteId,
        /// Where it is to end.
        to: SiteId,
        /// How many paths were asked for.
        disjoint: usize,
    },
    /// There are paths, but not enough key on them.
    #[error("the links from {from} to {to} have less than {bytes} of key to give")]
    Short {
        /// Where the key is to begin.
        from: SiteId,
        /// Where it is to end.
        to: SiteId,
        /// What each link would have to give.
        bytes: ByteCount,
        /// How long until they have it; `None` when no more arrives.
        wait: Option<Duration>,
    },
    /// More key at once than a relay carries, or none.
    #[error("{bytes} of key cannot be asked for at once")]
    Amount {
        /// What was asked for.
        bytes: ByteCount,
    },
    /// Keys failed.
    #[error(transparent)]
    Key(#[from] key::Error),
    /// A peer could not be reached, or hung up.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// A peer refused or failed.
    #[error("{peer}: {message}")]
    Peer {
        /// Which peer.
        peer: SiteId,
        /// What it said.
        message: String,
        /// The exit code that its error stands for.
        code: u8,
    },
    /// A peer said something that the protocol does not allow.
    #[error("{peer} said something that the protocol does not allow here")]
    Protocol {
        /// Which peer.
        peer: SiteId,
    },
    /// Only some sites may ask for this.
    #[error("'{peer}' may not ask for this here")]
    NotPermitted {
        /// Who asked.
        peer: SiteId,
    },
    /// A relay was asked to go on with what it does not have, or has no more.
    #[error("no such relay is prepared here")]
    NotPrepared,
    /// The ciphertext of a relay was changed on the way: nothing was taken from it.
    #[error("the ciphertext of a relay has a wrong tag")]
    Tag,
    /// The two ends found out that they have different bytes: both gave them up.
    #[error("{from} and {to} got different keys; both gave them up")]
    Differs {
        /// One end.
        from: SiteId,
        /// The other.
        to: SiteId,
    },
    /// The configuration lacks something.
    #[error("the configuration lacks {what}")]
    NotConfigured {
        /// What.
        what: String,
    },
    /// A file or socket could not be used.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Topology { .. } | Error::UnknownNode { .. } => Fault::Config,
            Error::NotConfigured { .. } => Fault::Config,
            Error::NoPath { .. } => Fault::Unavailable,
            Error::Short { .. } => Fault::TryAgain,
            Error::Amount { .. } => Fault::Usage,
            Error::Key(error) => error.fault(),
            Error::Net(error) => error.fault(),
            Error::Peer { code, .. } => Fault::from_exit_code(*code),
            Error::Protocol { .. } => Fault::Unavailable,
            Error::NotPermitted { .. } => Fault::Refused,
            Error::NotPrepared => Fault::TryAgain,
            Error::Tag | Error::Differs { .. } => Fault::Integrity,
            Error::File { source, .. } => Fault::of_io(source),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Key(error) => error.hint(),
            Error::Net(error) => error.hint(),
            Error::Short { wait: Some(wait), .. } => {
                Some(format!("at their key rates there is enough in {} s", wait.as_secs() + 1))
            }
            Error::File { path, .. } if path.ends_with("console") => Some(
                "the node does not run: start it with 'dsgd serve kma' or 'dsgd serve kms'".into(),
            ),
            Error::Short { wait: None, .. } => Some("no more key arrives on these links".into()),
            _ => None,
        }
    }
}
