//! Why sites could not talk.

use std::io;
use std::time::Duration;

use crate::base::{Fault, Faulty};
use crate::key;
use crate::otp;

/// Why a connection could not be made, or ended. Every variant names the other end's address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer sends and sends and does not read what it was asked.
    #[error("{address} sends more than can be kept while an answer is awaited")]
    Flooded {
        /// The peer's address.
        address: String,
    },
    /// Nobody answers there.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// This site cannot listen there.
    #[error("cannot listen at {address}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The listener was closed by this site.
    #[error("no longer listening at {address}")]
    ListenerClosed {
        /// Where it listened.
        address: String,
    },
    /// The connection broke.
    #[error("the connection to {address} broke")]
    Broken {
        /// The other end.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection ended without the frame that says so: what came before may not be all.
    #[error("{address} ended the connection without saying that it was done")]
    CutOff {
        /// The other end.
        address: String,
    },
    /// The other end took too long.
    #[error("{address} made no progress for {} s", waited.as_secs_f64())]
    Slow {
        /// The other end.
        address: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The session could not begin or go on.
    #[error("{address}: {source}")]
    Session {
        /// The other end.
        address: String,
        /// The reason.
        source: otp::Error,
    },
    /// Keys could not be had.
    #[error("{address}")]
    Keys {
        /// The other end.
        address: String,
        /// The reason.
        source: key::Error,
    },
    /// There is no pad in plain frames that could be the payload.
    #[error("{address}: plain connections have no keyed frames")]
    Unsupported {
        /// The other end.
        address: String,
    },
    /// The other end said something that does not belong there.
    #[error("{address} does not keep to the protocol")]
    Unexpected {
        /// The other end.
        address: String,
    },
    /// The other end does not want to.
    #[error("{address} declined: {reason}")]
    Declined {
        /// The other end.
        address: String,
        /// Its reason.
        reason: String,
    },
    /// The system gave no random numbers.
    #[error("no random numbers for the greeting of {address}")]
    Random {
        /// The other end.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Unreachable { .. } | Error::Broken { .. } => Fault::Unavailable,
            Error::CutOff { .. } | Error::Slow { .. } | Error::Flooded { .. } => Fault::Unavailable,
            Error::Listen { .. } | Error::Random { .. } => Fault::System,
            Error::ListenerClosed { .. } => Fault::Interrupted,
            Error::Session { source, .. } => source.fault(),
            Error::Keys { source, .. } => source.fault(),
            Error::Unsupported { .. } => Fault::Config,
            Error::Unexpected { .. } => Fault::Data,
            Error::Declined { .. } => Fault::Refused,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Unreachable { .. } => {
                Some("is the site's service running, and its address right?".into())
            }
            Error::Session { source, .. } => source.hint(),
            Error::Keys { source, .. } => source.hint(),
            _ => None,
        }
    }
}
