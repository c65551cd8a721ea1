//! What a call says about the sample's quality: reads, alignments, coverage and variants in figures.

use serde::{Deserialize, Serialize};

use crate::genome::{Reference, Regions, Variant};

/// Coverage and template lengths beyond this are counted as this.
const COUNTED_MAX: usize = 10_000;

/// Quality of a call. Whole numbers are counts, and the same for any number of threads.
///
/// What depends on places (mapped bases, mismatches, duplicates, coverage) is about the regions
/// that were called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// All reads.
    #[serde(flatten)]
    pub total: ReadMetrics,
    /// The reads of each read group, in order of the request.
    pub groups: Vec<GroupMetrics>,
    /// Depth over the bases that were called: mates count once where they overlap, duplicates not.
    pub depth: Spread,
    /// Parts of the bases that at least 1, 10, 20 and 30 templates cover.
    pub covered: [f64; 4],
    /// The variants.
    pub variants: VariantMetrics,
    /// Depth of each contig, in order of the reference.
    #[serde(skip)]
    pub contigs: Vec<Depth>,
}

/// The reads of one read group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupMetrics {
    /// `ID` of the read group.
    pub id: String,
    /// `LB`: duplicates are looked for within a library.
    pub library: String,
    /// Its reads.
    #[serde(flatten)]
    pub reads: ReadMetrics,
}

/// Counts of reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReadMetrics {
    /// Reads of first mates and single reads, then of second mates.
    pub mates: [MateMetrics; 2],
    /// Reads of templates with two reads.
    pub paired: u64,
    /// Mapped reads whose mate is mapped as well.
    pub both_mapped: u64,
    /// Mapped reads whose mate is not.
    pub singletons: u64,
    /// Reads of pairs that lie as expected.
    pub properly_paired: u64,
    /// Mapped reads whose mate lies on another contig.
    pub mate_elsewhere: u64,
    /// The same of MAPQ 10 and more.
    pub mate_elsewhere_confident: u64,
    /// Mapped reads by MAPQ: below 10, 20, 30, 40, and of 40 and more.
    pub mapping_quality: [u64; 5],
    /// Reads marked as duplicates.
    pub duplicates: u64,
    /// Lengths of properly paired templates.
    pub insert: Spread,
    #[serde(skip)]
    insert_sizes: Counts,
}

impl ReadMetrics {
    /// Reads of both mates together.
    pub fn both(&self) -> MateMetrics {
        let mut both = self.mates[0];
        both.merge(&self.mates[1]);
        both
    }

    /// Counts a properly paired template's length.
    pub fn add_template(&mut self, length: u32) {
        self.insert_sizes.add(length as usize, 1);
    }

    /// Adds the counts of other reads.
    pub fn merge(&mut self, other: &Self) {
        self.mates.iter_mut().zip(&other.mates).for_each(|(mate, other)| mate.merge(other));
        self.paired += other.paired;
        self.both_mapped += other.both_mapped;
        self.singletons += other.singletons;
        self.properly_paired += other.properly_paired;
        self.mate_elsewhere += other.mate_elsewhere;
        self.mate_elsewhere_confident += other.mate_elsewhere_confident;
        let qualities = self.mapping_quality.iter_mut().zip(other.mapping_quality);
        qualities.for_each(|(count, other)| *count += other);
        self.duplicates += other.duplicates;
        self.insert_sizes.merge(&other.insert_sizes);
    }

    fn finish(&mut self) {
        self.insert = self.insert_sizes.spread();
    }
}

/// First or second mates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MateMetrics {
    /// Reads.
    pub reads: u64,
    /// Bases of all reads, without adapters.
    pub bases: u64,
    /// Reads that adapters were cut off.
    pub adapter_reads: u64,
    /// Bases of these adapters.
    pub adapter_bases: u64,
    /// Bases of quality 30 and more.
    pub q30_bases: u64,
    /// Reads placed on the reference.
    pub mapped: u64,
    /// Mapped reads with a gap.
    pub gapped: u64,
    /// Bases aligned with a base of the reference.
    pub aligned_bases: u64,
    /// Bases of mapped reads that are clipped.
    pub clipped_bases: u64,
    /// Aligned bases that differ from the reference.
    pub mismatched_bases: u64,
}

impl MateMetrics {
    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        self.reads += other.reads;
        self.bases += other.bases;
        self.adapter_reads += other.adapter_reads;
        self.adapter_bases += other.adapter_bases;
        self.q30_bases += other.q30_bases;
        self.mapped += other.mapped;
        self.gapped += other.gapped;
        self.aligned_bases += other.aligned_bases;
        self.clipped_bases += other.clipped_bases;
        self.mismatched_bases += other.mismatched_bases;
    }
}

/// Middle and spread of something that was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Median; the lower of two.
    pub median: u64,
    /// Standard deviation.
    pub deviation: f64,
}

/// How often each number occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(Vec<u64>);

impl Counts {
    /// Counts `times` occurrences of a number.
    pub fn add(&mut self, number: usize, times: u64) {
        let number = number.min(COUNTED_MAX);
        if number >= self.0.len() {
            self.0.resize(number + 1, 0);
        }
        self.0[number] += times;
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(count, other)| *count += other);
    }

    /// Occurrences of 0, 1, 2 and so on.
    pub fn each(&self) -> &[u64] {
        &self.0
    }

    /// Occurrences of anything.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The part of the occurrences that is at least `number`; 0 without any.
    pub fn at_least(&self, number: usize) -> f64 {
        let above: u64 = self.0.iter().skip(number).sum();
        above as f64 / self.total().max(1) as f64
    }

    /// Middle and spread; zeros without any occurrence.
    pub fn spread(&self) -> Spread {
        let total = self.total();
        if total == 0 {
            return Spread::default();
        }
        let weighted = || self.0.iter().enumerate().map(|(number, &times)| (number, times as f64));
        let mean = weighted().map(|(number, times)| number as f64 * times).sum::<f64>();
        let mean = mean / total as f64;
        let apart = |(number, times): (usize, f64)| times * (number as f64 - mean).powi(2);
        let deviation = (weighted().map(apart).sum::<f64>() / total as f64).sqrt();
        let mut seen = 0;
        let reaches_half = |&times: &u64| {
            seen += times;
            seen * 2 >= total
        };
        let median = self.0.iter().position(reaches_half).unwrap_or(0) as u64;
        Spread { mean, median, deviation }
    }
}

/// Depth over one contig.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Name of the contig.
    pub name: String,
    /// Bases that were called.
    pub length: u64,
    /// Sum of the depths.
    pub bases: u64,
    /// Least depth.
    pub minimum: u64,
    /// Largest depth.
    pub maximum: u64,
    /// Bases of each depth.
    pub counts: Counts,
}

/// The variants that passed, by kind. An allele pair of two kinds counts as an insertion or a
/// deletion by its first allele that is not the reference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VariantMetrics {
    /// Records that passed.
    pub passed: u64,
    /// Records that failed a filter.
    pub failed: u64,
    /// Passed records with more than one ALT.
    pub multiallelic: u64,
    /// Substitutions, of several bases too.
    pub substitutions: u64,
    /// Insertions with two equal alleles, then with different ones.
    pub insertions: [u64; 2],
    /// Deletions with two equal alleles, then with different ones.
    pub deletions: [u64; 2],
    /// Substitutions of one base by its chemical like: A and G, C and T.
    pub transitions: u64,
    /// Other substitutions of one base.
    pub transversions: u64,
    /// Records with two different alleles.
    pub heterozygous: u64,
    /// Records with alleles that are all the same.
    pub homozygous: u64,
}

impl VariantMetrics {
    /// Counts a record.
    pub fn add(&mut self, variant: &Variant) {
        if !variant.filters.is_empty() {
            self.failed += 1;
            return;
        }
        self.passed += 1;
        self.multiallelic += u64::from(variant.alternates.len() > 1);
        let mixed = variant.genotype.windows(2).any(|pair| pair[0] != pair[1]);
        self.heterozygous += u64::from(mixed);
        self.homozygous += u64::from(!mixed);
        let called = variant.genotype.iter().find(|&&allele| allele > 0).copied().unwrap_or(1);
        let Some(alternate) = variant.alternates.get(usize::from(called) - 1) else { return };
        let (from, to) = (&variant.reference[..], &alternate[..]);
        match to.len().cmp(&from.len()) {
            std::cmp::Ordering::Greater => self.insertions[usize::from(mixed)] += 1,
            std::cmp::Ordering::Less => self.deletions[usize::from(mixed)] += 1,
            std::cmp::Ordering::Equal => {
                self.substitutions += 1;
                if let (&[from], &[to]) = (from, to) {
                    let like = [(b'A', b'G'), (b'G', b'A'), (b'C', b'T'), (b'T', b'C')];
                    let like = like.contains(&(from, to));
                    self.transitions += u64::from(like);
                    self.transversions += u64::from(!like);
                }
            }
        }
    }
}

/// What one region adds: its depth, and the alignments that begin there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionMetrics {
    /// Index of the contig.
    pub contig: usize,
    /// Of each read group: aligned, clipped and mismatched bases, and duplicates.
    pub groups: Vec<ReadMetrics>,
    /// Sum of the depths.
    pub bases: u64,
    /// Bases of each depth.
    pub counts: Counts,
    /// Least and largest depth.
    pub bounds: (u64, u64),
}

impl Metrics {
    /// Nothing counted yet, of these read groups: `ID` and `LB` of each.
    pub fn new<'a>(groups: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let group = |(id, library): (&str, &str)| GroupMetrics {
            id: id.into(),
            library: library.into(),
            reads: ReadMetrics::default(),
        };
        Self { groups: groups.into_iter().map(group).collect(), ..Self::default() }
    }

    /// Adds counts of reads of one read group.
    pub fn merge(&mut self, group: usize, reads: &ReadMetrics) {
        self.total.merge(reads);
        if let Some(group) = self.groups.get_mut(group) {
            group.reads.merge(reads);
        }
    }

    /// Adds what a region gave.
    pub fn merge_region(&mut self, region: &RegionMetrics) {
        region.groups.iter().enumerate().for_each(|(group, reads)| self.merge(group, reads));
        if self.contigs.len() <= region.contig {
            self.contigs.resize(region.contig + 1, Depth::default());
        }
        let depth = &mut self.contigs[region.contig];
        let (least, most) = region.bounds;
        depth.minimum = if depth.counts.total() == 0 { least } else { depth.minimum.min(least) };
        depth.maximum = depth.maximum.max(most);
        depth.bases += region.bases;
        depth.counts.merge(&region.counts);
    }

    /// Ends the counting: contigs get their names, and what no read is near its depth of 0.
    pub fn finish(&mut self, reference: &Reference, regions: Option<&Regions>) {
        self.contigs.resize(reference.contigs.len(), Depth::default());
        let mut all = Counts::default();
        for (depth, contig) in self.contigs.iter_mut().zip(&reference.contigs) {
            let length = contig.bases.len() as u64;
            let inside = |&(start, end): &(u32, u32)| {
                u64::from(end).min(length).saturating_sub(u64::from(start))
            };
            depth.name.clone_from(&contig.name);
            depth.length =
                regions.map_or(length, |regions| regions.on(&contig.name).iter().map(inside).sum());
            let untouched = depth.length.saturating_sub(depth.counts.total());
            if untouched > 0 {
                depth.counts.add(0, untouched);
                depth.minimum = 0;
            }
            all.merge(&depth.counts);
        }
        self.depth = all.spread();
        self.covered = [1, 10, 20, 30].map(|depth| all.at_least(depth));
        self.total.finish();
        self.groups.iter_mut().for_each(|group| group.reads.finish());
    }

    /// Depth over all contigs.
    pub fn total_depth(&self) -> Depth {
        let mut total = Depth { name: "total".into(), ..Depth::default() };
        total.minimum = self.contigs.iter().map(|contig| contig.minimum).min().unwrap_or(0);
        for contig in &self.contigs {
            total.length += contig.length;
            total.bases += contig.bases;
            total.maximum = total.maximum.max(contig.maximum);
            total.counts.merge(&contig.counts);
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genome::reference::Contig;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_spread_is_that_of_the_plain_list(list in proptest::collection::vec(0usize..50, 1..40)) {
            let mut counts = Counts::default();
            list.iter().for_each(|&number| counts.add(number, 1));
            let spread = counts.spread();
            let mut sorted = list.clone();
            sorted.sort_unstable();
            prop_assert_eq!(spread.median as usize, sorted[(list.len() - 1) / 2]);
            let mean = list.iter().sum::<usize>() as f64 / list.len() as f64;
            prop_assert!((spread.mean - mean).abs() < 1e-9);
            let above = list.iter().filter(|&&number| number >= 10).count() as f64;
            prop_assert!((counts.at_least(10) - above / list.len() as f64).abs() < 1e-9);
        }
    }

    #[test]
    fn bases_without_reads_have_depth_0() {
        let contig = |name: &str| Contig { name: name.into(), bases: vec![0; 100] };
        let reference = Reference { contigs: vec![contig("a"), contig("b")] };
        let mut region =
            RegionMetrics { contig: 1, bases: 150, bounds: (1, 2), ..Default::default() };
        region.counts.add(1, 50);
        region.counts.add(2, 50);
        let mut metrics = Metrics::default();
        metrics.merge_region(&region);
        metrics.finish(&reference, None);
        assert_eq!((metrics.contigs[0].minimum, metrics.contigs[1].minimum), (0, 1));
        assert_eq!(metrics.covered, [0.5, 0.0, 0.0, 0.0]);
        let total = metrics.total_depth();
        assert_eq!((total.length, total.bases, total.minimum, total.maximum), (200, 150, 0, 2));
        let half = crate::genome::Region { contig: "b".into(), start: 0, end: 100 };
        let mut inside = Metrics::default();
        inside.merge_region(&region);
        inside.finish(&reference, Some(&[half].into_iter().collect()));
        assert_eq!(inside.covered[0], 1.0);
        assert_eq!(inside.depth.mean, 1.5);
    }

    #[test]
    fn variants_are_counted_by_kind() {
        let variant = |from: &str, to: &[&str], genotype: &[u8]| Variant {
            contig: 0,
            position: 0,
            reference: from.into(),
            alternates: to.iter().map(|letters| letters.as_bytes().to_vec()).collect(),
            quality: 50.0,
            filters: Vec::new(),
            genotype: genotype.to_vec(),
            phase_set: None,
            depth: 30,
            allele_depths: Vec::new(),
            genotype_quality: 50,
            likelihoods: Vec::new(),
            information: String::new(),
        };
        let mut counted = VariantMetrics::default();
        for (from, to, genotype) in [
            ("A", &["G"][..], &[0, 1][..]),
            ("A", &["C"], &[1, 1]),
            ("AC", &["GT"], &[0, 1]),
            ("A", &["AC"], &[1, 1]),
            ("A", &["AC", "AT"], &[1, 2]),
            ("ACG", &["A"], &[0, 1]),
            ("T", &["C"], &[1]),
        ] {
            counted.add(&variant(from, to, genotype));
        }
        counted.add(&Variant { filters: vec!["LowQual"], ..variant("A", &["G"], &[0, 1]) });
        let expected = VariantMetrics {
            passed: 7,
            failed: 1,
            multiallelic: 1,
            substitutions: 4,
            insertions: [1, 1],
            deletions: [0, 1],
            transitions: 2,
            transversions: 1,
            heterozygous: 4,
            homozygous: 3,
        };
        assert_eq!(counted, expected);
    }
}
