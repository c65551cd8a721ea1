//! A whole-or-nothing file behind [`Write`], in aligned chunks whatever the sizes of the writes.

use std::io::{self, Write};
use std::path::Path;

use super::{Error, FileWriter};
use crate::base::{Chunk, Pool};

const CHUNK_BYTES: usize = 1 << 20;

/// Chunks on the way to the disk, and the one being filled.
const CHUNKS: usize = 6;

/// Writes a file that appears under its name only when it is [finished](StreamWriter::finish).
pub struct StreamWriter {
    file: FileWriter,
    pool: Pool,
    open: Chunk,
}

impl StreamWriter {
    /// Begins the file; `total_bytes`, if known, is the room to ask for at once.
    pub fn create(path: &Path, total_bytes: Option<u64>) -> Result<Self, Error> {
        let pool = Pool::new(CHUNKS, CHUNK_BYTES);
        let open = pool.take();
        Ok(Self { file: FileWriter::create(path, total_bytes)?, pool, open })
    }

    /// Adds bytes.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let start = self.open.len();
            let count = bytes.len().min(CHUNK_BYTES - start);
            self.open.set_len(start + count);
            self.open[start..].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.open.len() == CHUNK_BYTES {
                let full = std::mem::replace(&mut self.open, self.pool.take());
                self.file.write(full)?;
            }
        }
        Ok(())
    }

    /// Makes the file durable and gives it its name; returns its length in bytes.
    pub fn finish(self) -> Result<u64, Error> {
        let Self { mut file, open, .. } = self;
        file.write(open)?;
        file.finish()
    }
}

impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_writes_make_the_whole_file_and_none_without_finish() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..3 * CHUNK_BYTES + 17).map(|at| (at % 251) as u8).collect();
        let mut writer = StreamWriter::create(&path, None).unwrap();
        for part in bytes.chunks(70_001) {
            writer.add(part).unwrap();
        }
        assert!(!path.exists());
        assert_eq!(writer.finish().unwrap(), bytes.len() as u64);
        assert!(std::fs::read(&path).unwrap() == bytes);
        drop(StreamWriter::create(&folder.path().join("other"), None).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
