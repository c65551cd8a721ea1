//! The file of an index: a header, the two tables, and a digest over all of it.
//!
//! Layout, integers little-endian: magic (8 bytes), reference digest (32), bucket bits (4), number
//! of entries (8), bucket starts (4 each), entries (8 each), BLAKE3 of everything before (32).

use std::io::{Read, Write};

use super::index::{BUCKET_BITS_MAX, BUCKET_BITS_MIN, Error, Index};
use super::packed::PackedGenome;
use crate::device::cpu::pages;
use crate::genome::Reference;

/// First bytes of an index file; the last two change with its version.
const MAGIC: &str = "DSGDIX01";

/// Entries that are turned into bytes at a time.
const BLOCK: usize = 1 << 14;

/// Numbers that memory is taken for before any was read; no table of a human genome has more.
const COUNT_TRUSTED: usize = 1 << 30;

impl Index {
    /// Writes the index to a file. Errors: [`Error::File`].
    pub fn write(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut hasher = blake3::Hasher::new();
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            out.write_all(bytes).map_err(|source| Error::File { action: "writing", source })
        };
        put(MAGIC.as_bytes())?;
        put(&self.digest)?;
        put(&self.bucket_bits.to_le_bytes())?;
        put(&(self.entries.len() as u64).to_le_bytes())?;
        for block in self.buckets.chunks(BLOCK) {
            put(&block.iter().flat_map(|start| start.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        for block in self.entries.chunks(BLOCK) {
            put(&block.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>())?;
        }
        let digest = hasher.finalize();
        out.write_all(digest.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|source| Error::File { action: "writing", source })
    }

    /// Reads the index of `reference` back from a file.
    ///
    /// Errors: [`Error::NotAnIndex`], [`Error::OtherReference`], [`Error::Damaged`] when it ends
    /// early or its digest is wrong, [`Error::File`], [`Error::TooLarge`].
    pub fn read(input: &mut impl Read, reference: &Reference) -> Result<Self, Error> {
        let mut input = Digested { input, hasher: blake3::Hasher::new() };
        if input.array::<8>().ok().as_ref().map(|magic| &magic[..]) != Some(MAGIC.as_bytes()) {
            return Err(Error::NotAnIndex { expected: MAGIC });
        }
        let found = input.array::<32>()?;
        let digest = *reference.digest().as_bytes();
        if found != digest {
            let [found, expected] =
                [found, digest].map(|d| blake3::Hash::from(d).to_hex()[..16].into());
            return Err(Error::OtherReference { found, expected });
        }
        let bases = reference.contigs.iter().map(|contig| contig.bases.len() as u64).sum();
        let bucket_bits = u32::from_le_bytes(input.array()?);
        let count = u64::from_le_bytes(input.array()?);
        if !(BUCKET_BITS_MIN..=BUCKET_BITS_MAX).contains(&bucket_bits) || count > bases {
            return Err(Error::Damaged { what: "its sizes are impossible" });
        }
        let buckets = input.numbers((1 << bucket_bits) + 1, u32::from_le_bytes)?;
        let entries = input.numbers(count as usize, u64::from_le_bytes)?;
        let expected = input.hasher.finalize();
        let mut found = [0; 32];
        input.input.read_exact(&mut found).map_err(read_error)?;
        // The digest is not secret; it guards against accidents.
        if expected != blake3::Hash::from(found) {
            return Err(Error::Damaged { what: "its digest is wrong" });
        }
        let genome = PackedGenome::new(reference).ok_or(Error::TooLarge { bases })?;
        let ordered = buckets.windows(2).all(|pair| pair[0] <= pair[1]);
        if !ordered || buckets.last().copied().map(u64::from) != Some(count) {
            return Err(Error::Damaged { what: "its buckets are out of order" });
        }
        Ok(Self { genome, digest, bucket_bits, buckets, entries })
    }
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
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(read_error)?;
        self.hasher.update(&bytes);
        Ok(bytes)
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
            self.input.read_exact(bytes).map_err(read_error)?;
            self.hasher.update(bytes);
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

    #[test]
    fn what_was_written_comes_back() {
        let (reference, index, bytes) = written();
        let back = Index::read(&mut &bytes[..], &reference).unwrap();
        assert_eq!((back.buckets, back.entries), (index.buckets, index.entries));
        assert_eq!((back.digest, back.bucket_bits), (index.digest, index.bucket_bits));
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
        for length in [0, 7, 30, 44, 60, 5000, bytes.len() - 1] {
            assert!(Index::read(&mut &bytes[..length], &reference).is_err(), "{length}");
        }
        for at in [3, 20, 41, 46, 60, 40_000, bytes.len() - 40, bytes.len() - 1] {
            bytes[at] ^= 4;
            assert!(Index::read(&mut &bytes[..], &reference).is_err(), "{at}");
            bytes[at] ^= 4;
        }
        assert!(Index::read(&mut &bytes[..], &reference).is_ok());
    }
}
