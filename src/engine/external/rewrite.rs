//! The program's VCF, plain or compressed, as indexed BGZF.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};

use super::Error;
use crate::engine::{CallReport, CallRequest, Error as EngineError};
use crate::genome::bgzf;
use crate::genome::inflate::InflateReader;
use crate::genome::tabix;

const COLUMNS: &str = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t";

/// Writes `input` to `out` with the sample's own name and the command line, and only the records
/// in the regions that were asked for.
pub(super) fn rewrite(
    input: impl Read,
    request: &CallRequest<'_>,
    engine: &str,
    out: &mut dyn Write,
) -> Result<CallReport, EngineError> {
    let mut lines = BufReader::with_capacity(1 << 16, InflateReader::new(input, "VCF"));
    let mut rewriter = Rewriter {
        request,
        out: bgzf::Writer::new(out, bgzf::DEFAULT_LEVEL),
        index: tabix::Builder::default(),
        report: CallReport::default(),
        ended: HashSet::new(),
        contig: String::new(),
        position: 0,
        in_header: true,
    };
    let (mut text, mut line) = (Vec::new(), 0);
    loop {
        text.clear();
        line += 1;
        let output = |what| Error::Output { engine: engine.into(), line, what };
        let len = lines.read_until(b'\n', &mut text);
        let len = len.map_err(|_| output("it is damaged"))?;
        if len == 0 {
            if rewriter.in_header {
                return Err(output("the header does not end with a #CHROM line").into());
            }
            return rewriter.finish();
        }
        let text = std::str::from_utf8(&text).map_err(|_| output("not UTF-8 text"))?;
        match rewriter.line(text.trim_end_matches(['\n', '\r']), line == 1) {
            Ok(()) => {}
            Err(Wrong::Input(what)) => return Err(output(what).into()),
            Err(Wrong::Write(source)) => return Err(EngineError::Output { what: "VCF", source }),
        }
    }
}

enum Wrong {
    Input(&'static str),
    Write(std::io::Error),
}

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        Wrong::Write(error)
    }
}

struct Rewriter<'r, W: Write> {
    request: &'r CallRequest<'r>,
    out: bgzf::Writer<W>,
    index: tabix::Builder,
    report: CallReport,
    ended: HashSet<String>,
    contig: String,
    position: u32,
    in_header: bool,
}

impl<W: Write> Rewriter<'_, W> {
    fn line(&mut self, line: &str, first: bool) -> Result<(), Wrong> {
        if first && !line.starts_with("##fileformat=VCF") {
            return Err(Wrong::Input("it does not begin with ##fileformat=VCF"));
        }
        if !self.in_header {
            return if line.is_empty() { Ok(()) } else { self.record(line) };
        }
        if line.starts_with("##") {
            return self.put(line);
        }
        match line.strip_prefix(COLUMNS) {
            Some(sample) if !sample.is_empty() && !sample.contains('\t') => {}
            _ => return Err(Wrong::Input("the columns are not those of one sample")),
        }
        let clean = |text: &str| text.replace(char::is_control, " ");
        self.put(&format!("##dsgdCommandLine={}", clean(&self.request.command_line)))?;
        self.put(&format!("{COLUMNS}{}", clean(&self.request.sample)))?;
        self.out.end_block()?;
        self.in_header = false;
        Ok(())
    }

    fn put(&mut self, line: &str) -> Result<(), Wrong> {
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")?;
        self.report.vcf_bytes += line.len() as u64 + 1;
        Ok(())
    }

    fn record(&mut self, line: &str) -> Result<(), Wrong> {
        let mut columns = line.split('\t');
        let contig = columns.next().filter(|contig| !contig.is_empty());
        let contig = contig.ok_or(Wrong::Input("CHROM is missing"))?;
        let position = columns.next().and_then(|position| position.parse::<u32>().ok());
        let position = position.ok_or(Wrong::Input("POS is not a number"))?;
        let reference = columns.nth(1).filter(|reference| !reference.is_empty());
        let reference = reference.ok_or(Wrong::Input("REF is missing"))?;
        if columns.count() != 6 {
            return Err(Wrong::Input("there are not 10 columns"));
        }
        self.check_order(contig, position)?;
        let start = position.saturating_sub(1);
        let length = u32::try_from(reference.len()).ok();
        let end = length.and_then(|length| start.checked_add(length));
        let end = end.ok_or(Wrong::Input("the record ends beyond any contig"))?;
        let wanted = self.request.regions.as_ref();
        if wanted.is_some_and(|regions| !regions.overlaps(contig, start, end)) {
            return Ok(());
        }
        let from = self.out.position();
        self.put(line)?;
        self.index.push(contig, (start, end), (from, self.out.position()));
        self.report.records += 1;
        Ok(())
    }

    fn check_order(&mut self, contig: &str, position: u32) -> Result<(), Wrong> {
        if contig != self.contig {
            let before = std::mem::replace(&mut self.contig, contig.into());
            self.ended.insert(before);
            if self.ended.contains(contig) {
                return Err(Wrong::Input("the records of a contig do not follow each other"));
            }
        } else if position < self.position {
            return Err(Wrong::Input("the records are not in coordinate order"));
        }
        self.position = position;
        Ok(())
    }

    fn finish(mut self) -> Result<CallReport, EngineError> {
        let done = self.out.finish();
        done.map_err(|source| EngineError::Output { what: "VCF", source })?;
        self.report.tabix = self.index.finish();
        Ok(self.report)
    }
}
