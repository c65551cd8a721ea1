//! A store in a folder of an ordinary file system.
//!
//! ```text
//! ROOT/DATASET/MEMBER.LETTER/stripes     the stripes one after the other, nothing else: noise
//! ROOT/DATASET/MEMBER.LETTER/digests     32 bytes of BLAKE3 for each stripe
//! ROOT/DATASET/MEMBER.LETTER/share.json  what the share is
//! ROOT/.partial/…                        shares not committed, or being removed
//! ROOT/.lock                             held by those at work in .partial
//! ```
//!
//! A share is written under `.partial`, synced, and appears by the renaming of its folder.

#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::base::{Chunk, DatasetId, ShareId};
use crate::io::{self, Backend, DIRECT_BYTES, Disk, DiskKind, Mode, Preference, sync_folder};

use writer::{Attempt, DirWriter};

use super::stripes::{
    DIGEST_BYTES, StripeReader, StripeWriter, check_sizes, digest_of, disk_error, pad,
};
use super::{Error, HELD_STRIPES, ShareInfo, ShareReader, ShareStore, ShareWriter, StoreSettings};

/// A store in a folder.
#[derive(Clone)]
pub struct DirStore {
    root: PathBuf,
    disk: DiskKind,
    /// Stands between the store and its disks; tests put faults here.
    wrap: Option<Wrap>,
    /// Room is asked of the file system in steps of this many bytes.
    reserve_bytes: u64,
}

/// Turns a disk into the disk that is used.
type Wrap = Arc<dyn Fn(Box<dyn Disk>) -> Box<dyn Disk> + Send + Sync>;

/// The version of `share.json`.
const SCHEMA: u32 = 1;

/// Large enough that a share is laid out in few pieces.
const RESERVE_BYTES: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Sidecar {
    schema: u32,
    share: ShareInfo,
}

/// Opens the store at `settings.path`, as the registry wants it.
pub(super) fn open(settings: &StoreSettings) -> Result<(Box<dyn ShareStore>, Backend), Error> {
    let store = DirStore::open(&settings.path, settings.disk)?;
    let backend = store.backend()?;
    Ok((Box::new(store), backend))
}

impl DirStore {
    /// Opens the store in folder `root`, which is made if it is not there. What earlier, ended
    /// attempts left behind is removed.
    pub fn open(root: &Path, disk: DiskKind) -> Result<Self, Error> {
        let store = Self { root: root.into(), disk, wrap: None, reserve_bytes: RESERVE_BYTES };
        std::fs::create_dir_all(root).map_err(|error| failed(root, error))?;
        let partial = store.partial();
        if let Some(_alone) = store.lock_alone()? {
            match std::fs::remove_dir_all(&partial) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(&partial, error));
                }
                _ => {}
            }
        }
        std::fs::create_dir_all(&partial).map_err(|error| failed(&partial, error))?;
        Ok(store)
    }

    /// How its files are accessed, and why not faster.
    pub fn backend(&self) -> Result<Backend, Error> {
        let _at_work = self.lock_shared()?;
        let probe = self.partial().join(format!("probe~{}", unique()));
        let opened = io::open(&probe, Mode::Create, &self.preference(DIRECT_BYTES));
        // It was made for the question only; what stays is removed with the other leftovers.
        let _ = std::fs::remove_file(&probe);
        opened.map(|(_, backend)| backend).map_err(|error| of_open(&self.root, error))
    }

    fn partial(&self) -> PathBuf {
        self.root.join(".partial")
    }

    fn folder(&self, id: &ShareId) -> PathBuf {
        self.root.join(id.dataset.as_str()).join(format!("{}.{}", id.member, id.letter))
    }

    fn lock_file(&self) -> Result<File, Error> {
        let path = self.root.join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.map_err(|error| failed(&path, error))
    }

    /// Says that somebody is at work in `.partial`, until the file is closed.
    fn lock_shared(&self) -> Result<File, Error> {
        let file = self.lock_file()?;
        // Held alone only for the moment of a clean-up, so this does not wait long.
        file.lock_shared().map_err(|error| failed(&self.root, error))?;
        Ok(file)
    }

    /// None when somebody is at work in `.partial`.
    fn lock_alone(&self) -> Result<Option<File>, Error> {
        let file = self.lock_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(&self.root, error)),
        }
    }

    fn preference(&self, stripe_bytes: usize) -> Preference<'static> {
        let direct = stripe_bytes.is_multiple_of(DIRECT_BYTES);
        Preference { disk: self.disk, direct, depth: HELD_STRIPES, pool: None }
    }

    fn disk(
        &self,
        path: &Path,
        mode: Mode,
        preference: &Preference<'_>,
    ) -> Result<Box<dyn Disk>, Error> {
        let (disk, _) = io::open(path, mode, preference).map_err(|error| of_open(path, error))?;
        Ok(match &self.wrap {
            Some(wrap) => wrap(disk),
            None => disk,
        })
    }

    /// Removes the attempts to write `id` that never ended.
    fn drop_attempts(&self, id: &ShareId) -> Result<(), Error> {
        let partial = self.partial();
        let prefix = attempt_prefix(id);
        for entry in std::fs::read_dir(&partial).map_err(|error| failed(&partial, error))? {
            let path = entry.map_err(|error| failed(&partial, error))?.path();
            if name_of(&path).starts_with(&prefix) {
                remove_folder(&path)?;
            }
        }
        Ok(())
    }

    fn info(&self, id: &ShareId) -> Result<ShareInfo, Error> {
        let path = self.folder(id).join("share.json");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Missing { id: id.clone() });
            }
            outcome => outcome.map_err(|error| failed(&path, error))?,
        };
        let damaged = |what: String| Error::Catalogue { place: path.display().to_string(), what };
        let sidecar: Sidecar =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if sidecar.schema != SCHEMA {
            return Err(damaged(format!("schema {} is not known", sidecar.schema)));
        }
        if sidecar.share.id != *id {
            return Err(damaged(format!("it describes share {}", sidecar.share.id)));
        }
        check_sizes(id, sidecar.share.stripe_bytes)?;
        Ok(sidecar.share)
    }

    fn digests(&self, info: &ShareInfo) -> Result<Vec<u8>, Error> {
        let path = self.folder(&info.id).join("digests");
        let digests = std::fs::read(&path).map_err(|error| failed(&path, error))?;
        let whole = digests.len() as u64 == info.stripes.saturating_mul(DIGEST_BYTES as u64);
        if !whole || digest_of(&digests) != info.digest {
            let what = "the digests of the stripes are damaged".into();
            return Err(Error::Catalogue { place: path.display().to_string(), what });
        }
        Ok(digests)
    }

    fn shares_in(&self, dataset: &DatasetId) -> Result<Vec<ShareInfo>, Error> {
        let folder = self.root.join(dataset.as_str());
        let entries = match std::fs::read_dir(&folder) {
            // Its last share was removed meanwhile.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| failed(&folder, error))?,
        };
        let mut shares = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| failed(&folder, error))?.file_name();
            let text = format!("{dataset}/{}", name.to_string_lossy().replacen('.', "/", 1));
            let Ok(id) = text.parse::<ShareId>() else { continue };
            match self.info(&id) {
                // It was removed meanwhile.
                Err(Error::Missing { .. }) => {}
                info => shares.push(info?),
            }
        }
        Ok(shares)
    }
}

impl ShareStore for DirStore {
    fn create(
        &self,
        id: &ShareId,
        format: u16,
        stripe_bytes: u32,
    ) -> Result<Box<dyn ShareWriter>, Error> {
        check_sizes(id, stripe_bytes)?;
        let at_work = self.lock_shared()?;
        if self.folder(id).exists() {
            return Err(Error::Exists { id: id.clone() });
        }
        self.drop_attempts(id)?;
        let folder = self.partial().join(format!("{}{}", attempt_prefix(id), unique()));
        let attempt = Attempt::begin(folder, self.folder(id), at_work)?;
        let path = attempt.folder.join("stripes");
        let file = File::create_new(&path).map_err(|error| failed(&path, error))?;
        let disk = self.disk(&path, Mode::Write, &self.preference(stripe_bytes as usize))?;
        let stripes = StripeWriter::new(id, format, stripe_bytes, disk);
        let step = self.reserve_bytes.max(u64::from(stripe_bytes));
        Ok(Box::new(DirWriter::new(stripes, file, step, attempt)))
    }

    fn open(&self, id: &ShareId) -> Result<Box<dyn ShareReader>, Error> {
        let info = self.info(id)?;
        let digests = self.digests(&info)?;
        let path = self.folder(id).join("stripes");
        let pool = StripeReader::pool(&info);
        let registered = StripeReader::registered(&info, &pool);
        let preference =
            Preference { pool: registered, ..self.preference(info.stripe_bytes as usize) };
        let disk = self.disk(&path, Mode::Read, &preference)?;
        let stripe_bytes = u64::from(info.stripe_bytes);
        let locate = Box::new(move |number| number * stripe_bytes);
        let place = path.display().to_string();
        Ok(Box::new(StripeReader::new(info, digests, disk, place, locate, pool)))
    }

    fn list(&self) -> Result<Vec<ShareInfo>, Error> {
        let mut shares = Vec::new();
        for entry in std::fs::read_dir(&self.root).map_err(|error| failed(&self.root, error))? {
            let entry = entry.map_err(|error| failed(&self.root, error))?;
            // Names that no data set can have, such as `.partial`, are not ours to list.
            if let Ok(dataset) = entry.file_name().to_string_lossy().parse::<DatasetId>()
                && entry.path().is_dir()
            {
                shares.extend(self.shares_in(&dataset)?);
            }
        }
        shares.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(shares)
    }

    fn remove(&self, id: &ShareId) -> Result<(), Error> {
        let _at_work = self.lock_shared()?;
        self.drop_attempts(id)?;
        let folder = self.folder(id);
        // Renamed first, so that a share is there whole or not at all.
        let aside = self.partial().join(format!("removed~{}", unique()));
        match std::fs::rename(&folder, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            outcome => outcome.map_err(|error| failed(&folder, error))?,
        }
        let dataset = self.root.join(id.dataset.as_str());
        sync_folder(&dataset).map_err(|error| failed(&dataset, error))?;
        // Fails, as it should, while the data set has other shares here.
        let _ = std::fs::remove_dir(&dataset);
        remove_folder(&aside)
    }

    fn replace(&self, id: &ShareId, stripe: &Chunk) -> Result<(), Error> {
        let info = self.info(id)?;
        let digests = self.digests(&info)?;
        super::stripes::check_replacement(&info, &digests, stripe)?;
        let path = self.folder(id).join("stripes");
        let mut disk = self.disk(&path, Mode::Write, &self.preference(stripe.len()))?;
        let mut copy = Chunk::from_bytes(stripe.seq(), stripe);
        pad(&mut copy, disk.alignment());
        let offset = stripe.seq() * u64::from(info.stripe_bytes);
        io::write_at(&mut *disk, copy, offset)
            .and_then(|()| io::sync(&mut *disk))
            .map_err(|error| failed(&path, error))
    }
}

fn attempt_prefix(id: &ShareId) -> String {
    // No identifier has a tilde, so that no share's prefix begins another's.
    format!("{}~{}~{}~", id.dataset, id.member, id.letter)
}

/// A text that no other attempt has: of this process by the number, of others by the process.
fn unique() -> String {
    static ATTEMPTS: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), ATTEMPTS.fetch_add(1, Ordering::Relaxed))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(|error| failed(path, error)),
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    failed_writing(path, 0, error)
}

fn failed_writing(path: &Path, needed: u64, error: std::io::Error) -> Error {
    disk_error(&path.display().to_string(), needed, io::free_bytes(path), error)
}

fn of_open(path: &Path, error: io::Error) -> Error {
    match error {
        io::Error::Open { path, source } => failed(&path, source),
        error => failed(path, std::io::Error::other(error)),
    }
}
