//! The alignments as CRAM 3.0 (CRAM format specification 3.1), against the request's reference.
//!
//! Slices are encoded in parallel, one container each; here they get their place in the file. The
//! bytes are the same for any number of threads. The index (`.crai`) comes with the file.

use std::io::{self, Write};

use libdeflater::{CompressionLvl, Compressor};

use super::cram_block::{BlockWriter, Content, checksum, itf8, ltf8, raw_block};
use super::cram_slice::Slice;

/// The empty container that ends a file (section 9).
const END_MARKER: [u8; 38] = [
    0x0f, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0xe0, 0x45, 0x4f, 0x46, 0, 0, 0, 0, 0x01, 0, 0x05,
    0xbd, 0xd9, 0x4f, 0, 0x01, 0, 0x06, 0x06, 0x01, 0, 0x01, 0, 0x01, 0, 0xee, 0x63, 0x01, 0x4b,
];

/// First bytes of a file; a name of the file follows, which is left empty.
const MAGIC: &[u8; 6] = b"CRAM\x03\x00";
const NAME_BYTES: usize = 20;

/// What a container says of its content before its blocks.
struct Head {
    contig: i32,
    start: i32,
    span: i32,
    records: u32,
    /// Records in the containers before.
    counter: u64,
    bases: u64,
    blocks: usize,
    /// Where the slice begins behind this head.
    landmark: usize,
}

impl Head {
    fn write(&self, bytes: usize, out: &mut Vec<u8>) {
        let first = out.len();
        out.extend((bytes as u32).to_le_bytes());
        for number in [self.contig, self.start, self.span, self.records as i32] {
            itf8(number, out);
        }
        ltf8(self.counter, out);
        ltf8(self.bases, out);
        for number in [self.blocks, 1, self.landmark] {
            itf8(number as i32, out);
        }
        checksum(first, out);
    }
}

/// Writes one CRAM.
pub struct CramFile<W: Write> {
    out: W,
    written: u64,
    records: u64,
    index: String,
}

impl<W: Write> CramFile<W> {
    /// Writes the SAM header. Errors: the output's.
    pub fn new(mut out: W, header: &str) -> io::Result<Self> {
        let mut text = (header.len() as u32).to_le_bytes().to_vec();
        text.extend(header.bytes());
        let mut block = Vec::new();
        BlockWriter::default().add(Content::FileHeader, 0, &text, &mut block);
        let head = Head {
            contig: 0,
            start: 0,
            span: 0,
            records: 0,
            counter: 0,
            bases: 0,
            blocks: 1,
            landmark: 0,
        };
        let mut bytes = MAGIC.to_vec();
        bytes.resize(MAGIC.len() + NAME_BYTES, 0);
        head.write(block.len(), &mut bytes);
        bytes.extend(block);
        out.write_all(&bytes)?;
        Ok(Self { out, written: bytes.len() as u64, records: 0, index: String::new() })
    }

    /// Writes a container with one slice. Errors: the output's.
    pub fn add(&mut self, slice: &Slice) -> io::Result<()> {
        let mut header = Vec::new();
        for number in [slice.contig, slice.start, slice.span, slice.records as i32] {
            itf8(number, &mut header);
        }
        ltf8(self.records, &mut header);
        itf8(slice.ids.len() as i32 + 1, &mut header);
        itf8(slice.ids.len() as i32, &mut header);
        slice.ids.iter().for_each(|&id| itf8(id, &mut header));
        // No block holds the reference.
        itf8(-1, &mut header);
        header.extend(slice.digest);
        let mut body = slice.header.clone();
        raw_block(Content::SliceHeader, 0, &header, &mut body);
        body.extend_from_slice(&slice.blocks);
        let head = Head {
            contig: slice.contig,
            start: slice.start,
            span: slice.span,
            records: slice.records,
            counter: self.records,
            bases: slice.bases,
            blocks: slice.ids.len() + 3,
            landmark: slice.header.len(),
        };
        let mut bytes = Vec::with_capacity(body.len() + 64);
        head.write(body.len(), &mut bytes);
        self.index += &format!(
            "{}\t{}\t{}\t{}\t{}\t{}\n",
            slice.contig,
            slice.start,
            slice.span,
            self.written,
            head.landmark,
            body.len() - head.landmark,
        );
        bytes.extend(body);
        self.written += bytes.len() as u64;
        self.records += u64::from(slice.records);
        self.out.write_all(&bytes)
    }

    /// Ends the file; gives the content of its index. Errors: the output's.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.out.write_all(&END_MARKER)?;
        self.out.flush()?;
        let level = CompressionLvl::default();
        let mut compressor = Compressor::new(level);
        let mut packed = vec![0; compressor.gzip_compress_bound(self.index.len())];
        let size = compressor.gzip_compress(self.index.as_bytes(), &mut packed);
        packed.truncate(size.map_err(io::Error::other)?);
        Ok(packed)
    }
}
