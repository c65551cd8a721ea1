//! Kernels over jobs against their twins: batches of random shapes, and the edges of each.

use std::sync::Arc;

use crate::device::table::{Genome, SeedTable};
use crate::device::{Device, Error, Queue};
use crate::kernel::ungapped::GenomeWord;
use crate::kernel::{align, lookup, pack, pairhmm, ungapped};

use super::{Noise, Outcome};

/// The first job whose results differ.
fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    have: &[T],
    want: impl Iterator<Item = T>,
) -> Outcome {
    let mut count = 0;
    for (job, want) in want.enumerate() {
        match have.get(job) {
            Some(have) if *have == want => count += 1,
            have => return Err(format!("{what} {job}: {have:?} and not {want:?}")),
        }
    }
    if count == have.len() { Ok(()) } else { Err(format!("{what}: more results than jobs")) }
}

fn codes(noise: &mut Noise, length: usize) -> Vec<u8> {
    (0..length).map(|_| if noise.below(40) == 0 { 4 } else { noise.below(4) as u8 }).collect()
}

/// A part of `from` with some bases changed, taken out and put in.
fn mutated(noise: &mut Noise, from: &[u8]) -> Vec<u8> {
    let begin = noise.below(from.len().div_ceil(3).max(1));
    let end = from.len() - noise.below((from.len() - begin).div_ceil(3).max(1));
    let mut read = from[begin..end].to_vec();
    for _ in 0..noise.below(6) {
        let at = noise.below(read.len().max(1));
        let length = noise.below(9);
        match noise.below(3) {
            0 if at < read.len() => read[at] = noise.below(6) as u8,
            1 => drop(read.splice(at..at, codes(noise, length))),
            _ => drop(read.drain(at..(at + length).min(read.len()))),
        }
    }
    read
}

pub(super) fn check_align(queue: &mut dyn Queue, count: usize, noise: &mut Noise) -> Outcome {
    let mut sequences = vec![
        (vec![], vec![0; 9]),
        (vec![0; 9], vec![0; 8]),
        (vec![2], vec![2]),
        (vec![4], vec![4, 4]),
        (vec![1; 40], vec![2; 90]),
        // More runs than a device's result has room for.
        ((0..200).map(|at| at / 2 % 4).collect(), (0..255).map(|at| at / 3 % 4).collect()),
        (codes(noise, 5000), codes(noise, 5000)),
        // Bands that are wider than what a device keeps at hand.
        (codes(noise, 40), codes(noise, 190)),
        (codes(noise, 30), codes(noise, 290)),
    ];
    for _ in 0..count {
        let length = 1 + noise.below(220);
        let target = codes(noise, length);
        sequences.push((mutated(noise, &target), target));
    }
    let pairs: Vec<_> =
        sequences.iter().map(|(query, target)| align::Pair { query, target }).collect();
    let small = align::Scores { matched: 3, mismatch: 2, gap_open: 1, gap_extend: 1, clip: 0 };
    for scores in [align::Scores::default(), small] {
        let have = queue.align(&pairs, &scores).map_err(|error| error.to_string())?;
        let mut matrix = align::Matrix::default();
        let want =
            pairs.iter().map(|pair| align::scalar(pair.query, pair.target, &scores, &mut matrix));
        same("alignment", &have, want)?;
    }
    Ok(())
}

/// Base codes with two numbers each: a read's qualities, or a haplotype's gap penalties.
type Model = (Vec<u8>, Vec<i16>, Vec<i16>);

fn haplotypes(noise: &mut Noise) -> Vec<Model> {
    let gaps = |noise: &mut Noise, length, most| -> Vec<i16> {
        (0..length).map(|_| noise.below(most) as i16).collect()
    };
    let mut models = vec![(vec![], vec![], vec![])];
    for _ in 0..5 {
        let length = 1 + noise.below(200);
        models.push((codes(noise, length), gaps(noise, length, 1500), gaps(noise, length, 400)));
    }
    // Penalties that a device's 14 bits just hold, and just do not.
    models.push((vec![1; 30], vec![pairhmm::NEVER; 30], vec![0; 30]));
    models.push((vec![1; 30], vec![pairhmm::NEVER + 1; 30], vec![7; 30]));
    models
}

pub(super) fn check_pairhmm(queue: &mut dyn Queue, count: usize, noise: &mut Noise) -> Outcome {
    let models = haplotypes(noise);
    let mut reads: Vec<(Vec<u8>, Vec<u8>)> = vec![(vec![], vec![])];
    for _ in 0..8 {
        let from = noise.below(models.len());
        let bases = mutated(noise, &models[from].0);
        let qualities = bases.iter().map(|_| noise.below(70) as u8).collect();
        reads.push((bases, qualities));
    }
    let parts: Vec<_> =
        reads.iter().map(|(bases, qualities)| pairhmm::ReadPart { bases, qualities }).collect();
    let haplotypes: Vec<_> = models
        .iter()
        .map(|(bases, gap_open, gap_extend)| pairhmm::HaplotypePart { bases, gap_open, gap_extend })
        .collect();
    let mut jobs = Vec::new();
    for _ in 0..count {
        let first = noise.below(120) as i32 - 60;
        // Some that are wider than what a device keeps at hand.
        let widest = if noise.below(10) == 0 { 250 } else { 70 };
        jobs.push(pairhmm::Job {
            read: noise.below(parts.len()),
            haplotype: noise.below(haplotypes.len()),
            diagonals: (first, first + noise.below(widest) as i32 - 2),
            limit: [pairhmm::LIMIT_MAX, 1 << 20, 900, 0, -5][noise.below(5)],
        });
    }
    let penalties = &pairhmm::BasePenalties::default();
    let batch = pairhmm::Batch { reads: &parts, haplotypes: &haplotypes, jobs: &jobs, penalties };
    let have = queue.pairhmm(&batch).map_err(|error| error.to_string())?;
    let mut rows = pairhmm::Rows::default();
    same("penalty", &have, (0..jobs.len()).map(|job| batch.scalar(job, &mut rows)))
}

/// Reads with their qualities; lengths around whole words, and others.
fn reads(noise: &mut Noise, count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let edges = [0, 1, 63, 64, 65, 128].into_iter();
    let lengths: Vec<usize> = edges.chain((0..count).map(|_| noise.below(330))).collect();
    let read =
        |length| (codes(noise, length), (0..length).map(|_| noise.below(99) as u8).collect());
    lengths.into_iter().map(read).collect()
}

pub(super) fn check_pack(queue: &mut dyn Queue, count: usize, noise: &mut Noise) -> Outcome {
    let reads = reads(noise, count);
    let reads: Vec<_> =
        reads.iter().map(|(codes, qualities)| pack::Read { codes, qualities }).collect();
    let have = queue.pack(&reads).map_err(|error| error.to_string())?;
    same("packed read", &have, reads.iter().map(|read| pack::scalar(*read)))
}

/// Tables of a device, and what they were made of.
pub(super) struct Tables {
    codes: Vec<u8>,
    genome: Genome,
    hashes: Vec<u64>,
    seeds: SeedTable,
}

const HASH_BITS: u32 = 40;
const BUCKET_BITS: u32 = 9;

/// Tables on `device`: a genome of some words, and an index with crowded buckets and empty ones.
pub(super) fn tables(device: &dyn Device, noise: &mut Noise) -> Result<Tables, Error> {
    let codes = codes(noise, 40 * 64 - 17);
    let packed = pack::scalar(pack::Read { codes: &codes, qualities: &vec![0; codes.len()] });
    let word = |word: &pack::ReadWord| GenomeWord {
        low: word.low,
        high: word.high,
        unknown: word.unknown | !word.valid,
    };
    let words: Vec<GenomeWord> = packed.forward.iter().map(word).collect();
    let genome = Genome::load(device, Arc::new(words))?;
    let mut hashes: Vec<u64> = (0..1500).map(|_| noise.next() >> (64 - HASH_BITS)).collect();
    hashes.extend_from_within(..300);
    hashes.extend((0..100).map(|number| (3 << 31) | (number / 3)));
    hashes.extend([0, 0, (1 << HASH_BITS) - 1]);
    hashes.sort_unstable();
    let rest_bits = HASH_BITS - BUCKET_BITS;
    let entry = |(at, hash): (usize, &u64)| (hash & ((1 << rest_bits) - 1)) << 33 | at as u64;
    let entries: Vec<u64> = hashes.iter().enumerate().map(entry).collect();
    let begin = |bucket| hashes.partition_point(|hash| hash >> rest_bits < bucket) as u32;
    let buckets: Vec<u32> = (0..=1 << BUCKET_BITS).map(begin).collect();
    let seeds =
        SeedTable::load(device, Arc::new(buckets), Arc::new(entries), (HASH_BITS, BUCKET_BITS))?;
    Ok(Tables { codes, genome, hashes, seeds })
}

impl Tables {
    pub(super) fn check_ungapped(
        &self,
        queue: &mut dyn Queue,
        count: usize,
        noise: &mut Noise,
    ) -> Outcome {
        let (mut words, mut jobs) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let position = noise.below(self.codes.len() + 100);
            let length = [noise.below(200), noise.below(200), 64 * noise.below(17)][noise.below(3)];
            let end = (position + length).min(self.codes.len());
            let mut read = self.codes.get(position..end).unwrap_or(&[1; 70]).to_vec();
            for _ in 0..noise.below(5) {
                let at = noise.below(read.len().max(1));
                read.get_mut(at).into_iter().for_each(|base| *base = noise.below(6) as u8);
            }
            let (first, length) = (words.len() as u32, read.len() as u32);
            let qualities = vec![0; read.len()];
            words.extend(pack::scalar(pack::Read { codes: &read, qualities: &qualities }).forward);
            // Most where they came from; some of them at a second place, and one base beside it.
            for position in [position, position ^ 1, noise.below(self.codes.len())] {
                jobs.push(ungapped::Job { first, length, position: position as u32 });
            }
        }
        jobs.push(ungapped::Job { position: u32::MAX, ..jobs[0] });
        let small = align::Scores { matched: 2, mismatch: 3, clip: 0, ..align::Scores::default() };
        for scores in [align::Scores::default(), small] {
            let have = queue.ungapped(&self.genome, &words, &jobs, &scores);
            let have = have.map_err(|error| error.to_string())?;
            let mut want = Vec::new();
            ungapped::scalar(self.genome.words(), &words, &jobs, &scores, &mut want);
            same("place", &have, want.into_iter())?;
        }
        Ok(())
    }

    pub(super) fn check_lookup(
        &self,
        queue: &mut dyn Queue,
        count: usize,
        noise: &mut Noise,
    ) -> Outcome {
        let known = |noise: &mut Noise| self.hashes[noise.below(self.hashes.len())];
        let mut asked: Vec<u64> =
            (0..count).map(|_| known(noise) ^ [0, 0, 1, 1 << 35][noise.below(4)]).collect();
        asked.extend([0, (1 << HASH_BITS) - 1, 3 << 31, 3 << 31 | 33]);
        let have = queue.lookup(&self.seeds, &asked).map_err(|error| error.to_string())?;
        let seeds = self.seeds.seeds();
        same("look-up", &have, asked.iter().map(|hash| lookup::scalar(seeds, *hash)))
    }
}
