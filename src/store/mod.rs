//! Places where shares live.
//!
//! A share is a numbered run of stripes, each uniform noise. Beside them a store keeps the digest of
//! every stripe: it names a corrupt stripe without telling anything about the secret, since it is
//! kept only where the share itself is.

#[cfg(test)]
pub(crate) mod conformance;
mod dir;
pub mod remote;
mod stripes;
mod volume;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::{ByteCount, Chunk, Fault, Faulty, ShareId};
use crate::io::{Backend, DiskKind};

pub use dir::DirStore;
pub use volume::Volume;

/// Stripes that an open writer or reader of a local store holds at most. A pool that feeds a writer
/// needs more than that.
pub const HELD_STRIPES: usize = 4;

/// Where a store is, and how to reach it: one `[[store]]` of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct StoreSettings {
    /// What the site calls it.
    pub name: String,
    /// A name in [`STORES`].
    pub kind: String,
    /// The folder, file or block device.
    pub path: PathBuf,
    /// How large a volume is made if there is none at `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteCount>,
    /// How the disk is accessed.
    #[serde(default)]
    pub disk: DiskKind,
}

/// Opens a store, and says how its disk is accessed.
pub type OpenStore = fn(&StoreSettings) -> Result<(Box<dyn ShareStore>, Backend), Error>;

/// The kinds of local stores.
pub const STORES: &[(&str, OpenStore)] = &[("dir", dir::open), ("volume", volume::open)];

/// Opens the store that the settings describe.
///
/// Errors: [`Error::Kind`] names the kinds there are.
pub fn open(settings: &StoreSettings) -> Result<(Box<dyn ShareStore>, Backend), Error> {
    let found = STORES.iter().find(|(kind, _)| *kind == settings.kind);
    let unknown = || Error::Kind {
        name: settings.name.clone(),
        kind: settings.kind.clone(),
        known: STORES.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(", "),
    };
    found.ok_or_else(unknown)?.1(settings)
}

/// The numbers of a share's stripes that are corrupt or cannot be read, in order.
///
/// Errors: those of opening, and of a holder that cannot be reached.
pub fn verify(store: &dyn ShareStore, id: &ShareId) -> Result<Vec<u64>, Error> {
    let mut reader = store.open(id)?;
    let mut bad = Vec::new();
    for number in 0..reader.info().stripes {
        match reader.read(number) {
            Ok(_) => {}
            Err(Error::Corrupt { .. } | Error::Disk { .. }) => bad.push(number),
            Err(error) => return Err(error),
        }
    }
    Ok(bad)
}

/// A BLAKE3 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

/// The digest as text.
impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

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
    /// Adds the next stripe; `stripe.seq()` counts from 0. A local store writes while the caller
    /// goes on, and holds up to [`HELD_STRIPES`] chunks meanwhile.
    fn append(&mut self, stripe: Chunk) -> Result<(), Error>;

    /// Adds `bytes` bytes of link key as the next stripe, here and at the place, and gives them:
    /// share C = R for the price of key alone. `None` where no link key is shared with the place.
    fn append_key(&mut self, _bytes: usize) -> Option<Result<Chunk, Error>> {
        None
    }

    /// Says how many stripes will be added, where that is known: a link reserves key for just these.
    ///
    /// Errors: a place that needs key for them and cannot be promised it.
    fn expect(&mut self, _stripes: u64) -> Result<(), Error> {
        Ok(())
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

    /// Stripe `number` as it is, for a caller that finds out by itself whether it is right.
    fn read_unchecked(&mut self, number: u64) -> Result<Chunk, Error> {
        self.read(number)
    }
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
    /// A stripe is not one of this share: out of order, or of another length.
    #[error("share {id}: {what}")]
    Misfit {
        /// Which share.
        id: ShareId,
        /// What does not fit.
        what: String,
    },
    /// A newer attempt to store the share began before this one ended.
    #[error("another attempt to store share {id} began meanwhile")]
    Superseded {
        /// Which share.
        id: ShareId,
    },
    /// Another process writes to the store.
    #[error("{place} is in use by another process")]
    Busy {
        /// Which store.
        place: String,
    },
    /// There is something already where a store was to be made.
    #[error("{place} already holds {what}")]
    Occupied {
        /// Which file or device.
        place: String,
        /// What it holds.
        what: &'static str,
    },
    /// No such kind of store.
    #[error("store {name}: unknown kind '{kind}', expected one of: {known}")]
    Kind {
        /// Which store.
        name: String,
        /// What was asked for.
        kind: String,
        /// What there is.
        known: String,
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
            Error::Exists { .. } | Error::Occupied { .. } => Fault::Refused,
            Error::Misfit { .. } => Fault::Data,
            Error::Superseded { .. } | Error::Busy { .. } => Fault::TryAgain,
            Error::Kind { .. } => Fault::Config,
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
            Error::Occupied { .. } => {
                Some("if that may be lost, write zeros over its first 128 KiB".into())
            }
            Error::Busy { .. } => Some("try again when the other process has ended".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_an_unknown_kind_is_answered_with_those_there_are() {
        let settings: StoreSettings =
            toml::from_str("name = 'local'\nkind = 'tape'\npath = '/x'\nbytes = '1GiB'\n").unwrap();
        assert_eq!((settings.bytes, settings.disk), (Some(ByteCount(1 << 30)), DiskKind::Auto));
        let error = open(&settings).err().unwrap();
        assert!(error.to_string().contains("dir, volume"), "{error}");
        assert_eq!(error.fault(), Fault::Config);
        assert!(toml::from_str::<StoreSettings>("name = 'a'\nkind = 'dir'\npat = '/'").is_err());
    }

    #[test]
    fn a_full_disk_ends_the_program_as_a_disk_fault() {
        let full = Error::Full { place: "x".into(), needed: 2, free: 1 };
        assert_eq!(full.fault().exit_code(), 74);
        assert!(full.hint().is_some());
    }
}
