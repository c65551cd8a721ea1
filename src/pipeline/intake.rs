//! A sample's files, wherever their bytes come from, to batches of reads.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::thread::Scope;

use super::Error;
use crate::base::{Chunk, Pool, SampleName};
use crate::control::Role;
use crate::flow::{self, Flow, Meter, Meters};
use crate::genome::alignment::AlignmentReads;
use crate::genome::inflate::Inflate;
use crate::genome::lanes::{self, Input, Lane};
use crate::genome::{Layout, ReadBatch, ReadGroup, Reference};
use crate::io;

/// A local file's bytes, read ahead of whoever uses them.
///
/// Errors: [`Error::File`] with the path.
pub fn read_file(
    path: &Path,
    chunk_bytes: usize,
    read_ahead: usize,
    direct: bool,
    meters: &Meters,
) -> Result<Flow<'static, Chunk>, Error> {
    let pool = Pool::new(read_ahead + 4, chunk_bytes.max(4096));
    io::read_ahead(meters, "read", path, &pool, read_ahead, direct)
        .map_err(|source| Error::File { path: path.into(), source })
}

/// One file of a sample.
pub struct Source<'a> {
    /// Its name, for errors.
    pub file: String,
    /// What it is for.
    pub role: Role,
    /// Its bytes, as stored: compressed or not.
    pub bytes: Flow<'a, Chunk>,
}

/// The reads of all files in order, and the read groups that the batches refer to.
///
/// Errors: [`Error::NoReads`] when no file holds reads, [`Error::Mates`] when the roles do not fit,
/// and those of the headers of alignment files.
pub fn reads<'a, 'scope>(
    sample: &SampleName,
    sources: Vec<Source<'a>>,
    reference: &Arc<Reference>,
    meters: &Meters,
    scope: &'scope Scope<'scope, '_>,
) -> Result<(Vec<ReadGroup>, Flow<'a, ReadBatch>), Error>
where
    'a: 'scope,
{
    let mut groups = Vec::new();
    let mut parts: Vec<Batches<'a>> = Vec::new();
    let mut sources = sources.into_iter().peekable();
    let parse = meters.add("parse", 1);
    while let Some(source) = sources.next() {
        let group = groups.len() as u16;
        let lane =
            match source.role {
                Role::Reads1 => {
                    let second = sources.next_if(|next| next.role == Role::Reads2);
                    let first = text(source, scope, &parse);
                    match second {
                        Some(second) => Lane::Pair(first, text(second, scope, &parse)),
                        None => Lane::Single(first),
                    }
                }
                Role::Interleaved => Lane::Interleaved(text(source, scope, &parse)),
                Role::Alignments => {
                    let (file, bytes) = (source.file, source.bytes.starving(&parse));
                    let alignments = alignments(&file, bytes, reference)?;
                    groups.extend(alignments.read_groups().iter().map(|of_file| ReadGroup {
                        sample: sample.to_string(),
                        ..of_file.clone()
                    }));
                    parts.push(Box::new(alignments.map(move |batch| {
                        batch.map(|mut batch| {
                            batch.read_group += group;
                            batch
                        })
                    })));
                    continue;
                }
                Role::Reads2 => return Err(Error::Mates { file: source.file }),
                Role::Calls | Role::Other => continue,
            };
        groups.push(read_group(sample, groups.len() + 1));
        parts.push(Box::new(lanes::reads([(group, lane)])));
    }
    if groups.is_empty() {
        return Err(Error::NoReads { name: sample.to_string() });
    }
    Ok((groups, Flow::gathered(meters, parse, numbered(parts))))
}

type Batches<'a> = Box<dyn Iterator<Item = flow::Result<ReadBatch>> + Send + 'a>;

/// The batches of all parts, numbered throughout.
fn numbered<'a>(
    parts: Vec<Batches<'a>>,
) -> impl Iterator<Item = flow::Result<ReadBatch>> + Send + 'a {
    let (mut seq, mut templates) = (0, 0);
    parts.into_iter().flatten().map(move |batch| {
        let mut batch = batch?;
        let count = match batch.layout {
            Layout::Single => batch.len() as u64,
            Layout::Paired => batch.len() as u64 / 2,
        };
        (batch.seq, batch.first_template) = (seq, templates);
        seq += 1;
        templates += count;
        Ok(batch)
    })
}

fn alignments<'a>(
    file: &str,
    bytes: Flow<'a, Chunk>,
    reference: &Arc<Reference>,
) -> Result<AlignmentReads<'a>, Error> {
    let mut reader = FlowReader::new(bytes);
    let opened = match reader.begins_with(b"CRAM")? {
        true => AlignmentReads::cram(reader, file, reference.clone()),
        false => AlignmentReads::bam(reader, file),
    };
    opened.map_err(|error| flow::Error::in_stage("parse", error).into())
}

fn text<'a, 'scope>(
    source: Source<'a>,
    scope: &'scope Scope<'scope, '_>,
    parse: &Arc<Meter>,
) -> Input<'a>
where
    'a: 'scope,
{
    let inflated = source.bytes.then(Inflate::new(source.file.clone())).on_thread(scope, 4);
    Input { file: source.file, bytes: inflated.starving(parse) }
}

fn read_group(sample: &SampleName, lane: usize) -> ReadGroup {
    ReadGroup {
        id: format!("{sample}_L{lane:03}"),
        sample: sample.to_string(),
        library: sample.to_string(),
        unit: format!("L{lane:03}"),
        platform: "ILLUMINA".into(),
    }
}

/// A flow of chunks as a reader. An error of the flow comes out as an [`io::Error`] around it.
pub struct FlowReader<'a> {
    chunks: Flow<'a, Chunk>,
    current: Option<Chunk>,
    used: usize,
}

impl<'a> FlowReader<'a> {
    /// A reader of these chunks.
    pub fn new(chunks: Flow<'a, Chunk>) -> Self {
        Self { chunks, current: None, used: 0 }
    }

    /// Whether the bytes to come begin with `magic`, as far as the next chunk shows; takes nothing.
    ///
    /// Errors: that of the flow.
    pub fn begins_with(&mut self, magic: &[u8]) -> flow::Result<bool> {
        self.fill()?;
        Ok(self.current.as_ref().is_some_and(|chunk| chunk[self.used..].starts_with(magic)))
    }

    /// Makes sure that there are bytes at hand, unless the flow has ended.
    fn fill(&mut self) -> flow::Result<()> {
        while self.current.as_ref().is_none_or(|chunk| self.used == chunk.len()) {
            self.used = 0;
            self.current = self.chunks.next().transpose()?;
            if self.current.is_none() {
                break;
            }
        }
        Ok(())
    }
}

impl Read for FlowReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.fill().map_err(std::io::Error::other)?;
        let Some(chunk) = &self.current else { return Ok(0) };
        let count = out.len().min(chunk.len() - self.used);
        out[..count].copy_from_slice(&chunk[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}
