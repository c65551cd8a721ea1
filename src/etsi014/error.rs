//! Why a key manager cannot run, or keys cannot be drawn from one.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::message::Defect;
use crate::base::{Fault, Faulty};
use crate::key;

/// Why a key manager cannot run, or keys cannot be drawn from one. No variant holds a byte of key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings that do not go together.
    #[error("the section [kme]: {what}")]
    Settings {
        /// What is wrong.
        what: &'static str,
    },
    /// A certificate or a private key cannot be used.
    #[error("{}: {what}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// TLS cannot be set up with these certificates.
    #[error("the certificate and its private key cannot be used for TLS")]
    Tls {
        /// The reason.
        source: rustls::Error,
    },
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The address cannot be listened at, or threads cannot be started.
    #[error("cannot serve at {address}")]
    Serve {
        /// The address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The address of a key manager is none.
    #[error(
        "'{url}' is not the address of a key manager, which is https://HOST or https://HOST:PORT"
    )]
    Url {
        /// What was given.
        url: String,
    },
    /// Nobody answers there, or TLS failed.
    #[error("cannot reach the key manager at {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system, or TLS, said.
        source: io::Error,
    },
    /// The answer broke off, or was no HTTP.
    #[error("the key manager at {address} did not answer in HTTP")]
    Broken {
        /// Where.
        address: String,
        /// The reason.
        source: hyper::Error,
    },
    /// The answer did not come, or not to its end.
    #[error("the key manager at {address} did not answer within {} s", deadline.as_secs())]
    Slow {
        /// Where.
        address: String,
        /// How long was waited.
        deadline: Duration,
    },
    /// More bytes than the answer can have.
    #[error("the answer of the key manager at {address} is longer than {bytes} bytes")]
    TooLong {
        /// Where.
        address: String,
        /// The most that was expected.
        bytes: usize,
    },
    /// The key manager refused.
    #[error("the key manager at {address} refused with status {status}{message}")]
    Refused {
        /// Where.
        address: String,
        /// The status code of HTTP.
        status: u16,
        /// What it said, behind a colon, if it did.
        message: String,
    },
    /// The key manager sent us elsewhere. Keys come from where the operator said, or not at all.
    #[error("the key manager at {address} answered with a redirection (status {status})")]
    Redirected {
        /// Where.
        address: String,
        /// The status code of HTTP.
        status: u16,
    },
    /// The answer is not what the standard describes, or not what was asked for.
    #[error("the answer of the key manager at {address} cannot be used")]
    Defective {
        /// Where.
        address: String,
        /// What is wrong with it.
        source: Defect,
    },
    /// A key that was drawn before.
    #[error("the key manager at {address} gave a key that it gave before")]
    Repeated {
        /// Where.
        address: String,
    },
    /// What is asked for does not fit what the key manager offers.
    #[error("{what}")]
    Unfit {
        /// What does not fit.
        what: String,
    },
    /// The pad could not be written.
    #[error(transparent)]
    Key(#[from] key::Error),
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Settings { .. } | Error::Certificate { .. } | Error::Tls { .. } => Fault::Config,
            Error::Url { .. } | Error::Unfit { .. } => Fault::Usage,
            Error::File { source, .. } => Fault::of_io(source),
            Error::Content { .. } => Fault::Data,
            Error::Serve { .. } => Fault::System,
            Error::Unreachable { .. } | Error::Broken { .. } | Error::Slow { .. } => {
                Fault::Unavailable
            }
            Error::Refused { status: 503, .. } => Fault::TryAgain,
            Error::Refused { .. } | Error::Redirected { .. } => Fault::Refused,
            Error::TooLong { .. } | Error::Defective { .. } => Fault::Data,
            Error::Repeated { .. } => Fault::Integrity,
            Error::Key(source) => source.fault(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Refused { status: 404 | 500, .. } => Some(
                "the standard has 400 for bad requests and keys that are not there: this key \
                 manager may mean that"
                    .into(),
            ),
            Error::Refused { status: 401, .. } => {
                Some("does the key manager know the name in this certificate?".into())
            }
            Error::Repeated { .. } => Some(
                "nothing of it was used; do not use this key manager until it is mended".into(),
            ),
            Error::Key(source) => source.hint(),
            _ => None,
        }
    }
}
