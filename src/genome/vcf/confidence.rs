//! Reference blocks of a gVCF: stretches where the sample is as the reference, and how sure that is.

use std::io::{self, Write};

use super::{Declaration, Error, VcfHeader, VcfSummary, VcfWriter, declare};
use crate::genome::reference::{BASE_LETTERS, Reference};
use crate::genome::variant::Variant;

/// The allele that stands for whatever differs from the listed ones.
pub const NON_REFERENCE: &str = "<NON_REF>";

/// Phred penalty of a template that comes from either of two alleles, for one that shows the first.
const HALF: u32 = 3;
/// Largest PL that is written.
const LIKELIHOOD_MAX: u32 = 9999;
/// Largest GQ of a block.
const GENOTYPE_QUALITY_MAX: u32 = 99;

pub(super) const BLOCK_FORMAT: Declaration =
    declare("MIN_DP", "1", "Integer", "Least depth within the block");
pub(super) const BLOCK_INFORMATION: Declaration =
    declare("END", "1", "Integer", "Last base of the block");
pub(super) const BLOCK_LINES: &str =
    "##ALT=<ID=NON_REF,Description=\"Any allele that is not listed\">\n";

/// Neighbouring bases of one confidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Contig index in the reference.
    pub contig: u32,
    /// First base, 0-based.
    pub start: u32,
    /// One past the last.
    pub end: u32,
    /// Copies: 1 or 2.
    pub ploidy: u8,
    /// Least depth of a base.
    pub depth_min: u32,
    /// Depths of all bases together.
    pub depth_sum: u64,
    /// Least GQ of a base.
    pub quality: u32,
    /// Least PL of each genotype of the reference and another allele; of one copy the first two.
    pub likelihoods: [u32; 3],
}

impl Block {
    /// The block of one base, from the penalties in Phred of its genotypes in VCF order; the last
    /// is not looked at where `ploidy` is 1.
    pub fn of_base(contig: u32, at: u32, ploidy: u8, depth: u32, penalties: [u32; 3]) -> Self {
        let genotypes = usize::from(ploidy) + 1;
        let others = penalties[1..genotypes].iter().copied().min().unwrap_or(0);
        let least = others.min(penalties[0]);
        Self {
            contig,
            start: at,
            end: at + 1,
            ploidy,
            depth_min: depth,
            depth_sum: u64::from(depth),
            quality: others.saturating_sub(penalties[0]).min(GENOTYPE_QUALITY_MAX),
            likelihoods: penalties.map(|penalty| (penalty.max(least) - least).min(LIKELIHOOD_MAX)),
        }
    }

    /// Takes in `next`, if it follows and is as sure.
    pub fn join(&mut self, next: &Self) -> bool {
        let follows = self.contig == next.contig
            && self.end == next.start
            && self.ploidy == next.ploidy
            && band(self.quality) == band(next.quality);
        if follows {
            self.end = next.end;
            self.depth_min = self.depth_min.min(next.depth_min);
            self.depth_sum += next.depth_sum;
            self.quality = self.quality.min(next.quality);
            for (ours, theirs) in self.likelihoods.iter_mut().zip(next.likelihoods) {
                *ours = theirs.min(*ours);
            }
        }
        follows
    }

    fn write_line(&self, out: &mut Vec<u8>, contig: &str, letter: u8) -> io::Result<()> {
        let bases = u64::from(self.end - self.start);
        let depth = (self.depth_sum + bases / 2) / bases;
        let genotype = match (self.depth_sum, self.ploidy) {
            (0, 1) => ".",
            (0, _) => "./.",
            (_, 1) => "0",
            _ => "0/0",
        };
        let Self { start, end, quality, depth_min, likelihoods: [own, other, last], .. } = self;
        write!(
            out,
            "{contig}\t{}\t.\t{}\t{NON_REFERENCE}\t.\t.\tEND={end}",
            start + 1,
            letter as char
        )?;
        write!(
            out,
            "\tGT:DP:GQ:MIN_DP:PL\t{genotype}:{depth}:{quality}:{depth_min}:{own},{other}"
        )?;
        if self.ploidy > 1 {
            write!(out, ",{last}")?;
        }
        out.push(b'\n');
        Ok(())
    }
}

/// The lower bound of the band of a GQ: every value up to 60, then 70, 80, 90 and 99, as GATK's
/// HaplotypeCaller has them.
fn band(quality: u32) -> u32 {
    match quality {
        0..60 => quality,
        60..90 => quality / 10 * 10,
        90..99 => 90,
        _ => 99,
    }
}

/// Writes a gVCF: variants as they are, with one more allele for all others, and blocks between.
pub struct BlockWriter<W: Write> {
    writer: VcfWriter<W>,
    /// The last block, while it may grow.
    open: Option<Block>,
    /// Contig and end of the bases that variants cover.
    covered: (u32, u32),
}

impl<W: Write> BlockWriter<W> {
    /// Writes the header, with what blocks need added. `level` is that of the VCF's writer.
    pub fn new(inner: W, header: VcfHeader, level: u8) -> Result<Self, Error> {
        let writer = VcfWriter::new(inner, header.with_blocks(), level)?;
        Ok(Self { writer, open: None, covered: (0, 0) })
    }

    /// Writes a variant. Variants and blocks come in the order of contig and position.
    pub fn variant(&mut self, variant: &Variant, reference: &Reference) -> Result<(), Error> {
        self.close(reference)?;
        let end = variant.position + variant.reference.len() as u32;
        self.covered = self.covered.max((variant.contig, end));
        self.writer.write(&with_others(variant), reference)
    }

    /// Writes a block, less what variants before it cover, and together with those that it joins.
    pub fn block(&mut self, mut block: Block, reference: &Reference) -> Result<(), Error> {
        if block.contig == self.covered.0 {
            block.start = block.start.max(self.covered.1);
        }
        if block.start >= block.end || self.open.as_mut().is_some_and(|open| open.join(&block)) {
            return Ok(());
        }
        self.close(reference)?;
        self.open = Some(block);
        Ok(())
    }

    fn close(&mut self, reference: &Reference) -> Result<(), Error> {
        self.open.take().map_or(Ok(()), |block| self.writer.write_block(&block, reference))
    }

    /// Writes what is left and gives the counts and the index.
    pub fn finish(mut self, reference: &Reference) -> Result<VcfSummary, Error> {
        self.close(reference)?;
        self.writer.finish()
    }
}

impl<W: Write> VcfWriter<W> {
    fn write_block(&mut self, block: &Block, reference: &Reference) -> Result<(), Error> {
        let place = (block.contig, block.start);
        self.write_record(place, block.end, reference, |line, name| {
            let contig = &reference.contigs[block.contig as usize];
            let code = contig.bases.get(block.start as usize).copied().unwrap_or(4);
            block.write_line(line, name, BASE_LETTERS[usize::from(code.min(4))])
        })
    }
}

/// The variant with the allele for all others: no template shows it, so a genotype with it costs a
/// half for each template more than one of its other allele alone.
fn with_others(variant: &Variant) -> Variant {
    let mut variant = variant.clone();
    let alleles = variant.alternates.len() + 1;
    let half = HALF * variant.depth;
    let diploid = variant.likelihoods.len() == alleles * (alleles + 1) / 2;
    let homozygous = |allele: usize| {
        let index = if diploid { allele * (allele + 3) / 2 } else { allele };
        variant.likelihoods.get(index).copied().unwrap_or(0)
    };
    let own: Vec<u32> = (0..alleles).map(homozygous).collect();
    let worst = own.iter().copied().max().unwrap_or(0);
    if !variant.likelihoods.is_empty() {
        let mixed = own.iter().filter(|_| diploid);
        let added: Vec<u32> = mixed
            .chain([&worst])
            .map(|penalty| penalty.saturating_add(half).min(LIKELIHOOD_MAX))
            .collect();
        variant.likelihoods.extend(added);
    }
    if !variant.allele_depths.is_empty() {
        variant.allele_depths.push(0);
    }
    variant.alternates.push(NON_REFERENCE.as_bytes().to_vec());
    variant
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::genome::inflate::InflateReader;
    use crate::genome::reference::Contig;

    fn base(at: u32, ploidy: u8, depth: u32) -> Block {
        Block::of_base(0, at, ploidy, depth, [0, 3 * depth, 30 * depth])
    }

    #[test]
    fn blocks_join_within_a_band_in_any_grouping() {
        assert_eq!(
            [band(0), band(59), band(60), band(69), band(98), band(99)],
            [0, 59, 60, 60, 90, 99]
        );
        let depths = [21, 22, 23, 21, 24, 25, 0];
        let joined = |parts: &[Block]| {
            let mut all: Vec<Block> = Vec::new();
            for part in parts {
                if !all.last_mut().is_some_and(|last| last.join(part)) {
                    all.push(part.clone());
                }
            }
            all
        };
        let single: Vec<Block> = (0..).zip(depths).map(|(at, depth)| base(at, 2, depth)).collect();
        let whole = joined(&single);
        let ends: Vec<u32> = whole.iter().map(|block| block.end).collect();
        assert_eq!(ends, [4, 6, 7]);
        assert_eq!((whole[0].depth_min, whole[0].quality, whole[0].depth_sum), (21, 63, 87));
        let grouped = [joined(&single[..2]), joined(&single[2..])].concat();
        assert_eq!(joined(&grouped), whole);
    }

    #[test]
    fn a_gvcf_covers_every_base_once() {
        let bases = vec![1; 100];
        let reference = Reference { contigs: vec![Contig { name: "c".into(), bases }] };
        let variant = Variant {
            contig: 0,
            position: 10,
            reference: b"CCC".to_vec(),
            alternates: vec![b"C".to_vec()],
            quality: 60.0,
            filters: vec![],
            genotype: vec![0, 1],
            phase_set: None,
            depth: 20,
            allele_depths: vec![10, 10],
            genotype_quality: 60,
            likelihoods: vec![200, 0, 300],
            information: String::new(),
        };
        let mut text = String::new();
        let mut file = Vec::new();
        let header = VcfHeader::new("s", &reference);
        let mut writer = BlockWriter::new(&mut file, header, 1).unwrap();
        for at in 0..10 {
            writer.block(base(at, 2, 20), &reference).unwrap();
        }
        writer.variant(&variant, &reference).unwrap();
        for at in 11..100 {
            let ploidy = if at < 50 { 2 } else { 1 };
            writer.block(base(at, ploidy, if at < 90 { 20 } else { 0 }), &reference).unwrap();
        }
        let summary = writer.finish(&reference).unwrap();
        assert_eq!(summary.records, 5);
        InflateReader::new(&file[..], "x").read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let format = "GT:DP:GQ:MIN_DP:PL";
        let block = |at: u32, end: u32, rest: &str| {
            format!("c\t{at}\t.\tC\t<NON_REF>\t.\t.\tEND={end}\t{format}\t{rest}")
        };
        assert_eq!(lines[0], block(1, 10, "0/0:20:60:20:0,60,600"));
        let called = "0/1:20:10,10,0:60:200,0,300,260,360,360";
        assert_eq!(
            lines[1],
            format!("c\t11\t.\tCCC\tC,<NON_REF>\t60\tPASS\tDP=20\tGT:DP:AD:GQ:PL\t{called}")
        );
        assert_eq!(lines[2], block(14, 50, "0/0:20:60:20:0,60,600"));
        assert_eq!(lines[3], block(51, 90, "0:20:60:20:0,60"));
        assert_eq!(lines[4], block(91, 100, ".:0:0:0:0,0"));
        for line in ["##ALT=<ID=NON_REF,", "##INFO=<ID=END,", "##FORMAT=<ID=MIN_DP,"] {
            assert!(text.contains(line), "{line}");
        }
    }
}
