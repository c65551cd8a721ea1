//! Brings mates together by name, in bounded memory.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{Error, Segment, flag};
use crate::genome::fastq::{BATCH_BYTES, BATCH_TEMPLATES};
use crate::genome::reads::{Layout, ReadBatch, ReadRange};

/// Bytes that a waiting read costs besides its text.
const OVERHEAD_BYTES: usize = 200;

pub(super) struct Collator {
    file: String,
    limit: usize,
    /// Reads without their mates yet, and the number of each in the file.
    waiting: HashMap<Vec<u8>, (u64, Segment)>,
    waiting_bytes: usize,
    /// The batch in hand of each read group, of pairs and of single reads.
    batches: BTreeMap<(u16, bool), Batch>,
    records: u64,
    seq: u64,
    templates: u64,
}

#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    reads: Vec<ReadRange>,
}

impl Batch {
    fn push(&mut self, segment: &Segment) {
        if self.text.capacity() == 0 {
            self.text.reserve(BATCH_BYTES + (BATCH_BYTES >> 3));
        }
        let mut append = |bytes: &[u8]| {
            let start = self.text.len() as u32;
            self.text.extend_from_slice(bytes);
            start..self.text.len() as u32
        };
        let (name, bases) = (append(&segment.name), append(&segment.bases));
        let qualities = append(&segment.qualities);
        self.reads.push(ReadRange { name, bases, qualities });
    }
}

impl Collator {
    pub(super) fn new(file: &str, limit: usize) -> Self {
        Self {
            file: file.into(),
            limit,
            waiting: HashMap::new(),
            waiting_bytes: 0,
            batches: BTreeMap::new(),
            records: 0,
            seq: 0,
            templates: 0,
        }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes a read; full batches go to `out`.
    pub(super) fn push(
        &mut self,
        segment: Segment,
        out: &mut VecDeque<ReadBatch>,
    ) -> Result<(), Error> {
        self.records += 1;
        let mate = segment.flags & (flag::FIRST | flag::SECOND);
        let paired = segment.flags & flag::PAIRED != 0;
        if !paired || mate == 0 || mate == flag::FIRST | flag::SECOND {
            self.add(&[&segment], out);
            return Ok(());
        }
        let Some((_, other)) = self.waiting.remove(&segment.name) else {
            self.waiting_bytes += cost(&segment);
            if self.waiting_bytes > self.limit {
                let (file, limit) = (self.file.clone(), self.limit);
                return Err(Error::TooManyWaiting { file, limit });
            }
            self.waiting.insert(segment.name.clone(), (self.records, segment));
            return Ok(());
        };
        self.waiting_bytes -= cost(&other);
        if other.flags & mate != 0 {
            return Err(Error::SameMate { file: self.file.clone(), record: self.records });
        }
        if mate == flag::FIRST {
            self.add(&[&segment, &other], out);
        } else {
            self.add(&[&other, &segment], out);
        }
        Ok(())
    }

    /// Gives the reads that never met their mates as single ones, and all that is left.
    pub(super) fn finish(&mut self, out: &mut VecDeque<ReadBatch>) {
        let mut alone: Vec<_> = std::mem::take(&mut self.waiting).into_values().collect();
        alone.sort_unstable_by_key(|(record, _)| *record);
        for (_, segment) in alone {
            self.add(&[&segment], out);
        }
        for (key, batch) in std::mem::take(&mut self.batches) {
            self.give(key, batch, out);
        }
    }

    fn add(&mut self, template: &[&Segment], out: &mut VecDeque<ReadBatch>) {
        let key = (template[0].group, template.len() == 2);
        let batch = self.batches.entry(key).or_default();
        template.iter().for_each(|segment| batch.push(segment));
        if batch.reads.len() == BATCH_TEMPLATES * template.len() || batch.text.len() >= BATCH_BYTES
        {
            let batch = std::mem::take(batch);
            self.give(key, batch, out);
        }
    }

    fn give(&mut self, key: (u16, bool), batch: Batch, out: &mut VecDeque<ReadBatch>) {
        if batch.reads.is_empty() {
            return;
        }
        let (read_group, paired) = key;
        let templates = batch.reads.len() / if paired { 2 } else { 1 };
        out.push_back(ReadBatch {
            seq: self.seq,
            layout: if paired { Layout::Paired } else { Layout::Single },
            read_group,
            first_template: self.templates,
            text: batch.text,
            reads: batch.reads,
        });
        self.seq += 1;
        self.templates += templates as u64;
    }
}

fn cost(segment: &Segment) -> usize {
    OVERHEAD_BYTES + 2 * segment.name.len() + segment.bases.len() + segment.qualities.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str, flags: u16) -> Segment {
        let (bases, qualities) = (b"ACGT".to_vec(), b"IIII".to_vec());
        Segment { name: name.into(), flags, group: 0, bases, qualities }
    }

    fn collate(segments: &[(&str, u16)], limit: usize) -> Result<Vec<String>, Error> {
        let (mut collator, mut out) = (Collator::new("a.bam", limit), VecDeque::new());
        for (name, flags) in segments {
            collator.push(segment(name, *flags), &mut out)?;
        }
        collator.finish(&mut out);
        let names = |batch: &ReadBatch| {
            let name = |index| String::from_utf8(batch.name(index).to_vec()).unwrap();
            (0..batch.len()).map(name).collect::<Vec<_>>().join(" ")
        };
        Ok(out.iter().map(|batch| format!("{:?}: {}", batch.layout, names(batch))).collect())
    }

    #[test]
    fn mates_meet_and_others_stay_alone() {
        let batches =
            collate(&[("a", 0x41), ("b", 0x81), ("s", 0), ("a", 0x81), ("c", 0x41)], 9999);
        assert_eq!(batches.unwrap(), ["Single: s b c", "Paired: a a"]);
    }

    #[test]
    fn limits_and_doubles_are_errors() {
        let waiting = [("a", 0x41), ("b", 0x41), ("c", 0x41)];
        assert!(matches!(collate(&waiting, 500), Err(Error::TooManyWaiting { .. })));
        let twice = [("a", 0x41), ("a", 0x41)];
        assert!(matches!(collate(&twice, 9999), Err(Error::SameMate { record: 2, .. })));
    }
}
