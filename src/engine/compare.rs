//! Comparison of a call set with a truth set by the haplotypes that they spell.
//!
//! Two call sets can write the same genome differently: an MNP or its SNPs, an indel at either
//! end of a repeat. So records are not compared but the sequences they make. A sweep along each
//! contig keeps every way to choose records of both sets, and to put heterozygous ones on the two
//! haplotypes, for which both sets still spell the same pair of haplotypes; the way with the most
//! records wins. Records in it are true positives, the others false.
//! Source: Cleary et al. 2015, "Comparing variant call files for performance benchmarking"
//! (the dynamic programming of RTG vcfeval).

mod calibration;
#[cfg(test)]
mod peer;
mod phase;
mod sweep;

use serde::Serialize;

use super::metrics::VariantMetrics;
use crate::genome::{Reference, Regions, Variant};
pub use calibration::{Bin, Calibration};
pub use phase::Phase;
use sweep::Sweep;

/// Counts of one class of variants and what follows from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Score {
    /// Truth records found.
    pub found: u64,
    /// Truth records missed.
    pub missed: u64,
    /// Called records that are true.
    pub true_calls: u64,
    /// Called records that are false.
    pub false_calls: u64,
    /// Missed truth records whose allele was called, with another genotype.
    pub genotype_errors: u64,
    /// False calls at a missed truth record, with none of its alleles.
    pub allele_errors: u64,
    /// Calls outside of the regions, which nothing is known about.
    pub unknown: u64,
    /// Truth records by kind.
    pub truth_kinds: VariantMetrics,
    /// Calls in and outside of the regions by kind.
    pub call_kinds: VariantMetrics,
    /// True calls of all calls, 0 to 1; 1 without any call.
    pub precision: f64,
    /// Found records of all truth records, 0 to 1; 1 without any.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
}

impl Score {
    /// Whether neither truth nor calls have such records in the regions.
    pub fn is_empty(&self) -> bool {
        self.found + self.missed + self.true_calls + self.false_calls == 0
    }

    fn finish(&mut self) {
        let share = |part: u64, rest: u64| {
            if part + rest == 0 { 1.0 } else { part as f64 / (part + rest) as f64 }
        };
        self.precision = share(self.true_calls, self.false_calls);
        self.recall = share(self.found, self.missed);
        let sum = self.precision + self.recall;
        self.f1 = if sum > 0.0 { 2.0 * self.precision * self.recall / sum } else { 0.0 };
    }

    fn count(&mut self, record: &Record<'_>, matched: bool, error: Option<ErrorKind>) {
        let kinds = if record.from_truth { &mut self.truth_kinds } else { &mut self.call_kinds };
        if record.counted || !record.from_truth {
            kinds.add(record.variant);
        }
        match (record.counted, record.from_truth, matched) {
            (false, true, _) => {}
            (false, false, _) => self.unknown += 1,
            (true, true, true) => self.found += 1,
            (true, true, false) => self.missed += 1,
            (true, false, true) => self.true_calls += 1,
            (true, false, false) => self.false_calls += 1,
        }
        let (counted, truth) = (record.counted, record.from_truth);
        let genotype = counted && truth && error == Some(ErrorKind::Genotype);
        self.genotype_errors += u64::from(genotype);
        let allele = counted && !truth && error == Some(ErrorKind::Allele);
        self.allele_errors += u64::from(allele);
    }
}

/// How near a record is to one of the other set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorKind {
    /// It has an allele of it.
    Genotype,
    /// It lies at the same place.
    Allele,
}

/// One record that does not agree, for looking at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Disagreement {
    /// Contig name.
    pub contig: String,
    /// 0-based position of the record.
    pub position: u32,
    /// REF.
    pub reference: String,
    /// ALT, separated by commas.
    pub alternates: String,
    /// GT, separated by slashes.
    pub genotype: String,
    /// Whether the record is of the truth (missed) or of the calls (false).
    pub missed: bool,
    /// Whether the other set has the allele with another genotype.
    pub genotype_error: bool,
}

/// Indels of some lengths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LengthClass {
    /// `1-5`, `6-15`, `16-50` or `51+` bases.
    pub bases: &'static str,
    /// All of them.
    pub all: Score,
    /// Those whose longest change makes the sequence longer.
    pub insertions: Score,
    /// Those whose longest change makes it shorter.
    pub deletions: Score,
}

/// The classes and the longest change of each.
const LENGTH_CLASSES: [(&str, u32); 4] =
    [("1-5", 5), ("6-15", 15), ("16-50", 50), ("51+", u32::MAX)];

/// What came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Substitutions: single and multiple bases.
    pub snp: Score,
    /// Insertions and deletions of any length.
    pub indel: Score,
    /// Indels by the longest change of length, shortest first.
    pub indel_by_length: Vec<LengthClass>,
    /// Indels of one base's kind inside a run of that base, six or longer in the reference.
    pub homopolymer: Score,
    /// Whether calls that the reads tie together are tied rightly.
    pub phase: Phase,
    /// Whether the qualities of the calls are true.
    pub calibration: Calibration,
    /// Every record that does not agree, by position.
    pub disagreements: Vec<Disagreement>,
}

/// Compares `calls` with `truth` inside `regions`.
///
/// Both sets are in any order. Records that failed a filter, or whose genotype is missing or all
/// reference, count as not called. Records outside the regions help to match but do not count.
/// Phase does not count, but is compared apart. `ploidy` is 1 or 2; a genotype with fewer alleles stands for all copies.
pub fn compare(
    reference: &Reference,
    truth: &[Variant],
    calls: &[Variant],
    regions: &Regions,
    ploidy: u8,
) -> Comparison {
    let classes = LENGTH_CLASSES.map(|(bases, _)| {
        let [all, insertions, deletions] = [Score::default(); 3];
        LengthClass { bases, all, insertions, deletions }
    });
    let mut comparison = Comparison { indel_by_length: classes.to_vec(), ..Comparison::default() };
    for (index, contig) in reference.contigs.iter().enumerate() {
        let mut records = Vec::new();
        for (set, from_truth) in [(truth, true), (calls, false)] {
            let of_contig = set.iter().filter(|variant| variant.contig as usize == index);
            records.extend(of_contig.filter_map(|variant| {
                Record::new(variant, from_truth, &contig.name, regions, ploidy)
            }));
        }
        records.sort_by_key(|record| (record.start, record.end, !record.from_truth));
        let matched = Sweep::new(&contig.bases, &records).run();
        comparison.phase.add(&records);
        tally(&contig.name, &contig.bases, &records, &matched, &mut comparison);
    }
    comparison.snp.finish();
    comparison.indel.finish();
    comparison.homopolymer.finish();
    for class in &mut comparison.indel_by_length {
        let scores = [&mut class.all, &mut class.insertions, &mut class.deletions];
        scores.into_iter().for_each(Score::finish);
    }
    comparison
}

/// Shortest run that counts as one.
const HOMOPOLYMER_MIN: usize = 6;

/// A substitution of `[start, end)` by letters' codes; `None` for the reference itself.
type Edit = Option<(u32, u32, Vec<u8>)>;

struct Record<'a> {
    variant: &'a Variant,
    from_truth: bool,
    counted: bool,
    start: u32,
    end: u32,
    /// The edits of the two haplotypes, in one of their two orders.
    edits: [Edit; 2],
}

impl<'a> Record<'a> {
    fn new(
        variant: &'a Variant,
        from_truth: bool,
        contig: &str,
        regions: &Regions,
        ploidy: u8,
    ) -> Option<Self> {
        if !variant.filters.is_empty() {
            return None;
        }
        let &first = variant.genotype.first()?;
        let second = if ploidy == 1 { first } else { *variant.genotype.get(1).unwrap_or(&first) };
        let edits = [edit(variant, first)?, edit(variant, second)?];
        let start = edits.iter().flatten().map(|edit| edit.0).min()?;
        let end = edits.iter().flatten().map(|edit| edit.1).max()?;
        let counted = regions.contains(contig, start, end.max(start + 1));
        Some(Self { variant, from_truth, counted, start, end, edits })
    }

    /// Longest change of length, positive for insertions; 0 for substitutions.
    fn length_change(&self) -> i64 {
        let change = |edit: &(u32, u32, Vec<u8>)| edit.2.len() as i64 - i64::from(edit.1 - edit.0);
        let changes = self.edits.iter().flatten().map(change);
        changes.max_by_key(|change| change.unsigned_abs()).unwrap_or(0)
    }

    fn meets(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether it changes the length of a run of one base.
    fn is_in_homopolymer(&self, bases: &[u8]) -> bool {
        self.edits.iter().flatten().any(|(start, end, inserted)| {
            let (start, end) = (*start as usize, *end as usize);
            let Some(removed) = bases.get(start..end) else { return false };
            let pure = removed.is_empty() != inserted.is_empty();
            let mut changed = removed.iter().chain(inserted);
            let Some(&base) = changed.next() else { return false };
            let is_same = |other: &&u8| **other == base;
            let before = bases[..start].iter().rev().take_while(is_same).count();
            let run = before + bases[start..].iter().take_while(is_same).count();
            pure && changed.all(|other| *other == base) && run >= HOMOPOLYMER_MIN
        })
    }

    fn shares_allele(&self, other: &Self) -> bool {
        self.edits.iter().flatten().any(|edit| other.edits.iter().flatten().any(|o| o == edit))
    }
}

/// The edit that an allele makes, without the bases that REF and ALT share. Outer `None` when the
/// record has no such allele.
fn edit(variant: &Variant, allele: u8) -> Option<Edit> {
    if allele == 0 {
        return Some(None);
    }
    let (mut from, mut to) =
        (&variant.reference[..], &variant.alternates.get(usize::from(allele) - 1)?[..]);
    if to.first().is_none_or(|letter| !letter.is_ascii_alphabetic()) {
        return Some(None); // `*` and symbolic alleles say nothing about this record's bases.
    }
    while let (Some(a), Some(b)) = (from.last(), to.last())
        && a.eq_ignore_ascii_case(b)
    {
        (from, to) = (&from[..from.len() - 1], &to[..to.len() - 1]);
    }
    let mut start = variant.position;
    while let (Some(a), Some(b)) = (from.first(), to.first())
        && a.eq_ignore_ascii_case(b)
    {
        (from, to, start) = (&from[1..], &to[1..], start + 1);
    }
    let codes: Vec<u8> =
        to.iter().map(|&letter| crate::genome::reference::base_code(letter)).collect();
    let edit = (start, start + from.len() as u32, codes);
    Some((edit.0 != edit.1 || !edit.2.is_empty()).then_some(edit))
}

fn tally(
    contig: &str,
    bases: &[u8],
    records: &[Record<'_>],
    matched: &[bool],
    comparison: &mut Comparison,
) {
    for (index, record) in records.iter().enumerate() {
        let error = if matched[index] { None } else { error_kind(records, matched, index) };
        comparison.calibration.add(record, matched[index], error);
        let change = record.length_change();
        let total = if change == 0 { &mut comparison.snp } else { &mut comparison.indel };
        total.count(record, matched[index], error);
        let length = u32::try_from(change.unsigned_abs()).unwrap_or(u32::MAX);
        let class = LENGTH_CLASSES.iter().position(|class| length <= class.1);
        let class = class.filter(|_| change != 0);
        if let Some(class) = class.and_then(|class| comparison.indel_by_length.get_mut(class)) {
            let way = if change > 0 { &mut class.insertions } else { &mut class.deletions };
            for score in [&mut class.all, way] {
                score.count(record, matched[index], error);
            }
        }
        if record.is_in_homopolymer(bases) {
            comparison.homopolymer.count(record, matched[index], error);
        }
        if record.counted && !matched[index] {
            let genotype_error = error == Some(ErrorKind::Genotype);
            comparison.disagreements.push(disagreement(contig, record, genotype_error));
        }
    }
}

/// How near an unmatched record is to unmatched ones of the other set.
fn error_kind(records: &[Record<'_>], matched: &[bool], index: usize) -> Option<ErrorKind> {
    let record = &records[index];
    let near = || {
        let near = records.iter().zip(matched).skip(index.saturating_sub(16)).take(33);
        near.filter(|(other, matched)| !**matched && other.from_truth != record.from_truth)
    };
    if near().any(|(other, _)| other.shares_allele(record)) {
        return Some(ErrorKind::Genotype);
    }
    near().any(|(other, _)| other.meets(record)).then_some(ErrorKind::Allele)
}

fn disagreement(contig: &str, record: &Record<'_>, genotype_error: bool) -> Disagreement {
    let text = |letters: &[u8]| String::from_utf8_lossy(letters).into_owned();
    let variant = record.variant;
    let alternates: Vec<String> = variant.alternates.iter().map(|letters| text(letters)).collect();
    let genotype: Vec<String> = variant.genotype.iter().map(u8::to_string).collect();
    Disagreement {
        contig: contig.to_owned(),
        position: variant.position,
        reference: text(&variant.reference),
        alternates: alternates.join(","),
        genotype: genotype.join("/"),
        missed: record.from_truth,
        genotype_error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genome::reference::{Contig, base_code};
    use crate::genome::region::Region;

    fn reference(letters: &str) -> Reference {
        let bases = letters.bytes().map(base_code).collect();
        Reference { contigs: vec![Contig { name: "c".into(), bases }] }
    }

    fn variant(position: u32, from: &str, to: &str, genotype: &[u8]) -> Variant {
        Variant {
            contig: 0,
            position,
            reference: from.into(),
            alternates: to.split(',').map(|letters| letters.as_bytes().to_vec()).collect(),
            quality: 50.0,
            filters: Vec::new(),
            genotype: genotype.to_vec(),
            phase_set: None,
            depth: 30,
            allele_depths: Vec::new(),
            genotype_quality: 50,
            likelihoods: Vec::new(),
            information: String::new(),
        }
    }

    fn everything(reference: &Reference) -> Regions {
        let end = reference.contigs[0].bases.len() as u32;
        [Region { contig: "c".into(), start: 0, end }].into_iter().collect()
    }

    fn counts(score: &Score) -> [u64; 5] {
        [score.found, score.missed, score.true_calls, score.false_calls, score.genotype_errors]
    }

    fn run(letters: &str, truth: &[Variant], calls: &[Variant]) -> Comparison {
        let reference = reference(letters);
        compare(&reference, truth, calls, &everything(&reference), 2)
    }

    const GENOME: &str = "ACGTTGCAAGCTTTTTTTTGCACCGATATATATATCGGACTTGACCATGCA";

    #[test]
    fn multiple_bases_equal_their_single_ones() {
        let truth = [variant(4, "TG", "CC", &[0, 1])];
        let calls = [variant(4, "T", "C", &[0, 1]), variant(5, "G", "C", &[0, 1])];
        let comparison = run(GENOME, &truth, &calls);
        assert_eq!(counts(&comparison.snp), [1, 0, 2, 0, 0]);
        assert_eq!(comparison.snp.f1, 1.0);
        assert!(comparison.disagreements.is_empty());
    }

    #[test]
    fn a_deletion_may_stand_anywhere_in_its_repeat() {
        let truth = [variant(10, "CT", "C", &[1, 1]), variant(25, "ATA", "A", &[0, 1])];
        let calls = [variant(15, "TT", "T", &[1, 1]), variant(31, "TAT", "T", &[1, 0])];
        let comparison = run(GENOME, &truth, &calls);
        assert_eq!(counts(&comparison.indel), [2, 0, 2, 0, 0]);
        assert_eq!(counts(&comparison.indel_by_length[0].all), [2, 0, 2, 0, 0]);
        // The run of T, not the repeat of TA.
        assert_eq!(counts(&comparison.homopolymer), [1, 0, 1, 0, 0]);
    }

    #[test]
    fn an_insertion_equals_the_substitutions_that_spell_it() {
        // TTGAC with GG put before its second T and GA taken out is TGGTC.
        let truth = [variant(40, "TTGAC", "TGGTC", &[0, 1])];
        let calls = [variant(40, "T", "TGG", &[0, 1]), variant(41, "TGA", "T", &[0, 1])];
        let comparison = run(GENOME, &truth, &calls);
        assert_eq!(comparison.snp.found, 1);
        assert_eq!(counts(&comparison.indel), [0, 0, 2, 0, 0]);
    }

    #[test]
    fn wrong_genotypes_are_both_missed_and_false() {
        let truth = [variant(4, "T", "C", &[1, 1]), variant(20, "C", "G", &[0, 1])];
        let calls = [variant(4, "T", "C", &[0, 1]), variant(20, "C", "T", &[0, 1])];
        let comparison = run(GENOME, &truth, &calls);
        assert_eq!(counts(&comparison.snp), [0, 2, 0, 2, 1]);
        assert_eq!(comparison.snp.f1, 0.0);
        assert_eq!(comparison.disagreements.len(), 4);
    }

    #[test]
    fn a_false_call_leaves_its_neighbours_true() {
        let truth = [variant(4, "T", "C", &[0, 1]), variant(8, "A", "T", &[1, 1])];
        let calls = [
            variant(4, "T", "C", &[0, 1]),
            variant(6, "C", "CA", &[0, 1]),
            variant(8, "A", "T", &[1, 1]),
        ];
        let comparison = run(GENOME, &truth, &calls);
        assert_eq!(counts(&comparison.snp), [2, 0, 2, 0, 0]);
        assert_eq!(counts(&comparison.indel), [0, 0, 0, 1, 0]);
    }

    #[test]
    fn two_alternates_equal_two_records() {
        let truth = [variant(10, "CT", "C,CTT", &[1, 2])];
        let calls = [variant(11, "T", "TT", &[0, 1]), variant(17, "TT", "T", &[0, 1])];
        let comparison = run(GENOME, &truth, &calls);
        assert_eq!(counts(&comparison.indel), [1, 0, 2, 0, 0]);
    }

    #[test]
    fn half_calls_filtered_calls_and_calls_outside_do_not_count() {
        let reference = reference(GENOME);
        let regions = [Region { contig: "c".into(), start: 0, end: 20 }].into_iter().collect();
        let mut filtered = variant(8, "A", "T", &[1, 1]);
        filtered.filters.push("LowQual");
        let calls = [filtered, variant(30, "T", "A", &[1, 1]), variant(2, "G", "C", &[])];
        let comparison = compare(&reference, &[], &calls, &regions, 2);
        assert_eq!(counts(&comparison.snp), [0; 5]);
        let haploid = compare(
            &reference,
            &[variant(4, "T", "C", &[1])],
            &[variant(4, "T", "C", &[1])],
            &regions,
            1,
        );
        assert_eq!(counts(&haploid.snp), [1, 0, 1, 0, 0]);
    }

    proptest::proptest! {
        #[test]
        fn a_set_agrees_with_itself(
            places in proptest::collection::vec((1u32..45, 0usize..3, 0u8..2), 0..8)
        ) {
            let bases: Vec<u8> = GENOME.bytes().collect();
            let mut taken = 0;
            let mut set = Vec::new();
            for (position, kind, hom) in std::collections::BTreeSet::from_iter(places) {
                if position < taken { continue; }
                let anchor = bases[position as usize] as char;
                let next = bases[position as usize + 1] as char;
                let (from, to) = match kind {
                    0 => (anchor.to_string(), if anchor == 'A' { "C".into() } else { "A".into() }),
                    1 => (format!("{anchor}{next}"), anchor.to_string()),
                    _ => (anchor.to_string(), format!("{anchor}GT")),
                };
                taken = position + 3;
                set.push(variant(position, &from, &to, &[hom, 1]));
            }
            let comparison = run(GENOME, &set, &set);
            proptest::prop_assert_eq!(comparison.snp.missed + comparison.indel.missed, 0);
            proptest::prop_assert_eq!(comparison.snp.false_calls + comparison.indel.false_calls, 0);
        }
    }

    #[test]
    fn indels_are_told_apart_by_length_and_way() {
        let long = format!("C{}", "GATTACA".repeat(3));
        let truth = [variant(9, "G", &long, &[0, 1]), variant(20, "CACCGATA", "C", &[1, 1])];
        let truth = truth.map(|mut site| {
            site.reference =
                GENOME.as_bytes()[site.position as usize..][..site.reference.len()].to_vec();
            site
        });
        let classes = run(GENOME, &truth, &[]).indel_by_length;
        let missed = |score: &Score| score.missed;
        let names: Vec<&str> = classes.iter().map(|class| class.bases).collect();
        assert_eq!(names, ["1-5", "6-15", "16-50", "51+"]);
        assert_eq!(classes.iter().map(|class| missed(&class.all)).sum::<u64>(), 2);
        assert_eq!((missed(&classes[1].deletions), missed(&classes[1].insertions)), (1, 0));
        assert_eq!((missed(&classes[2].deletions), missed(&classes[2].insertions)), (0, 1));
    }

    #[test]
    fn a_switch_is_one_only_where_the_truth_is_phased() {
        let site = |position, from: &str, to: &str, genotype: [u8; 2], phase_set| Variant {
            phase_set,
            ..variant(position, from, to, &genotype)
        };
        let called = [
            site(4, "T", "C", [0, 1], Some(5)),
            site(8, "A", "C", [1, 0], Some(5)),
            site(20, "C", "G", [1, 0], Some(5)),
            site(40, "T", "C", [0, 1], None),
        ];
        let truth = |sets: [Option<u32>; 4]| {
            let genotypes = [[0, 1], [0, 1], [0, 1], [1, 0]];
            let mut truth = called.clone();
            for ((site, genotype), set) in truth.iter_mut().zip(genotypes).zip(sets) {
                (site.genotype, site.phase_set) = (genotype.to_vec(), set);
            }
            truth
        };
        let phase = |sets| run(GENOME, &truth(sets), &called).phase;
        let counts = |phase: Phase| (phase.heterozygous, phase.phased, phase.pairs, phase.switches);
        assert_eq!(counts(phase([Some(0); 4])), (4, 3, 2, 1));
        assert_eq!(counts(phase([None; 4])), (4, 3, 0, 0));
        // Of two sets of the truth, nothing is known from the one to the other.
        assert_eq!(counts(phase([Some(1), Some(2), Some(2), None])), (4, 3, 1, 0));
    }

    #[test]
    fn errors_fall_into_the_bins_of_their_qualities() {
        let call = |position, from: &str, to: &str, genotype: &[u8], quality, genotype_quality| {
            Variant { quality, genotype_quality, ..variant(position, from, to, genotype) }
        };
        let truth = [variant(4, "T", "C", &[0, 1]), variant(8, "A", "C", &[0, 1])];
        let calls = [
            call(4, "T", "C", &[0, 1], 50.0, 25),
            call(8, "A", "C", &[1, 1], 70.0, 10),
            call(20, "C", "G", &[0, 1], 10.0, 10),
        ];
        let calibration = run(GENOME, &truth, &calls).calibration;
        let of = |bins: &[Bin]| -> Vec<(u32, u64, u64)> {
            let filled = bins.iter().filter(|bin| bin.calls > 0);
            filled.map(|bin| (bin.from, bin.calls, bin.wrong)).collect()
        };
        assert_eq!(of(&calibration.quality), [(10, 1, 1), (40, 1, 0), (60, 1, 0)]);
        assert_eq!(of(&calibration.genotype_quality), [(10, 1, 1), (20, 1, 0)]);
        assert!((calibration.quality[3].expected - 0.1).abs() < 1e-6);
        assert!(calibration.csv().contains("\nQUAL,10,1,1,0.10,0.0\n"), "{}", calibration.csv());
    }

    #[test]
    fn calls_elsewhere_are_unknown_and_other_alleles_are_told_apart() {
        let reference = reference(GENOME);
        let inside = [Region { contig: "c".into(), start: 0, end: 30 }].into_iter().collect();
        let truth = [variant(4, "T", "C", &[0, 1]), variant(8, "A", "C", &[0, 1])];
        let calls = [
            variant(4, "T", "G", &[0, 1]),
            variant(8, "A", "C", &[1, 1]),
            variant(40, "T", "C", &[1, 1]),
        ];
        let found = compare(&reference, &truth, &calls, &inside, 2).snp;
        assert_eq!(counts(&found), [0, 2, 0, 2, 1]);
        assert_eq!((found.allele_errors, found.unknown), (1, 1));
        assert_eq!((found.truth_kinds.heterozygous, found.call_kinds.homozygous), (2, 2));
    }
}
