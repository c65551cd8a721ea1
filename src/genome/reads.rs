//! A batch of sequenced reads as text ranges: what the parsers give and the engines take.

use std::ops::Range;

use crate::flow::Weigh;

/// How the reads of a batch belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Each read stands alone.
    Single,
    /// Reads `2i` and `2i + 1` are the two mates of template `i`.
    Paired,
}

/// Where one read lies in its batch's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRange {
    /// The whole header line without the leading `@`.
    pub name: Range<u32>,
    /// Bases, as in the input: any letter case, IUPAC codes possible.
    pub bases: Range<u32>,
    /// Qualities, Phred + 33; as long as the bases.
    pub qualities: Range<u32>,
}

/// Reads of one library, in input order.
#[derive(Debug)]
pub struct ReadBatch {
    /// Number of the batch, counting from 0 over the whole input.
    pub seq: u64,
    /// Whether mates follow each other.
    pub layout: Layout,
    /// Index of the read group in the request's list.
    pub read_group: u16,
    /// Number of the first template in this batch over the whole input.
    pub first_template: u64,
    /// The bytes that the ranges point into. Secret: wiped when the batch is dropped.
    pub text: Vec<u8>,
    /// The reads.
    pub reads: Vec<ReadRange>,
}

impl ReadBatch {
    /// Number of reads.
    pub fn len(&self) -> usize {
        self.reads.len()
    }

    /// Whether there are no reads.
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// Name line of read `index`, without `@`.
    pub fn name(&self, index: usize) -> &[u8] {
        self.slice(&self.reads[index].name)
    }

    /// Bases of read `index`.
    pub fn bases(&self, index: usize) -> &[u8] {
        self.slice(&self.reads[index].bases)
    }

    /// Qualities of read `index`, Phred + 33.
    pub fn qualities(&self, index: usize) -> &[u8] {
        self.slice(&self.reads[index].qualities)
    }

    fn slice(&self, range: &Range<u32>) -> &[u8] {
        &self.text[range.start as usize..range.end as usize]
    }
}

impl Weigh for ReadBatch {
    fn weight(&self) -> u64 {
        self.text.len() as u64
    }
}

impl Drop for ReadBatch {
    fn drop(&mut self) {
        crate::base::chunk::wipe(&mut self.text);
    }
}

/// A read group (SAM specification, section 1.3, `@RG`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadGroup {
    /// `ID`.
    pub id: String,
    /// `SM`.
    pub sample: String,
    /// `LB`.
    pub library: String,
    /// `PU`.
    pub unit: String,
    /// `PL`.
    pub platform: String,
}
