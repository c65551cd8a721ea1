//! Places where shares live.
//!
//! A share is a numbered run of stripes, each uniform noise. Beside them a store keeps the digest of
//! every stripe: it names a corrupt stripe without telling anything about the secret, since it is
//! kept only where the share itself is.

use serde::{Deserialize, Serialize};

use crate::base::{Chunk, Fault, Faulty, ShareId};

/// A BLAKE3 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// What a store knows of a committed share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareInfo {
    /// Which share.
    pub id: ShareId,
    /// Version of the share format ([`crate::share`]).
    pub format: u16,
    /// Bytes of every stripe.
    pub stripe_bytes: u32,
    /// Number of stripes.
    pub stripes: u64,
    /// Digest over the stripes' digests, in order.
    pub digest: Digest,
}

/// A place where shares live. A share is visible once committed, whole, or not at all.
pub trait ShareStore: Send + Sync {
    /// Begins a share. Stripes that an earlier, uncommitted attempt left behind are dropped.
    ///
    /// Errors: [`Error::Exists`] when a committed share has this name.
    fn create(
        &self,
        id: &ShareId,
        format: u16,
        stripe_bytes: u32,
    ) -> Result<Box<dyn ShareWriter>, Error>;

    /// Opens a committed share.
    fn open(&self, id: &ShareId) -> Result<Box<dyn ShareReader>, Error>;

    /// The committed shares, ordered by their identifiers.
    fn list(&self) -> Result<Vec<ShareInfo>, Error>;

    /// Removes a share and frees its space. Removing what is not there is no error.
    fn remove(&self, id: &ShareId) -> Result<(), Error>;

    /// Puts a rebuilt stripe in its place. It must have the digest that the old one had.
    fn replace(&self, id: &ShareId, stripe: &Chunk) -> Result<(), Error>;
}

/// Writes one share. Dropped without commit, it leaves nothing visible.
pub trait ShareWriter: Send {
    /// Adds the next stripe; `stripe.seq()` counts from 0.
    fn append(&mut self, stripe: Chunk) -> Result<(), Error>;

    /// Adds `bytes` bytes of link key as the next stripe, here and at the place, and gives them:
    /// share C = R for the price of key alone. `None` where no link key is shared with the place.
    fn append_key(&mut self, _bytes: usize) -> Option<Result<Chunk, Error>> {
        None
    }

    /// Makes the share durable, then visible.
    fn commit(self: Box<Self>) -> Result<ShareInfo, Error>;
}

/// Reads one share; reading in order is fast.
pub trait ShareReader: Send {
    /// What the store knows of it.
    fn info(&self) -> &ShareInfo;

    /// Stripe `number`, checked against its digest.
    ///
    /// Errors: [`Error::Corrupt`] names the stripe; reading others goes on.
    fn read(&mut self, number: u64) -> Result<Chunk, Error>;
}

/// Why a share could not be stored or had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A committed share has this name.
    #[error("share {id} is already stored")]
    Exists {
        /// Which share.
        id: ShareId,
    },
    /// No committed share has this name.
    #[error("share {id} is not stored here")]
    Missing {
        /// Which share.
        id: ShareId,
    },
    /// A stripe is not what was written.
    #[error("share {id}, stripe {stripe} is corrupt")]
    Corrupt {
        /// Which share.
        id: ShareId,
        /// Which stripe, counting from 0.
        stripe: u64,
    },
    /// No room is left.
    #[error("{place} is full: {needed} bytes needed, {free} free")]
    Full {
        /// Which store.
        place: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The store's own record is damaged.
    #[error("{place}: {what}")]
    Catalogue {
        /// Which file.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// A disk operation failed.
    #[error("{place}")]
    Disk {
        /// Which file or device.
        place: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The holder could not be reached, or answered with an error.
    #[error("holder {site}")]
    Remote {
        /// Which site.
        site: crate::base::SiteId,
        /// What went wrong, for the exit code.
        fault: Fault,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Exists { .. } => Fault::Refused,
            Error::Missing { .. } => Fault::NoInput,
            Error::Corrupt { .. } | Error::Catalogue { .. } => Fault::Integrity,
            Error::Full { .. } | Error::Disk { .. } => Fault::Disk,
            Error::Remote { fault, .. } => *fault,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Corrupt { .. } => {
                Some("'dsgd store repair' rebuilds it from the other two shares".into())
            }
            Error::Full { .. } => Some("free space, or give the volume more".into()),
            _ => None,
        }
    }
}
