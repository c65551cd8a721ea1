//! Comparisons in the forms of hap.py: its summary table, and its records that do not agree.
//!
//! Source: Krusche et al. 2019, "Best practices for benchmarking germline small-variant calls in
//! human genomes", and the intermediate format of the GA4GH benchmarking team.

use std::fmt::Write;

use crate::engine::compare::{Comparison, Score};
use crate::genome::Reference;

const HEAD: &str = "Type,Filter,TRUTH.TOTAL,TRUTH.TP,TRUTH.FN,QUERY.TOTAL,QUERY.FP,QUERY.UNK,\
    FP.gt,FP.al,METRIC.Recall,METRIC.Precision,METRIC.Frac_NA,METRIC.F1_Score,\
    TRUTH.TOTAL.TiTv_ratio,QUERY.TOTAL.TiTv_ratio,TRUTH.TOTAL.het_hom_ratio,\
    QUERY.TOTAL.het_hom_ratio\n";

/// The summary of two comparisons: with all calls, and with those that passed their filters.
pub fn summary(all: &Comparison, passing: &Comparison) -> String {
    let mut text = HEAD.to_owned();
    for (kind, of) in [("INDEL", (|c| &c.indel) as fn(&Comparison) -> &Score), ("SNP", |c| &c.snp)]
    {
        for (filter, comparison) in [("ALL", all), ("PASS", passing)] {
            text += &format!("{kind},{filter},{}\n", row(of(comparison), kind == "SNP"));
        }
    }
    text
}

fn row(score: &Score, substitutions: bool) -> String {
    let calls = score.true_calls + score.false_calls + score.unknown;
    let counts = [
        score.found + score.missed,
        score.found,
        score.missed,
        calls,
        score.false_calls,
        score.unknown,
        score.genotype_errors,
        score.allele_errors,
    ];
    let unknown = score.unknown as f64 / calls.max(1) as f64;
    let metrics = [score.recall, score.precision, unknown, score.f1];
    let ratio = |part: u64, whole: u64| match whole {
        0 => String::new(),
        _ => format!("{:.6}", part as f64 / whole as f64),
    };
    let (truth, query) = (&score.truth_kinds, &score.call_kinds);
    let mut cells: Vec<String> = counts.iter().map(u64::to_string).collect();
    cells.extend(metrics.iter().map(|metric| format!("{metric:.6}")));
    for kinds in [truth, query] {
        let known = ratio(kinds.transitions, kinds.transversions);
        cells.push(if substitutions { known } else { String::new() });
    }
    cells.extend([truth, query].map(|kinds| ratio(kinds.heterozygous, kinds.homozygous)));
    cells.join(",")
}

/// The records that do not agree, as VCF with a column for the truth and one for the calls.
pub fn disagreements(comparison: &Comparison, reference: &Reference) -> String {
    let mut text = "##fileformat=VCFv4.3\n".to_owned();
    for contig in &reference.contigs {
        text += &format!("##contig=<ID={},length={}>\n", contig.name, contig.bases.len());
    }
    text += "##FORMAT=<ID=GT,Number=1,Type=String,Description=\"Genotype\">\n\
             ##FORMAT=<ID=BD,Number=1,Type=String,Description=\"Decision: FN missed, FP false\">\n\
             ##FORMAT=<ID=BK,Number=1,Type=String,Description=\"Kind of match: am allele only, \
             . none\">\n\
             #CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tTRUTH\tQUERY\n";
    for record in &comparison.disagreements {
        let kind = if record.genotype_error { "am" } else { "." };
        let decision = if record.missed { "FN" } else { "FP" };
        let called = format!("{}:{decision}:{kind}", record.genotype);
        let absent = "./.:.:.".to_owned();
        let (truth, query) = if record.missed { (called, absent) } else { (absent, called) };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}\t{}\t.\t{}\t{}\t.\t.\t.\tGT:BD:BK\t{truth}\t{query}",
            record.contig,
            u64::from(record.position) + 1,
            record.reference,
            record.alternates,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::compare::Disagreement;

    #[test]
    fn the_summary_has_the_columns_of_the_original() {
        let snp = Score {
            found: 8,
            missed: 2,
            true_calls: 8,
            false_calls: 0,
            unknown: 2,
            precision: 1.0,
            recall: 0.8,
            f1: 0.888_888_9,
            ..Score::default()
        };
        let comparison = Comparison { snp, ..Comparison::default() };
        let text = summary(&comparison, &comparison);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[0].starts_with("Type,Filter,TRUTH"));
        let columns = lines[0].split(',').count();
        assert!(lines.iter().all(|line| line.split(',').count() == columns), "{text}");
        let expected = "SNP,PASS,10,8,2,10,0,2,0,0,0.800000,1.000000,0.200000,0.888889,,,,";
        assert_eq!(lines[4], expected);
    }

    #[test]
    fn a_disagreement_is_a_record_of_the_set_it_comes_from() {
        let record = Disagreement {
            contig: "c1".into(),
            position: 9,
            reference: "A".into(),
            alternates: "AC,T".into(),
            genotype: "1/2".into(),
            missed: true,
            genotype_error: true,
        };
        let disagreements = vec![record];
        let comparison = Comparison { disagreements, ..Comparison::default() };
        let text = super::disagreements(&comparison, &Reference::default());
        let last = text.lines().last();
        assert_eq!(last, Some("c1\t10\t.\tA\tAC,T\t.\t.\t.\tGT:BD:BK\t1/2:FN:am\t./.:.:."));
    }
}
