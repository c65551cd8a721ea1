//! Read-haplotype penalties on one core: `pairhmm FILE` writes the reads and haplotypes to the file, for
//! `pairhmm.sh` to give to another program, and measures dsgd on the same pairs.

use std::error::Error;
use std::fmt::Write;
use std::hint::black_box;

use dsgd::device::cpu::pairhmm::{Lanes, pairhmm};
use dsgd::kernel::pairhmm::{BasePenalties, Batch, HaplotypePart, Job, LIMIT_MAX, ReadPart};
use dsgd_peers::{Contender, Noise, compare, letters};

const HAPLOTYPES: usize = 10;
const READS: usize = 200;
const HAPLOTYPE_BASES: usize = 300;
const BAND: i32 = 32;
const TURNS: usize = 30;

/// A read, its qualities, and the haplotype base that it begins on.
type Read = (Vec<u8>, Vec<u8>, usize);

fn reads(haplotypes: &[Vec<u8>], length: usize, noise: &mut Noise) -> Vec<Read> {
    let read = |at: usize| {
        let begin = noise.below(HAPLOTYPE_BASES - length - 8);
        let (read, _) = noise.read(&haplotypes[at % HAPLOTYPES][begin..], length);
        let qualities = (0..length).map(|_| [12, 25, 37, 37][noise.below(4)]).collect();
        (read, qualities, begin)
    };
    (0..READS).map(read).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut noise = Noise(0x5eed_0001);
    let reference = noise.codes(HAPLOTYPE_BASES);
    let haplotypes: Vec<Vec<u8>> = (0..HAPLOTYPES)
        .map(|_| {
            let mut haplotype = reference.clone();
            for _ in 0..3 {
                haplotype[noise.below(HAPLOTYPE_BASES)] = noise.below(4) as u8;
            }
            haplotype
        })
        .collect();
    let (open, extend) = (vec![45 * 32; HAPLOTYPE_BASES], vec![10 * 32; HAPLOTYPE_BASES]);
    let parts: Vec<_> = haplotypes
        .iter()
        .map(|bases| HaplotypePart { bases, gap_open: &open, gap_extend: &extend })
        .collect();
    let mut text = String::new();
    for haplotype in &haplotypes {
        writeln!(text, "H {}", String::from_utf8(letters(haplotype))?)?;
    }
    println!("| form | ns a pair | cells a pair | GCUPS of these |\n| --- | ---: | ---: | ---: |");
    for length in [100, 150, 250] {
        let reads = reads(&haplotypes, length, &mut noise);
        for (read, qualities, _) in &reads {
            let qualities: String = qualities.iter().map(|&one| char::from(one + 33)).collect();
            writeln!(text, "R {} {qualities}", String::from_utf8(letters(read))?)?;
        }
        let read_parts: Vec<_> =
            reads.iter().map(|(bases, qualities, _)| ReadPart { bases, qualities }).collect();
        let job = |at: usize| {
            let (read, first) = (at / HAPLOTYPES, reads[at / HAPLOTYPES].2 as i32 - BAND / 2);
            let diagonals = (first, first + BAND - 1);
            Job { read, haplotype: at % HAPLOTYPES, diagonals, limit: LIMIT_MAX }
        };
        let jobs: Vec<Job> = (0..READS * HAPLOTYPES).map(job).collect();
        let penalties = &BasePenalties::default();
        let batch = Batch { reads: &read_parts, haplotypes: &parts, jobs: &jobs, penalties };
        let mut lanes = Lanes::default();
        let name = match length {
            100 => "dsgd, reads of 100",
            150 => "dsgd, reads of 150",
            _ => "dsgd, reads of 250",
        };
        let work = || drop(black_box(pairhmm(&batch, &mut lanes)));
        let cells = (length * BAND as usize) as f64;
        compare(vec![Contender::new(name, Some(cells), work)], jobs.len(), TURNS);
    }
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(path, text)?;
    }
    Ok(())
}
