//! The file of an index: a header, the two tables, and a digest over all of it.
//!
//! Layout, integers little-endian: magic (8 bytes), reference digest (32), bucket bits (4), zeros (4),
//! number of entries (8), zeros (8), bucket starts (4 each), zeros up to a multiple of 8, entries (8
//! each), BLAKE3 of everything before (32).
//!
//! The tables are read into huge pages, where look-ups in a table of some gigabytes take half the
//! time (30 instead of 59 nanoseconds at 4 GB), if memory has room for that; otherwise the file is
//! mapped, and its pages are shared by all programs that do so. The digest is checked in both cases.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use super::index::{BUCKET_BITS_MAX, BUCKET_BITS_MIN, Error, Index, Numbers};
use super::packed::PackedGenome;
use crate::device::cpu::pages::{self, Mapped};
use crate::genome::Reference;

/// First bytes of an index file; the last two change with its version.
const MAGIC: &str = "DSGDIX02";

const HEAD_BYTES: usize = 64;

const DIGEST_BYTES: usize = 32;

/// Entries that are turned into bytes at a time.
const BLOCK: usize = 1 << 14;

/// Numbers that memory is taken for before any was read; no table of a human genome has more.
const COUNT_TRUSTED: usize = 1 << 30;

/// How many times over a file must fit the free memory to be read into it.
const READ_ROOM: u64 = 2;

/// What the head of a file says.
struct Head {
    bucket_bits: u32,
    entries: usize,
}

impl Head {
    fn bytes(index: &Index) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(MAGIC.as_bytes());
        bytes[8..40].copy_from_slice(&index.digest);
        bytes[40..44].copy_from_slice(&index.bucket_bits.to_le_bytes());
        bytes[48..56].copy_from_slice(&(index.entries.all().len() as u64).to_le_bytes());
        bytes
    }

    /// Checks that a file is an index of `reference`.
    fn read(bytes: &[u8; HEAD_BYTES], reference: &Reference) -> Result<Self, Error> {
        let part =
            |from: usize| u64::from_le_bytes(std::array::from_fn(|number| bytes[from + number]));
        if !bytes.starts_with(MAGIC.as_bytes()) {
            return Err(Error::NotAnIndex { expected: MAGIC });
        }
        let found: [u8; 32] = std::array::from_fn(|number| bytes[8 + number]);
        let digest = *reference.digest().as_bytes();
        if found != digest {
            let [found, expected] =
                [found, digest].map(|d| blake3::Hash::from(d).to_hex()[..16].into());
            return Err(Error::OtherReference { found, expected });
        }
        let (bucket_bits, count) = (part(40), part(48));
        let bits = u64::from(BUCKET_BITS_MIN)..=u64::from(BUCKET_BITS_MAX);
        if !bits.contains(&bucket_bits) || count > reference.bases() {
            return Err(Error::Damaged { what: "its sizes are impossible" });
        }
        Ok(Self { bucket_bits: bucket_bits as u32, entries: count as usize })
    }

    fn buckets(&self) -> usize {
        (1 << self.bucket_bits) + 1
    }

    /// Where the tables lie in the file.
    fn ranges(&self) -> [Range<usize>; 2] {
        let end = HEAD_BYTES + 4 * self.buckets();
        let first = end.next_multiple_of(8);
        [HEAD_BYTES..end, first..first + 8 * self.entries]
    }
}

impl Index {
    /// Writes the index to a file. Errors: [`Error::File`].
    pub fn write(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut hasher = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            out.write_all(bytes).map_err(|source| Error::File { action: "writing", source })
        };
        let (buckets, entries) = (self.buckets.all(), self.entries.all());
        put(&Head::bytes(self))?;
        for block in buckets.chunks(BLOCK) {
            put(&block.iter().flat_map(|start| start.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        put(&[0; 8][..4 * buckets.len() % 8])?;
        for block in entries.chunks(BLOCK) {
            put(&block.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        let digest = hasher.finalize();
        out.write_all(digest.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|source| Error::File { action: "writing", source })
    }

    /// Opens the file of the index of `reference`: read where memory has room, else mapped.
    ///
    /// Errors: those of [`read`](Self::read).
    pub fn open(file: &File, reference: &Reference) -> Result<Self, Error> {
        let failed = |source| Error::File { action: "reading", source };
        let bytes = file.metadata().map_err(failed)?.len();
        if cfg!(target_endian = "little")
            && free_memory().is_some_and(|free| free / READ_ROOM < bytes)
        {
            return Self::map(file, reference);
        }
        Self::read(&mut std::io::BufReader::with_capacity(1 << 20, file), reference)
    }

    /// Maps the file of the index of `reference`.
    ///
    /// Errors: those of [`read`](Self::read).
    pub fn map(file: &File, reference: &Reference) -> Result<Self, Error> {
        let failed = |source| Error::File { action: "mapping", source };
        if file.metadata().map_err(failed)?.len() < (HEAD_BYTES + DIGEST_BYTES) as u64 {
            return Err(Error::Damaged { what: "it ends early" });
        }
        let file = Arc::new(Mapped::new(file).map_err(failed)?);
        let bytes = file.bytes();
        let head = std::array::from_fn(|number| bytes[number]);
        let head = Head::read(&head, reference)?;
        let [buckets, entries] = head.ranges();
        if bytes.len() < entries.end + DIGEST_BYTES {
            return Err(Error::Damaged { what: "it ends early" });
        }
        let digest = blake3::hash(&bytes[..entries.end]);
        if digest.as_bytes()[..] != bytes[entries.end..entries.end + DIGEST_BYTES] {
            return Err(Error::Damaged { what: "its digest is wrong" });
        }
        let buckets = Numbers::Mapped(file.clone(), buckets);
        Self::checked(&head, reference, buckets, Numbers::Mapped(file, entries))
    }

    /// Reads the index of `reference` back from a file.
    ///
    /// Errors: [`Error::NotAnIndex`], [`Error::OtherReference`], [`Error::Damaged`] when it ends
    /// early or its digest is wrong, [`Error::File`], [`Error::TooLarge`].
    pub fn read(input: &mut impl Read, reference: &Reference) -> Result<Self, Error> {
        let mut input = Digested { input, hasher: blake3::Hasher::new() };
        let mut head = [0; HEAD_BYTES];
        let magic = input.fill(&mut head[..MAGIC.len()]);
        if magic.is_err() || !head.starts_with(MAGIC.as_bytes()) {
            return Err(Error::NotAnIndex { expected: MAGIC });
        }
        input.fill(&mut head[MAGIC.len()..])?;
        let head = Head::read(&head, reference)?;
        let buckets = input.numbers(head.buckets(), u32::from_le_bytes)?;
        let [before, entries] = head.ranges();
        input.fill(&mut [0; 8][..entries.start - before.end])?;
        let entries = input.numbers(head.entries, u64::from_le_bytes)?;
        let expected = input.hasher.finalize();
        let mut found = [0; DIGEST_BYTES];
        input.input.read_exact(&mut found).map_err(read_error)?;
        // The digest is not secret; it guards against accidents.
        if expected != blake3::Hash::from(found) {
            return Err(Error::Damaged { what: "its digest is wrong" });
        }
        Self::checked(&head, reference, Numbers::Own(buckets), Numbers::Own(entries))
    }

    fn checked(
        head: &Head,
        reference: &Reference,
        buckets: Numbers<u32>,
        entries: Numbers<u64>,
    ) -> Result<Self, Error> {
        let bases = reference.bases();
        let genome = PackedGenome::new(reference).ok_or(Error::TooLarge { bases })?;
        let starts = buckets.all();
        let ordered = starts.windows(2).all(|pair| pair[0] <= pair[1]);
        if !ordered || starts.last().map(|&end| end as usize) != Some(head.entries) {
            return Err(Error::Damaged { what: "its buckets are out of order" });
        }
        let digest = *reference.digest().as_bytes();
        Ok(Self { genome, digest, bucket_bits: head.bucket_bits, buckets, entries })
    }
}

/// Memory that programs may still take, in bytes, as the system counts it.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn read_error(source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::Damaged { what: "it ends early" },
        _ => Error::File { action: "reading", source },
    }
}

struct Digested<'a, R> {
    input: &'a mut R,
    hasher: blake3::Hasher,
}

impl<R: Read> Digested<'_, R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.input.read_exact(bytes).map_err(read_error)?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Reads `count` numbers.
    fn numbers<T, const N: usize>(
        &mut self,
        count: usize,
        from_bytes: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Error> {
        let mut numbers = pages::with_capacity(count.min(COUNT_TRUSTED));
        let mut block = vec![0; BLOCK * N];
        while numbers.len() < count {
            let bytes = &mut block[..(count - numbers.len()).min(BLOCK) * N];
            self.fill(bytes)?;
            numbers.extend(bytes.as_chunks::<N>().0.iter().map(|&number| from_bytes(number)));
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulate::{random_bases, reference_of};
    use super::*;

    fn written() -> (Reference, Index, Vec<u8>) {
        let reference = reference_of(&[random_bases(5, 30_000)]);
        let index = Index::build(&reference, 1).unwrap();
        let mut bytes = Vec::new();
        index.write(&mut bytes).unwrap();
        (reference, index, bytes)
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file
    }

    fn refused(bytes: &[u8], reference: &Reference) -> bool {
        let opened = Index::open(&file_of(bytes), reference);
        let mapped = Index::map(&file_of(bytes), reference);
        Index::read(&mut &*bytes, reference).is_err() && mapped.is_err() && opened.is_err()
    }

    #[test]
    fn what_was_written_comes_back() {
        let (reference, index, bytes) = written();
        let read = Index::read(&mut &bytes[..], &reference).unwrap();
        let mapped = Index::map(&file_of(&bytes), &reference).unwrap();
        assert!(matches!(mapped.entries, Numbers::Mapped(..)));
        for back in [read, mapped] {
            assert_eq!(back.buckets.all(), index.buckets.all());
            assert_eq!(back.entries.all(), index.entries.all());
            assert_eq!((back.digest, back.bucket_bits), (index.digest, index.bucket_bits));
        }
    }

    #[test]
    fn another_reference_is_refused() {
        let (mut reference, _, bytes) = written();
        reference.contigs[0].name.push('x');
        let error = Index::read(&mut &bytes[..], &reference).unwrap_err();
        assert!(matches!(error, Error::OtherReference { .. }), "{error}");
    }

    #[test]
    fn a_cut_or_changed_file_is_refused() {
        let (reference, _, mut bytes) = written();
        for length in [0, 7, 30, 44, 60, 64, 5000, bytes.len() - 1] {
            assert!(refused(&bytes[..length], &reference), "{length}");
        }
        for at in [3, 20, 41, 46, 50, 60, 40_000, bytes.len() - 40, bytes.len() - 1] {
            bytes[at] ^= 4;
            assert!(refused(&bytes, &reference), "{at}");
            bytes[at] ^= 4;
        }
        assert!(Index::read(&mut &bytes[..], &reference).is_ok());
    }
}
