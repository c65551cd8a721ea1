//! How fast a device does each kernel, and which device a kernel should go to.
//!
//! Every job of a device begins and ends in this machine's memory, so bytes cannot go faster through
//! any device than they can be copied there: that rate is measured beside the kernels.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::base::ShareLetter;
use crate::base::clock::Stopwatch;
use crate::kernel::ungapped::GenomeWord;
use crate::kernel::{align, pack, pairhmm, ungapped};

use super::conformance::Noise;
use super::table::{Genome, SeedTable};
use super::{Device, Error, Queue};

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// Bytes of secret or data, in 10^9 a second.
    #[serde(rename = "GB/s")]
    Gigabytes,
    /// States of a band, in 10^9 a second.
    #[serde(rename = "GCUPS")]
    GigaCells,
    /// Reads, places or seeds, in 10^6 a second.
    #[serde(rename = "M/s")]
    Millions,
}

impl Unit {
    /// As it is written behind a number.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Gigabytes => "GB/s",
            Unit::GigaCells => "GCUPS",
            Unit::Millions => "M/s",
        }
    }
}

/// How fast a device does a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// The kernel, or `copy` for this machine's memory.
    pub kernel: &'static str,
    /// The device's name.
    pub device: &'static str,
    /// In units of `unit`: the best of all runs.
    pub rate: f64,
    /// What `rate` counts.
    pub unit: Unit,
    /// How many runs there were.
    pub runs: u32,
}

/// How much is worked in one run of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Bytes of a stripe.
    pub bytes: usize,
    /// Jobs of a batch.
    pub jobs: usize,
    /// A kernel is run again until this time has passed.
    pub time: Duration,
}

impl Effort {
    /// Enough to choose a device: some tenths of a second for all kernels.
    pub const SHORT: Effort =
        Effort { bytes: 4 << 20, jobs: 2000, time: Duration::from_millis(20) };

    /// Enough for a figure that means something: beyond the caches, seconds for all kernels.
    pub const LONG: Effort =
        Effort { bytes: 64 << 20, jobs: 50_000, time: Duration::from_millis(500) };
}

/// Bytes of a piece of a measured queue.
const PIECE_BYTES: usize = 4 << 20;
const READ_BASES: usize = 150;
const BAND: usize = 32;
const HAPLOTYPE_BASES: usize = 300;
const GENOME_BASES: usize = 1 << 20;
const HASH_BITS: u32 = 44;
const BUCKET_BITS: u32 = 18;

/// Measures every kernel on a device, and first the memory of this machine.
///
/// Errors: those of the device.
pub fn measure(device: &dyn Device, effort: Effort) -> Result<Vec<Figure>, Error> {
    let mut queue = device.queue(PIECE_BYTES)?;
    let mut bench = Bench { device: device.name(), effort, figures: Vec::new() };
    bench.bytes(queue.as_mut())?;
    bench.alignments(queue.as_mut())?;
    bench.penalties(queue.as_mut())?;
    bench.reads(device, queue.as_mut())?;
    Ok(bench.figures)
}

impl Noise {
    fn codes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 62) as u8).collect()
    }
}

struct Bench {
    device: &'static str,
    effort: Effort,
    figures: Vec<Figure>,
}

impl Bench {
    /// Runs `work`, which does `amount`, until the time has passed; once before, to warm up.
    fn run(
        &mut self,
        kernel: &'static str,
        (amount, unit): (f64, Unit),
        mut work: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        work()?;
        let (all, mut best, mut runs) = (Stopwatch::start(), f64::INFINITY, 0);
        while runs < 2 || all.elapsed() < self.effort.time {
            let one = Stopwatch::start();
            work()?;
            best = best.min(one.elapsed().as_secs_f64());
            runs += 1;
        }
        let scale = if unit == Unit::Millions { 1e-6 } else { 1e-9 };
        let rate = scale * amount / best.max(1e-9);
        self.figures.push(Figure { kernel, device: self.device, rate, unit, runs });
        Ok(())
    }

    fn bytes(&mut self, queue: &mut dyn Queue) -> Result<(), Error> {
        let amount = (self.effort.bytes as f64, Unit::Gigabytes);
        let pad: Vec<u8> = (0..self.effort.bytes).map(|at| (at * 31) as u8).collect();
        let (mut data, mut b) = (pad.clone(), pad.clone());
        let letters = (ShareLetter::A, ShareLetter::C);
        self.run("copy", amount, || {
            std::hint::black_box(&mut data).copy_from_slice(&pad);
            Ok(())
        })?;
        self.run("xor", amount, || queue.xor(&mut data, &pad))?;
        self.run("seal", amount, || queue.seal(&mut data, (&pad).into(), &[7; 16]).map(drop))?;
        self.run("open", amount, || queue.open(&mut data, (&pad).into(), &[7; 16]).map(drop))?;
        self.run("split", amount, || queue.split(&mut data, &pad, &mut b))?;
        self.run("restore", amount, || queue.restore(&mut data, &pad, letters))?;
        self.run("rebuild", amount, || queue.rebuild(&mut data, &pad, letters))
    }

    fn alignments(&mut self, queue: &mut dyn Queue) -> Result<(), Error> {
        let mut noise = Noise(1);
        let sequences: Vec<(Vec<u8>, Vec<u8>)> = (0..self.effort.jobs)
            .map(|_| {
                let target = noise.codes(READ_BASES + BAND - 1);
                let mut query = target[BAND / 2..BAND / 2 + READ_BASES].to_vec();
                query[noise.next() as usize % READ_BASES] ^= 1;
                (query, target)
            })
            .collect();
        let pairs: Vec<_> =
            sequences.iter().map(|(query, target)| align::Pair { query, target }).collect();
        let cells = (self.effort.jobs * READ_BASES * BAND) as f64;
        let scores = align::Scores::default();
        self.run("align", (cells, Unit::GigaCells), || queue.align(&pairs, &scores).map(drop))
    }

    /// Reads on ten haplotypes, as a region has them.
    fn penalties(&mut self, queue: &mut dyn Queue) -> Result<(), Error> {
        let mut noise = Noise(2);
        let bases = noise.codes(HAPLOTYPE_BASES);
        let (gap_open, gap_extend) = (vec![1440; HAPLOTYPE_BASES], vec![320; HAPLOTYPE_BASES]);
        let haplotypes: Vec<_> = (0..10)
            .map(|_| pairhmm::HaplotypePart {
                bases: &bases,
                gap_open: &gap_open,
                gap_extend: &gap_extend,
            })
            .collect();
        let qualities = [33; READ_BASES];
        let read = |at: usize| pairhmm::ReadPart {
            bases: &bases[at % (HAPLOTYPE_BASES - READ_BASES)..][..READ_BASES],
            qualities: &qualities,
        };
        let reads: Vec<_> = (0..self.effort.jobs.div_ceil(10)).map(read).collect();
        let jobs: Vec<_> = (0..self.effort.jobs)
            .map(|job| {
                let first = (job / 10 % (HAPLOTYPE_BASES - READ_BASES)) as i32 - BAND as i32 / 2;
                pairhmm::Job {
                    read: job / 10,
                    haplotype: job % 10,
                    diagonals: (first, first + BAND as i32 - 1),
                    limit: pairhmm::LIMIT_MAX,
                }
            })
            .collect();
        let penalties = &pairhmm::BasePenalties::default();
        let batch =
            pairhmm::Batch { reads: &reads, haplotypes: &haplotypes, jobs: &jobs, penalties };
        let cells = (jobs.len() * READ_BASES * BAND) as f64;
        self.run("pairhmm", (cells, Unit::GigaCells), || queue.pairhmm(&batch).map(drop))
    }

    fn reads(&mut self, device: &dyn Device, queue: &mut dyn Queue) -> Result<(), Error> {
        let mut noise = Noise(3);
        let amount = (self.effort.jobs as f64, Unit::Millions);
        let codes = noise.codes(GENOME_BASES);
        let qualities = vec![33; GENOME_BASES];
        let at: Vec<usize> = (0..self.effort.jobs)
            .map(|_| noise.next() as usize % (GENOME_BASES - 2 * READ_BASES))
            .collect();
        let read = |&at: &usize| pack::Read {
            codes: &codes[at..at + READ_BASES],
            qualities: &qualities[..READ_BASES],
        };
        let reads: Vec<_> = at.iter().map(read).collect();
        self.run("pack", amount, || queue.pack(&reads).map(drop))?;
        let packed = queue.pack(&reads)?;
        let whole = pack::scalar(pack::Read { codes: &codes, qualities: &qualities });
        let word = |word: &pack::ReadWord| GenomeWord {
            low: word.low,
            high: word.high,
            unknown: word.unknown,
        };
        let genome = Genome::load(device, whole.forward.iter().map(word).collect())?;
        let words: Vec<_> = packed.iter().flat_map(|read| read.forward.iter().copied()).collect();
        let length = READ_BASES as u32;
        let job = |(number, &at): (u32, &usize)| ungapped::Job {
            first: number * length.div_ceil(64),
            length,
            position: at as u32,
        };
        let jobs: Vec<_> = (0..).zip(&at).map(job).collect();
        let scores = align::Scores::default();
        self.run("ungapped", amount, || queue.ungapped(&genome, &words, &jobs, &scores).map(drop))?;
        let mut hashes: Vec<u64> = (0..GENOME_BASES).map(|_| noise.next() >> 20).collect();
        let asked: Vec<u64> = at.iter().map(|&at| hashes[at]).collect();
        let seeds = seed_table(device, &mut hashes)?;
        self.run("lookup", amount, || queue.lookup(&seeds, &asked).map(drop))
    }
}

/// An index of these hashes.
fn seed_table(device: &dyn Device, hashes: &mut [u64]) -> Result<SeedTable, Error> {
    hashes.sort_unstable();
    let rest_bits = HASH_BITS - BUCKET_BITS;
    let entries: Arc<[u64]> =
        hashes.iter().map(|hash| (hash & ((1 << rest_bits) - 1)) << 33).collect();
    let begin = |bucket| hashes.partition_point(|hash| hash >> rest_bits < bucket) as u32;
    let buckets = (0..=1 << BUCKET_BITS).map(begin).collect();
    SeedTable::load(device, buckets, entries, (HASH_BITS, BUCKET_BITS))
}

/// Which device does a kernel, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The kernel.
    pub kernel: &'static str,
    /// The fastest device.
    pub device: &'static str,
    /// The rates that were compared.
    pub reason: String,
}

/// The fastest device of each kernel; of two that differ by less than a twentieth the one named first.
pub fn choose(figures: &[Figure]) -> Vec<Choice> {
    let mut kernels: Vec<&'static str> = Vec::new();
    for figure in figures.iter().filter(|figure| figure.kernel != "copy") {
        if !kernels.contains(&figure.kernel) {
            kernels.push(figure.kernel);
        }
    }
    let choice = |kernel| {
        let mut of_kernel = figures.iter().filter(|figure| figure.kernel == kernel);
        let first = of_kernel.next()?;
        let better = |best: &'_ &Figure, other: &Figure| other.rate > 1.05 * best.rate;
        let best =
            of_kernel.fold(first, |best, other| if better(&best, other) { other } else { best });
        let rates = figures.iter().filter(|figure| figure.kernel == kernel);
        let rates: Vec<String> = rates
            .map(|figure| format!("{} {:.2} {}", figure.device, figure.rate, figure.unit.name()))
            .collect();
        Some(Choice { kernel, device: best.device, reason: rates.join(", ") })
    };
    kernels.into_iter().filter_map(choice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(kernel: &'static str, device: &'static str, rate: f64) -> Figure {
        Figure { kernel, device, rate, unit: Unit::Gigabytes, runs: 2 }
    }

    #[test]
    fn the_fastest_is_chosen_and_a_tie_goes_to_the_first() {
        let figures = [
            figure("copy", "cpu", 20.0),
            figure("xor", "cpu", 10.0),
            figure("xor", "cuda", 10.2),
            figure("align", "cpu", 1.0),
            figure("align", "cuda", 9.0),
        ];
        let chosen = choose(&figures);
        let named: Vec<_> = chosen.iter().map(|choice| (choice.kernel, choice.device)).collect();
        assert_eq!(named, [("xor", "cpu"), ("align", "cuda")]);
        assert_eq!(chosen[0].reason, "cpu 10.00 GB/s, cuda 10.20 GB/s");
    }

    #[test]
    fn every_kernel_is_measured() {
        let effort = Effort { bytes: 4096, jobs: 20, time: Duration::ZERO };
        let cpu = crate::device::open("cpu").unwrap();
        let figures = measure(cpu.as_ref(), effort).unwrap();
        let kernels: Vec<_> = figures.iter().map(|figure| figure.kernel).collect();
        let all = "copy xor seal open split restore rebuild align pairhmm pack ungapped lookup";
        assert_eq!(kernels.join(" "), all);
        assert!(figures.iter().all(|figure| figure.rate > 0.0 && figure.runs >= 2));
    }
}
