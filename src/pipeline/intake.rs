//! A sample's files, wherever their bytes come from, to batches of reads.

use std::io::{self, Read};
use std::sync::Arc;
use std::thread::Scope;

use super::Error;
use crate::base::{Chunk, SampleName};
use crate::control::Role;
use crate::flow::{self, Flow, Meter, Meters};
use crate::genome::inflate::Inflate;
use crate::genome::lanes::{self, Input, Lane};
use crate::genome::{ReadBatch, ReadGroup, Reference, alignment};

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
/// Errors: [`Error::NoReads`] when no file holds reads, [`Error::Mates`] when the roles do not fit.
pub fn reads<'a, 'scope>(
    sample: &SampleName,
    sources: Vec<Source<'a>>,
    reference: &'a Reference,
    meters: &Meters,
    scope: &'scope Scope<'scope, '_>,
) -> Result<(Vec<ReadGroup>, Flow<'a, ReadBatch>), Error>
where
    'a: 'scope,
{
    let mut groups = Vec::new();
    let mut fastq = Vec::new();
    let mut aligned = Vec::new();
    let mut sources = sources.into_iter().peekable();
    let parse = meters.add("parse", 1);
    while let Some(source) = sources.next() {
        let group = groups.len() as u16;
        match source.role {
            Role::Reads1 => {
                let second = sources.next_if(|next| next.role == Role::Reads2);
                let first = text(source, scope, &parse);
                fastq.push((group, match second {
                    Some(second) => Lane::Pair(first, text(second, scope, &parse)),
                    None => Lane::Single(first),
                }));
            }
            Role::Interleaved => {
                fastq.push((group, Lane::Interleaved(text(source, scope, &parse))));
            }
            Role::Alignments => aligned.push((group, source)),
            Role::Reads2 => return Err(Error::Mates { file: source.file }),
            Role::Calls | Role::Other => continue,
        }
        groups.push(read_group(sample, groups.len() + 1));
    }
    if groups.is_empty() {
        return Err(Error::NoReads { name: sample.to_string() });
    }
    let texts = lanes::reads(fastq);
    let alignments = aligned.into_iter().flat_map(move |(group, source)| {
        alignment::reads(FlowReader::new(source.bytes), source.file, reference, group)
    });
    Ok((groups, Flow::gathered(meters, parse, texts.chain(alignments))))
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
}

impl Read for FlowReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(chunk) = self.current.as_ref().filter(|chunk| self.used < chunk.len()) {
                let count = out.len().min(chunk.len() - self.used);
                out[..count].copy_from_slice(&chunk[self.used..self.used + count]);
                self.used += count;
                return Ok(count);
            }
            self.used = 0;
            self.current = self.chunks.next().transpose().map_err(io::Error::other)?;
            if self.current.is_none() {
                return Ok(0);
            }
        }
    }
}

/// The flow's own error out of what a reader of a [`FlowReader`] made of it, if it is in there.
pub fn flow_error(error: io::Error) -> Result<flow::Error, io::Error> {
    error.downcast::<flow::Error>()
}
