//! Segments of a CRAM file.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use noodles::cram::io::reader::{Builder, Container, Reader};
use noodles::fasta::repository::Adapter;
use noodles::fasta::{self, record::Definition};
use noodles::sam::alignment::Record;
use noodles::sam::alignment::record::data::field::{Tag, Value};
use noodles::{cram, sam};

use super::{Error, Segment, Segments, finish, flag, group_index};
use crate::base::foreign;
use crate::genome::reference::{BASE_LETTERS, Reference};

/// Contigs kept unpacked at a time: reads in coordinate order need one, or two where it changes.
const CONTIGS: usize = 2;

pub(super) struct Cram<R> {
    reader: Reader<R>,
    header: sam::Header,
    contigs: fasta::Repository,
    container: Container,
    file: String,
    records: u64,
}

/// Our reference as the reader wants it.
struct Contigs(Arc<Reference>);

impl Adapter for Contigs {
    fn get(&mut self, name: &[u8]) -> Option<io::Result<fasta::Record>> {
        let contig = self.0.contigs.iter().find(|contig| contig.name.as_bytes() == name)?;
        let letter = |code: &u8| BASE_LETTERS[usize::from(*code).min(4)];
        let letters: Vec<u8> = contig.bases.iter().map(letter).collect();
        Some(Ok(fasta::Record::new(Definition::new(name, None), letters.into())))
    }
}

impl<R: Read> Cram<R> {
    pub(super) fn open(
        inner: R,
        file: &str,
        reference: Arc<Reference>,
    ) -> Result<(Self, sam::Header), Error> {
        let contigs = fasta::Repository::new(Contigs(reference));
        let mut reader = Builder::default()
            .set_reference_sequence_repository(contigs.clone())
            .build_from_reader(inner);
        let header = caught(|| reader.read_header())
            .map_err(|source| Error::Header { file: file.into(), source })?;
        let container = Container::default();
        let (file, head) = (file.into(), header.clone());
        Ok((Self { reader, header, contigs, container, file, records: 0 }, head))
    }

    /// Decodes the container in hand.
    fn segments(&mut self) -> io::Result<Vec<(u64, Segment)>> {
        let compression = self.container.compression_header()?;
        let mut segments = Vec::new();
        for slice in self.container.slices() {
            let slice = slice?;
            let (core, external) = slice.decode_blocks()?;
            let contigs = self.contigs.clone();
            for record in slice.records(contigs, &self.header, &compression, &core, &external)? {
                self.records += 1;
                if record.flags()?.bits() & flag::NOT_PRIMARY == 0 {
                    segments.push((self.records, segment(&record, &self.header)?));
                }
            }
        }
        if self.contigs.len() > CONTIGS {
            self.contigs.clear();
        }
        Ok(segments)
    }
}

fn segment(record: &cram::Record<'_>, header: &sam::Header) -> io::Result<Segment> {
    let group = match record.data().get(&Tag::READ_GROUP) {
        Some(Ok(Value::String(id))) => group_index(header, Some(id.as_ref())),
        _ => 0,
    };
    Ok(Segment {
        name: record.name().map(|name| name.to_vec()).unwrap_or_default(),
        flags: record.flags()?.bits(),
        group,
        bases: record.sequence().iter().collect(),
        qualities: record.quality_scores().iter().collect::<io::Result<_>>()?,
    })
}

/// The decoder trusts more of a file than it should and may panic on a damaged one.
fn caught<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the CRAM data are damaged");
    foreign::caught(work).unwrap_or_else(|| Err(damaged()))
}

impl<R: Read> Segments for Cram<R> {
    fn more(&mut self, out: &mut VecDeque<Segment>) -> Result<bool, Error> {
        let before = self.records;
        let decoded = caught(|| {
            if self.reader.read_container(&mut self.container)? == 0 {
                return Ok(None);
            }
            self.segments().map(Some)
        });
        let file = &self.file;
        let decoded = decoded.map_err(|source| Error::Record {
            file: file.clone(),
            records: before,
            source,
        })?;
        let Some(segments) = decoded else { return Ok(false) };
        for (record, segment) in segments {
            if segment.name.is_empty() {
                return Err(Error::NoName { file: file.clone(), record });
            }
            out.push_back(finish(segment, file, record)?);
        }
        Ok(true)
    }
}
