//! Segments of a BAM file (SAM specification, section 4.2).
//!
//! The records are taken apart here, since a general reader makes room for whatever length a
//! damaged file claims; here memory grows only with the bytes that are there.

use std::collections::VecDeque;
use std::io::{self, Read};

use noodles::sam;

use super::{Error, Segment, Segments, finish, flag, group_index};
use crate::genome::inflate::InflateReader;

/// Letters of the 4-bit codes (section 4.2.3). '=' never comes from an aligner.
const LETTERS: &[u8; 16] = b"NACMGRSVTWYHKDBN";

/// Bytes of a record before its name.
const FIXED_BYTES: usize = 32;

/// Segments handed over at a time.
const SEGMENTS: usize = 1024;

pub(super) struct Bam<R: Read> {
    reader: io::BufReader<InflateReader<R>>,
    header: sam::Header,
    record: Vec<u8>,
    file: String,
    records: u64,
}

impl<R: Read> Bam<R> {
    pub(super) fn open(inner: R, file: &str) -> Result<(Self, sam::Header), Error> {
        let mut reader = io::BufReader::with_capacity(1 << 16, InflateReader::new(inner, file));
        let header = read_header(&mut reader)
            .map_err(|source| Error::Header { file: file.into(), source })?;
        let (head, file) = (header.clone(), file.into());
        Ok((Self { reader, header, record: Vec::new(), file, records: 0 }, head))
    }

    /// Reads the next record; `false` at the end of the file.
    fn read_record(&mut self) -> io::Result<bool> {
        let mut length = [0; 4];
        let mut first = (&mut self.reader).take(4);
        match io::copy(&mut first, &mut &mut length[..])? {
            0 => return Ok(false),
            4 => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        read_bytes(&mut self.reader, u32::from_le_bytes(length), &mut self.record)?;
        Ok(true)
    }

    fn segment(&self) -> Result<Segment, Error> {
        let parts = parts(&self.record).ok_or_else(|| Error::Record {
            file: self.file.clone(),
            records: self.records - 1,
            source: damaged("its lengths do not add up"),
        })?;
        let (file, record) = (&self.file, self.records);
        if parts.name.is_empty() || parts.name == b"*" {
            return Err(Error::NoName { file: file.clone(), record });
        }
        let mut bases = Vec::with_capacity(parts.qualities.len() + 1);
        for pair in parts.bases {
            bases.push(LETTERS[usize::from(pair >> 4)]);
            bases.push(LETTERS[usize::from(pair & 15)]);
        }
        bases.truncate(parts.qualities.len());
        let segment = Segment {
            name: parts.name.to_vec(),
            flags: parts.flags,
            group: group_index(&self.header, read_group(parts.tags)),
            bases,
            qualities: parts.qualities.to_vec(),
        };
        finish(segment, file, record)
    }
}

impl<R: Read> Segments for Bam<R> {
    fn more(&mut self, out: &mut VecDeque<Segment>) -> Result<bool, Error> {
        while out.len() < SEGMENTS {
            let read = self.read_record().map_err(|source| Error::Record {
                file: self.file.clone(),
                records: self.records,
                source,
            })?;
            if !read {
                return Ok(false);
            }
            self.records += 1;
            let flags =
                self.record.get(14..16).map_or(0, |two| u16::from_le_bytes([two[0], two[1]]));
            if flags & flag::NOT_PRIMARY == 0 {
                out.push_back(self.segment()?);
            }
        }
        Ok(true)
    }
}

fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads exactly `length` bytes; makes room only as they come.
fn read_bytes(reader: &mut impl Read, length: u32, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    let read = reader.take(u64::from(length)).read_to_end(into)?;
    if read == length as usize { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_header(reader: &mut impl Read) -> io::Result<sam::Header> {
    let mut bytes = Vec::new();
    read_bytes(reader, 4, &mut bytes)?;
    if bytes != b"BAM\x01" {
        return Err(damaged("it is not a BAM file"));
    }
    let number = |reader: &mut dyn Read| {
        let mut four = [0; 4];
        reader.read_exact(&mut four).map(|()| u32::from_le_bytes(four))
    };
    let length = number(reader)?;
    read_bytes(reader, length, &mut bytes)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| damaged("its text is not UTF-8"))?;
    let header = text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    for _ in 0..number(reader)? {
        let name = number(reader)?;
        read_bytes(reader, name, &mut bytes)?;
        number(reader)?;
    }
    Ok(header)
}

/// The parts of a record that reads are made of.
struct Parts<'r> {
    name: &'r [u8],
    flags: u16,
    bases: &'r [u8],
    qualities: &'r [u8],
    tags: &'r [u8],
}

/// Takes a record apart; `None` if its lengths do not fit it.
fn parts(record: &[u8]) -> Option<Parts<'_>> {
    let (fixed, rest) = record.split_at_checked(FIXED_BYTES)?;
    let short = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
    let (operations, flags) = (usize::from(short(12)), short(14));
    let length = u32::from_le_bytes([fixed[16], fixed[17], fixed[18], fixed[19]]) as usize;
    let (name, rest) = rest.split_at_checked(usize::from(fixed[8]))?;
    let (_, rest) = rest.split_at_checked(4 * operations)?;
    let (bases, rest) = rest.split_at_checked(length.div_ceil(2))?;
    let (qualities, tags) = rest.split_at_checked(length)?;
    Some(Parts { name: name.strip_suffix(&[0])?, flags, bases, qualities, tags })
}

/// The value of the tag `RG` (section 4.2.4).
fn read_group(mut tags: &[u8]) -> Option<&[u8]> {
    while let [a, b, kind, rest @ ..] = tags {
        let length = match kind {
            b'A' | b'c' | b'C' => 1,
            b's' | b'S' => 2,
            b'i' | b'I' | b'f' => 4,
            b'Z' | b'H' => rest.iter().position(|byte| *byte == 0)? + 1,
            b'B' => {
                let (of, count) = (rest.first()?, rest.get(1..5)?);
                let each = match of {
                    b'c' | b'C' => 1,
                    b's' | b'S' => 2,
                    _ => 4,
                };
                let count = u32::from_le_bytes([count[0], count[1], count[2], count[3]]);
                usize::try_from(count).ok()?.checked_mul(each)?.checked_add(5)?
            }
            _ => return None,
        };
        let (value, after) = rest.split_at_checked(length)?;
        if (a, b, kind) == (&b'R', &b'G', &b'Z') {
            return value.strip_suffix(&[0]);
        }
        tags = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_group_is_found_among_other_tags() {
        let tags = b"NMC\x05XBBs\x02\0\0\0\x01\0\x02\0MDZ10A\0RGZlane2\0";
        assert_eq!(read_group(tags), Some(&b"lane2"[..]));
        for cut in 0..tags.len() {
            assert_eq!(read_group(&tags[..cut]), None);
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_noticed() {
        let mut record = vec![0; FIXED_BYTES];
        (record[8], record[12], record[16]) = (2, 1, 3);
        record.extend_from_slice(b"r\0....\x12\x40\x01\x02\x03");
        let whole = parts(&record).unwrap();
        assert_eq!(
            (whole.name, whole.bases, whole.qualities.len()),
            (&b"r"[..], &b"\x12\x40"[..], 3)
        );
        for cut in 0..record.len() {
            assert!(parts(&record[..cut]).is_none());
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut into = Vec::new();
        assert!(read_bytes(&mut &b"abc"[..], u32::MAX, &mut into).is_err());
        assert!(into.capacity() < 1 << 16);
    }
}
