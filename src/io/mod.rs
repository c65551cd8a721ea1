//! Bytes to and from local disks.
//!
//! A [`Disk`] is an open file or block device. An operation goes in with the chunk it works on and
//! comes out as a completion with the same chunk, so that nobody can touch memory that the kernel
//! is reading or writing. [`open`] picks the best implementation the machine allows and says which.

mod blocking;
#[cfg(test)]
pub(crate) mod conformance;
mod file_writer;
pub mod hygiene;
mod read_ahead;
mod replace;
pub mod sim;
mod stream_writer;
mod uring;
mod write_behind;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::base::{Chunk, Fault, Faulty, Pool};

pub use blocking::Blocking;
pub use file_writer::FileWriter;
pub(crate) use file_writer::reserve;
pub use read_ahead::read_ahead;
pub use replace::replace_file;
pub use stream_writer::StreamWriter;
pub use uring::Uring;
pub use write_behind::WriteBehind;

/// Offsets and lengths of direct access are multiples of this many bytes.
pub const DIRECT_BYTES: usize = 4096;

/// An operation on a disk.
pub enum Op {
    /// Fills the first `len` bytes of `chunk` from `offset`; fewer at the end of the file.
    Read {
        /// Where the bytes go; its length becomes the number of bytes read.
        chunk: Chunk,
        /// Byte position on the disk.
        offset: u64,
        /// Bytes wanted, at most the chunk's capacity.
        len: usize,
    },
    /// Writes the chunk's valid bytes at `offset`.
    Write {
        /// What to write.
        chunk: Chunk,
        /// Byte position on the disk.
        offset: u64,
    },
    /// Makes every write that was completed before durable.
    Sync,
}

/// Names an operation until its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What came of an operation.
pub struct Completion {
    /// Which operation.
    pub ticket: Ticket,
    /// The operation's chunk. None for [`Op::Sync`], and where the kernel may still use its memory.
    pub chunk: Option<Chunk>,
    /// Bytes read or written. A write is whole or an error.
    pub result: Result<usize, std::io::Error>,
}

/// An open local file or block device.
///
/// Operations in flight take effect in any order. Whether those still in flight when the disk is
/// dropped take effect is undefined.
pub trait Disk: Send {
    /// Starts an operation. When as many are in flight as the disk takes, waits for one to end.
    fn submit(&mut self, op: Op) -> Ticket;

    /// The next completion, waited for. None when nothing is in flight.
    fn wait(&mut self) -> Option<Completion>;

    /// The next completion, if there is one by now.
    fn poll(&mut self) -> Option<Completion>;

    /// Offsets and lengths must be multiples of this many bytes.
    fn alignment(&self) -> usize;

    /// Present size in bytes.
    fn size(&mut self) -> Result<u64, std::io::Error>;
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reading a file that is there.
    Read,
    /// Reading and writing a file that is there.
    Write,
    /// Reading and writing a file that is made, or emptied if it is there.
    Create,
}

/// Which implementation is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskKind {
    /// `io_uring` with direct access where the machine allows it, else ordinary reads and writes.
    #[default]
    Auto,
    /// `io_uring`, or an error.
    Uring,
    /// Ordinary reads and writes.
    Blocking,
}

/// How a file is to be opened.
#[derive(Clone, Copy)]
pub struct Preference<'a> {
    /// Which implementation.
    pub disk: DiskKind,
    /// Whether to pass by the page cache. Then offsets and lengths are multiples of
    /// [`DIRECT_BYTES`].
    pub direct: bool,
    /// Operations in flight at most.
    pub depth: usize,
    /// Chunks whose memory is registered with the kernel, which saves time for each operation.
    /// Worth it where each is used many times. Chunks from elsewhere may be used as well.
    pub pool: Option<&'a Pool>,
}

impl Default for Preference<'_> {
    fn default() -> Self {
        Self { disk: DiskKind::Auto, direct: true, depth: 4, pool: None }
    }
}

/// Which implementation serves, and why not a better one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// The name in [`DISKS`].
    pub name: &'static str,
    /// Whether the page cache is passed by.
    pub direct: bool,
    /// Why the preferred way was refused, for the user to know.
    pub reason: Option<String>,
}

/// Opens a disk in one particular way.
pub type OpenDisk = fn(&Path, Mode, &Preference<'_>) -> Result<Box<dyn Disk>, std::io::Error>;

/// The ways to reach a local disk, best first.
pub const DISKS: &[(&str, OpenDisk)] = &[("uring", uring::open), ("blocking", blocking::open)];

/// Opens `path` in the preferred way, or in the next best one that the machine allows.
///
/// Errors: [`Error::Open`] with the path.
pub fn open(
    path: &Path,
    mode: Mode,
    preference: &Preference<'_>,
) -> Result<(Box<dyn Disk>, Backend), Error> {
    let failed = |source| Error::Open { path: path.into(), source };
    let buffered = Preference { direct: false, ..*preference };
    let blocking = |reason| {
        let backend = Backend { name: "blocking", direct: false, reason };
        blocking::open(path, mode, &buffered).map(|disk| (disk, backend)).map_err(failed)
    };
    let backend = Backend { name: "uring", direct: preference.direct, reason: None };
    match preference.disk {
        DiskKind::Blocking => blocking(None),
        DiskKind::Uring => {
            uring::open(path, mode, preference).map(|disk| (disk, backend)).map_err(failed)
        }
        // Through the page cache, plain reads are several times faster than those of io_uring.
        DiskKind::Auto if !preference.direct => blocking(None),
        DiskKind::Auto => match uring::open(path, mode, preference) {
            Ok(disk) => Ok((disk, backend)),
            Err(error) if is_refusal(&error) => blocking(Some(refusal(&error))),
            Err(error) => Err(failed(error)),
        },
    }
}

/// Whether the machine refuses `io_uring` or direct access, so that another way may still work.
fn is_refusal(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let refusals =
        [Errno::NOSYS, Errno::PERM, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOMEM, Errno::MFILE];
    refusals.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn refusal(error: &std::io::Error) -> String {
    let what = match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::INVAL.raw_os_error() => {
            "the file system refuses direct access"
        }
        _ => "the kernel refuses io_uring",
    };
    format!("{what}: {error}")
}

/// Opens the file itself, the same for every implementation.
fn open_file(path: &Path, mode: Mode, direct: bool) -> Result<File, std::io::Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(mode != Mode::Read);
    if mode == Mode::Create {
        options.create(true).truncate(true);
    }
    if direct {
        options.custom_flags(OFlags::DIRECT.bits().cast_signed());
    }
    options.open(path)
}

/// Reads `len` bytes at `offset` and waits for them. Nothing else may be in flight.
pub fn read_at(disk: &mut dyn Disk, offset: u64, len: usize) -> Result<Chunk, std::io::Error> {
    disk.submit(Op::Read { chunk: Chunk::with_capacity(len), offset, len });
    let done = disk.wait().ok_or_else(lost)?;
    done.result?;
    done.chunk.ok_or_else(lost)
}

/// What a disk that does not answer comes to.
fn lost() -> std::io::Error {
    std::io::Error::other("the disk did not answer")
}

/// Writes a chunk at `offset` and waits until it is written. Nothing else may be in flight.
pub fn write_at(disk: &mut dyn Disk, chunk: Chunk, offset: u64) -> Result<(), std::io::Error> {
    disk.submit(Op::Write { chunk, offset });
    disk.wait().ok_or_else(lost)?.result.map(drop)
}

/// Makes everything written so far durable. Nothing else may be in flight.
pub fn sync(disk: &mut dyn Disk) -> Result<(), std::io::Error> {
    disk.submit(Op::Sync);
    disk.wait().ok_or_else(lost)?.result.map(drop)
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<(), std::io::Error> {
    File::open(folder)?.sync_all()
}

/// Whether an operation failed because no room is left.
pub fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Bytes that may still be written into the file system that holds `path`; 0 if it does not say.
pub fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It could not be read.
    #[error("cannot read {} at byte {offset}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// No room is left.
    #[error("no room for {}: {free} bytes free", path.display())]
    Full {
        /// Which file.
        path: PathBuf,
        /// Bytes free.
        free: u64,
    },
}

impl Error {
    /// A failed write to `path`: [`Error::Full`] where that is the reason.
    pub fn of_write(path: &Path, source: std::io::Error) -> Self {
        if is_full(&source) {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            Error::Full { path: path.into(), free: free_bytes(folder.unwrap_or(Path::new("."))) }
        } else {
            Error::Write { path: path.into(), source }
        }
    }
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Open { source, .. } => Fault::of_io(source),
            Error::Read { .. } | Error::Write { .. } | Error::Full { .. } => Fault::Disk,
        }
    }

    fn hint(&self) -> Option<String> {
        matches!(self, Error::Full { .. }).then(|| "free space, or write elsewhere".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_direct_access_is_served_by_plain_reads_and_says_so() {
        let path = Path::new("/proc/self/status");
        let (mut disk, backend) = open(path, Mode::Read, &Preference::default()).unwrap();
        assert_eq!((backend.name, backend.direct), ("blocking", false));
        assert!(backend.reason.is_some());
        assert!(!read_at(&mut *disk, 0, 100).unwrap().is_empty());
    }

    #[test]
    fn what_is_missing_is_named() {
        let error =
            open(Path::new("/nowhere/x"), Mode::Read, &Preference::default()).err().unwrap();
        assert!(error.to_string().contains("/nowhere/x"));
        assert_eq!(error.fault(), Fault::NoInput);
    }

    #[test]
    fn a_full_disk_is_recognised() {
        let mut disk = open(
            Path::new("/dev/full"),
            Mode::Write,
            &Preference { direct: false, ..Preference::default() },
        )
        .unwrap()
        .0;
        let error = write_at(&mut *disk, Chunk::from_bytes(0, b"x"), 0).unwrap_err();
        assert!(is_full(&error));
        let error = Error::of_write(Path::new("/dev/full"), error);
        assert!(matches!(error, Error::Full { .. }));
        assert_eq!(error.fault().exit_code(), 74);
    }
}
