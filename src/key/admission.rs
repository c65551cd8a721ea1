//! Who may have how much of a stream's key: priorities, floors, and jobs that are promised theirs.
//!
//! A job says how much key it will need of a stream, before it begins, and is admitted when that is
//! there beside what was promised to others and what its priority has to leave. Each promise is a
//! file in the folder `sent.jobs` beside the record: the units that are still to be reserved, 8 bytes
//! little-endian. It is locked as long as the job lives, in whatever process, so that what a crashed
//! job was promised is free again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::greet::CONTROL_FLOOR_BYTES;
use crate::base::ByteCount;

/// What a connection is for; the first is served first when key is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Opening sessions and agreeing on keys.
    Control,
    /// What somebody waits for who has the right to: restoring, consent.
    Restore,
    /// Talk and pictures.
    Conference,
    /// Sequencers whose data must not pile up.
    Sequencing,
    /// Everything else.
    #[default]
    Bulk,
}

/// How much key of every stream is kept for each priority, and those above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Floors {
    /// Kept for restoring and consent.
    pub restore: ByteCount,
    /// Kept for conferences.
    pub conference: ByteCount,
    /// Kept for sequencers.
    pub sequencing: ByteCount,
}

impl Floors {
    /// What a job of this priority has to leave: what is kept for all above it.
    pub fn left_by(&self, priority: Priority) -> ByteCount {
        let kept = [
            (Priority::Control, ByteCount(CONTROL_FLOOR_BYTES)),
            (Priority::Restore, self.restore),
            (Priority::Conference, self.conference),
            (Priority::Sequencing, self.sequencing),
        ];
        let above = kept.into_iter().filter(|(owner, _)| *owner < priority);
        ByteCount(above.fold(0, |sum, (_, bytes)| sum.saturating_add(bytes.0)))
    }
}

/// The promises of one stream.
pub struct Promises {
    folder: PathBuf,
}

/// One job's promise, given up on drop.
pub struct Promise {
    file: File,
    path: PathBuf,
    units: u64,
}

impl Promises {
    /// Those of the stream whose record is at `record`.
    pub fn of(record: &Path) -> Self {
        Self { folder: record.with_extension("jobs") }
    }

    /// The turn to promise, for as long as the file is held: what was [outstanding](Self::outstanding)
    /// in it does not grow.
    pub fn turn(&self) -> io::Result<File> {
        fs::create_dir_all(&self.folder)?;
        let turn = File::options().create(true).append(true).open(self.folder.join("turn"))?;
        turn.lock()?;
        Ok(turn)
    }

    /// Promises `units` to a job, whose number is its own.
    pub fn promise(&self, _turn: &File, job: u64, units: u64) -> io::Result<Promise> {
        let path = self.folder.join(format!("{job:016x}.job"));
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        file.lock()?;
        file.write_all_at(&units.to_le_bytes(), 0)?;
        Ok(Promise { file, path, units })
    }

    /// The units that jobs were promised and have not reserved yet.
    pub fn outstanding(&self) -> io::Result<u64> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut sum = 0u64;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "job") {
                sum = sum.saturating_add(promised(&path)?);
            }
        }
        Ok(sum)
    }
}

/// What a promise still holds; nothing, and it is removed, when its job is gone.
fn promised(path: &Path) -> io::Result<u64> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        file => file?,
    };
    if file.try_lock_shared().is_ok() {
        let _ = fs::remove_file(path);
        return Ok(0);
    }
    let mut bytes = [0; 8];
    match file.read_exact_at(&mut bytes, 0) {
        // Its job is about to write it, in its turn.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        read => read.map(|()| u64::from_le_bytes(bytes)),
    }
}

impl Promise {
    /// What the job has not reserved yet.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// The job reserved so many units.
    pub fn reserved(&mut self, units: u64) {
        self.units = self.units.saturating_sub(units);
        // Not written, others leave too much to this job, for as long as it lives.
        let _ = self.file.write_all_at(&self.units.to_le_bytes(), 0);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // Left behind, it is removed by the next that looks.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_last_until_they_are_kept_or_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let promises = Promises::of(&folder.path().join("sent"));
        let turn = promises.turn().unwrap();
        let mut first = promises.promise(&turn, 1, 70).unwrap();
        let second = promises.promise(&turn, 2, 30).unwrap();
        assert_eq!(promises.outstanding().unwrap(), 100);
        first.reserved(50);
        assert_eq!((first.units(), promises.outstanding().unwrap()), (20, 50));
        drop(second);
        assert_eq!(promises.outstanding().unwrap(), 20);
        drop(first);
        assert_eq!(promises.outstanding().unwrap(), 0);
    }

    #[test]
    fn what_a_crashed_job_was_promised_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let promises = Promises::of(&folder.path().join("sent"));
        fs::create_dir(&promises.folder).unwrap();
        let left = promises.folder.join("00000000000000aa.job");
        fs::write(&left, 77u64.to_le_bytes()).unwrap();
        assert_eq!(promises.outstanding().unwrap(), 0);
        assert!(!left.exists());
    }

    #[test]
    fn the_lower_the_priority_the_more_is_left_to_others() {
        let floors = Floors {
            restore: ByteCount(10),
            conference: ByteCount(200),
            sequencing: ByteCount(3000),
        };
        let left = |priority| floors.left_by(priority).0;
        assert_eq!(left(Priority::Control), 0);
        assert_eq!(left(Priority::Restore), CONTROL_FLOOR_BYTES);
        assert_eq!(left(Priority::Conference), CONTROL_FLOOR_BYTES + 10);
        assert_eq!(left(Priority::Bulk), CONTROL_FLOOR_BYTES + 3210);
    }
}
