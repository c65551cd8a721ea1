//! The part of the filter that needs all records in order: that they are in coordinate order, how
//! many may leave, and how the text that leaves is cut for compression.

use std::collections::{HashSet, VecDeque};

use zeroize::Zeroize;

use super::Error;
use crate::flow::{self, Stage, Weigh};
use crate::genome::bgzf::BLOCK_BYTES;

/// A unit ends with the record that makes it this long: at records alone, so that it does not
/// depend on how the input was cut.
const UNIT_BYTES: usize = 16 * BLOCK_BYTES;

/// What was found in a piece of the input.
#[derive(Default)]
pub(super) struct Judged {
    /// The permitted lines.
    pub(super) text: Vec<u8>,
    pub(super) records: Vec<Span>,
    pub(super) runs: Vec<Run>,
    pub(super) lines: u64,
    pub(super) removed: u64,
    pub(super) bytes_in: u64,
    /// The line, from 1 in this piece, that could not be judged; the lines after it were not read.
    pub(super) failure: Option<(u64, &'static str)>,
}

/// A permitted record.
pub(super) struct Span {
    /// Which run, or which contig of the unit, it belongs to.
    pub(super) run: usize,
    /// 0-based, half-open.
    pub(super) start: u32,
    pub(super) end: u32,
    /// Length of its line.
    pub(super) bytes: usize,
}

/// Lines that follow each other on one contig, whether permitted or not.
pub(super) struct Run {
    pub(super) contig: String,
    pub(super) first: u32,
    pub(super) last: u32,
    /// Its first line, from 1 in this piece.
    pub(super) line: u64,
}

impl Weigh for Judged {
    fn weight(&self) -> u64 {
        self.text.len() as u64
    }
}

/// Text that is compressed to blocks of its own.
#[derive(Default)]
pub(super) struct Unit {
    pub(super) text: Vec<u8>,
    pub(super) records: Vec<Span>,
    pub(super) contigs: Vec<String>,
    /// Counts up to here.
    pub(super) kept: u64,
    pub(super) removed: u64,
    pub(super) text_bytes_in: u64,
}

impl Weigh for Unit {
    fn weight(&self) -> u64 {
        self.text.len() as u64
    }
}

pub(super) struct Select {
    max_records: u64,
    lines: u64,
    /// Contigs whose records have ended.
    ended: HashSet<String>,
    contig: String,
    position: u32,
    unit: Unit,
}

impl Select {
    /// `header_lines` is where the count of lines begins.
    pub(super) fn new(max_records: Option<u64>, header_lines: u64) -> Self {
        Self {
            max_records: max_records.unwrap_or(u64::MAX),
            lines: header_lines,
            ended: HashSet::new(),
            contig: String::new(),
            position: 0,
            unit: Unit::default(),
        }
    }

    fn check_order(&mut self, runs: &[Run]) -> Result<(), (u64, &'static str)> {
        for run in runs {
            if run.contig != self.contig {
                let before = std::mem::replace(&mut self.contig, run.contig.clone());
                self.ended.insert(before);
                if self.ended.contains(&run.contig) {
                    return Err((run.line, "the records of a contig do not follow each other"));
                }
            } else if run.first < self.position {
                return Err((run.line, "the records are not in coordinate order"));
            }
            self.position = run.last;
        }
        Ok(())
    }

    fn take(&mut self, record: &Span, line: &[u8], contig: &str, out: &mut VecDeque<Unit>) {
        let unit = &mut self.unit;
        if unit.kept == self.max_records {
            unit.removed += 1;
            return;
        }
        if unit.contigs.last().is_none_or(|last| last != contig) {
            unit.contigs.push(contig.into());
        }
        unit.text.extend_from_slice(line);
        unit.records.push(Span { run: unit.contigs.len() - 1, ..*record });
        unit.kept += 1;
        if unit.text.len() >= UNIT_BYTES {
            let (kept, removed, text_bytes_in) = (unit.kept, unit.removed, unit.text_bytes_in);
            let next = Unit { kept, removed, text_bytes_in, ..Unit::default() };
            out.push_back(std::mem::replace(unit, next));
        }
    }
}

impl Stage for Select {
    type In = Judged;
    type Out = Unit;
    const NAME: &'static str = "select calls";

    fn push(&mut self, mut item: Judged, out: &mut VecDeque<Unit>) -> flow::Result<()> {
        let fail = |before: u64, (line, what)| {
            flow::Error::in_stage(Self::NAME, Error::Malformed { line: before + line, what })
        };
        self.check_order(&item.runs).map_err(|wrong| fail(self.lines, wrong))?;
        if let Some(failure) = item.failure {
            return Err(fail(self.lines, failure));
        }
        self.lines += item.lines;
        self.unit.text_bytes_in += item.bytes_in;
        self.unit.removed += item.removed;
        let mut from = 0;
        for record in &item.records {
            let line = &item.text[from..from + record.bytes];
            from += record.bytes;
            self.take(record, line, &item.runs[record.run].contig, out);
        }
        item.text.zeroize();
        Ok(())
    }

    /// Always gives a last unit, empty if need be, because it holds the counts.
    fn finish(&mut self, out: &mut VecDeque<Unit>) -> flow::Result<()> {
        out.push_back(std::mem::take(&mut self.unit));
        Ok(())
    }
}
