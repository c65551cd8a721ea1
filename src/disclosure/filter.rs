//! The filter: a VCF in, the permitted records out as BGZF with their index.
//!
//! Three steps, measured apart (Fujiwara et al. 2022, Fig. 4 and Table 2): compressed to text
//! (B-1), text to filtered text (B-2), filtered text to compressed (B-3). Each runs on many
//! threads; the bytes that leave do not depend on how many. What leaves is compressed from the
//! permitted lines alone: no block of the input is passed on.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::Scope;

use memchr::{memchr, memchr_iter, memrchr};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::Error;
use super::header::Header;
use super::record::judge;
use super::right::Permit;
use super::select::{Judged, Run, Select, Span, Unit};
use crate::flow::{self, Flow, Meters, Stage};
use crate::genome::bgzf::{self, BLOCK_BYTES, Deflater, VirtualOffset};
use crate::genome::blocks::{BlockRuns, restore};
use crate::genome::detect::Packing;
use crate::genome::inflate::InflateReader;
use crate::genome::tabix;

/// How the filter runs. Changes no line that leaves.
#[derive(Clone, Copy, Debug)]
pub struct FilterOptions {
    /// Threads for each step.
    pub threads: usize,
    /// Compression level of what leaves, 0 to 12.
    pub level: u8,
}

impl Default for FilterOptions {
    fn default() -> Self {
        Self { threads: 1, level: bgzf::DEFAULT_LEVEL }
    }
}

/// What came of filtering. Busy times add up over threads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FilterReport {
    /// Records that leave.
    pub kept: u64,
    /// Records that do not.
    pub removed: u64,
    /// Bytes of the file that came in.
    pub compressed_bytes_in: u64,
    /// Bytes of its text.
    pub text_bytes_in: u64,
    /// Bytes of the text that leaves.
    pub text_bytes_out: u64,
    /// Bytes of the file that leaves.
    pub compressed_bytes_out: u64,
    /// Time for restoring the text (B-1), in seconds.
    pub inflate_seconds: f64,
    /// Time for choosing records (B-2), in seconds.
    pub filter_seconds: f64,
    /// Time for compressing (B-3), in seconds.
    pub compress_seconds: f64,
    /// BLAKE3 of the file that leaves, in hexadecimal digits.
    pub digest: String,
    /// The content of its `.tbi` file.
    #[serde(skip)]
    pub tabix: Vec<u8>,
}

/// Writes what `permit` lets leave of `input` to `out`, as BGZF.
///
/// `input` is the VCF of one sample in coordinate order, as BGZF, gzip or text. Whether the right
/// is in force is [`Permit::check`]'s to say.
///
/// Nothing is written unless the whole input was understood. The compressed records are held in
/// memory until then, because their number stands in the header above them.
pub fn filter(
    input: impl Read + Send,
    permit: &Permit,
    options: &FilterOptions,
    out: &mut (impl Write + ?Sized),
) -> Result<FilterReport, Error> {
    let meters = Meters::default();
    let mut body =
        std::thread::scope(|scope| compress_permitted(scope, input, permit, options, &meters))?;
    let head = body.header.for_output(permit, body.kept, body.removed);
    let mut head_blocks = Vec::new();
    Deflater::new(options.level).blocks(head.as_bytes(), &mut head_blocks);
    body.index.shift(head_blocks.len() as u64);
    let mut hasher = blake3::Hasher::new();
    let mut bytes_out = 0;
    for part in [&head_blocks[..], &body.blocks, &bgzf::END_MARKER] {
        out.write_all(part).map_err(Error::Write)?;
        hasher.update(part);
        bytes_out += part.len() as u64;
    }
    out.flush().map_err(Error::Write)?;
    let stages = meters.snapshot();
    let busy = |name| stages.iter().filter(|s| s.stage == name).map(|s| s.busy_seconds).sum();
    Ok(FilterReport {
        kept: body.kept,
        removed: body.removed,
        compressed_bytes_in: body.compressed_bytes_in,
        text_bytes_in: body.text_bytes_in,
        text_bytes_out: head.len() as u64 + body.text_bytes_out,
        compressed_bytes_out: bytes_out,
        inflate_seconds: busy(INFLATE),
        filter_seconds: busy(FILTER) + busy(Lines::NAME) + busy(Select::NAME),
        compress_seconds: busy(COMPRESS),
        digest: hasher.finalize().to_hex().to_string(),
        tabix: body.index.finish(),
    })
}

const INFLATE: &str = "inflate calls";
const FILTER: &str = "filter calls";
const COMPRESS: &str = "compress calls";

/// The permitted records, compressed, and the counts.
struct Body {
    header: Arc<Header>,
    blocks: Vec<u8>,
    index: tabix::Builder,
    kept: u64,
    removed: u64,
    compressed_bytes_in: u64,
    text_bytes_in: u64,
    text_bytes_out: u64,
}

fn compress_permitted<'a, 'scope>(
    scope: &'scope Scope<'scope, '_>,
    input: impl Read + Send + 'a,
    permit: &'a Permit,
    options: &FilterOptions,
    meters: &Meters,
) -> Result<Body, Error>
where
    'a: 'scope,
{
    let counter = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let input = Counted { inner: input, bytes: counter.clone() };
    let (threads, level) = (options.threads.max(1), options.level);
    let mut texts = inflate(scope, input, threads, meters)?;
    let (header, rest) = read_header(&mut texts)?;
    let header = Arc::new(header);
    let head_bytes = rest.header_bytes;
    let (columns, lines) = (header.columns(), header.lines);
    let texts = Flow::source(meters, "calls", std::iter::once(Ok(rest.text)).chain(texts));
    let units = texts
        .then(Lines::default())
        .map_parallel(scope, FILTER, threads, move |mut text: Vec<u8>| {
            let judged = judge_lines(&text, columns, permit);
            text.zeroize();
            Ok(judged)
        })
        .then(Select::new(permit.max_records, lines))
        .map_parallel(scope, COMPRESS, threads, move |mut unit: Unit| {
            let packed = compress(&unit, level);
            unit.text.zeroize();
            Ok(packed)
        });
    let mut body = Body {
        header,
        blocks: Vec::new(),
        index: tabix::Builder::default(),
        kept: 0,
        removed: 0,
        compressed_bytes_in: 0,
        text_bytes_in: head_bytes,
        text_bytes_out: 0,
    };
    for packed in units {
        let packed = packed.map_err(own_error)?;
        let base = body.blocks.len() as u64;
        let at = |offset: VirtualOffset| VirtualOffset(offset.0 + (base << 16));
        for (contig, bases, (from, to)) in &packed.entries {
            body.index.push(&packed.unit_contigs[*contig], *bases, (at(*from), at(*to)));
        }
        body.blocks.extend_from_slice(&packed.blocks);
        body.text_bytes_out += packed.text_bytes;
        (body.kept, body.removed) = (packed.kept, packed.removed);
        body.text_bytes_in = head_bytes + packed.text_bytes_in;
    }
    body.compressed_bytes_in = counter.load(std::sync::atomic::Ordering::Relaxed);
    Ok(body)
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: Arc<std::sync::atomic::AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.bytes.fetch_add(len as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(len)
    }
}

/// Gives this module's own error back from a flow's.
fn own_error(error: flow::Error) -> Error {
    let flow::Error { stage, fault, hint, source } = error;
    match source.downcast::<Error>() {
        Ok(own) => *own,
        Err(source) => Error::Compressed(flow::Error { stage, fault, hint, source }),
    }
}

/// The text of the input, in pieces (B-1).
fn inflate<'a, 'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut input: impl Read + Send + 'a,
    threads: usize,
    meters: &Meters,
) -> Result<Flow<'a, Vec<u8>>, Error>
where
    'a: 'scope,
{
    let mut head = vec![0; 1 << 16];
    let len = fill(&mut input, &mut head).map_err(Error::Read)?;
    head.truncate(len);
    let read_error = |error| flow::Error::in_stage("read calls", Error::Read(error));
    if Packing::detect(&head) == Packing::Bgzf {
        let runs = BlockRuns::new(&head, input, "VCF").map(move |run| run.map_err(read_error));
        return Ok(Flow::source(meters, "read calls", runs).map_parallel(
            scope,
            INFLATE,
            threads,
            |run: Vec<u8>| {
                restore(&run, "VCF").map_err(|error| flow::Error::in_stage(INFLATE, error))
            },
        ));
    }
    let mut text = InflateReader::new(io::Cursor::new(head).chain(input), "VCF");
    let pieces = std::iter::from_fn(move || {
        let mut piece = vec![0; 1 << 20];
        match fill(&mut text, &mut piece) {
            Ok(0) => None,
            Ok(len) => {
                piece.truncate(len);
                Some(Ok(piece))
            }
            Err(error) => Some(Err(read_error(error))),
        }
    });
    Ok(Flow::source(meters, INFLATE, pieces).on_thread(scope, 4))
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The first text after the header.
struct Rest {
    text: Vec<u8>,
    header_bytes: u64,
}

/// Longest header, in bytes: one with a contig line for each of a million scaffolds fits.
const HEADER_BYTES_MAX: usize = 64 << 20;

fn read_header(texts: &mut Flow<'_, Vec<u8>>) -> Result<(Header, Rest), Error> {
    let malformed = |(line, what)| Error::Malformed { line, what };
    let (mut text, mut from) = (Vec::new(), 0);
    loop {
        // The header ends with the first line that begins with one '#'.
        while let Some(at) = memchr(b'\n', &text[from..]) {
            let (line, end) = (&text[from..], from + at + 1);
            if from == 0 && !line.starts_with(b"##fileformat=VCFv") {
                return Err(malformed((1, "the file is not VCF")));
            }
            if !line.starts_with(b"##") {
                let header = Header::parse(&text[..end]).map_err(malformed)?;
                let rest = Rest { text: text.split_off(end), header_bytes: end as u64 };
                return Ok((header, rest));
            }
            from = end;
        }
        let next = texts.next().transpose().map_err(own_error)?;
        let Some(next) = next.filter(|_| text.len() <= HEADER_BYTES_MAX) else {
            let lines = memchr_iter(b'\n', &text).count() as u64;
            return Err(malformed((lines + 1, "the header does not end with a #CHROM line")));
        };
        text.extend_from_slice(&next);
    }
}

/// Cuts pieces of text so that each holds whole lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Stage for Lines {
    type In = Vec<u8>;
    type Out = Vec<u8>;
    const NAME: &'static str = "lines of calls";

    fn push(&mut self, mut item: Vec<u8>, out: &mut VecDeque<Vec<u8>>) -> flow::Result<()> {
        let Some(at) = memrchr(b'\n', &item) else {
            self.begun.extend_from_slice(&item);
            return Ok(());
        };
        let rest = item.split_off(at + 1);
        let begun = std::mem::replace(&mut self.begun, rest);
        out.push_back(if begun.is_empty() { item } else { [begun, item].concat() });
        Ok(())
    }

    fn finish(&mut self, out: &mut VecDeque<Vec<u8>>) -> flow::Result<()> {
        if !self.begun.is_empty() {
            out.push_back(std::mem::take(&mut self.begun));
        }
        Ok(())
    }
}

/// Judges every line of a piece (B-2).
fn judge_lines(text: &[u8], columns: usize, permit: &Permit) -> Judged {
    let mut judged = Judged { bytes_in: text.len() as u64, ..Judged::default() };
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
        judged.lines += 1;
        if line.is_empty() {
            continue;
        }
        if let Err(what) = judge_line(line, columns, permit, &mut judged) {
            judged.failure = Some((judged.lines, what));
            break;
        }
    }
    judged
}

fn judge_line(
    line: &[u8],
    columns: usize,
    permit: &Permit,
    judged: &mut Judged,
) -> Result<(), &'static str> {
    if line[0] == b'#' {
        return Err("a header line among the records");
    }
    let before = judged.text.len();
    let site = judge(line, columns, permit, &mut judged.text)?;
    match judged.runs.last_mut() {
        Some(run) if run.contig == site.contig => {
            if site.position < run.last {
                return Err("the records are not in coordinate order");
            }
            run.last = site.position;
        }
        _ => judged.runs.push(Run {
            contig: site.contig.into(),
            first: site.position,
            last: site.position,
            line: judged.lines,
        }),
    }
    match site.kept {
        Some((start, end)) => judged.records.push(Span {
            run: judged.runs.len() - 1,
            start,
            end,
            bytes: judged.text.len() - before,
        }),
        None => judged.removed += 1,
    }
    Ok(())
}

/// A unit, compressed; places count from its own beginning.
struct Packed {
    blocks: Vec<u8>,
    entries: Vec<Entry>,
    unit_contigs: Vec<String>,
    text_bytes: u64,
    text_bytes_in: u64,
    kept: u64,
    removed: u64,
}

/// Contig by its index in `unit_contigs`, bases, and place in the file.
type Entry = (usize, (u32, u32), (VirtualOffset, VirtualOffset));

impl flow::Weigh for Packed {
    fn weight(&self) -> u64 {
        self.blocks.len() as u64
    }
}

/// Compresses a unit to blocks of its own (B-3).
fn compress(unit: &Unit, level: u8) -> Packed {
    let mut deflater = Deflater::new(level);
    let mut blocks = Vec::with_capacity(unit.text.len() / 3 + 1024);
    let mut starts = vec![0];
    for block in unit.text.chunks(BLOCK_BYTES) {
        deflater.block(block, &mut blocks);
        starts.push(blocks.len() as u64);
    }
    let place = |offset: usize| {
        let within = if offset == unit.text.len() { 0 } else { offset % BLOCK_BYTES };
        let block = if offset == unit.text.len() { starts.len() - 1 } else { offset / BLOCK_BYTES };
        VirtualOffset::new(starts[block], within)
    };
    let mut from = 0;
    let entries = unit.records.iter().map(|record| {
        let to = from + record.bytes;
        let entry = (record.run, (record.start, record.end), (place(from), place(to)));
        from = to;
        entry
    });
    Packed {
        entries: entries.collect(),
        blocks,
        unit_contigs: unit.contigs.clone(),
        text_bytes: unit.text.len() as u64,
        text_bytes_in: unit.text_bytes_in,
        kept: unit.kept,
        removed: unit.removed,
    }
}
