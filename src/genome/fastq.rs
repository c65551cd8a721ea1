//! FASTQ in: an incremental, strict parser from bytes to [`ReadBatch`]es.
//!
//! Where a batch ends depends on the records alone, never on how the bytes were handed over.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use memchr::memchr;

use super::reads::{Layout, ReadBatch, ReadRange};
use crate::base::{Chunk, Fault, Faulty};
use crate::flow::{self, Stage};

/// Templates in a batch, unless [`BATCH_BYTES`] ends it first.
pub const BATCH_TEMPLATES: usize = 4096;

/// A batch ends with the template that makes its text this long, in bytes.
pub const BATCH_BYTES: usize = 4 << 20;

/// Longest record, in bytes: far above any sequencer's, far below what a text range can hold.
pub const RECORD_BYTES_MAX: usize = 256 << 20;

/// Bytes parsed at a time: small enough for a second-level cache.
const PIECE_BYTES: usize = 64 << 10;

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The header line does not begin with `@`.
    NoAt,
    /// The third line does not begin with `+`.
    NoPlus,
    /// A byte among the bases that is no letter, `.`, `-` or `*`.
    NotABase {
        /// Column, from 1.
        column: usize,
    },
    /// A quality below `!` or above `~`.
    Quality {
        /// Column, from 1.
        column: usize,
    },
    /// The two sequences differ in length.
    Lengths {
        /// Bases.
        bases: usize,
        /// Qualities.
        qualities: usize,
    },
    /// More than [`RECORD_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wrong::NoAt => write!(f, "the record does not begin with '@'"),
            Wrong::NoPlus => write!(f, "'+' is missing between bases and qualities"),
            Wrong::NotABase { column } => write!(f, "column {column} is not a base"),
            Wrong::Quality { column } => {
                write!(f, "column {column} is not a quality from '!' to '~'")
            }
            Wrong::Lengths { bases, qualities } => {
                write!(f, "{bases} bases but {qualities} qualities")
            }
            Wrong::TooLong => write!(f, "the record is longer than {RECORD_BYTES_MAX} bytes"),
        }
    }
}

/// Why reads were refused. Records and lines count from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A record is malformed.
    #[error("{file}: record {record}, line {line}: {wrong}")]
    Record {
        /// The file.
        file: String,
        /// The record.
        record: u64,
        /// The line.
        line: u64,
        /// What is wrong.
        wrong: Wrong,
    },
    /// The file ends inside a record.
    #[error("{file}: the file ends inside record {record}, after line {line}")]
    Truncated {
        /// The file.
        file: String,
        /// The record.
        record: u64,
        /// The last whole line.
        line: u64,
    },
    /// Two mates are of different templates.
    #[error("record {record}: the names in {first} and {second} do not match")]
    Mates {
        /// File of the first mates.
        first: String,
        /// File of the second mates.
        second: String,
        /// The record.
        record: u64,
    },
    /// One of two files holds fewer records.
    #[error("{ended} ends after {records} records but {other} goes on")]
    Uneven {
        /// The file that ended first.
        ended: String,
        /// The other one.
        other: String,
        /// Records in the shorter one.
        records: u64,
    },
    /// An interleaved file lacks the last mate.
    #[error("{file}: {records} interleaved records: the last one has no mate")]
    OddRecords {
        /// The file.
        file: String,
        /// Records in it.
        records: u64,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        Fault::Data
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Mates { .. } => {
                Some("give the two files of one lane, both in the sequencer's order".into())
            }
            Error::Truncated { .. } | Error::Uneven { .. } => {
                Some("copy the file again: its end seems to be missing".into())
            }
            _ => None,
        }
    }
}

/// An incremental parser of one FASTQ file: single reads, or mates that follow each other.
pub struct FastqParser {
    file: String,
    layout: Layout,
    read_group: u16,
    /// Begins with the first record of the batch in hand; its consumed part is `..scanned`.
    text: Vec<u8>,
    reads: Vec<ReadRange>,
    /// Where to look for the next line end; there is none in `line_start..scanned`.
    scanned: usize,
    line_start: usize,
    /// Lines found of the record in hand.
    lines: [Range<u32>; 4],
    found: usize,
    line: u64,
    records: u64,
    blank: bool,
    seq: u64,
    first_template: u64,
}

impl FastqParser {
    /// A parser for the file that errors shall name. `Layout::Paired` means interleaved mates.
    pub fn new(file: impl Into<String>, layout: Layout, read_group: u16) -> Self {
        Self {
            file: file.into(),
            layout,
            read_group,
            text: new_text(),
            reads: Vec::new(),
            scanned: 0,
            line_start: 0,
            lines: [const { 0..0 }; 4],
            found: 0,
            line: 0,
            records: 0,
            blank: false,
            seq: 0,
            first_template: 0,
        }
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Records parsed so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Takes the next bytes of the file and adds the batches that are full to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut VecDeque<ReadBatch>) -> Result<(), Error> {
        for piece in bytes.chunks(PIECE_BYTES) {
            self.text.extend_from_slice(piece);
            self.parse(out)?;
        }
        Ok(())
    }

    /// Says that the file has ended and adds the last batch, if any, to `out`.
    pub fn finish(&mut self, out: &mut VecDeque<ReadBatch>) -> Result<(), Error> {
        let at_end = self.line_start == self.text.len();
        // The last line need not be ended; that of an empty read may even be missing.
        let empty_read = self.found == 3 && self.lines[1].is_empty();
        if !at_end || empty_read {
            self.text.push(b'\n');
            self.parse(out)?;
        }
        if self.found > 0 {
            let (file, record) = (self.file.clone(), self.records + 1);
            return Err(Error::Truncated { file, record, line: self.line });
        }
        if self.layout == Layout::Paired && self.records % 2 == 1 {
            return Err(Error::OddRecords { file: self.file.clone(), records: self.records });
        }
        if !self.reads.is_empty() {
            out.push_back(self.take_batch());
        }
        Ok(())
    }

    fn parse(&mut self, out: &mut VecDeque<ReadBatch>) -> Result<(), Error> {
        while let Some(at) = memchr(b'\n', &self.text[self.scanned..]) {
            let end = self.scanned + at;
            let carriage = end > self.line_start && self.text[end - 1] == b'\r';
            let line = self.line_start as u32..(end - usize::from(carriage)) as u32;
            (self.scanned, self.line_start) = (end + 1, end + 1);
            self.line += 1;
            self.take_line(line)?;
            if self.batch_is_full() {
                out.push_back(self.take_batch());
            }
        }
        self.scanned = self.text.len();
        let record_start = self.reads.last().map_or(0, |read| read.qualities.end as usize);
        if self.text.len() - record_start > RECORD_BYTES_MAX {
            return Err(self.wrong(self.line + 1, Wrong::TooLong));
        }
        Ok(())
    }

    fn take_line(&mut self, line: Range<u32>) -> Result<(), Error> {
        let first = self.text.get(line.start as usize).copied().filter(|_| !line.is_empty());
        match (self.found, first) {
            // Empty lines may follow the last record, and only that.
            (0, None) => {
                self.blank = true;
                return Ok(());
            }
            (0, Some(b'@')) if !self.blank => {}
            (0, _) => return Err(self.wrong(self.line, Wrong::NoAt)),
            (2, Some(b'+')) => {}
            (2, _) => return Err(self.wrong(self.line, Wrong::NoPlus)),
            _ => {}
        }
        self.lines[self.found] = line;
        self.found += 1;
        if self.found == 4 {
            self.take_record()?;
        }
        Ok(())
    }

    fn take_record(&mut self) -> Result<(), Error> {
        let [name, bases, _, qualities] = self.lines.clone();
        let slice = |range: &Range<u32>| &self.text[range.start as usize..range.end as usize];
        let (letters, scores) = (slice(&bases), slice(&qualities));
        if letters.len() != scores.len() {
            let (bases, qualities) = (letters.len(), scores.len());
            return Err(self.wrong(self.line, Wrong::Lengths { bases, qualities }));
        }
        // Whole lines at once, without a way out, so that the compiler makes vectors of it.
        if !letters.iter().fold(true, |good, letter| good & is_base(*letter)) {
            let at = letters.iter().position(|letter| !is_base(*letter)).unwrap_or(0);
            return Err(self.wrong(self.line - 2, Wrong::NotABase { column: at + 1 }));
        }
        if !scores.iter().fold(true, |good, score| good & is_quality(*score)) {
            let at = scores.iter().position(|score| !is_quality(*score)).unwrap_or(0);
            return Err(self.wrong(self.line, Wrong::Quality { column: at + 1 }));
        }
        self.reads.push(ReadRange { name: name.start + 1..name.end, bases, qualities });
        self.found = 0;
        self.records += 1;
        if self.layout == Layout::Paired && self.records.is_multiple_of(2) {
            let [.., one, two] = &self.reads[..] else { return Ok(()) };
            if !same_template(slice(&one.name), slice(&two.name)) {
                let (first, second) = (self.file.clone(), self.file.clone());
                return Err(Error::Mates { first, second, record: self.records });
            }
        }
        Ok(())
    }

    fn reads_in_template(&self) -> usize {
        if self.layout == Layout::Paired { 2 } else { 1 }
    }

    fn batch_is_full(&self) -> bool {
        let (reads, each) = (self.reads.len(), self.reads_in_template());
        let full = reads == BATCH_TEMPLATES * each || self.scanned >= BATCH_BYTES;
        full && self.found == 0 && reads > 0 && reads.is_multiple_of(each)
    }

    fn take_batch(&mut self) -> ReadBatch {
        let mut rest = new_text();
        rest.extend_from_slice(&self.text[self.scanned..]);
        self.text.truncate(self.scanned);
        (self.scanned, self.line_start) = (0, 0);
        let reads = std::mem::take(&mut self.reads);
        self.reads.reserve(reads.len());
        let batch = ReadBatch {
            seq: self.seq,
            layout: self.layout,
            read_group: self.read_group,
            first_template: self.first_template,
            text: std::mem::replace(&mut self.text, rest),
            reads,
        };
        self.seq += 1;
        self.first_template += (batch.len() / self.reads_in_template()) as u64;
        batch
    }

    fn wrong(&self, line: u64, wrong: Wrong) -> Error {
        Error::Record { file: self.file.clone(), record: self.records + 1, line, wrong }
    }
}

impl Drop for FastqParser {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.text[..]);
    }
}

impl Stage for FastqParser {
    type In = Chunk;
    type Out = ReadBatch;
    const NAME: &'static str = "parse";

    fn push(&mut self, item: Chunk, out: &mut VecDeque<ReadBatch>) -> flow::Result<()> {
        FastqParser::push(self, &item, out).map_err(|e| flow::Error::in_stage(Self::NAME, e))
    }

    fn finish(&mut self, out: &mut VecDeque<ReadBatch>) -> flow::Result<()> {
        FastqParser::finish(self, out).map_err(|e| flow::Error::in_stage(Self::NAME, e))
    }
}

/// Room for a batch, so that its text is not moved, and left behind unwiped, while it grows.
fn new_text() -> Vec<u8> {
    Vec::with_capacity(BATCH_BYTES + 2 * PIECE_BYTES)
}

fn is_base(letter: u8) -> bool {
    // A letter of either case, or '*', '-', '.'.
    ((letter | 0x20).wrapping_sub(b'a') < 26)
        | (letter == b'*')
        | (letter == b'-')
        | (letter == b'.')
}

fn is_quality(score: u8) -> bool {
    score.wrapping_sub(b'!') <= b'~' - b'!'
}

/// Whether two header lines name mates of one template: the same up to white space and `/1`, `/2`.
pub fn same_template(first: &[u8], second: &[u8]) -> bool {
    template_name(first) == template_name(second)
}

/// The part of a header line that mates share.
pub fn template_name(header: &[u8]) -> &[u8] {
    let end = memchr::memchr2(b' ', b'\t', header).unwrap_or(header.len());
    let name = &header[..end];
    name.strip_suffix(b"/1").or_else(|| name.strip_suffix(b"/2")).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &[u8], step: usize, layout: Layout) -> Result<Vec<ReadBatch>, Error> {
        let (mut parser, mut out) = (FastqParser::new("a.fq", layout, 3), VecDeque::new());
        for piece in text.chunks(step.max(1)) {
            parser.push(piece, &mut out)?;
        }
        parser.finish(&mut out)?;
        Ok(out.into())
    }

    fn records(batches: &[ReadBatch]) -> Vec<[Vec<u8>; 3]> {
        let of = |batch: &ReadBatch, i| {
            [batch.name(i).to_vec(), batch.bases(i).to_vec(), batch.qualities(i).to_vec()]
        };
        batches.iter().flat_map(|batch| (0..batch.len()).map(move |i| of(batch, i))).collect()
    }

    #[test]
    fn line_ends_and_empty_reads_are_accepted() {
        let plain = b"@r1 x\nACGN\n+\nIIII\n@r2\n\n+r2\n\n";
        let expected = [
            [b"r1 x".to_vec(), b"ACGN".to_vec(), b"IIII".to_vec()],
            [b"r2".to_vec(), vec![], vec![]],
        ];
        let crlf = b"@r1 x\r\nACGN\r\n+\r\nIIII\r\n@r2\r\n\r\n+r2\r\n\r\n\r\n\r\n";
        for text in [&plain[..], &plain[..plain.len() - 1], crlf] {
            assert_eq!(records(&parse(text, 5, Layout::Single).unwrap()), expected);
        }
        assert!(parse(b"", 1, Layout::Single).unwrap().is_empty());
        let open = b"@r1\nAC\n+\nII";
        assert_eq!(records(&parse(open, 1, Layout::Single).unwrap())[0][2], b"II");
    }

    #[test]
    fn what_is_wrong_is_said_with_file_record_and_line() {
        let good = "@r1\nACGT\n+\nIIII\n";
        let cases = [
            ("@r2\nAC\n+\nIII\n", "record 2, line 8: 2 bases but 3 qualities"),
            ("@r2\nAC\nII\n@r\n", "record 2, line 7: '+' is missing between bases and qualities"),
            ("r2\nAC\n+\nII\n", "record 2, line 5: the record does not begin with '@'"),
            ("\n@r2\nAC\n+\nII\n", "record 2, line 6: the record does not begin with '@'"),
            ("@r2\nAC\n+\nI \n", "record 2, line 8: column 2 is not a quality from '!' to '~'"),
            ("@r2\nA\x01\n+\nII\n", "record 2, line 6: column 2 is not a base"),
            ("@r2\nAC\n+\n", "the file ends inside record 2, after line 7"),
            ("@r2\nAC\n+\nI", "record 2, line 8: 2 bases but 1 qualities"),
            ("@r2", "the file ends inside record 2, after line 5"),
        ];
        for (text, message) in cases {
            let error = parse(format!("{good}{text}").as_bytes(), 7, Layout::Single).unwrap_err();
            assert_eq!(error.to_string(), format!("a.fq: {message}"));
        }
    }

    #[test]
    fn interleaved_mates_must_match() {
        let text = b"@r1/1\nA\n+\nI\n@r1/2\nC\n+\nI\n@r2 1:N:0\nA\n+\nI\n@r2 2:N:0\nC\n+\nI\n";
        let batches = parse(text, 9, Layout::Paired).unwrap();
        assert_eq!((batches[0].len(), batches[0].layout), (4, Layout::Paired));
        let odd = parse(&text[..24], 9, Layout::Paired);
        assert!(odd.is_ok());
        let odd = parse(&text[..12], 9, Layout::Paired).unwrap_err();
        assert!(matches!(odd, Error::OddRecords { records: 1, .. }));
        let other = String::from_utf8_lossy(text).replace("r1/2", "r3/2");
        let error = parse(other.as_bytes(), 9, Layout::Paired).unwrap_err();
        assert!(matches!(error, Error::Mates { record: 2, .. }));
    }

    #[test]
    fn batches_end_where_the_records_say() {
        let text: Vec<u8> =
            (0..10_000).flat_map(|n| format!("@r{n}\nACGT\n+\nIIII\n").into_bytes()).collect();
        for step in [1000, 65_536, text.len()] {
            let batches = parse(&text, step, Layout::Single).unwrap();
            let sizes: Vec<_> =
                batches.iter().map(|b| (b.seq, b.first_template, b.len(), b.read_group)).collect();
            assert_eq!(sizes, [(0, 0, 4096, 3), (1, 4096, 4096, 3), (2, 8192, 1808, 3)]);
        }
        let long = format!("@long\n{}\n+\n{}\n", "A".repeat(3 << 20), "I".repeat(3 << 20));
        let text = long.repeat(3).into_bytes();
        for step in [70_001, text.len()] {
            let batches = parse(&text, step, Layout::Single).unwrap();
            assert_eq!(batches.iter().map(ReadBatch::len).collect::<Vec<_>>(), [1, 1, 1]);
        }
    }

    proptest! {
        #[test]
        fn parsing_undoes_writing(
            reads in prop::collection::vec(("[!-~]{1,9}( [ -~]{0,5})?", "[ACGTNacgtn.]{0,40}"), 0..60),
            step in 1usize..200,
            crlf: bool,
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let mut text = String::new();
            let mut expected = Vec::new();
            for (name, bases) in &reads {
                let qualities = "~".repeat(bases.len());
                text += &format!("@{name}{end}{bases}{end}+{end}{qualities}{end}");
                expected.push([name, bases, &qualities].map(|field| field.as_bytes().to_vec()));
            }
            let batches = parse(text.as_bytes(), step, Layout::Single).unwrap();
            prop_assert_eq!(records(&batches), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(
            prop::sample::select(&b"@+\n\rAI"[..]), 0..200), step in 1usize..50) {
            let whole = parse(&text, usize::MAX, Layout::Single).map(|b| records(&b));
            let pieces = parse(&text, step, Layout::Single).map(|b| records(&b));
            prop_assert_eq!(whole.map_err(|e| e.to_string()), pieces.map_err(|e| e.to_string()));
        }
    }
}
