//! Segments of a BAM file.

use std::collections::VecDeque;
use std::io::Read;

use noodles::sam::alignment::record::data::field::{Tag, Value};
use noodles::{bam, sam};

use super::{Error, Segment, Segments, finish, flag, group_index};
use crate::genome::inflate::InflateReader;

/// Letters of the 4-bit codes (SAM specification, section 4.2.3). '=' never comes from an aligner.
const LETTERS: &[u8; 16] = b"NACMGRSVTWYHKDBN";

/// Segments handed over at a time.
const SEGMENTS: usize = 1024;

pub(super) struct Bam<R: Read> {
    reader: bam::io::Reader<InflateReader<R>>,
    header: sam::Header,
    record: bam::Record,
    file: String,
    records: u64,
}

impl<R: Read> Bam<R> {
    pub(super) fn open(inner: R, file: &str) -> Result<(Self, sam::Header), Error> {
        let mut reader = bam::io::Reader::from(InflateReader::new(inner, file));
        let header =
            reader.read_header().map_err(|source| Error::Header { file: file.into(), source })?;
        let record = bam::Record::default();
        let bam = Self { reader, header: header.clone(), record, file: file.into(), records: 0 };
        Ok((bam, header))
    }

    fn segment(&self) -> Result<Segment, Error> {
        let record = &self.record;
        let name = record.name().map(|name| name.to_vec());
        let file = &self.file;
        let name =
            name.ok_or_else(|| Error::NoName { file: file.clone(), record: self.records })?;
        let group = match record.data().get(&Tag::READ_GROUP) {
            Some(Ok(Value::String(id))) => group_index(&self.header, Some(id.as_ref())),
            _ => 0,
        };
        let packed = record.sequence();
        let mut bases = Vec::with_capacity(packed.len() + 1);
        for pair in packed.as_bytes() {
            bases.push(LETTERS[usize::from(pair >> 4)]);
            bases.push(LETTERS[usize::from(pair & 15)]);
        }
        bases.truncate(packed.len());
        let qualities = record.quality_scores().as_bytes().to_vec();
        let flags = record.flags().bits();
        finish(Segment { name, flags, group, bases, qualities }, file, self.records)
    }
}

impl<R: Read> Segments for Bam<R> {
    fn more(&mut self, out: &mut VecDeque<Segment>) -> Result<bool, Error> {
        while out.len() < SEGMENTS {
            let read = self.reader.read_record(&mut self.record).map_err(|source| {
                Error::Record { file: self.file.clone(), records: self.records, source }
            })?;
            if read == 0 {
                return Ok(false);
            }
            self.records += 1;
            if self.record.flags().bits() & flag::NOT_PRIMARY == 0 {
                out.push_back(self.segment()?);
            }
        }
        Ok(true)
    }
}
