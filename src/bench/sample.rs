//! A small diploid sample with known truth, made from one seed.
//!
//! The reference is random sequence with planted repeats and short tandem repeats; the donor differs
//! from it by SNPs and indels on one or both haplotypes; reads are pairs of 2x150 with the substitution
//! errors that their qualities promise. The same settings give the same bytes everywhere.

use std::io::Write;

use crate::genome::reference::{BASE_LETTERS, Contig};
use crate::genome::{Reference, Variant};

/// What to make.
#[derive(Clone, Debug)]
pub struct SampleSettings {
    /// Seed of everything.
    pub seed: u64,
    /// Lengths of the contigs, in bases.
    pub contigs: Vec<usize>,
    /// Mean depth of coverage.
    pub depth: f64,
    /// Bases of a read.
    pub read_bases: usize,
    /// Mean distance of the outer ends of a pair, in bases.
    pub insert_bases: f64,
    /// SNPs per base and haplotype pair.
    pub snp_rate: f64,
    /// Indels per base and haplotype pair.
    pub indel_rate: f64,
}

impl Default for SampleSettings {
    fn default() -> Self {
        Self {
            seed: 20,
            contigs: vec![300_000, 200_000],
            depth: 30.0,
            read_bases: 150,
            insert_bases: 400.0,
            snp_rate: 1e-3,
            indel_rate: 1.5e-4,
        }
    }
}

/// A sample: where its reads would come from, and what is true of it.
pub struct Sample {
    settings: SampleSettings,
    /// The reference genome.
    pub reference: Reference,
    /// The donor's variants against it, in order.
    pub truth: Vec<Variant>,
    haplotypes: [Vec<Vec<u8>>; 2],
}

impl Sample {
    /// Makes reference, donor and truth.
    pub fn new(settings: SampleSettings) -> Self {
        let mut random = Random::new(settings.seed);
        let contigs: Vec<Contig> = (1..)
            .zip(&settings.contigs)
            .map(|(number, &bases)| Contig {
                name: format!("sim{number}"),
                bases: sequence(bases, &mut random),
            })
            .collect();
        let mut truth = Vec::new();
        let mut haplotypes = [Vec::new(), Vec::new()];
        for (index, contig) in contigs.iter().enumerate() {
            let variants = mutate(index as u32, &contig.bases, &settings, &mut random);
            for (copy, haplotype) in haplotypes.iter_mut().enumerate() {
                haplotype.push(apply(&contig.bases, &variants, copy));
            }
            truth.extend(variants);
        }
        Self { settings, reference: Reference { contigs }, truth, haplotypes }
    }

    /// Writes the reference as FASTA.
    pub fn write_fasta(&self, mut out: impl Write) -> std::io::Result<()> {
        for contig in &self.reference.contigs {
            writeln!(out, ">{}", contig.name)?;
            for line in contig.bases.chunks(80) {
                let letters: Vec<u8> =
                    line.iter().map(|code| BASE_LETTERS[usize::from(*code)]).collect();
                out.write_all(&letters)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }

    /// Writes the two FASTQ files; gives the number of pairs.
    pub fn write_reads(
        &self,
        mut first: impl Write,
        mut second: impl Write,
    ) -> std::io::Result<u64> {
        let mut random = Random::new(self.settings.seed ^ 0x5eed_04ea_d500);
        let mut pairs = 0;
        for (contig, bases) in self.settings.contigs.iter().enumerate() {
            let wanted =
                *bases as f64 * self.settings.depth / (2 * self.settings.read_bases) as f64;
            for _ in 0..wanted as u64 {
                let haplotype = &self.haplotypes[random.below(2)][contig];
                let (left, right) = self.fragment(haplotype, &mut random);
                let turned = random.below(2) == 1;
                let (one, two) = if turned { (&right, &left) } else { (&left, &right) };
                self.write_read(&mut first, pairs, 1, one, &mut random)?;
                self.write_read(&mut second, pairs, 2, two, &mut random)?;
                pairs += 1;
            }
        }
        Ok(pairs)
    }

    /// The two ends of a random fragment, each as it is sequenced.
    fn fragment(&self, haplotype: &[u8], random: &mut Random) -> (Vec<u8>, Vec<u8>) {
        let read = self.settings.read_bases;
        let spread = self.settings.insert_bases * 0.12;
        let insert = self.settings.insert_bases + spread * random.normal();
        let insert = (insert as usize).clamp(read, haplotype.len());
        let start = random.below(haplotype.len() - insert + 1);
        let fragment = &haplotype[start..start + insert];
        let right = fragment[insert - read..].iter().rev().map(|code| 3 - code).collect();
        (fragment[..read].to_vec(), right)
    }

    fn write_read(
        &self,
        out: &mut impl Write,
        pair: u64,
        mate: u8,
        bases: &[u8],
        random: &mut Random,
    ) -> std::io::Result<()> {
        let mut letters = Vec::with_capacity(bases.len());
        let mut qualities = Vec::with_capacity(bases.len());
        for (cycle, code) in bases.iter().enumerate() {
            // Later cycles are worse, as on the machines.
            let late = cycle as f64 / bases.len() as f64;
            let quality = match random.unit() {
                x if x < 0.03 + 0.05 * late => 12,
                x if x < 0.10 + 0.15 * late => 23,
                _ => 37,
            };
            let wrong = random.unit() < 10f64.powf(-f64::from(quality) / 10.0);
            let code = if wrong { (code + 1 + random.below(3) as u8) % 4 } else { *code };
            letters.push(BASE_LETTERS[usize::from(code)]);
            qualities.push(b'!' + quality);
        }
        writeln!(out, "@sim:{pair} {mate}:N:0:1")?;
        out.write_all(&letters)?;
        out.write_all(b"\n+\n")?;
        out.write_all(&qualities)?;
        out.write_all(b"\n")
    }
}

/// Random sequence; one part in ten copies an earlier stretch, one in two hundred is a short repeat.
fn sequence(bases: usize, random: &mut Random) -> Vec<u8> {
    let mut sequence: Vec<u8> = Vec::with_capacity(bases);
    while sequence.len() < bases {
        let left = bases - sequence.len();
        match random.below(200) {
            0 => {
                let unit: Vec<u8> = (0..=random.below(4)).map(|_| random.base()).collect();
                let copies = 4 + random.below(12);
                let repeat = unit.iter().copied().cycle().take((unit.len() * copies).min(left));
                sequence.extend(repeat);
            }
            1 if sequence.len() > 5000 => {
                let length = (300 + random.below(700)).min(left);
                let from = random.below(sequence.len() - length);
                for at in from..from + length {
                    let changed = random.below(50) == 0;
                    sequence.push(if changed { random.base() } else { sequence[at] });
                }
            }
            _ => sequence.extend((0..100.min(left)).map(|_| random.base())),
        }
    }
    sequence
}

fn mutate(
    contig: u32,
    bases: &[u8],
    settings: &SampleSettings,
    random: &mut Random,
) -> Vec<Variant> {
    let mut variants = Vec::new();
    let mut at = 500;
    while at + 500 < bases.len() {
        let draw = random.unit();
        let alleles = if draw < settings.snp_rate {
            let alternate = (bases[at] + 1 + random.below(3) as u8) % 4;
            Some((bases[at..=at].to_vec(), vec![alternate]))
        } else if draw < settings.snp_rate + settings.indel_rate {
            indel(bases, at, random)
        } else {
            None
        };
        if let Some((reference, alternate)) = alleles {
            let length = reference.len();
            variants.push(variant(contig, at as u32, &reference, &alternate, random));
            // Far enough apart that every one keeps its own representation.
            at += length + 30;
        }
        at += 1;
    }
    variants
}

/// An insertion or deletion after the base at `at`, if it stands leftmost already.
fn indel(bases: &[u8], at: usize, random: &mut Random) -> Option<(Vec<u8>, Vec<u8>)> {
    let length = 1 + (random.unit().powi(3) * 20.0) as usize;
    let anchor = bases[at];
    if random.below(2) == 0 {
        let reference = bases[at..=at + length].to_vec();
        (reference[length] != anchor).then(|| (reference, vec![anchor]))
    } else {
        let inserted: Vec<u8> = (0..length).map(|_| random.base()).collect();
        let alternate = [&[anchor], &inserted[..]].concat();
        (inserted[length - 1] != anchor).then(|| (vec![anchor], alternate))
    }
}

fn variant(
    contig: u32,
    position: u32,
    reference: &[u8],
    alternate: &[u8],
    random: &mut Random,
) -> Variant {
    let letters =
        |codes: &[u8]| codes.iter().map(|code| BASE_LETTERS[usize::from(*code)]).collect();
    let genotype = match random.below(10) {
        0..4 => vec![1, 1],
        4..7 => vec![0, 1],
        _ => vec![1, 0],
    };
    Variant {
        contig,
        position,
        reference: letters(reference),
        alternates: vec![letters(alternate)],
        quality: 100.0,
        filters: Vec::new(),
        genotype,
        phase_set: None,
        depth: 0,
        allele_depths: Vec::new(),
        genotype_quality: 99,
        likelihoods: Vec::new(),
        information: String::new(),
    }
}

fn apply(bases: &[u8], variants: &[Variant], copy: usize) -> Vec<u8> {
    let code = |letter: &u8| crate::genome::reference::base_code(*letter);
    let mut haplotype = Vec::with_capacity(bases.len());
    let mut done = 0;
    for variant in variants.iter().filter(|variant| variant.genotype[copy] == 1) {
        haplotype.extend_from_slice(&bases[done..variant.position as usize]);
        haplotype.extend(variant.alternates[0].iter().map(code));
        done = variant.position as usize + variant.reference.len();
    }
    haplotype.extend_from_slice(&bases[done..]);
    haplotype
}

/// A small deterministic generator (xorshift64*, Vigna 2016): for samples, never for secrets.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn base(&mut self) -> u8 {
        self.below(4) as u8
    }

    /// About a standard normal: the sum of twelve uniform numbers.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Sample {
        let contigs = vec![20_000];
        Sample::new(SampleSettings { contigs, indel_rate: 2e-3, ..SampleSettings::default() })
    }

    #[test]
    fn one_seed_gives_the_same_bytes() {
        let bytes = || {
            let (mut fasta, mut first, mut second) = (Vec::new(), Vec::new(), Vec::new());
            small().write_fasta(&mut fasta).unwrap();
            small().write_reads(&mut first, &mut second).unwrap();
            (fasta, first, second)
        };
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn the_truth_is_about_the_reference_and_leftmost() {
        let sample = small();
        assert!(sample.truth.len() > 20);
        for variant in &sample.truth {
            let start = variant.position as usize;
            let bases = &sample.reference.contigs[0].bases[start..start + variant.reference.len()];
            let letters: Vec<u8> = bases.iter().map(|c| BASE_LETTERS[usize::from(*c)]).collect();
            assert_eq!(letters, variant.reference);
            let alternate = &variant.alternates[0];
            if alternate.len() != variant.reference.len() {
                assert_ne!(alternate.last(), variant.reference.last(), "{variant:?}");
            }
        }
    }

    #[test]
    fn haplotypes_differ_from_the_reference_by_the_truth() {
        let sample = small();
        for copy in 0..2 {
            let change: i64 = sample
                .truth
                .iter()
                .filter(|variant| variant.genotype[copy] == 1)
                .map(|variant| variant.alternates[0].len() as i64 - variant.reference.len() as i64)
                .sum();
            assert_eq!(sample.haplotypes[copy][0].len() as i64, 20_000 + change);
        }
    }
}
