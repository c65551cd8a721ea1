//! What the measured kernels work on: alignments, reads, a reference and an index of seeds.

use std::sync::Arc;

use super::Effort;
use crate::device::conformance::Noise;
use crate::device::table::{Genome, SeedTable};
use crate::device::{Device, Error};
use crate::kernel::pack::WORD_BASES;
use crate::kernel::ungapped::GenomeWord;
use crate::kernel::{align, pack, pairhmm, ungapped};

pub(super) const READ_BASES: usize = 150;
pub(super) const READ_WORDS: usize = READ_BASES.div_ceil(WORD_BASES);
pub(super) const BAND: usize = 32;
const HAPLOTYPE_BASES: usize = 300;
const HAPLOTYPES: usize = 10;
/// Seeds that are looked up for a read.
pub(super) const SEEDS: usize = 16;
const HASH_BITS: u32 = 44;

/// What all workers work on, each with a queue and texts of its own.
pub(super) struct Inputs {
    pub(super) effort: Effort,
    /// Query and target of each alignment.
    pub(super) sequences: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) haplotype: Vec<u8>,
    pub(super) gaps: [Vec<i16>; 2],
    pub(super) penalties: pairhmm::BasePenalties,
    /// Bases of all reads, each with one that differs from the genome; and where they lie.
    pub(super) bases: Vec<u8>,
    pub(super) qualities: Vec<u8>,
    pub(super) packed: Vec<pack::ReadWord>,
    pub(super) places: Vec<ungapped::Job>,
    pub(super) genome: Genome,
    pub(super) asked: Vec<u64>,
    pub(super) seeds: SeedTable,
}

impl Inputs {
    /// Errors: those of the device, when it has not the memory for the tables.
    pub(super) fn new(device: &dyn Device, effort: Effort) -> Result<Self, Error> {
        let noise = &mut Noise(1);
        let sequences = (0..effort.jobs).map(|_| sequences(noise)).collect();
        let words = genome(noise, (effort.bytes / size_of::<GenomeWord>()).max(1 << 14));
        let length = READ_BASES as u32;
        let (mut bases, mut packed, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let last = (WORD_BASES * (words.len() - READ_WORDS - 1)) as u64;
        for _ in 0..effort.jobs {
            let place = ungapped::Job {
                first: packed.len() as u32,
                length,
                position: (noise.next() % last) as u32,
            };
            let begin = bases.len();
            bases.extend((place.position..).take(READ_BASES).map(|at| base(&words, at as usize)));
            bases[begin + noise.next() as usize % READ_BASES] ^= 1;
            let (codes, qualities) = (&bases[begin..], &[33; READ_BASES][..]);
            packed.extend(pack::scalar(pack::Read { codes, qualities }).forward);
            places.push(place);
        }
        let (hashes, seeds) = seeds(device, noise, (effort.bytes / 8).max(1 << 20))?;
        let haplotype = noise.codes(HAPLOTYPE_BASES);
        let ask = |_| hashes[noise.next() as usize % hashes.len()];
        Ok(Self {
            effort,
            sequences,
            haplotype,
            gaps: [vec![1440; HAPLOTYPE_BASES], vec![320; HAPLOTYPE_BASES]],
            penalties: pairhmm::BasePenalties::default(),
            bases,
            qualities: vec![33; READ_BASES],
            packed,
            places,
            genome: Genome::load(device, Arc::new(words))?,
            asked: (0..effort.jobs * SEEDS).map(ask).collect(),
            seeds,
        })
    }

    /// The batches, as the kernels take them.
    pub(super) fn jobs(&self) -> Jobs<'_> {
        Jobs {
            pairs: self
                .sequences
                .iter()
                .map(|(query, target)| align::Pair { query, target })
                .collect(),
            reads: self
                .bases
                .chunks_exact(READ_BASES)
                .map(|codes| pack::Read { codes, qualities: &self.qualities })
                .collect(),
            on: self.penalty_jobs(),
            parts: (0..self.effort.jobs.div_ceil(HAPLOTYPES))
                .map(|read| pairhmm::ReadPart {
                    bases: &self.haplotype[offset(read)..][..READ_BASES],
                    qualities: &self.qualities,
                })
                .collect(),
            haplotypes: [pairhmm::HaplotypePart {
                bases: &self.haplotype,
                gap_open: &self.gaps[0],
                gap_extend: &self.gaps[1],
            }; HAPLOTYPES],
        }
    }

    /// Every read on ten haplotypes, as a region has them.
    fn penalty_jobs(&self) -> Vec<pairhmm::Job> {
        let job = |job: usize| {
            let first = offset(job / HAPLOTYPES) as i32 - BAND as i32 / 2;
            pairhmm::Job {
                read: job / HAPLOTYPES,
                haplotype: job % HAPLOTYPES,
                diagonals: (first, first + BAND as i32 - 1),
                limit: pairhmm::LIMIT_MAX,
            }
        };
        (0..self.effort.jobs).map(job).collect()
    }
}

/// Where a read lies on its haplotypes.
fn offset(read: usize) -> usize {
    read % (HAPLOTYPE_BASES - READ_BASES)
}

/// A read with one base that differs, and the window it is from.
fn sequences(noise: &mut Noise) -> (Vec<u8>, Vec<u8>) {
    let target = noise.codes(READ_BASES + BAND - 1);
    let mut query = target[BAND / 2..BAND / 2 + READ_BASES].to_vec();
    query[noise.next() as usize % READ_BASES] ^= 1;
    (query, target)
}

fn genome(noise: &mut Noise, words: usize) -> Vec<GenomeWord> {
    let word = |_| GenomeWord { low: noise.next(), high: noise.next(), unknown: 0 };
    (0..words).map(word).collect()
}

fn base(words: &[GenomeWord], at: usize) -> u8 {
    let (word, bit) = (words[at / WORD_BASES], at % WORD_BASES);
    (word.low >> bit & 1 | (word.high >> bit & 1) << 1) as u8
}

/// An index of as many seeds as chance spreads over all hashes, and the hashes in order.
fn seeds(
    device: &dyn Device,
    noise: &mut Noise,
    count: usize,
) -> Result<(Vec<u64>, SeedTable), Error> {
    let bucket_bits = count.ilog2() - 2;
    let rest_bits = HASH_BITS - bucket_bits;
    // Twice the mean step is the longest: the sum stays below the greatest hash with near certainty.
    let step = 2 * ((1 << HASH_BITS) / count as u64) * 99 / 100;
    let mut hash = 0;
    let mut next = || {
        hash = (hash + noise.next() % step).min((1 << HASH_BITS) - 1);
        hash
    };
    let hashes: Vec<u64> = (0..count).map(|_| next()).collect();
    let mut buckets = vec![0; (1 << bucket_bits) + 1];
    hashes.iter().for_each(|hash| buckets[(hash >> rest_bits) as usize + 1] += 1);
    let mut sum = 0;
    buckets.iter_mut().for_each(|bucket| {
        sum += *bucket;
        *bucket = sum;
    });
    let entries: Vec<u64> =
        hashes.iter().map(|hash| (hash & ((1 << rest_bits) - 1)) << 33).collect();
    let table =
        SeedTable::load(device, Arc::new(buckets), Arc::new(entries), (HASH_BITS, bucket_bits))?;
    Ok((hashes, table))
}

impl Noise {
    fn codes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 62) as u8).collect()
    }
}

/// The batches of one worker.
pub(super) struct Jobs<'a> {
    pub(super) pairs: Vec<align::Pair<'a>>,
    pub(super) reads: Vec<pack::Read<'a>>,
    pub(super) on: Vec<pairhmm::Job>,
    pub(super) parts: Vec<pairhmm::ReadPart<'a>>,
    pub(super) haplotypes: [pairhmm::HaplotypePart<'a>; HAPLOTYPES],
}
