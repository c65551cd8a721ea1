//! Kernels over jobs against their twins: batches of random shapes, and the edges of each.

use crate::device::Queue;
use crate::kernel::{align, pairhmm};

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
        jobs.push(pairhmm::Job {
            read: noise.below(parts.len()),
            haplotype: noise.below(haplotypes.len()),
            diagonals: (first, first + noise.below(70) as i32 - 2),
            limit: [pairhmm::LIMIT_MAX, 1 << 20, 900, 0, -5][noise.below(5)],
        });
    }
    let penalties = &pairhmm::BasePenalties::default();
    let batch = pairhmm::Batch { reads: &parts, haplotypes: &haplotypes, jobs: &jobs, penalties };
    let have = queue.pairhmm(&batch).map_err(|error| error.to_string())?;
    let mut rows = pairhmm::Rows::default();
    same("penalty", &have, (0..jobs.len()).map(|job| batch.scalar(job, &mut rows)))
}
