//! What a volume lies on: something that can be opened as a disk several times, and locked.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::io::sim::SimMedium;
use crate::io::{self, Disk, DiskKind, Mode, Preference};

/// Held by the one process that changes the volume.
pub(super) type Lock = Box<dyn Send + Sync>;

/// A file, a block device, or a simulated disk.
pub(super) trait Medium: Send + Sync {
    /// Opens it as a disk of its own.
    fn disk(
        &self,
        mode: Mode,
        preference: &Preference<'_>,
    ) -> Result<Box<dyn Disk>, std::io::Error>;

    /// Locks it against other processes; None when another has it.
    fn lock(&self) -> Result<Option<Lock>, std::io::Error>;

    /// Its name in errors.
    fn place(&self) -> String;
}

/// A file or block device.
pub(super) struct LocalMedium {
    path: PathBuf,
    disk: DiskKind,
}

impl LocalMedium {
    pub(super) fn new(path: &Path, disk: DiskKind) -> Self {
        Self { path: path.into(), disk }
    }
}

impl Medium for LocalMedium {
    fn disk(
        &self,
        mode: Mode,
        preference: &Preference<'_>,
    ) -> Result<Box<dyn Disk>, std::io::Error> {
        let preference = Preference { disk: self.disk, ..*preference };
        match io::open(&self.path, mode, &preference) {
            Ok((disk, _)) => Ok(disk),
            Err(io::Error::Open { source, .. }) => Err(source),
            Err(error) => Err(std::io::Error::other(error)),
        }
    }

    fn lock(&self) -> Result<Option<Lock>, std::io::Error> {
        let file = File::open(&self.path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

impl Medium for SimMedium {
    fn disk(
        &self,
        _mode: Mode,
        preference: &Preference<'_>,
    ) -> Result<Box<dyn Disk>, std::io::Error> {
        Ok(Box::new(self.open(preference.depth)))
    }

    fn lock(&self) -> Result<Option<Lock>, std::io::Error> {
        // Only one process ever has a simulated disk.
        Ok(Some(Box::new(())))
    }

    fn place(&self) -> String {
        "simulated disk".into()
    }
}
