//! Reads of a whole sample: lanes one after the other, each of one file, or of two that are zipped.

use std::collections::VecDeque;

use super::fastq::{BATCH_BYTES, BATCH_TEMPLATES, Error, FastqParser, same_template};
use super::reads::{Layout, ReadBatch, ReadRange};
use crate::base::Chunk;
use crate::flow::{self, Flow};

/// The text of one FASTQ file, decompressed, and the name that errors shall give it.
pub struct Input<'a> {
    /// Name of the file.
    pub file: String,
    /// Its text.
    pub bytes: Flow<'a, Chunk>,
}

/// One lane's files.
pub enum Lane<'a> {
    /// Single reads.
    Single(Input<'a>),
    /// Mates that follow each other in one file.
    Interleaved(Input<'a>),
    /// First mates in one file, second mates in another.
    Pair(Input<'a>, Input<'a>),
}

/// The reads of all lanes in order, as batches numbered throughout. The index beside each lane is
/// its read group's in the request's list.
///
/// Errors: those of the inputs, and [`Error`] for what is wrong with the reads.
pub fn reads<'a>(
    lanes: impl IntoIterator<Item = (u16, Lane<'a>)>,
) -> impl Iterator<Item = flow::Result<ReadBatch>> + Send + 'a {
    let lanes: Vec<_> = lanes.into_iter().map(|(group, lane)| batches(lane, group)).collect();
    let (mut seq, mut templates) = (0, 0);
    lanes.into_iter().flatten().map(move |batch| {
        let mut batch = batch?;
        (batch.seq, batch.first_template) = (seq, templates);
        seq += 1;
        templates += match batch.layout {
            Layout::Single => batch.len() as u64,
            Layout::Paired => batch.len() as u64 / 2,
        };
        Ok(batch)
    })
}

type Batches<'a> = Box<dyn Iterator<Item = flow::Result<ReadBatch>> + Send + 'a>;

fn batches<'a>(lane: Lane<'a>, read_group: u16) -> Batches<'a> {
    match lane {
        Lane::Single(input) => {
            Box::new(input.bytes.then(FastqParser::new(input.file, Layout::Single, read_group)))
        }
        Lane::Interleaved(input) => {
            Box::new(input.bytes.then(FastqParser::new(input.file, Layout::Paired, read_group)))
        }
        Lane::Pair(first, second) => Box::new(pair(first, second, read_group)),
    }
}

/// Zips the reads of two files into paired batches. Holds a few batches of each at most.
pub fn pair<'a>(
    first: Input<'a>,
    second: Input<'a>,
    read_group: u16,
) -> impl Iterator<Item = flow::Result<ReadBatch>> + Send + 'a {
    let mut pair = Pair {
        first: Mates::new(first, read_group),
        second: Mates::new(second, read_group),
        read_group,
        seq: 0,
        templates: 0,
    };
    std::iter::from_fn(move || pair.next_batch().transpose())
}

/// One of the two files and what of it is not used yet.
struct Mates<'a> {
    bytes: Flow<'a, Chunk>,
    parser: FastqParser,
    ready: VecDeque<ReadBatch>,
    /// Reads used of the first of `ready`.
    used: usize,
    ended: bool,
}

impl<'a> Mates<'a> {
    fn new(input: Input<'a>, read_group: u16) -> Self {
        let parser = FastqParser::new(input.file, Layout::Single, read_group);
        Self { bytes: input.bytes, parser, ready: VecDeque::new(), used: 0, ended: false }
    }

    /// Reads at hand, after waiting for some unless the file has ended.
    fn available(&mut self) -> flow::Result<usize> {
        loop {
            if let Some(batch) = self.ready.front() {
                if self.used < batch.len() {
                    return Ok(batch.len() - self.used);
                }
                self.ready.pop_front();
                self.used = 0;
            } else if self.ended {
                return Ok(0);
            } else if let Some(chunk) = self.bytes.next().transpose()? {
                self.parser.push(&chunk, &mut self.ready).map_err(in_stage)?;
            } else {
                self.ended = true;
                self.parser.finish(&mut self.ready).map_err(in_stage)?;
            }
        }
    }

    fn batch(&self) -> &ReadBatch {
        self.ready.front().expect("reads are available")
    }

    /// Bytes of the record `ahead` of the first unused one.
    fn record_bytes(&self, ahead: usize) -> usize {
        let read = &self.batch().reads[self.used + ahead];
        (read.qualities.end + 1 - read.name.start) as usize
    }

    /// Moves the text of the next `count` reads to `text`, and gives their ranges in it.
    fn append(&mut self, count: usize, text: &mut Vec<u8>) -> Vec<ReadRange> {
        let used = self.used..self.used + count;
        self.used = used.end;
        let batch = self.batch();
        let reads = &batch.reads[used];
        let (Some(first), Some(last)) = (reads.first(), reads.last()) else { return Vec::new() };
        let (from, to) = (first.name.start - 1, last.qualities.end);
        let base = text.len() as u32;
        text.extend_from_slice(&batch.text[from as usize..to as usize]);
        let moved =
            |range: &std::ops::Range<u32>| range.start - from + base..range.end - from + base;
        let moved = |read: &ReadRange| ReadRange {
            name: moved(&read.name),
            bases: moved(&read.bases),
            qualities: moved(&read.qualities),
        };
        reads.iter().map(moved).collect()
    }
}

struct Pair<'a> {
    first: Mates<'a>,
    second: Mates<'a>,
    read_group: u16,
    seq: u64,
    templates: u64,
}

impl Pair<'_> {
    fn next_batch(&mut self) -> flow::Result<Option<ReadBatch>> {
        let mut text = Vec::with_capacity(BATCH_BYTES + (BATCH_BYTES >> 3));
        let mut reads = Vec::with_capacity(2 * BATCH_TEMPLATES);
        let mut bytes = 0;
        while reads.len() < 2 * BATCH_TEMPLATES && bytes < BATCH_BYTES {
            let available = (self.first.available()?, self.second.available()?);
            match available {
                (0, 0) => break,
                (0, _) => return Err(self.uneven(&self.first, &self.second)),
                (_, 0) => return Err(self.uneven(&self.second, &self.first)),
                _ => {}
            }
            let most = available.0.min(available.1).min(BATCH_TEMPLATES - reads.len() / 2);
            let done = self.templates + reads.len() as u64 / 2;
            let count = self.matching(most, done, &mut bytes)?;
            let firsts = self.first.append(count, &mut text);
            let seconds = self.second.append(count, &mut text);
            reads.extend(firsts.into_iter().zip(seconds).flat_map(|(one, two)| [one, two]));
        }
        if reads.is_empty() {
            return Ok(None);
        }
        let (seq, first_template) = (self.seq, self.templates);
        self.seq += 1;
        self.templates += reads.len() as u64 / 2;
        let (layout, read_group) = (Layout::Paired, self.read_group);
        Ok(Some(ReadBatch { seq, layout, read_group, first_template, text, reads }))
    }

    /// How many of the next `most` templates belong to this batch; adds their lengths to `bytes`.
    fn matching(&self, most: usize, done: u64, bytes: &mut usize) -> flow::Result<usize> {
        let (first, second) = (self.first.batch(), self.second.batch());
        for ahead in 0..most {
            let names =
                (first.name(self.first.used + ahead), second.name(self.second.used + ahead));
            if !same_template(names.0, names.1) {
                return Err(in_stage(Error::Mates {
                    first: self.first.parser.file().into(),
                    second: self.second.parser.file().into(),
                    record: done + ahead as u64 + 1,
                }));
            }
            *bytes += self.first.record_bytes(ahead) + self.second.record_bytes(ahead);
            if *bytes >= BATCH_BYTES {
                return Ok(ahead + 1);
            }
        }
        Ok(most)
    }

    fn uneven(&self, ended: &Mates<'_>, other: &Mates<'_>) -> flow::Error {
        in_stage(Error::Uneven {
            ended: ended.parser.file().into(),
            other: other.parser.file().into(),
            records: ended.parser.records(),
        })
    }
}

fn in_stage(error: Error) -> flow::Error {
    flow::Error::in_stage("pair", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Faulty;
    use crate::flow::Meters;

    fn fastq(count: usize, mate: u8, length: impl Fn(usize) -> usize) -> String {
        let record = |n: usize| {
            let length = length(n);
            format!("@r{n}/{mate}\n{}\n+\n{}\n", "A".repeat(length), "I".repeat(length))
        };
        (0..count).map(record).collect()
    }

    fn input<'a>(file: &str, text: &str, step: usize) -> Input<'a> {
        let chunks: Vec<_> =
            text.as_bytes().chunks(step).map(|part| Ok(Chunk::from_bytes(0, part))).collect();
        Input { file: file.into(), bytes: Flow::source(&Meters::default(), "file", chunks) }
    }

    fn zip(one: &str, two: &str, steps: (usize, usize)) -> flow::Result<Vec<ReadBatch>> {
        pair(input("1.fq", one, steps.0), input("2.fq", two, steps.1), 0).collect()
    }

    #[test]
    fn mates_alternate_and_batches_do_not_depend_on_the_chunks() {
        // Long enough reads at the end that the byte limit ends batches too.
        let (one, two) = (
            fastq(9000, 1, |n| if n < 5000 { 3 } else { 900 }),
            fastq(9000, 2, |n| if n < 5000 { n % 5 } else { 400 }),
        );
        let mut shapes = Vec::new();
        for steps in [(1000, 1000), (70_000, 999), (1 << 22, 1 << 14)] {
            let batches = zip(&one, &two, steps).unwrap();
            let mut template = 0;
            for (seq, batch) in (0..).zip(&batches) {
                assert_eq!((batch.seq, batch.first_template), (seq, template));
                for pair in 0..batch.len() / 2 {
                    assert_eq!(batch.name(2 * pair), format!("r{template}/1").as_bytes());
                    assert_eq!(batch.name(2 * pair + 1), format!("r{template}/2").as_bytes());
                    let length = if template < 5000 { template as usize % 5 } else { 400 };
                    assert_eq!(batch.bases(2 * pair + 1).len(), length);
                    assert_eq!(batch.qualities(2 * pair + 1), "I".repeat(length).as_bytes());
                    template += 1;
                }
            }
            assert_eq!(template, 9000);
            shapes.push(batches.iter().map(ReadBatch::len).collect::<Vec<_>>());
        }
        assert_eq!(shapes[0][0], 8192);
        assert!(shapes[0].len() > 3 && shapes.iter().all(|shape| *shape == shapes[0]));
    }

    #[test]
    fn the_file_that_ended_first_is_named() {
        let (one, two) = (fastq(5000, 1, |_| 4), fastq(5001, 2, |_| 4));
        let error = zip(&one, &two, (100, 100)).unwrap_err();
        let text = error.source.to_string();
        assert_eq!(text, "1.fq ends after 5000 records but 2.fq goes on");
        let error = zip(&two.replace("/2", "/1"), &one, (100, 100)).unwrap_err();
        assert!(error.source.to_string().starts_with("2.fq ends after 5000"));
        assert_eq!(error.fault(), crate::base::Fault::Data);
    }

    #[test]
    fn mates_of_other_templates_are_refused() {
        let (one, two) = (fastq(6000, 1, |_| 4), fastq(6000, 2, |_| 4).replace("r5123/", "x/"));
        let error = zip(&one, &two, (100, 100)).unwrap_err();
        let text = error.source.to_string();
        assert_eq!(text, "record 5124: the names in 1.fq and 2.fq do not match");
    }

    #[test]
    fn lanes_follow_each_other_with_their_read_groups() {
        let (one, two) = (fastq(5000, 1, |_| 4), fastq(5000, 2, |_| 4));
        let lanes = [
            (0, Lane::Pair(input("1", &one, 999), input("2", &two, 999))),
            (1, Lane::Single(input("3", &one, 999))),
            (2, Lane::Interleaved(input("4", "", 1))),
        ];
        let shape: Vec<_> = reads(lanes)
            .map(Result::unwrap)
            .map(|batch| (batch.seq, batch.read_group, batch.first_template, batch.len()))
            .collect();
        assert_eq!(
            shape,
            [(0, 0, 0, 8192), (1, 0, 4096, 1808), (2, 1, 5000, 4096), (3, 1, 9096, 904)]
        );
    }
}
