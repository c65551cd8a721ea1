//! Numbers and blocks of CRAM 3.0 (CRAM format specification 3.1, sections 2.3 and 8).

use libdeflater::{CompressionLvl, Compressor};

/// Appends an ITF8 number: one to five bytes, the first tells how many.
pub fn itf8(number: i32, out: &mut Vec<u8>) {
    let bits = number as u32;
    if bits >> 28 > 0 {
        // The fifth byte holds the lowest four bits alone.
        out.push(0xf0 | (bits >> 28) as u8);
        out.extend([bits >> 20, bits >> 12, bits >> 4, bits & 0xf].map(|part| part as u8));
    } else {
        ltf8(u64::from(bits), out);
    }
}

/// Appends an LTF8 number: one to nine bytes, the first tells how many.
pub fn ltf8(number: u64, out: &mut Vec<u8>) {
    let behind = (1..=8).find(|count| number >> (7 * count) == 0).map_or(8, |count| count - 1);
    let mark = (0xff00u32 >> behind) as u8;
    let first = if behind < 8 { (number >> (8 * behind)) as u8 } else { 0 };
    out.push(mark | first);
    out.extend_from_slice(&number.to_be_bytes()[8 - behind as usize..]);
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Content {
    /// The text of the SAM header.
    FileHeader = 0,
    /// How the records of a container are encoded.
    CompressionHeader = 1,
    /// Where the records of a slice lie.
    SliceHeader = 2,
    /// One data series of a slice.
    External = 4,
    /// Bits of a slice that are in no external block.
    Core = 5,
}

const RAW: u8 = 0;
const GZIP: u8 = 1;

/// Compression level of a block.
const LEVEL: i32 = 5;

/// Writes blocks. One for each thread.
pub struct BlockWriter {
    compressor: Compressor,
    packed: Vec<u8>,
}

impl Default for BlockWriter {
    fn default() -> Self {
        let level = CompressionLvl::new(LEVEL).expect("the level is one of libdeflate's");
        Self { compressor: Compressor::new(level), packed: Vec::new() }
    }
}

impl BlockWriter {
    /// Appends a block, compressed where that makes it smaller.
    pub fn add(&mut self, content: Content, id: i32, raw: &[u8], out: &mut Vec<u8>) {
        self.packed.resize(self.compressor.gzip_compress_bound(raw.len()), 0);
        let packed = self.compressor.gzip_compress(raw, &mut self.packed);
        let packed = packed.ok().filter(|&size| size < raw.len());
        let (method, data) = packed.map_or((RAW, raw), |size| (GZIP, &self.packed[..size]));
        block(method, content, id, data, raw.len(), out);
    }
}

/// Appends a block as it is.
pub fn raw_block(content: Content, id: i32, raw: &[u8], out: &mut Vec<u8>) {
    block(RAW, content, id, raw, raw.len(), out);
}

fn block(method: u8, content: Content, id: i32, data: &[u8], bytes: usize, out: &mut Vec<u8>) {
    let first = out.len();
    out.extend([method, content as u8]);
    itf8(id, out);
    itf8(data.len() as i32, out);
    itf8(bytes as i32, out);
    out.extend_from_slice(data);
    checksum(first, out);
}

/// Appends the CRC-32 of what stands from `first` on.
pub fn checksum(first: usize, out: &mut Vec<u8>) {
    out.extend(libdeflater::crc32(&out[first..]).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specification() {
        let written = |number| {
            let mut out = Vec::new();
            itf8(number, &mut out);
            out
        };
        assert_eq!(written(0x7f), [0x7f]);
        assert_eq!(written(0x80), [0x80, 0x80]);
        assert_eq!(written(0x4000), [0xc0, 0x40, 0x00]);
        assert_eq!(written(0x20_0000), [0xe0, 0x20, 0x00, 0x00]);
        assert_eq!(written(0x1000_0000), [0xf1, 0x00, 0x00, 0x00, 0x00]);
        assert_eq!(written(-1), [0xff, 0xff, 0xff, 0xff, 0x0f]);
        let long = |number| {
            let mut out = Vec::new();
            ltf8(number, &mut out);
            out
        };
        assert_eq!(long(300), [0x81, 0x2c]);
        assert_eq!(long(1 << 35), [0xf8, 0x08, 0, 0, 0, 0]);
        assert_eq!(long(1 << 55), [0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
        assert_eq!(long(u64::MAX), [0xff; 9]);
    }

    #[test]
    fn what_does_not_shrink_stays_as_it_is() {
        let (mut out, mut writer) = (Vec::new(), BlockWriter::default());
        writer.add(Content::External, 3, b"x", &mut out);
        assert_eq!(out[..6], [0, 4, 3, 1, 1, b'x']);
        assert_eq!(out[6..], libdeflater::crc32(&out[..6]).to_le_bytes());
        out.clear();
        writer.add(Content::External, 3, &[7; 5000], &mut out);
        assert!(out[0] == GZIP && out.len() < 100);
    }
}
