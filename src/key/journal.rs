//! The durable record of one stream end: its mark and its ledger, guarded across processes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Clock, SiteId};

use super::ledger::{self, Appender, Purpose, Record, Role};
use super::mark::{self, Mark, MarkMedium, SLOT_BYTES, Slot};
use super::{Error, KeyRange, StreamId};

/// Two slots at the beginning of a file.
#[derive(Clone)]
pub struct MarkFile(Arc<File>);

impl MarkFile {
    /// Opens the file and makes it if it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self(Arc::new(file)))
    }
}

impl MarkMedium for MarkFile {
    fn read_slot(&mut self, slot: usize) -> io::Result<Slot> {
        let mut bytes: Slot = Box::new([0; SLOT_BYTES]);
        let start = slot * SLOT_BYTES;
        let mut read = 0;
        while read < SLOT_BYTES {
            match self.0.read_at(&mut bytes[read..], (start + read) as u64) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    fn write_slot(&mut self, slot: usize, bytes: &Slot) -> io::Result<()> {
        self.0.write_all_at(&bytes[..], (slot * SLOT_BYTES) as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The folder of the link to `peer` in a site's state folder.
pub fn link_folder(state: &Path, peer: &SiteId) -> PathBuf {
    state.join("keys").join(peer.as_str())
}

/// The ledger of one stream end in the folder of its link.
pub fn ledger_path(folder: &Path, role: Role) -> PathBuf {
    folder.join(match role {
        Role::Sender => "sent.ledger",
        Role::Follower => "received.ledger",
    })
}

fn mark_name(role: Role) -> &'static str {
    match role {
        Role::Sender => "sent.mark",
        Role::Follower => "received.mark",
    }
}

/// One session's hold on the record of a stream end.
pub(crate) struct Journal {
    stream: StreamId,
    role: Role,
    label: String,
    folder: PathBuf,
    marks: MarkFile,
    ledger: Appender,
    session: u64,
    clock: Clock,
    seen: u64,
}

impl Journal {
    /// Opens the record in the folder of the link; a damaged one is an error only when it is used.
    pub(crate) fn open(
        folder: &Path,
        stream: StreamId,
        role: Role,
        clock: Clock,
    ) -> Result<Self, Error> {
        let path = folder.join(mark_name(role));
        let failed = |source| Error::Ledger { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let marks = MarkFile::open(&path).map_err(failed)?;
        let ledger = Appender::open(&ledger_path(folder, role)).map_err(failed)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let session = getrandom::u64()
            .map_err(|source| Error::Random { name: "os".into(), source: source.into() })?;
        let label = format!("{stream} {}", mark_name(role));
        Ok(Self {
            stream,
            role,
            label,
            folder: folder.into(),
            marks,
            ledger,
            session,
            clock,
            seen: 0,
        })
    }

    pub(crate) fn stream(&self) -> &StreamId {
        &self.stream
    }

    /// The mark as it is on the disk now, or as last seen if it cannot be read.
    pub(crate) fn position(&self) -> u64 {
        self.load().map_or(self.seen, |mark| mark.position())
    }

    /// Reads the mark.
    pub(crate) fn load(&self) -> Result<Mark, Error> {
        let _lock = Lock::shared(&self.marks.0).map_err(|source| self.failed(source))?;
        self.load_locked()
    }

    /// Changes the mark while nobody else can, and makes it durable together with an entry in the
    /// ledger. `change` says which keys are spent; when it fails, nothing is changed.
    pub(crate) fn spend(
        &mut self,
        change: impl FnOnce(&mut Mark) -> Result<KeyRange, Error>,
    ) -> Result<KeyRange, Error> {
        let marks = self.marks.clone();
        let _lock = Lock::exclusive(&marks.0).map_err(|source| self.failed(source))?;
        let mut mark = self.load_locked()?;
        let range = change(&mut mark)?;
        self.commit(&mut mark, range, Purpose::Session)?;
        Ok(range)
    }

    /// Mark first, ledger second: a crash between the two leaves a mark ahead of its ledger, which
    /// is harmless.
    fn commit(&mut self, mark: &mut Mark, range: KeyRange, purpose: Purpose) -> Result<(), Error> {
        mark::store(&mut self.marks, &self.label, mark).map_err(|source| self.failed(source))?;
        self.seen = mark.position();
        let record = Record {
            range,
            role: self.role,
            purpose,
            session: self.session,
            time: self.clock.since_epoch(),
        };
        self.ledger.append(&record).map_err(|source| self.failed(source))
    }

    /// Gives up every unit below `position` and below whatever the record says, however damaged it
    /// is, and so ends a quarantine. Returns the new mark.
    pub(crate) fn declare_lost(&mut self, position: u64) -> Result<u64, Error> {
        let marks = self.marks.clone();
        let _lock = Lock::exclusive(&marks.0).map_err(|source| self.failed(source))?;
        let loaded = mark::load(&mut self.marks, &self.label);
        let mut mark = loaded.map_err(|source| self.failed(source))?.unwrap_or_default();
        let recorded = ledger::read(&ledger_path(&self.folder, self.role))?;
        let spent = recorded.iter().map(|record| record.range.end()).max().unwrap_or(0);
        let start = spent.max(mark.position());
        let end = start.max(position);
        mark.forget_below(end);
        self.commit(&mut mark, KeyRange::between(start, end), Purpose::Lost)?;
        Ok(end)
    }

    fn load_locked(&self) -> Result<Mark, Error> {
        let loaded = mark::load(&mut self.marks.clone(), &self.label);
        let quarantined = |reason| Error::Quarantined { stream: self.stream.clone(), reason };
        let mark = loaded
            .map_err(|source| self.failed(source))?
            .ok_or_else(|| quarantined("both copies of its mark are damaged"))?;
        let last = self.ledger.last().map_err(|source| self.failed(source))?;
        if last.is_some_and(|record| record.range.end() > mark.position()) {
            return Err(quarantined("its mark is behind its ledger"));
        }
        Ok(mark)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Ledger { path: self.folder.join(mark_name(self.role)), source }
    }
}

/// A lock on a file, given up on drop. It excludes other processes and other openings of the file.
struct Lock<'a>(&'a File);

impl<'a> Lock<'a> {
    fn exclusive(file: &'a File) -> io::Result<Self> {
        file.lock()?;
        Ok(Self(file))
    }

    fn shared(file: &'a File) -> io::Result<Self> {
        file.lock_shared()?;
        Ok(Self(file))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // The system gives it up at the latest when the file is closed.
        let _ = self.0.unlock();
    }
}
