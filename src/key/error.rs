//! Why keys could not be had.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{ByteCount, Fault, Faulty, SiteId};

use super::{Class, KeyRange, LEASE_BYTES_MAX, StreamId};

/// Why keys could not be had. No variant holds a byte of key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More arrive at the link's key rate.
    #[error("the link to {peer} has {available} of the {needed} of key that are needed")]
    Exhausted {
        /// The other end of the link.
        peer: SiteId,
        /// What was asked for.
        needed: ByteCount,
        /// What is there.
        available: ByteCount,
        /// How long until it is enough; `None` when nothing arrives.
        wait: Option<Duration>,
    },
    /// A second use would reveal plaintext, or the frame is a repetition: never retried.
    #[error("key {range} of stream {stream} was used before")]
    Reused {
        /// The stream.
        stream: StreamId,
        /// What was asked for.
        range: KeyRange,
    },
    /// What is recorded about the stream cannot be true; keys might be used twice.
    #[error("stream {stream} is quarantined: {reason}")]
    Quarantined {
        /// The stream.
        stream: StreamId,
        /// What contradicts what.
        reason: &'static str,
    },
    /// The peer has not made the next reservation durable yet: it is to be asked, and awaited.
    #[error("the peer has not countersigned more keys of stream {stream} yet")]
    Unsigned {
        /// The stream.
        stream: StreamId,
    },
    /// The two ends hold no key in common that a call could begin with.
    #[error("the two ends of stream {stream} have no greeting keys in common")]
    NoGreeting {
        /// The stream.
        stream: StreamId,
    },
    /// A claim that does not lie inside its reservation, is empty or passes the last position.
    #[error("key {range} of stream {stream} cannot be claimed from reservation {reservation}")]
    Unsound {
        /// The stream.
        stream: StreamId,
        /// The claim.
        range: KeyRange,
        /// The reservation it was to be part of.
        reservation: KeyRange,
    },
    /// More key at once than any frame needs.
    #[error(
        "{needed} of key at once are more than the {} that one lease may have",
        ByteCount(LEASE_BYTES_MAX)
    )]
    TooLong {
        /// What was asked for.
        needed: ByteCount,
    },
    /// No link to that site is configured.
    #[error("no key link to {peer} is configured at {site}")]
    UnknownPeer {
        /// The site that was asked.
        site: SiteId,
        /// The site it has no link to.
        peer: SiteId,
    },
    /// No such kind of link.
    #[error("'{kind}' is not a kind of key link; there are {known}")]
    UnknownKind {
        /// What was configured.
        kind: String,
        /// The kinds there are.
        known: String,
    },
    /// The record of used keys could not be read or written.
    #[error("the record of used keys {path}")]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record of used keys is damaged before its end.
    #[error("the record of used keys {path} is damaged at entry {index}")]
    LedgerDamaged {
        /// The file.
        path: PathBuf,
        /// Which entry, counting from 0.
        index: usize,
    },
    /// The description of a link does not fit.
    #[error("key link {path}: {what}")]
    Link {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: &'static str,
    },
    /// The description of a link could not be read or written.
    #[error("key link {path}")]
    LinkFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pad cannot be used.
    #[error("pad {path}: {what}")]
    Pad {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// A pad could not be read or written.
    #[error("pad {path}")]
    PadFile {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The part of the key that was in memory only is gone, as after a power cut (Fig. 5).
    #[error("key {range} of stream {stream} is lost: what was only in memory is gone")]
    Lost {
        /// The stream.
        stream: StreamId,
        /// What was asked for.
        range: KeyRange,
    },
    /// The keeper of what is in memory only cannot do what it is to do.
    #[error("the keeper {what}")]
    Keeper {
        /// What it does or does not.
        what: &'static str,
        /// What the system said.
        source: Option<io::Error>,
    },
    /// A block of a pool cannot be had or kept.
    #[error("pool {path}: {what}")]
    Pool {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// A pool could not be read or written.
    #[error("pool {path}")]
    PoolFile {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A source of random numbers gave nothing, or not enough.
    #[error("random source {name}")]
    Random {
        /// Its name or path.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A source of random numbers is stuck or biased (SP 800-90B, section 4.4).
    #[error("random source {name} failed the {test} test and is not used any more")]
    Unhealthy {
        /// Its name or path.
        name: String,
        /// Which health test.
        test: &'static str,
    },
    /// The random numbers are weaker than the site's settings want them.
    #[error("random numbers from {origin} are weaker than {least}, which 'random-class' wants")]
    TooWeak {
        /// What is known about them.
        origin: String,
        /// The weakest that may be used.
        least: Class,
    },
    /// The wish for a random source is not understood.
    #[error(
        "'{text}' is not a random source; there are 'os', 'generator', 'device:/path' and 'key-stream'"
    )]
    UnknownRandom {
        /// What was configured.
        text: String,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Exhausted { .. } | Error::Unsigned { .. } => Fault::TryAgain,
            Error::NoGreeting { .. } => Fault::Integrity,
            Error::Reused { .. } | Error::Quarantined { .. } => Fault::Integrity,
            Error::Unsound { .. } | Error::Unhealthy { .. } => Fault::Integrity,
            Error::TooLong { .. } => Fault::Data,
            Error::UnknownPeer { .. } | Error::UnknownKind { .. } => Fault::Config,
            Error::UnknownRandom { .. } | Error::Link { .. } => Fault::Config,
            Error::Ledger { .. } => Fault::Disk,
            Error::LedgerDamaged { .. } => Fault::Integrity,
            Error::TooWeak { .. } => Fault::Refused,
            Error::Keeper { .. } => Fault::Unavailable,
            Error::Lost { .. } => Fault::Integrity,
            Error::Pad { .. } | Error::Pool { .. } => Fault::Data,
            Error::LinkFile { source, .. }
            | Error::PadFile { source, .. }
            | Error::PoolFile { source, .. } => Fault::of_io(source),
            Error::Random { .. } => Fault::System,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Exhausted { wait: Some(wait), .. } => Some(format!(
                "at the link's key rate there is enough in {} s",
                wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
            )),
            Error::Exhausted { wait: None, .. } => {
                Some("no key arrives by itself: import another pad".into())
            }
            Error::Quarantined { stream, .. } | Error::NoGreeting { stream } => Some(format!(
                "a state folder was lost or set back, or calls were answered by a stranger; give up \
                 the earlier keys at both ends: 'dsgd keys retire {}' at {}, then what it says at {}",
                stream.receiver, stream.sender, stream.receiver
            )),
            Error::Keeper { source: Some(_), .. } => {
                Some("start it, before keys are imported: dsgd serve keeper".into())
            }
            Error::Lost { .. } => Some(
                "give up the keys below the end of the loss at both ends: 'dsgd keys retire'"
                    .into(),
            ),
            _ => None,
        }
    }
}
