//! A file written in order, which appears under its name only once it is whole and durable.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

use crate::base::Chunk;

use super::{
    DIRECT_BYTES, DiskKind, Error, Mode, Preference, WriteBehind, open, open_file, sync_folder,
};

/// Writes `PATH.partial` beside the wanted file and renames it at the end. Dropped before that, it
/// removes what it wrote. What is no regular file, such as a pipe or `/dev/null`, is written to as
/// it is.
pub struct FileWriter(Sink);

enum Sink {
    File(Partial),
    Stream { path: PathBuf, file: File, written: u64 },
}

impl FileWriter {
    /// Begins the file; `total_bytes`, if known, is the room to ask for at once.
    ///
    /// Errors: [`Error::Full`] when the file system has less room than that.
    pub fn create(path: &Path, total_bytes: Option<u64>) -> Result<Self, Error> {
        // A link stays, and what it points to is replaced.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.into());
        if std::fs::metadata(&path).is_ok_and(|there| !there.is_file()) {
            let file = File::options().write(true).open(&path);
            let file = file.map_err(|source| Error::Open { path: path.clone(), source })?;
            return Ok(Self(Sink::Stream { path, file, written: 0 }));
        }
        Partial::create(path, total_bytes).map(|partial| Self(Sink::File(partial)))
    }

    /// Adds the chunk's bytes. Chunks of whole pages, the last one excepted, are the fast way.
    pub fn write(&mut self, chunk: Chunk) -> Result<(), Error> {
        match &mut self.0 {
            Sink::File(partial) => partial.write(chunk),
            Sink::Stream { path, file, written } => {
                *written += chunk.len() as u64;
                file.write_all(&chunk).map_err(|error| Error::of_write(path, error))
            }
        }
    }

    /// Makes the file durable and gives it its name; returns its length in bytes.
    pub fn finish(self) -> Result<u64, Error> {
        match self.0 {
            Sink::File(partial) => partial.finish(),
            Sink::Stream { written, .. } => Ok(written),
        }
    }
}

struct Partial {
    path: PathBuf,
    partial: PathBuf,
    /// For the length and the room; the bytes go through `disk`.
    file: File,
    disk: WriteBehind,
    written: u64,
    reserved: u64,
    finished: bool,
}

/// Writes in flight.
const DEPTH: usize = 4;

/// Room is asked of the file system in steps of this many bytes, so that a file that grows is laid
/// out in few pieces.
const RESERVE_BYTES: u64 = 64 << 20;

impl Partial {
    fn create(path: PathBuf, total_bytes: Option<u64>) -> Result<Self, Error> {
        let mut name = OsString::from(&path);
        name.push(".partial");
        let partial = PathBuf::from(name);
        let file = open_file(&partial, Mode::Create, false)
            .map_err(|source| Error::Open { path: partial.clone(), source })?;
        let preference = Preference { depth: DEPTH, ..Preference::default() };
        let disk = match open(&partial, Mode::Write, &preference) {
            Ok((disk, _)) => WriteBehind::new(disk, DEPTH),
            Err(error) => {
                let _ = std::fs::remove_file(&partial);
                return Err(error);
            }
        };
        let mut writer =
            Self { path, partial, file, disk, written: 0, reserved: 0, finished: false };
        writer.reserve(total_bytes.unwrap_or(0))?;
        Ok(writer)
    }

    fn write(&mut self, mut chunk: Chunk) -> Result<(), Error> {
        let len = chunk.len();
        if len == 0 {
            return Ok(());
        }
        let end = self.written + len as u64;
        if end > self.reserved {
            // A step larger than needed may not fit where the file itself does: a write will tell.
            let _ = self.reserve(end.max(self.reserved + RESERVE_BYTES));
        }
        if !self.written.is_multiple_of(self.disk.alignment() as u64) {
            self.leave_direct()?;
        }
        if !len.is_multiple_of(self.disk.alignment()) {
            // What is written beyond the end is cut off again, but must not show old memory.
            chunk.spare()[len..len.next_multiple_of(DIRECT_BYTES)].fill(0);
            chunk.set_len(len.next_multiple_of(DIRECT_BYTES));
        }
        self.disk.write(chunk, self.written).map_err(|error| self.failed(error))?;
        self.written = end;
        Ok(())
    }

    fn finish(mut self) -> Result<u64, Error> {
        self.disk.drain().map_err(|error| self.failed(error))?;
        self.settle().map_err(|error| self.failed(error))?;
        self.finished = true;
        Ok(self.written)
    }

    fn settle(&self) -> Result<(), std::io::Error> {
        self.file.set_len(self.written)?;
        self.file.sync_all()?;
        std::fs::rename(&self.partial, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        sync_folder(folder.unwrap_or(Path::new(".")))
    }

    fn reserve(&mut self, bytes: u64) -> Result<(), Error> {
        reserve(&self.file, self.reserved, bytes).map_err(|error| self.failed(error))?;
        self.reserved = self.reserved.max(bytes);
        Ok(())
    }

    /// Goes on through the page cache, where positions need no alignment.
    fn leave_direct(&mut self) -> Result<(), Error> {
        self.disk.drain().map_err(|error| self.failed(error))?;
        let preference = Preference { disk: DiskKind::Blocking, ..Preference::default() };
        self.disk = WriteBehind::new(open(&self.partial, Mode::Write, &preference)?.0, DEPTH);
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::of_write(&self.path, source)
    }
}

/// Asks the file system for room up to `to` bytes; one that cannot promise is taken as it is.
pub(crate) fn reserve(file: &File, from: u64, to: u64) -> Result<(), std::io::Error> {
    if to <= from {
        return Ok(());
    }
    // Asked for more than there is, a file system may first hand out all it has, to everybody's
    // harm.
    let free = rustix::fs::fstatvfs(file).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free.is_ok_and(|free| free < to - from) {
        return Err(rustix::io::Errno::NOSPC.into());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing better can be done about a file that cannot be removed.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n * 7 + n / 251) as u8).collect()
    }

    fn written(pieces: &[usize], hint: Option<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reads.fq");
        let content = bytes(pieces.iter().sum());
        let mut writer = FileWriter::create(&path, hint).unwrap();
        let mut rest = &content[..];
        for (number, len) in pieces.iter().enumerate() {
            let (piece, tail) = rest.split_at(*len);
            writer.write(Chunk::from_bytes(number as u64, piece)).unwrap();
            rest = tail;
        }
        assert!(!path.exists());
        assert_eq!(writer.finish().unwrap(), content.len() as u64);
        assert!(std::fs::read(&path).unwrap() == content, "{pieces:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn tails_and_odd_pieces_come_out_as_written() {
        written(&[], None);
        written(&[1], None);
        written(&[1 << 20, 1 << 20, 12345], None);
        written(&[1 << 20, 4096, 0, 100], Some(2 << 20));
        written(&[100, 4096, 5000, 1 << 20, 7], Some(1));
        written(&[4096], Some(1 << 20));
    }

    #[test]
    fn dropped_it_leaves_nothing_and_an_older_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reads.fq");
        std::fs::write(&path, b"older").unwrap();
        let mut writer = FileWriter::create(&path, None).unwrap();
        writer.write(Chunk::from_bytes(0, b"newer")).unwrap();
        drop(writer);
        assert_eq!(std::fs::read(&path).unwrap(), b"older");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn devices_are_written_to_and_links_stay() {
        let mut writer = FileWriter::create(Path::new("/dev/null"), Some(5)).unwrap();
        writer.write(Chunk::from_bytes(0, b"12345")).unwrap();
        assert_eq!(writer.finish().unwrap(), 5);
        assert!(!Path::new("/dev/null.partial").exists());
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::fs::write(&target, b"older").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let mut writer = FileWriter::create(&link, None).unwrap();
        writer.write(Chunk::from_bytes(0, b"newer")).unwrap();
        writer.finish().unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"newer");
    }

    #[test]
    fn a_file_larger_than_the_disk_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let room = super::super::free_bytes(folder.path());
        let outcome = FileWriter::create(&folder.path().join("x"), Some(room + (1 << 40)));
        assert!(matches!(outcome.err(), Some(Error::Full { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
