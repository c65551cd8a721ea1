//! A store at another site, over the sealed channel: the client's side and the holder's side.
//!
//! A request is one JSON message; stripes follow as messages of their own. The holder answers every
//! request but an append with one JSON reply, and a read with the stripes asked for. Reading in order
//! keeps two windows of [`WINDOW`] stripes on the way.

mod client;
mod service;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::{Error, ShareInfo};
use crate::base::fault::with_causes;
use crate::base::{Fault, Faulty, ShareId, SiteId};

pub use client::RemoteStore;
pub use service::Service;

/// Message kinds of the store protocol.
pub mod kind {
    /// JSON: what is asked.
    pub const REQUEST: u16 = 1;
    /// JSON: the answer, or why there is none.
    pub const REPLY: u16 = 2;
    /// A stripe.
    pub const STRIPE: u16 = 3;
    /// A stripe that is the key itself: share C for the price of key alone.
    pub const KEYED_STRIPE: u16 = 4;
    /// In place of a stripe that cannot be read; JSON, as a reply.
    pub const DAMAGED: u16 = 5;
}

/// Stripes asked for at once.
pub const WINDOW: u64 = 8;

/// What a share holder is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// Begin a share; stripes follow, then `Commit`.
    Create {
        /// Which share.
        share: ShareId,
        /// Version of the share format.
        format: u16,
        /// Bytes of every stripe.
        stripe_bytes: u32,
    },
    /// Make the begun share visible, with its first `stripes` stripes.
    Commit {
        /// Number of stripes sent.
        stripes: u64,
    },
    /// Describe a share and keep it open for `Read`.
    Open {
        /// Which share.
        share: ShareId,
    },
    /// Send stripes `[start, start + count)` of the open share.
    Read {
        /// First stripe.
        start: u64,
        /// How many.
        count: u64,
        /// Whether the holder is to check them against their digests.
        check: bool,
    },
    /// List the shares.
    List,
    /// Remove a share.
    Remove {
        /// Which share.
        share: ShareId,
    },
    /// Put the stripe that follows in place of a damaged one.
    Replace {
        /// Which share.
        share: ShareId,
        /// Number of the stripe.
        stripe: u64,
    },
    /// Read a whole share at the holder and name the stripes that are corrupt.
    Verify {
        /// Which share.
        share: ShareId,
    },
}

/// What a holder answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done; nothing to say.
    Done,
    /// A share's description.
    Info(ShareInfo),
    /// The shares stored.
    Shares(Vec<ShareInfo>),
    /// Stripes that are corrupt.
    Corrupt(Vec<u64>),
    /// It failed.
    Failed(Failure),
}

/// An error on its way between sites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    /// The exit code of its fault.
    pub code: u8,
    /// What to do about it.
    pub hint: Option<String>,
    /// Which store error it is, where the other side must tell them apart.
    pub what: Option<What>,
}

/// The store errors that a peer must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// [`Error::Exists`].
    Exists,
    /// [`Error::Missing`].
    Missing,
    /// [`Error::Corrupt`], with the stripe.
    Corrupt(u64),
    /// [`Error::Full`]: bytes needed, bytes free.
    Full(u64, u64),
    /// [`Error::Misfit`].
    Misfit,
}

impl Failure {
    /// Describes any error with its causes.
    pub fn of(error: &dyn Faulty) -> Self {
        let message = with_causes(error);
        Self { message, code: error.fault().exit_code(), hint: error.hint(), what: None }
    }

    fn of_store(error: &Error) -> Self {
        let what = match error {
            Error::Exists { .. } => Some(What::Exists),
            Error::Missing { .. } => Some(What::Missing),
            Error::Corrupt { stripe, .. } => Some(What::Corrupt(*stripe)),
            Error::Full { needed, free, .. } => Some(What::Full(*needed, *free)),
            Error::Misfit { .. } => Some(What::Misfit),
            _ => None,
        };
        Self { what, ..Self::of(error) }
    }

    fn into_store_error(self, site: &SiteId, id: Option<&ShareId>) -> Error {
        match (self.what, id) {
            (Some(What::Exists), Some(id)) => Error::Exists { id: id.clone() },
            (Some(What::Missing), Some(id)) => Error::Missing { id: id.clone() },
            (Some(What::Corrupt(stripe)), Some(id)) => Error::Corrupt { id: id.clone(), stripe },
            (Some(What::Misfit), Some(id)) => Error::Misfit { id: id.clone(), what: self.message },
            (Some(What::Full(needed, free)), _) => {
                Error::Full { place: format!("holder {site}"), needed, free }
            }
            _ => Error::Remote {
                site: site.clone(),
                fault: Fault::from_exit_code(self.code),
                source: Box::new(self),
            },
        }
    }
}
