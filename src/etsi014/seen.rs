//! Which keys were drawn before, remembered without remembering them.
//!
//! A key manager that gives the same key twice would make a one-time pad a two-time pad. The first 16
//! bytes of every key are therefore spent as its mark: they never become pad. What is kept is a
//! digest of the mark under a key of its own, 16 bytes for each key drawn, so that even the whole
//! file says nothing about the bytes that are used.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::message::NamedKey;
use crate::base::Secret;

/// Bytes at the beginning of a key that are its mark.
pub const MARK_BYTES: usize = 16;

const DIGEST_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;

/// The memory of drawn keys: a file that begins with the secret of the digests.
pub struct SeenKeys {
    file: File,
    path: PathBuf,
    secret: Secret<[u8; SECRET_BYTES]>,
    seen: HashSet<[u8; DIGEST_BYTES]>,
}

impl SeenKeys {
    /// Opens the memory in `folder`, or begins one. Only one program may have it open.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join("drawn-keys");
        let failed = |source| Error::File { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.try_lock().map_err(|error| failed(error.into()))?;
        let mut bytes = fs::read(&path).map_err(failed)?;
        if bytes.is_empty() {
            bytes = vec![0; SECRET_BYTES];
            getrandom::fill(&mut bytes).map_err(|error| failed(error.into()))?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
            let folder = File::open(folder).and_then(|folder| folder.sync_all());
            folder.map_err(failed)?;
        }
        let Some((secret, digests)) = bytes.split_first_chunk() else {
            return Err(Error::Content { path, what: "the memory of drawn keys is truncated" });
        };
        let secret = Secret::new(*secret);
        // The last one may have been torn by a crash: its key was not used.
        let digests = digests.as_chunks().0;
        let whole = (SECRET_BYTES + digests.len() * DIGEST_BYTES) as u64;
        file.set_len(whole).map_err(failed)?;
        Ok(Self { file, secret, seen: digests.iter().copied().collect(), path })
    }

    /// Keys that are remembered.
    pub fn count(&self) -> usize {
        self.seen.len()
    }

    /// Remembers `keys`, durably; false, when one of them was there before.
    ///
    /// # Panics
    /// When a key is shorter than its mark.
    pub fn remember(&mut self, keys: &[NamedKey]) -> Result<bool, Error> {
        let mut new = Vec::with_capacity(keys.len() * DIGEST_BYTES);
        let mut fresh = true;
        for key in keys {
            let mark = &key.bytes.expose()[..MARK_BYTES];
            let digest = blake3::keyed_hash(self.secret.expose(), mark);
            let (digest, _) = digest.as_bytes().split_first_chunk().expect("32 are more than 16");
            if self.seen.insert(*digest) {
                new.extend_from_slice(digest);
            } else {
                fresh = false;
            }
        }
        let failed = |source: io::Error| Error::File { path: self.path.clone(), source };
        self.file.write_all(&new).and_then(|()| self.file.sync_data()).map_err(failed)?;
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::KeyId;
    use super::*;

    fn keys(numbers: &[u8]) -> Vec<NamedKey> {
        let key = |number: &u8| NamedKey {
            id: KeyId::from_bytes([*number; 16]),
            bytes: Secret::new(vec![*number; 32].into()),
        };
        numbers.iter().map(key).collect()
    }

    #[test]
    fn repeated_keys_are_known_after_a_restart_and_after_a_torn_write() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = SeenKeys::open(folder.path()).unwrap();
        assert!(seen.remember(&keys(&[1, 2])).unwrap());
        assert!(!seen.remember(&keys(&[3, 2])).unwrap());
        assert!(SeenKeys::open(folder.path()).is_err(), "two at once");
        drop(seen);
        let path = folder.path().join("drawn-keys");
        let mut bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 32 + 3 * 16);
        assert!(!bytes.windows(8).any(|part| part == [1; 8]), "no key in clear");
        bytes.extend_from_slice(&[9; 5]);
        fs::write(&path, &bytes).unwrap();
        let mut seen = SeenKeys::open(folder.path()).unwrap();
        assert_eq!(seen.count(), 3);
        assert!(seen.remember(&keys(&[4])).unwrap());
        drop(seen);
        let mut seen = SeenKeys::open(folder.path()).unwrap();
        for number in [1, 2, 3, 4] {
            assert!(!seen.remember(&keys(&[number])).unwrap(), "{number}");
        }
    }
}
