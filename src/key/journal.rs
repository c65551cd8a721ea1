//! The durable record of one stream end: its mark and its ledger, guarded across processes.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::{Clock, SiteId};

use super::admission::Promises;
use super::greeting::range_at;
use super::ledger::{self, LEDGER_AT, Purpose, RECORD_BYTES, Record, Role};
use super::mark::{self, LoadError, Mark, MarkMedium, SLOT_BYTES, Slot, Suspicion, UpdateError};
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
    /// One thread at a time; other processes and other openings are kept away by the lock on `file`.
    medium: Mutex<Box<dyn MarkMedium + Send>>,
    file: Option<Arc<File>>,
    session: u64,
    clock: Clock,
    seen: AtomicU64,
    seen_sequence: AtomicU64,
    /// Locked, shared, as long as the session may use what it reserved.
    _alive: Option<File>,
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
        let sessions = path.with_extension("sessions");
        // A record is made before the file of its sessions.
        let removed = sessions.exists() && !path.exists();
        let file = MarkFile::open(&path).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let label = format!("{stream} {role:?}");
        let alive = File::options().create(true).append(true).open(&sessions).map_err(failed)?;
        if alive.try_lock().is_ok() {
            sweep(&path, &label, &stream, source);
            alive.unlock().map_err(failed)?;
        }
        alive.lock_shared().map_err(failed)?;
        let lock = Some(Arc::clone(&file.0));
        let journal = Self {
            file: lock,
            _alive: Some(alive),
            ..Self::over(Box::new(file), path, stream, role, clock)?
        };
        if removed {
            journal.suspect(Suspicion::Removed)?;
        }
        Ok(journal)
    }

    /// The record on a medium of which there is no other opening.
    pub(crate) fn over(
        medium: Box<dyn MarkMedium + Send>,
        path: PathBuf,
        stream: StreamId,
        role: Role,
        clock: Clock,
    ) -> Result<Self, Error> {
        let session = getrandom::u64()
            .map_err(|source| Error::Random { name: "os".into(), source: source.into() })?;
        Ok(Self {
            label: format!("{stream} {role:?}"),
            stream,
            role,
            path,
            medium: Mutex::new(medium),
            file: None,
            session,
            clock,
            seen: AtomicU64::new(0),
            seen_sequence: AtomicU64::new(0),
            _alive: None,
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
        let mut held = self.hold(File::lock_shared)?;
        mark::load(held.medium(), &self.label).map_err(|error| self.refused(error))
    }

    /// Reads the mark for use.
    ///
    /// Errors: [`Error::Quarantined`] also when the stream was found to be set back.
    pub(crate) fn load_usable(&self) -> Result<Mark, Error> {
        let mark = self.load()?;
        self.check_usable(&mark)?;
        Ok(mark)
    }

    /// Changes the mark while nobody else can, and makes it durable together with an entry in the
    /// ledger. `change` says which keys are spent; when it fails, nothing is changed.
    pub(crate) fn spend(
        &self,
        change: impl FnOnce(&mut Mark) -> Result<KeyRange, Error>,
    ) -> Result<KeyRange, Error> {
        let mut spent = KeyRange::between(0, 0);
        self.record(Purpose::Session, |mark| {
            spent = change(mark)?;
            Ok(Some(spent))
        })?;
        Ok(spent)
    }

    /// As [`spend`](Self::spend), for any purpose; without a range nothing is changed.
    pub(crate) fn record(
        &self,
        purpose: Purpose,
        change: impl FnOnce(&mut Mark) -> Result<Option<KeyRange>, Error>,
    ) -> Result<Mark, Error> {
        self.update(|mark| {
            self.check_usable(mark)?;
            Ok(change(mark)?.map(|range| self.entry(range, purpose)))
        })
    }

    /// From now on, and after every restart, the stream is in quarantine.
    pub(crate) fn suspect(&self, suspicion: Suspicion) -> Result<(), Error> {
        self.update(|mark| {
            let known = mark.suspicion().is_some();
            mark.suspect(suspicion);
            let none = KeyRange { position: mark.position(), units: 0 };
            Ok((!known).then(|| self.entry(none, Purpose::Suspicion)))
        })
        .map(drop)
    }

    /// What jobs of this site were promised of the stream; nothing in memory.
    pub(crate) fn promises(&self) -> Option<Promises> {
        self.file.as_ref().map(|_| Promises::of(&self.path))
    }

    /// The number drawn for this session.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// The turn to agree on new greeting keys, for as long as the file is held; none while another
    /// session has it.
    pub(crate) fn turn_to_ask(&self) -> Option<Turn> {
        if self.file.is_none() {
            return Some(Turn { _file: None });
        }
        let path = self.path.with_extension("greeting");
        let file = File::options().create(true).append(true).open(path).ok()?;
        file.try_lock().is_ok().then_some(Turn { _file: Some(file) })
    }

    /// The error for a stream that is suspected.
    pub(crate) fn quarantined(&self, suspicion: Suspicion) -> Error {
        Error::Quarantined { stream: self.stream.clone(), reason: suspicion.reason() }
    }

    fn check_usable(&self, mark: &Mark) -> Result<(), Error> {
        match mark.suspicion() {
            Some(suspicion) => Err(self.quarantined(suspicion)),
            None if mark.sequence() < self.seen_sequence.load(Ordering::Relaxed) => {
                let reason = "its record was set back while it was in use";
                Err(Error::Quarantined { stream: self.stream.clone(), reason })
            }
            None => Ok(()),
        }
    }

    fn update(
        &self,
        change: impl FnOnce(&mut Mark) -> Result<Option<Record>, Error>,
    ) -> Result<Mark, Error> {
        let mut held = self.hold(File::lock)?;
        let mark =
            mark::update(held.medium(), &self.label, change).map_err(|error| match error {
                UpdateError::Load(error) => self.refused(error),
                UpdateError::Change(error) => error,
                UpdateError::Commit(source) => self.failed(source),
            })?;
        self.seen.store(mark.position(), Ordering::Relaxed);
        self.seen_sequence.fetch_max(mark.sequence(), Ordering::Relaxed);
        Ok(mark)
    }

    /// Gives up every unit below `position` and below whatever the record says, however damaged it
    /// is, and so ends a quarantine. Returns the new mark.
    pub(crate) fn declare_lost(&self, position: u64) -> Result<u64, Error> {
        let mut held = self.hold(File::lock)?;
        let salvaged = mark::salvage(held.medium(), &self.label);
        let mut mark = salvaged.map_err(|source| self.failed(source))?;
        let start = mark.position();
        mark.forget_below(start.max(position));
        let record = self.entry(KeyRange::between(start, mark.position()), Purpose::Lost);
        mark::commit(held.medium(), &self.label, &mut mark, &record)
            .map_err(|source| self.failed(source))?;
        Ok(mark.position())
    }

    fn hold(&self, lock: fn(&File) -> io::Result<()>) -> Result<Held<'_>, Error> {
        let medium = self.medium.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.file.as_deref();
        file.map_or(Ok(()), lock).map_err(|source| self.failed(source))?;
        Ok(Held { medium, file })
    }

    fn entry(&self, range: KeyRange, purpose: Purpose) -> Record {
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

    pub(crate) fn failed(&self, source: io::Error) -> Error {
        Error::Ledger { path: self.path.clone(), source }
    }
}

/// A turn, given up on drop.
pub(crate) struct Turn {
    _file: Option<File>,
}

/// Destroys every key that was ever reserved or claimed, but the greeting keys in force. What cannot
/// be read or written now is left for the next time: it is never used either way.
fn sweep(path: &Path, label: &str, stream: &StreamId, source: &dyn KeySource) {
    let mark = MarkFile::open(path).map_err(LoadError::from);
    let Ok(mark) = mark.and_then(|mut file| mark::load(&mut file, label)) else { return };
    let held: Vec<_> = mark.greetings().iter().map(|keys| range_at(keys.start)).collect();
    let is_held = |range: &KeyRange| held.iter().any(|keys| keys.overlaps(range));
    for record in ledger::read(path).unwrap_or_default() {
        if !is_held(&record.range) && source.sweep(stream, record.range).is_err() {
            return;
        }
    }
    // The room is given back another time, if not now.
    let _ = source.retire(stream, mark.position(), &held);
}

/// The medium, and the lock on its file, given up on drop.
struct Held<'a> {
    medium: MutexGuard<'a, Box<dyn MarkMedium + Send>>,
    file: Option<&'a File>,
}

impl Held<'_> {
    fn medium(&mut self) -> &mut dyn MarkMedium {
        &mut **self.medium
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.file {
            // The system gives it up at the latest when the file is closed.
            let _ = file.unlock();
        }
    }
}
