//! Writing a share into a folder aside, and giving that its name.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::base::{Chunk, ShareId};
use crate::io::{self, sync_folder};
use crate::store::stripes::StripeWriter;
use crate::store::{Error, ShareInfo, ShareWriter};

use super::{SCHEMA, Sidecar, failed, failed_writing};

/// A share's folder under `.partial`. Dropped before it got its name, it is removed.
pub(super) struct Attempt {
    pub(super) folder: PathBuf,
    target: PathBuf,
    done: bool,
    _at_work: File,
}

impl Attempt {
    /// Makes `folder`, which is to become `target`; `at_work` is the lock on what lies aside.
    pub(super) fn begin(folder: PathBuf, target: PathBuf, at_work: File) -> Result<Self, Error> {
        std::fs::create_dir(&folder).map_err(|error| failed(&folder, error))?;
        Ok(Self { folder, target, done: false, _at_work: at_work })
    }

    /// Gives the folder its name, durably.
    fn publish(&mut self, id: &ShareId) -> Result<(), Error> {
        let here = |error| failed(&self.folder, error);
        sync_folder(&self.folder).map_err(here)?;
        let dataset = self.target.parent().expect("a share lies in its data set's folder");
        let root = dataset.parent().expect("a data set lies in the store's folder");
        // Twice where the data set's folder goes with its last share just then.
        let renamed = (0..2).find_map(|attempt| {
            let outcome = std::fs::create_dir_all(dataset)
                .and_then(|()| sync_folder(root))
                .and_then(|()| std::fs::rename(&self.folder, &self.target));
            (outcome.is_ok() || attempt == 1).then_some(outcome)
        });
        match renamed.expect("the second attempt counts") {
            Ok(()) => self.done = true,
            // A folder never takes the name of one that holds something.
            Err(_) if self.target.exists() => return Err(Error::Exists { id: id.clone() }),
            Err(_) if !self.folder.exists() => return Err(Error::Superseded { id: id.clone() }),
            Err(error) => return Err(here(error)),
        }
        sync_folder(dataset).map_err(|error| failed(dataset, error))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.done {
            // Whatever stays is removed with the other leftovers at the next opening.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

pub(super) struct DirWriter {
    stripes: StripeWriter,
    /// For the length and the room; the stripes go through their disk.
    file: File,
    reserved: u64,
    /// Bytes to reserve at a time.
    step: u64,
    attempt: Attempt,
}

impl DirWriter {
    /// Writes into the file of stripes in the attempt's folder.
    pub(super) fn new(stripes: StripeWriter, file: File, step: u64, attempt: Attempt) -> Self {
        Self { stripes, file, reserved: 0, step, attempt }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        failed_writing(&self.attempt.folder, u64::from(self.stripes.stripe_bytes), error)
    }
}

impl ShareWriter for DirWriter {
    fn append(&mut self, stripe: Chunk) -> Result<(), Error> {
        self.stripes.check(&stripe)?;
        let stripe_bytes = u64::from(self.stripes.stripe_bytes);
        let offset = self.stripes.stripes() * stripe_bytes;
        if offset + stripe_bytes > self.reserved {
            let wanted = self.reserved + self.step;
            // Where a whole step does not fit, the stripe still may; its write will tell.
            if io::reserve(&self.file, self.reserved, wanted).is_ok() {
                self.reserved = wanted;
            }
        }
        self.stripes.write(stripe, offset).map_err(|error| self.failed(error))
    }

    fn commit(mut self: Box<Self>) -> Result<ShareInfo, Error> {
        self.stripes.disk.drain().map_err(|error| self.failed(error))?;
        let info = self.stripes.info();
        let length = info.stripes * u64::from(info.stripe_bytes);
        let sidecar = Sidecar { schema: SCHEMA, share: info.clone() };
        let json = serde_json::to_vec_pretty(&sidecar)
            .map_err(|error| self.failed(std::io::Error::other(error)))?;
        let folder = &self.attempt.folder;
        self.file
            .set_len(length)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| write_synced(&folder.join("digests"), &self.stripes.digests))
            .and_then(|()| write_synced(&folder.join("share.json"), &json))
            .map_err(|error| match error.kind() {
                // A newer attempt to write this share has removed this one.
                std::io::ErrorKind::NotFound => Error::Superseded { id: info.id.clone() },
                _ => self.failed(error),
            })?;
        self.attempt.publish(&info.id)?;
        Ok(info)
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), std::io::Error> {
    let mut file = File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}
