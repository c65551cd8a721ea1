//! Seeded genomes and reads for the tests of this engine.

use std::sync::Arc;

use super::Index;
use super::map::Mapper;
use super::offload::Offload;
use crate::device::assign::Assignment;
use crate::genome::reads::ReadRange;
use crate::genome::reference::{BASE_LETTERS, Contig};
use crate::genome::{Layout, ReadBatch, Reference};

/// A small random generator (xorshift64*, Vigna 2016): equal seeds give equal genomes.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((word * bound as u64) >> 32) as usize
    }
}

pub(super) fn random_bases(seed: u64, count: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(4) as u8).collect()
}

pub(super) fn reference_of(contigs: &[Vec<u8>]) -> Reference {
    let named = |(number, bases): (usize, &Vec<u8>)| Contig {
        name: format!("contig{number}"),
        bases: bases.clone(),
    };
    Reference { contigs: contigs.iter().enumerate().map(named).collect() }
}

pub(super) fn reverse_complement(bases: &[u8]) -> Vec<u8> {
    bases.iter().rev().map(|&base| if base < 4 { 3 - base } else { 4 }).collect()
}

/// A mapper on the CPU.
pub(super) fn mapper(index: Index) -> Mapper {
    let offload = Offload::new(Arc::new(index), Assignment::cpu()).unwrap();
    Mapper::new(Arc::new(offload))
}

/// Batches of at most `batch_templates` templates; every base has quality 30.
pub(super) fn batches(reads: &[Vec<u8>], layout: Layout, batch_templates: usize) -> Vec<ReadBatch> {
    let per_template = if layout == Layout::Paired { 2 } else { 1 };
    let chunks = reads.chunks(batch_templates * per_template).enumerate();
    let batch = |(seq, reads): (usize, &[Vec<u8>])| {
        let mut batch = ReadBatch {
            seq: seq as u64,
            layout,
            read_group: 0,
            first_template: (seq * batch_templates) as u64,
            text: Vec::new(),
            reads: Vec::new(),
        };
        for (number, read) in reads.iter().enumerate() {
            let template = batch.first_template as usize + number / per_template;
            let name = put(&mut batch.text, format!("read{template} more").as_bytes());
            let letters: Vec<u8> = read.iter().map(|&code| BASE_LETTERS[code as usize]).collect();
            let bases = put(&mut batch.text, &letters);
            let qualities = put(&mut batch.text, &vec![b'!' + 30; read.len()]);
            batch.reads.push(ReadRange { name, bases, qualities });
        }
        batch
    };
    chunks.map(batch).collect()
}

fn put(text: &mut Vec<u8>, bytes: &[u8]) -> std::ops::Range<u32> {
    let start = text.len() as u32;
    text.extend_from_slice(bytes);
    start..text.len() as u32
}
