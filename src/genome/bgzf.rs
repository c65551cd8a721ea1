//! BGZF, the blocked gzip of BAM and indexed VCF (SAM specification, section 4.1).
//!
//! Blocks are cut every [`BLOCK_BYTES`] of text, so that the same text gives the same bytes whoever
//! compresses it and on however many threads.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor, Decompressor};

/// Bytes of text in every block but the last of a run: what htslib uses, so that even text that
/// does not shrink fits the 16-bit block size.
pub const BLOCK_BYTES: usize = 0xff00;

/// The empty block that ends a file (SAM specification, section 4.1.2).
pub const END_MARKER: [u8; 28] = [
    0x1f, 0x8b, 0x08, 0x04, 0, 0, 0, 0, 0, 0xff, 0x06, 0, 0x42, 0x43, 0x02, 0, 0x1b, 0, 0x03, 0, 0,
    0, 0, 0, 0, 0, 0, 0,
];

/// Compression level of a file that is kept: the default of bgzip.
pub const DEFAULT_LEVEL: u8 = 6;

/// Most bytes that one block holds, compressed or not.
pub const BLOCK_BYTES_MAX: usize = 1 << 16;

const HEADER_BYTES: usize = 18;
const TRAILER_BYTES: usize = 8;

/// Compresses single blocks. One for each thread.
pub struct Deflater {
    compressor: Compressor,
}

impl Deflater {
    /// A compressor of `level` 0 (stored) to 12 (slowest); a higher one counts as 12.
    pub fn new(level: u8) -> Self {
        let level = CompressionLvl::new(i32::from(level.min(12))).expect("0 to 12 are levels");
        Self { compressor: Compressor::new(level) }
    }

    /// Appends one block that holds `text` to `out`.
    ///
    /// # Panics
    /// When `text` is longer than [`BLOCK_BYTES`].
    pub fn block(&mut self, text: &[u8], out: &mut Vec<u8>) {
        assert!(text.len() <= BLOCK_BYTES, "a block holds at most BLOCK_BYTES");
        let start = out.len();
        let room = self.compressor.deflate_compress_bound(text.len());
        out.extend_from_slice(&END_MARKER[..HEADER_BYTES]);
        out.resize(start + HEADER_BYTES + room, 0);
        let body = &mut out[start + HEADER_BYTES..];
        let size = self.compressor.deflate_compress(text, body).expect("the room is the bound");
        out.truncate(start + HEADER_BYTES + size);
        out.extend_from_slice(&libdeflater::crc32(text).to_le_bytes());
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        let last = u16::try_from(out.len() - start - 1).expect("stored text fits a block");
        out[start + 16..start + HEADER_BYTES].copy_from_slice(&last.to_le_bytes());
    }

    /// Appends `text` as blocks of [`BLOCK_BYTES`], the last one shorter, to `out`.
    pub fn blocks(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for part in text.chunks(BLOCK_BYTES) {
            self.block(part, out);
        }
    }
}

/// What the first bytes of a block say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// A block of this many bytes in all, of which the first `body` are the header.
    Block {
        /// Bytes of the whole block.
        bytes: usize,
        /// Bytes before the compressed data.
        body: usize,
    },
    /// More bytes are needed to tell.
    Short,
    /// Not a BGZF block.
    Other,
}

/// Reads the header of the block that `bytes` begin with.
pub fn head(bytes: &[u8]) -> Head {
    let magic = &END_MARKER[..4];
    if !bytes.iter().zip(magic).all(|(a, b)| a == b) {
        return Head::Other;
    }
    if bytes.len() < 12 {
        return Head::Short;
    }
    let body = 12 + usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
    if bytes.len() < body {
        return Head::Short;
    }
    let mut extra = &bytes[12..body];
    while extra.len() >= 4 {
        let size = usize::from(u16::from_le_bytes([extra[2], extra[3]]));
        if extra.len() < 4 + size {
            break;
        }
        if &extra[..2] == b"BC" && size == 2 {
            let bytes = usize::from(u16::from_le_bytes([extra[4], extra[5]])) + 1;
            let sound = bytes >= body + TRAILER_BYTES;
            return if sound { Head::Block { bytes, body } } else { Head::Other };
        }
        extra = &extra[4 + size..];
    }
    Head::Other
}

/// Restores single blocks. One for each thread.
pub struct Inflater {
    decompressor: Decompressor,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { decompressor: Decompressor::new() }
    }
}

/// A block whose data do not restore to the length and CRC-32 in its trailer.
#[derive(Debug, thiserror::Error)]
#[error("a BGZF block is damaged")]
pub struct Damaged;

impl Inflater {
    /// Appends the text of one whole block, whose header is `body` bytes long, to `out`.
    pub fn block(&mut self, block: &[u8], body: usize, out: &mut Vec<u8>) -> Result<(), Damaged> {
        let end = block.len().checked_sub(TRAILER_BYTES).filter(|end| *end >= body);
        let end = end.ok_or(Damaged)?;
        let word = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        let (check, size) = (word(end), word(end + 4) as usize);
        if size > BLOCK_BYTES_MAX {
            return Err(Damaged);
        }
        let start = out.len();
        out.resize(start + size, 0);
        let got = self.decompressor.deflate_decompress(&block[body..end], &mut out[start..]);
        if got.ok() != Some(size) || libdeflater::crc32(&out[start..]) != check {
            out.truncate(start);
            return Err(Damaged);
        }
        Ok(())
    }

    /// Appends the text of a run of whole blocks to `out`.
    pub fn blocks(&mut self, mut blocks: &[u8], out: &mut Vec<u8>) -> Result<(), Damaged> {
        while !blocks.is_empty() {
            let Head::Block { bytes, body } = head(blocks) else { return Err(Damaged) };
            let block = blocks.get(..bytes).ok_or(Damaged)?;
            self.block(block, body, out)?;
            blocks = &blocks[bytes..];
        }
        Ok(())
    }
}

/// A place in the text of a BGZF file: the offset of a block, and a byte in its text
/// (SAM specification, section 4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct VirtualOffset(pub u64);

impl VirtualOffset {
    /// Byte `within` the text of the block that starts at byte `block` of the file.
    pub fn new(block: u64, within: usize) -> Self {
        Self(block << 16 | within as u64)
    }

    /// Where the block starts in the file.
    pub fn block(self) -> u64 {
        self.0 >> 16
    }
}

/// Writes text as BGZF. [`finish`](Writer::finish) writes the end marker; drop does not.
pub struct Writer<W: Write> {
    inner: W,
    deflater: Deflater,
    pending: Vec<u8>,
    block: Vec<u8>,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// A writer with the given compression level, 0 to 12.
    pub fn new(inner: W, level: u8) -> Self {
        Self {
            inner,
            deflater: Deflater::new(level),
            pending: Vec::with_capacity(BLOCK_BYTES),
            block: Vec::with_capacity(BLOCK_BYTES_MAX),
            written: 0,
        }
    }

    /// Where the next byte of text goes.
    pub fn position(&self) -> VirtualOffset {
        VirtualOffset::new(self.written, self.pending.len())
    }

    /// Bytes written to the inner writer so far.
    pub fn compressed_bytes(&self) -> u64 {
        self.written
    }

    /// Ends the current block, so that the next byte begins one. Nothing if none was begun.
    pub fn end_block(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.block.clear();
        self.deflater.block(&self.pending, &mut self.block);
        self.pending.clear();
        self.inner.write_all(&self.block)?;
        self.written += self.block.len() as u64;
        Ok(())
    }

    /// Writes what is left and the end marker, and gives the inner writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        self.inner.write_all(&END_MARKER)?;
        self.inner.flush()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..taken]);
        if self.pending.len() == BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(taken)
    }

    /// Flushes the inner writer only: ending a block here would make the bytes depend on the caller.
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Compresses `text` to a whole BGZF file.
pub fn compress(text: &[u8], level: u8) -> Vec<u8> {
    let mut out = Vec::new();
    Deflater::new(level).blocks(text, &mut out);
    out.extend_from_slice(&END_MARKER);
    out
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut step = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..len).map(|_| step()).collect()
    }

    #[test]
    fn every_level_round_trips_through_another_reader() {
        for text in [noise(200_000), b"ACGT".repeat(50_000), Vec::new()] {
            for level in [0, 1, 6, 12] {
                let file = compress(&text, level);
                let mut back = Vec::new();
                noodles::bgzf::io::Reader::new(&file[..]).read_to_end(&mut back).unwrap();
                assert_eq!(back, text);
                let mut back = Vec::new();
                Inflater::default().blocks(&file, &mut back).unwrap();
                assert_eq!(back, text);
            }
        }
    }

    #[test]
    fn the_writer_gives_the_same_bytes_however_it_is_fed() {
        let text = b"chr20\t1000\n".repeat(30_000);
        for step in [1000, BLOCK_BYTES, 100_000] {
            let mut writer = Writer::new(Vec::new(), 6);
            text.chunks(step).for_each(|part| writer.write_all(part).unwrap());
            assert_eq!(writer.finish().unwrap(), compress(&text, 6));
        }
    }

    #[test]
    fn positions_point_at_the_text_they_were_taken_at() {
        let mut writer = Writer::new(Vec::new(), 6);
        writer.write_all(&vec![b'x'; BLOCK_BYTES + 5]).unwrap();
        let at = writer.position();
        assert_eq!(at.0 & 0xffff, 5);
        assert_eq!(at.block(), writer.compressed_bytes());
        writer.write_all(b"here").unwrap();
        let file = writer.finish().unwrap();
        let mut text = Vec::new();
        Inflater::default().blocks(&file[at.block() as usize..], &mut text).unwrap();
        assert_eq!(&text[5..], b"here");
    }

    #[test]
    fn damage_is_noticed() {
        let good = compress(b"some text that is long enough to be compressed at all", 6);
        assert_eq!(head(&good[..10]), Head::Short);
        assert_eq!(head(b"\x1f\x8b\x08\x00aaaaaaaaaaaa"), Head::Other);
        for at in 18..good.len() - END_MARKER.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Inflater::default().blocks(&bad, &mut Vec::new()).is_err(), "byte {at}");
        }
        assert!(Inflater::default().blocks(&good[..good.len() - 1], &mut Vec::new()).is_err());
    }
}
