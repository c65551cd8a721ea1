//! The owner's catalogue: one JSON file a deposit, replaced as a whole.
//!
//! A deposit is `pending` before its first share byte leaves, and `stored` once every holder has
//! committed. A pending entry found later is what a crash left behind: its data set identifier says
//! which uncommitted shares to remove. The catalogue keeps no digest of the data and none of the
//! shares that other sites hold: together with the owner's own share either would say something
//! about the data.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{DatasetId, Fault, Faulty, SampleName, ShareId, ShareLetter, SiteId};
use crate::io::replace_file;

/// Version of the entries that this program writes.
const SCHEMA: u32 = 1;

/// How far a deposit came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Begun; not to be used.
    Pending,
    /// Every holder has committed its share.
    Stored,
}

/// What a member file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// First mates, or single reads, of a lane.
    Reads1,
    /// Second mates of the lane before.
    Reads2,
    /// First and second mates in turn.
    Interleaved,
    /// Alignments: BAM or CRAM.
    Alignments,
    /// Variant calls: VCF.
    Calls,
    /// Anything else: kept, not analysed.
    Other,
}

/// One file of a deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The file's name, without its folder.
    pub file: String,
    /// What it is for.
    pub role: Role,
    /// Its length in bytes.
    pub bytes: u64,
    /// Stripes of each of its shares.
    pub stripes: u64,
}

/// One deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deposit {
    /// Version of this entry's form.
    pub schema: u32,
    /// What the owner calls it.
    pub name: SampleName,
    /// What the holders know it by.
    pub dataset: DatasetId,
    /// How far it came.
    pub state: State,
    /// When it was begun, RFC 3339.
    pub created: String,
    /// Bytes of a stripe.
    pub stripe_bytes: u32,
    /// Sites of the shares A, B and C.
    pub placement: [SiteId; 3],
    /// Where the random numbers came from, and what that means for secrecy.
    pub random: String,
    /// Its files.
    pub members: Vec<Member>,
    /// For calls: the deposit that was analysed, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Where a deposit of calls came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The deposit that was analysed.
    pub sample: SampleName,
    /// Engine and version.
    pub engine: String,
    /// Digest of the reference.
    pub reference: String,
}

impl Deposit {
    /// A new, pending deposit under a fresh random data set identifier.
    pub fn begin(
        name: SampleName,
        placement: [SiteId; 3],
        created: String,
        random: String,
    ) -> Result<Self, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| Error::Random)?;
        let dataset = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(Self {
            schema: SCHEMA,
            name,
            dataset: dataset.parse().expect("hexadecimal digits make an identifier"),
            state: State::Pending,
            created,
            stripe_bytes: crate::share::STRIPE_BYTES,
            placement,
            random,
            members: Vec::new(),
            origin: None,
        })
    }

    /// The share `letter` of file `member`.
    pub fn share(&self, member: usize, letter: ShareLetter) -> ShareId {
        ShareId { dataset: self.dataset.clone(), member: member as u32, letter }
    }

    /// The site that holds the shares `letter`.
    pub fn holder(&self, letter: ShareLetter) -> &SiteId {
        &self.placement[letter as usize]
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.bytes).sum()
    }
}

/// The deposits of one owner, in a folder.
#[derive(Clone)]
pub struct Catalogue {
    folder: PathBuf,
}

impl Catalogue {
    /// The catalogue in `folder`, made if it is not there.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|source| disk(folder, source))?;
        Ok(Self { folder: folder.into() })
    }

    fn path(&self, name: &SampleName) -> PathBuf {
        self.folder.join(format!("{name}.json"))
    }

    /// Keeps everybody else from changing `name` until the lock is dropped.
    ///
    /// Errors: [`Error::Busy`] when another process holds it. A crash releases it.
    pub fn lock(&self, name: &SampleName) -> Result<Lock, Error> {
        let path = self.folder.join(format!(".{name}.lock"));
        let file = File::create(&path).map_err(|source| disk(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Busy { name: name.clone() }),
            Err(fs::TryLockError::Error(source)) => Err(disk(&path, source)),
        }
    }

    /// The entry of `name`, whatever its state.
    pub fn find(&self, name: &SampleName) -> Result<Option<Deposit>, Error> {
        let path = self.path(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(disk(&path, source)),
        };
        let deposit: Deposit = serde_json::from_slice(&text)
            .map_err(|source| Error::Damaged { path: path.clone(), source })?;
        if deposit.schema != SCHEMA || deposit.name != *name {
            return Err(Error::Foreign { path, schema: deposit.schema });
        }
        Ok(Some(deposit))
    }

    /// The stored deposit `name`.
    ///
    /// Errors: [`Error::Unknown`], with the nearest name; [`Error::Unfinished`].
    pub fn stored(&self, name: &SampleName) -> Result<Deposit, Error> {
        match self.find(name)? {
            Some(deposit) if deposit.state == State::Stored => Ok(deposit),
            Some(_) => Err(Error::Unfinished { name: name.clone() }),
            None => Err(Error::Unknown { name: name.clone(), known: self.names()? }),
        }
    }

    /// Every entry, by name.
    pub fn list(&self) -> Result<Vec<Deposit>, Error> {
        let mut deposits = Vec::new();
        for name in self.names()? {
            deposits.extend(self.find(&name)?);
        }
        Ok(deposits)
    }

    fn names(&self) -> Result<Vec<SampleName>, Error> {
        let entries = fs::read_dir(&self.folder).map_err(|source| disk(&self.folder, source))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| disk(&self.folder, source))?;
            let file = entry.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".json"));
            names.extend(name.and_then(|name| name.parse().ok()));
        }
        names.sort();
        Ok(names)
    }

    /// Writes an entry: the old one or the new one survives a crash, nothing between.
    pub fn record(&self, deposit: &Deposit) -> Result<(), Error> {
        let path = self.path(&deposit.name);
        let text = serde_json::to_vec_pretty(deposit).expect("entries are plain data");
        replace_file(&path, &text).map_err(|source| disk(&path, source))
    }

    /// Forgets an entry.
    pub fn forget(&self, name: &SampleName) -> Result<(), Error> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(disk(&path, error)),
            _ => Ok(()),
        }
    }
}

/// Held by whoever changes a deposit.
pub struct Lock {
    _file: File,
}

fn disk(path: &Path, source: std::io::Error) -> Error {
    Error::Disk { path: path.into(), source }
}

/// Why the catalogue gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No deposit has this name.
    #[error("there is no deposit '{name}'")]
    Unknown {
        /// The name asked for.
        name: SampleName,
        /// The names there are.
        known: Vec<SampleName>,
    },
    /// Another process is changing the deposit.
    #[error("the deposit '{name}' is being changed by another process")]
    Busy {
        /// Its name.
        name: SampleName,
    },
    /// The deposit was never completed.
    #[error("the deposit '{name}' was not completed")]
    Unfinished {
        /// Its name.
        name: SampleName,
    },
    /// An entry is no valid JSON of the expected form.
    #[error("catalogue entry {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// An entry is of another version, or in the wrong file.
    #[error("catalogue entry {path} is of schema {schema} or was renamed")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its version.
        schema: u32,
    },
    /// A file could not be read or written.
    #[error("catalogue file {path}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The system gave no random numbers.
    #[error("the operating system gave no random numbers for an identifier")]
    Random,
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Unknown { .. } | Error::Unfinished { .. } => Fault::NoInput,
            Error::Damaged { .. } | Error::Foreign { .. } => Fault::Integrity,
            Error::Disk { .. } => Fault::Disk,
            Error::Busy { .. } => Fault::TryAgain,
            Error::Random => Fault::System,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Unknown { known, .. } if known.is_empty() => {
                Some("nothing is deposited yet: see 'dsgd put --help'".into())
            }
            Error::Unknown { known, .. } => {
                let names: Vec<_> = known.iter().take(8).map(SampleName::as_str).collect();
                Some(format!("there are: {}", names.join(", ")))
            }
            Error::Unfinished { name } => {
                Some(format!("put it again: 'dsgd put {name} FILES' clears what was left behind"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deposit(name: &str) -> Deposit {
        let site = |name: &str| name.parse().unwrap();
        let placement = [site("tommo"), site("lsa"), site("hospital")];
        Deposit::begin(name.parse().unwrap(), placement, "2026-01-01T00:00:00Z".into(), "os".into())
            .unwrap()
    }

    #[test]
    fn entries_survive_and_pending_ones_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(folder.path()).unwrap();
        let mut entry = deposit("NA12878");
        catalogue.record(&entry).unwrap();
        let name = entry.name.clone();
        assert!(matches!(catalogue.stored(&name), Err(Error::Unfinished { .. })));
        entry.state = State::Stored;
        catalogue.record(&entry).unwrap();
        assert_eq!(catalogue.stored(&name).unwrap(), entry);
        assert_eq!(catalogue.list().unwrap().len(), 1);
        catalogue.forget(&name).unwrap();
        assert!(matches!(catalogue.stored(&name), Err(Error::Unknown { .. })));
    }

    #[test]
    fn a_damaged_or_renamed_entry_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(folder.path()).unwrap();
        fs::write(folder.path().join("x.json"), b"{").unwrap();
        assert!(matches!(catalogue.find(&"x".parse().unwrap()), Err(Error::Damaged { .. })));
        catalogue.record(&deposit("y")).unwrap();
        fs::rename(folder.path().join("y.json"), folder.path().join("z.json")).unwrap();
        assert!(matches!(catalogue.find(&"z".parse().unwrap()), Err(Error::Foreign { .. })));
    }

    #[test]
    fn one_process_at_a_time_changes_a_deposit() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::open(folder.path()).unwrap();
        let name = "x".parse().unwrap();
        let lock = catalogue.lock(&name).unwrap();
        assert!(matches!(catalogue.lock(&name), Err(Error::Busy { .. })));
        drop(lock);
        catalogue.lock(&name).unwrap();
    }

    #[test]
    fn data_set_identifiers_are_fresh() {
        assert_ne!(deposit("a").dataset, deposit("a").dataset);
    }
}
