//! A private folder that is wiped and removed when dropped.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(super) struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// A new folder that only this user may enter, in `parent`, or else where the system keeps
    /// files in memory, or else where it keeps temporary files.
    pub(super) fn new(parent: Option<&Path>) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = match parent {
            Some(parent) => parent.to_path_buf(),
            None if memory.is_dir() => memory.to_path_buf(),
            None => std::env::temp_dir(),
        };
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = parent.join(format!("dsgd-{name}"));
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self { folder })
    }

    /// Where `name` lies in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.folder.clone() } else { self.folder.join(name) }
    }

    /// Makes a named pipe.
    pub(super) fn pipe(&self, name: &str) -> io::Result<()> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, self.path(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        Ok(())
    }

    /// Makes a file.
    pub(super) fn file(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.path(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        wipe(&self.folder);
        // Nothing can be done here about a folder that does not go; it holds only wiped files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Overwrites every file in a folder and in those inside it; follows no link.
fn wipe(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => wipe(&entry.path()),
            Ok(kind) if kind.is_file() => {
                // What cannot be overwritten is still removed.
                let _ = zero(&entry.path());
            }
            _ => {}
        }
    }
}

fn zero(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let zeros = [0; 1 << 16];
    let mut left = file.metadata()?.len();
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_private_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(Some(parent.path())).unwrap();
        let mode = fs::metadata(scratch.path("")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        scratch.pipe("p").unwrap();
        scratch.file("f").unwrap().write_all(b"ACGT").unwrap();
        // Another name for the file shows what becomes of its bytes.
        let other = parent.path().join("other");
        fs::hard_link(scratch.path("f"), &other).unwrap();
        fs::create_dir(scratch.path("inner")).unwrap();
        drop(scratch);
        assert_eq!(fs::read(&other).unwrap(), [0; 4]);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
