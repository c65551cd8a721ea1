//! The durable record of one stream end: its mark and its ledger, guarded across processes.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::{Clock, SiteId};

use super::ledger::{self, LEDGER_AT, Purpose, RECORD_BYTES, Record, Role};
use super::mark::{self, LoadError, Mark, MarkMedium, SLOT_BYTES, Slot};
use super::{Error, KeyRange, KeySource, StreamId};

/// Bytes that a ledger grows by at once: a file that does not change its length syncs faster.
const GROWTH_BYTES: usize = 64 << 10;

/// Two slots at the beginning of a file, and the ledger after them.
#[derive(Clone)]
pub struct MarkFile(Arc<File>);

impl MarkFile {
    /// Opens the file and makes it if it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self(Arc::new(file)))
    }

    /// Fills as much of `bytes` as the file has at `offset`; the rest stays as it is.
    fn read_available(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut read = 0;
        while read < bytes.len() {
            match self.0.read_at(&mut bytes[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn entry_offset(index: u64) -> u64 {
    LEDGER_AT as u64 + index * RECORD_BYTES as u64
}

impl MarkMedium for MarkFile {
    fn read_slot(&mut self, slot: usize) -> io::Result<Slot> {
        let mut bytes: Slot = Box::new([0; SLOT_BYTES]);
        self.read_available(&mut bytes[..], (slot * SLOT_BYTES) as u64)?;
        Ok(bytes)
    }

    fn write_slot(&mut self, slot: usize, bytes: &Slot) -> io::Result<()> {
        self.0.write_all_at(&bytes[..], (slot * SLOT_BYTES) as u64)
    }

    fn read_entries(&mut self, index: u64) -> io::Result<Vec<u8>> {
        let start = entry_offset(index);
        let length = self.0.metadata()?.len().saturating_sub(start) as usize;
        let mut bytes = vec![0; length / RECORD_BYTES * RECORD_BYTES];
        self.read_available(&mut bytes, start)?;
        Ok(bytes)
    }

    fn write_entry(&mut self, index: u64, bytes: &[u8; RECORD_BYTES]) -> io::Result<()> {
        let start = entry_offset(index);
        if self.0.metadata()?.len() < start + RECORD_BYTES as u64 {
            self.0.write_all_at(&vec![0; GROWTH_BYTES], start)?;
        }
        self.0.write_all_at(bytes, start)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The folder of the link to `peer` in a site's state folder.
pub fn link_folder(state: &Path, peer: &SiteId) -> PathBuf {
    state.join("keys").join(peer.as_str())
}

/// The file with the mark and the ledger of one stream end, in the folder of its link.
pub fn record_path(folder: &Path, role: Role) -> PathBuf {
    folder.join(match role {
        Role::Sender => "sent",
        Role::Follower => "received",
    })
}

/// One session's hold on the record of a stream end.
pub(crate) struct Journal {
    stream: StreamId,
    role: Role,
    label: String,
    path: PathBuf,
    file: MarkFile,
    session: u64,
    clock: Clock,
    seen: AtomicU64,
    turn: Mutex<()>,
    /// Locked, shared, as long as the session may use what it reserved.
    _alive: File,
}

impl Journal {
    /// Opens the record in the folder of the link; a damaged one is an error only when it is used.
    ///
    /// When no other session is open, what crashed ones left in `source` is destroyed.
    pub(crate) fn open(
        folder: &Path,
        stream: StreamId,
        role: Role,
        clock: Clock,
        source: &dyn KeySource,
    ) -> Result<Self, Error> {
        let path = record_path(folder, role);
        let failed = |source| Error::Ledger { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let file = MarkFile::open(&path).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let session = getrandom::u64()
            .map_err(|source| Error::Random { name: "os".into(), source: source.into() })?;
        let label = format!("{stream} {role:?}");
        let sessions = path.with_extension("sessions");
        let alive = File::options().create(true).append(true).open(&sessions).map_err(failed)?;
        if alive.try_lock().is_ok() {
            sweep(&path, &stream, source);
            alive.unlock().map_err(failed)?;
        }
        alive.lock_shared().map_err(failed)?;
        Ok(Self {
            stream,
            role,
            label,
            path,
            file,
            session,
            clock,
            seen: AtomicU64::new(0),
            turn: Mutex::new(()),
            _alive: alive,
        })
    }

    pub(crate) fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The mark as it is on the disk now, or as last seen if it cannot be read.
    pub(crate) fn position(&self) -> u64 {
        self.load().map_or_else(|_| self.seen.load(Ordering::Relaxed), |mark| mark.position())
    }

    /// Reads the mark.
    pub(crate) fn load(&self) -> Result<Mark, Error> {
        let _lock = self.lock(File::lock_shared)?;
        mark::load(&mut self.file.clone(), &self.label).map_err(|error| self.refused(error))
    }

    /// Changes the mark while nobody else can, and makes it durable together with an entry in the
    /// ledger. `change` says which keys are spent; when it fails, nothing is changed.
    pub(crate) fn spend(
        &self,
        change: impl FnOnce(&mut Mark) -> Result<KeyRange, Error>,
    ) -> Result<KeyRange, Error> {
        let mut file = self.file.clone();
        let _lock = self.lock(File::lock)?;
        let settled = mark::settle(&mut file, &self.label);
        let mut mark = settled.map_err(|error| self.refused(error))?;
        let range = change(&mut mark)?;
        let record = self.record(range, Purpose::Session);
        mark::commit(&mut file, &self.label, &mut mark, &record)
            .map_err(|source| self.failed(source))?;
        self.seen.store(mark.position(), Ordering::Relaxed);
        Ok(range)
    }

    /// Gives up every unit below `position` and below whatever the record says, however damaged it
    /// is, and so ends a quarantine. Returns the new mark.
    pub(crate) fn declare_lost(&self, position: u64) -> Result<u64, Error> {
        let mut file = self.file.clone();
        let _lock = self.lock(File::lock)?;
        let salvaged = mark::salvage(&mut file, &self.label);
        let mut mark = salvaged.map_err(|source| self.failed(source))?;
        let start = mark.position();
        mark.forget_below(start.max(position));
        let record = self.record(KeyRange::between(start, mark.position()), Purpose::Lost);
        mark::commit(&mut file, &self.label, &mut mark, &record)
            .map_err(|source| self.failed(source))?;
        Ok(mark.position())
    }

    fn lock(&self, lock: fn(&File) -> io::Result<()>) -> Result<Lock<'_>, Error> {
        Lock::new(&self.file.0, &self.turn, lock).map_err(|source| self.failed(source))
    }

    fn record(&self, range: KeyRange, purpose: Purpose) -> Record {
        let time = self.clock.since_epoch();
        Record { range, role: self.role, purpose, session: self.session, time }
    }

    fn refused(&self, error: LoadError) -> Error {
        match error {
            LoadError::Medium(source) => self.failed(source),
            LoadError::Contradiction(reason) => {
                Error::Quarantined { stream: self.stream.clone(), reason }
            }
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Ledger { path: self.path.clone(), source }
    }
}

/// Destroys every key that was ever reserved or claimed. What cannot be read or written now is left
/// for the next time: it is never used either way.
fn sweep(path: &Path, stream: &StreamId, source: &dyn KeySource) {
    for record in ledger::read(path).unwrap_or_default() {
        if source.sweep(stream, record.range).is_err() {
            break;
        }
    }
}

/// A lock on a file, given up on drop. It excludes other processes and other openings of the file;
/// the turn excludes other threads that have the same opening.
struct Lock<'a> {
    file: &'a File,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Lock<'a> {
    fn new(
        file: &'a File,
        turn: &'a Mutex<()>,
        lock: fn(&File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        lock(file)?;
        Ok(Self { file, _turn })
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // The system gives it up at the latest when the file is closed.
        let _ = self.file.unlock();
    }
}
