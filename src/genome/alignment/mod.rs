//! BAM and CRAM in: the reads of earlier alignments, as they came from the sequencer.
//!
//! Secondary and supplementary alignments are left out, reads on the reverse strand are turned
//! back, and mates are brought together by name, so that the reads can be aligned afresh.

mod bam;
mod collate;
mod cram;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use noodles::sam;

use super::reads::{ReadBatch, ReadGroup};
use super::reference::Reference;
use crate::base::{Fault, Faulty};
use crate::flow;
use collate::Collator;

/// Why an alignment file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The header could not be read.
    #[error("{file}: the header cannot be read")]
    Header {
        /// The file.
        file: String,
        /// The reader's reason.
        source: io::Error,
    },
    /// A record could not be read.
    #[error("{file}: a record after record {records} cannot be read")]
    Record {
        /// The file.
        file: String,
        /// Records read before.
        records: u64,
        /// The reader's reason.
        source: io::Error,
    },
    /// A read of a pair has no name to find its mate by.
    #[error("{file}: record {record} has no name")]
    NoName {
        /// The file.
        file: String,
        /// The record, from 1.
        record: u64,
    },
    /// A read that is there twice.
    #[error("{file}: record {record} is the same mate of its template as an earlier one")]
    SameMate {
        /// The file.
        file: String,
        /// The record, from 1.
        record: u64,
    },
    /// Bases and qualities differ in number.
    #[error("{file}: record {record} has {bases} bases but {qualities} qualities")]
    Lengths {
        /// The file.
        file: String,
        /// The record, from 1.
        record: u64,
        /// Bases.
        bases: usize,
        /// Qualities.
        qualities: usize,
    },
    /// Too many reads wait for their mates.
    #[error("{file}: reads that wait for their mates need more than {limit} bytes")]
    TooManyWaiting {
        /// The file.
        file: String,
        /// The limit.
        limit: usize,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::TooManyWaiting { .. } => Fault::System,
            _ => Fault::Data,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::TooManyWaiting { .. } => {
                Some("bring mates together first, as with 'samtools collate'".into())
            }
            Error::Record { .. } => Some(
                "is the file whole, and is this the reference that a CRAM was made with?".into(),
            ),
            _ => None,
        }
    }
}

/// Memory for reads that wait for their mates, in bytes, if nothing else is said: enough for a
/// 30-fold human genome in coordinate order.
pub const WAITING_BYTES_MAX: usize = 4 << 30;

/// One primary read as it left the sequencer.
struct Segment {
    name: Vec<u8>,
    flags: u16,
    group: u16,
    bases: Vec<u8>,
    /// Phred + 33.
    qualities: Vec<u8>,
}

/// SAM flags (SAM specification, section 1.4).
mod flag {
    pub const PAIRED: u16 = 0x1;
    pub const REVERSE: u16 = 0x10;
    pub const FIRST: u16 = 0x40;
    pub const SECOND: u16 = 0x80;
    pub const NOT_PRIMARY: u16 = 0x100 | 0x800;
}

/// Quality given to bases whose qualities the file does not keep: Phred 30.
const UNKNOWN_QUALITY: u8 = b'?';

/// Something that gives segments, one or many at a time.
trait Segments {
    /// Adds the next segments to `out`; `false` at the end of the file.
    fn more(&mut self, out: &mut VecDeque<Segment>) -> Result<bool, Error>;
}

/// The reads of one BAM or CRAM file, as batches.
pub struct AlignmentReads<'a> {
    segments: Box<dyn Segments + Send + 'a>,
    waiting: VecDeque<Segment>,
    collator: Collator,
    ready: VecDeque<ReadBatch>,
    read_groups: Vec<ReadGroup>,
    ended: bool,
}

impl<'a> AlignmentReads<'a> {
    /// Reads a BAM file's header. Errors call the file `file`.
    pub fn bam(reader: impl Read + Send + 'a, file: &str) -> Result<Self, Error> {
        let (segments, header) = bam::Bam::open(reader, file)?;
        Ok(Self::new(Box::new(segments), &header, file))
    }

    /// Reads a CRAM file's header. `reference` is what its reads were aligned to; a CRAM that
    /// holds its reference needs none, and any will do.
    pub fn cram(
        reader: impl Read + Send + 'a,
        file: &str,
        reference: Arc<Reference>,
    ) -> Result<Self, Error> {
        let (segments, header) = cram::Cram::open(reader, file, reference)?;
        Ok(Self::new(Box::new(segments), &header, file))
    }

    fn new(segments: Box<dyn Segments + Send + 'a>, header: &sam::Header, file: &str) -> Self {
        let read_groups = read_groups(header);
        Self {
            segments,
            waiting: VecDeque::new(),
            collator: Collator::new(file, WAITING_BYTES_MAX),
            ready: VecDeque::new(),
            read_groups,
            ended: false,
        }
    }

    /// Limits the memory for reads that wait for their mates, in bytes.
    pub fn waiting_bytes_max(mut self, limit: usize) -> Self {
        self.collator.set_limit(limit);
        self
    }

    /// The read groups that batches refer to: those of the header, or one made up.
    pub fn read_groups(&self) -> &[ReadGroup] {
        &self.read_groups
    }

    fn next_batch(&mut self) -> Result<Option<ReadBatch>, Error> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            self.ended = !self.segments.more(&mut self.waiting)?;
            for segment in self.waiting.drain(..) {
                self.collator.push(segment, &mut self.ready)?;
            }
            if self.ended {
                self.collator.finish(&mut self.ready);
            }
        }
    }
}

/// Batches of mates, and of single reads apart from them: reads that were sequenced alone, and
/// at the end those whose mate is not in the file. The order follows from the file alone.
impl Iterator for AlignmentReads<'_> {
    type Item = flow::Result<ReadBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.next_batch();
        if batch.is_err() {
            self.ended = true;
            self.ready.clear();
        }
        batch.map_err(|error| flow::Error::in_stage("read alignments", error)).transpose()
    }
}

fn read_groups(header: &sam::Header) -> Vec<ReadGroup> {
    use sam::header::record::value::map::read_group::tag;
    let mut groups: Vec<ReadGroup> = header
        .read_groups()
        .iter()
        .map(|(id, map)| {
            let field = |tag| map.other_fields().get(&tag).map(ToString::to_string);
            let id = id.to_string();
            ReadGroup {
                sample: field(tag::SAMPLE).unwrap_or_default(),
                library: field(tag::LIBRARY).unwrap_or_default(),
                unit: field(tag::PLATFORM_UNIT).unwrap_or_else(|| id.clone()),
                platform: field(tag::PLATFORM).unwrap_or_default(),
                id,
            }
        })
        .collect();
    if groups.is_empty() {
        let id = String::from("1");
        let (sample, library, platform) = (String::new(), String::new(), String::new());
        groups.push(ReadGroup { unit: id.clone(), id, sample, library, platform });
    }
    groups
}

/// Index of a record's read group; the first for records that name none.
fn group_index(header: &sam::Header, name: Option<&[u8]>) -> u16 {
    let index = name.and_then(|name| header.read_groups().get_index_of(name));
    index.and_then(|index| u16::try_from(index).ok()).unwrap_or(0)
}

/// Puts qualities into text and, for the reverse strand, turns the read back.
fn finish(mut segment: Segment, file: &str, record: u64) -> Result<Segment, Error> {
    let (bases, qualities) = (segment.bases.len(), segment.qualities.len());
    // A read without qualities has none or only 255 in BAM (SAM specification, section 4.2).
    if segment.qualities.iter().all(|quality| *quality == 0xff) {
        segment.qualities = vec![UNKNOWN_QUALITY; bases];
    } else if bases == qualities {
        segment.qualities.iter_mut().for_each(|quality| *quality = (*quality).min(93) + b'!');
    } else {
        return Err(Error::Lengths { file: file.into(), record, bases, qualities });
    }
    if segment.flags & flag::REVERSE != 0 {
        segment.qualities.reverse();
        segment.bases.reverse();
        segment.bases.iter_mut().for_each(|base| *base = complement(*base));
    }
    Ok(segment)
}

/// The complement of a base letter, IUPAC codes included.
fn complement(base: u8) -> u8 {
    let pairs = b"ATCGRYKMBVDH";
    match pairs.iter().position(|letter| *letter == base) {
        Some(at) => pairs[at ^ 1],
        None => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complements_are_those_of_iupac() {
        let forward: Vec<u8> = b"ACGTRYKMBDHVSWN".to_vec();
        let back: Vec<u8> = forward.iter().map(|base| complement(*base)).collect();
        assert_eq!(back, b"TGCAYRMKVHDBSWN");
    }

    #[test]
    fn reverse_reads_are_turned_back() {
        let segment = Segment {
            name: b"r".to_vec(),
            flags: flag::REVERSE,
            group: 0,
            bases: b"AACG".to_vec(),
            qualities: vec![0, 1, 2, 93],
        };
        let turned = finish(segment, "a.bam", 1).unwrap();
        assert_eq!((&turned.bases[..], &turned.qualities[..]), (&b"CGTT"[..], &b"~#\"!"[..]));
    }

    #[test]
    fn what_is_no_alignment_file_is_refused() {
        assert!(matches!(AlignmentReads::bam(&b"nonsense"[..], "a"), Err(Error::Header { .. })));
        assert!(matches!(AlignmentReads::bam(&b""[..], "a"), Err(Error::Header { .. })));
        let reference = Arc::new(Reference::default());
        let cram = AlignmentReads::cram(&b"CRAM\x03\x00garbage"[..], "a", reference);
        assert!(matches!(cram, Err(Error::Header { .. })));
    }
}
