//! Cards that several jobs of a machine share: who has which.
//!
//! A job holds a card by an advisory lock on a file that is named by the card; the kernel frees it when the
//! job ends, however it ends. Jobs take cards that are free; where none is, all share all of them, and plan
//! with half as much memory. The locks are in `/run/lock`, or where that cannot be written in
//! `$XDG_RUNTIME_DIR`, or in the folder of temporary files: jobs in containers see each other only if they have
//! one such folder in common.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One of a device's cards, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CardState {
    /// What names this card and no other.
    pub name: String,
    /// What the hardware calls itself.
    pub model: String,
    /// Its memory, in bytes, where the driver says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What of it is free now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// Who holds it; said of those that can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unusable: Option<String>,
}

/// Who holds a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Held {
    /// Nobody.
    Free,
    /// This program.
    Here,
    /// Another job.
    Elsewhere,
}

/// A card held by this process, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// `None` where no folder could be written: there is then nothing to hold others off with.
    _file: Option<File>,
}

/// Folders for the locks, the first that can be written is taken.
pub(super) fn folders() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let temporary = std::env::temp_dir();
    std::iter::once("/run/lock".into()).chain(runtime).chain([temporary]).collect()
}

/// Holds the card of that name; `None` when another job does.
pub(super) fn hold(folders: &[PathBuf], card: &str) -> Option<Lock> {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name = format!("dsgd-card-{}.lock", card.chars().map(plain).collect::<String>());
    let mut files = folders.iter().map(|folder| open(&folder.join(&name)));
    let Some(file) = files.find_map(Result::ok) else { return Some(Lock { _file: None }) };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => None,
        Ok(()) => Some(Lock { _file: Some(file) }),
        Err(TryLockError::Error(_)) => Some(Lock { _file: None }),
    }
}

/// Opens a lock's file, which another user may have made: what is no plain file is refused, and a pipe that
/// nobody writes to is not waited for. Nothing is read from it or written to it.
fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.mode(0o644).custom_flags(flags).open(path)?
        }
        opened => opened?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_card_is_held_once_and_then_free() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("absent"), folder.path().to_path_buf()];
        let first = hold(&folders, "GPU-1:2/3").unwrap();
        assert!(folder.path().join("dsgd-card-GPU-1-2-3.lock").is_file());
        assert!(hold(&folders, "GPU-1:2/3").is_none());
        assert!(hold(&folders, "GPU-4").is_some(), "another card");
        drop(first);
        assert!(hold(&folders, "GPU-1:2/3").is_some());
    }

    #[test]
    fn without_a_folder_nobody_is_held_off_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(hold(&[folder.path().join("absent")], "GPU-1").is_some());
        let target = folder.path().join("target");
        std::os::unix::fs::symlink(&target, folder.path().join("dsgd-card-GPU-1.lock")).unwrap();
        assert!(hold(&[folder.path().into()], "GPU-1").is_some());
        assert!(!target.exists());
    }

    #[test]
    fn what_is_no_plain_file_is_no_lock_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let name = "dsgd-card-GPU-1.lock";
        let pipe = Command::new("mkfifo").arg(folder.path().join(name)).status();
        assert!(pipe.unwrap().success());
        std::fs::create_dir(folder.path().join("dsgd-card-GPU-2.lock")).unwrap();
        let folders = [folder.path().to_path_buf(), other.path().to_path_buf()];
        let (told, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let held = ["GPU-1", "GPU-2"].map(|card| hold(&folders, card));
            told.send(held.map(|lock| lock.is_some_and(|lock| lock._file.is_some())))
        });
        let held = answer.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(held.expect("it waits for the pipe"), [true; 2], "in the next folder");
        assert!(other.path().join(name).is_file());
    }

    const FOLDER: &str = "DSGD_TEST_LOCKS";

    /// The other job of the test below.
    #[test]
    #[ignore = "run by a_killed_job_frees_its_card"]
    fn other_job() {
        let Some(folder) = std::env::var_os(FOLDER) else { return };
        let held = hold(&[folder.into()], "GPU-1");
        println!("\nheld {}", held.is_some());
        let _ = io::stdin().read(&mut [0]);
    }

    #[test]
    fn a_killed_job_frees_its_card() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_path_buf()];
        let mut job = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "device::card::tests::other_job", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(job.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "held true"));
        assert!(hold(&folders, "GPU-1").is_none());
        job.kill().unwrap();
        job.wait().unwrap();
        assert!(hold(&folders, "GPU-1").is_some());
    }
}
