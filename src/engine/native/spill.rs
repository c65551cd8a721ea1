//! Packed reads beyond the memory's limit, sealed in a file that has no name.
//!
//! The file is unlinked as soon as it is open, so nothing is left of it however the program ends.
//! Extents are encrypted with AES-256 in counter mode (NIST SP 800-38A, section 6.5) and carry a
//! keyed BLAKE3 tag over their offset, length and ciphertext. Both keys are random and live in
//! memory alone. An extent lies at a multiple of 16 bytes and its offset gives the counter: no
//! place of the file is written twice, so no key stream is used twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::base::{Fault, Faulty};

/// Why reads could not be set aside or had back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The scratch file could not be made.
    #[error("making a scratch file in {}", folder.display())]
    Create {
        /// Its folder.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The scratch file could not be written: its file system may be full.
    #[error("writing the scratch file in {}", folder.display())]
    Write {
        /// Its folder.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The scratch file could not be read back.
    #[error("reading the scratch file in {}", folder.display())]
    Read {
        /// Its folder.
        folder: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What was read back is not what was written.
    #[error("the scratch file in {} was changed", folder.display())]
    Changed {
        /// Its folder.
        folder: PathBuf,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Create { source, .. } => Fault::of_io(source),
            Error::Write { .. } | Error::Read { .. } => Fault::Disk,
            Error::Changed { .. } => Fault::Integrity,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Create { .. } | Error::Write { .. } => {
                Some("name a folder with room with --scratch, or allow more with --memory".into())
            }
            Error::Read { .. } | Error::Changed { .. } => None,
        }
    }
}

/// Where a sealed run of bytes lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    offset: u64,
    bytes: u32,
}

impl Extent {
    /// Bytes that were sealed.
    pub fn bytes(&self) -> u64 {
        self.bytes.into()
    }
}

const TAG_BYTES: usize = 32;

/// Width of an AES block, at whose multiples extents begin.
const BLOCK_BYTES: u64 = 16;

/// Sealed bytes that are written at once.
const WRITE_BYTES: usize = 4 << 20;

/// A scratch file and the keys to it.
pub struct Spill {
    file: File,
    folder: PathBuf,
    cipher_key: Zeroizing<[u8; 32]>,
    tag_key: Zeroizing<[u8; 32]>,
    /// Sealed bytes that are not written yet, and where they go.
    waiting: Vec<u8>,
    written: u64,
}

impl Spill {
    /// Makes a scratch file in `folder` that no other program can open by name.
    ///
    /// Errors: [`Error::Create`].
    pub fn new(folder: &Path) -> Result<Self, Error> {
        let made = unnamed(folder).and_then(|file| Self::over(file, folder));
        made.map_err(|source| Error::Create { folder: folder.into(), source })
    }

    fn over(file: File, folder: &Path) -> io::Result<Self> {
        let random = || -> io::Result<Zeroizing<[u8; 32]>> {
            let mut key = Zeroizing::new([0; 32]);
            getrandom::fill(&mut key[..]).map_err(io::Error::other)?;
            Ok(key)
        };
        Ok(Self {
            file,
            folder: folder.into(),
            cipher_key: random()?,
            tag_key: random()?,
            waiting: Vec::with_capacity(WRITE_BYTES),
            written: 0,
        })
    }

    /// Seals `parts`, one after the other, as one extent, which can be read after a
    /// [`flush`](Self::flush).
    ///
    /// Errors: [`Error::Write`].
    pub fn add(&mut self, parts: &[Vec<u8>]) -> Result<Extent, Error> {
        let offset = self.written + self.waiting.len() as u64;
        let start = self.waiting.len();
        let total: usize = parts.iter().map(Vec::len).sum();
        if self.waiting.capacity() < start + total + TAG_BYTES + BLOCK_BYTES as usize {
            // Growing would leave a copy behind of what is not sealed yet; nothing such is in it
            // here.
            self.waiting.reserve(total + TAG_BYTES + BLOCK_BYTES as usize);
        }
        for part in parts {
            self.waiting.extend_from_slice(part);
        }
        let extent = Extent { offset, bytes: total as u32 };
        self.cipher(offset).apply_keystream(&mut self.waiting[start..]);
        let tag = self.tag(&extent, &self.waiting[start..]);
        self.waiting.extend(tag.as_bytes());
        let end = (self.waiting.len() as u64).next_multiple_of(BLOCK_BYTES);
        self.waiting.resize(end as usize, 0);
        if self.waiting.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(extent)
    }

    /// Writes what waits. Errors: [`Error::Write`].
    pub fn flush(&mut self) -> Result<(), Error> {
        let written = self.file.write_all_at(&self.waiting, self.written);
        written.map_err(|source| Error::Write { folder: self.folder.clone(), source })?;
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }

    /// Reads an extent back.
    ///
    /// Errors: [`Error::Read`]; [`Error::Changed`] when the file holds something else.
    pub fn read(&self, extent: &Extent) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut bytes = Zeroizing::new(vec![0; extent.bytes as usize + TAG_BYTES]);
        let read = self.file.read_exact_at(&mut bytes, extent.offset);
        read.map_err(|source| Error::Read { folder: self.folder.clone(), source })?;
        let sealed = extent.bytes as usize;
        let same = self.tag(extent, &bytes[..sealed]).as_bytes().ct_eq(&bytes[sealed..]);
        if !bool::from(same) {
            return Err(Error::Changed { folder: self.folder.clone() });
        }
        bytes.truncate(sealed);
        self.cipher(extent.offset).apply_keystream(&mut bytes);
        Ok(bytes)
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    fn cipher(&self, offset: u64) -> ctr::Ctr128BE<Aes256> {
        let counter = u128::from(offset / BLOCK_BYTES).to_be_bytes();
        ctr::Ctr128BE::<Aes256>::new((&*self.cipher_key).into(), &counter.into())
    }

    fn tag(&self, extent: &Extent, sealed: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.tag_key);
        hasher.update(&extent.offset.to_le_bytes());
        hasher.update(&extent.bytes.to_le_bytes());
        hasher.update(sealed);
        hasher.finalize()
    }
}

/// A new file that only this user may open, without a name.
fn unnamed(folder: &Path) -> io::Result<File> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = folder.join(format!("dsgd-{name}"));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(folder: &Path) -> (Spill, Vec<(Extent, Vec<u8>)>) {
        let mut spill = Spill::new(folder).unwrap();
        let mut extents = Vec::new();
        for count in [0usize, 1, 15, 16, 17, 5000] {
            let parts = vec![vec![count as u8; count], b"GATTACA".repeat(40)];
            extents.push((spill.add(&parts).unwrap(), parts.concat()));
        }
        spill.flush().unwrap();
        (spill, extents)
    }

    #[test]
    fn what_was_set_aside_comes_back_and_no_name_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (spill, extents) = filled(folder.path());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for (extent, bytes) in &extents {
            assert_eq!(*spill.read(extent).unwrap(), *bytes);
        }
        let mut file = vec![0; spill.bytes() as usize];
        spill.file.read_exact_at(&mut file, 0).unwrap();
        assert!(!file.windows(14).any(|window| window == b"GATTACAGATTACA"));
    }

    #[test]
    fn a_changed_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (spill, extents) = filled(folder.path());
        for (extent, bytes) in &extents {
            for at in [0, bytes.len() as u64 - 1, bytes.len() as u64 + TAG_BYTES as u64 - 1] {
                let mut byte = [0];
                spill.file.read_exact_at(&mut byte, extent.offset + at).unwrap();
                spill.file.write_all_at(&[byte[0] ^ 4], extent.offset + at).unwrap();
                let refused = spill.read(extent).unwrap_err();
                assert!(matches!(refused, Error::Changed { .. }));
                assert_eq!(refused.fault(), Fault::Integrity);
                spill.file.write_all_at(&byte, extent.offset + at).unwrap();
            }
        }
        // One extent in the other's place.
        let (first, second) = (&extents[1].0, &extents[2].0);
        let mut sealed = vec![0; first.bytes as usize + TAG_BYTES];
        spill.file.read_exact_at(&mut sealed, first.offset).unwrap();
        spill.file.write_all_at(&sealed, second.offset).unwrap();
        assert!(matches!(spill.read(second), Err(Error::Changed { .. })));
        assert!(spill.read(first).is_ok());
        spill.file.set_len(first.offset + 3).unwrap();
        assert_eq!(spill.read(first).unwrap_err().fault(), Fault::Disk);
    }

    #[test]
    fn a_full_disk_and_a_missing_folder_say_so() {
        let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
        let mut spill = Spill::over(full, Path::new("/scratch")).unwrap();
        spill.add(&[vec![1; 100]]).unwrap();
        let error = spill.flush().unwrap_err();
        assert_eq!(error.fault(), Fault::Disk);
        assert!(error.to_string().contains("/scratch") && error.hint().is_some());
        let missing = Spill::new(Path::new("/nowhere/at/all"));
        assert!(missing.is_err_and(|error| error.fault() == Fault::NoInput));
    }
}
