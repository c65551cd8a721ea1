//! Files with the quality of a call, in the forms that report makers read: DRAGEN's metrics tables,
//! mosdepth's tables, and JSON.
//!
//! MultiQC finds all of the tables by their names. They are of the same form as those of the
//! programs they are known from, and say in their first section that `dsgd` wrote them. Sources:
//! Illumina, "DRAGEN QC metrics reporting"; Pedersen and Quinlan 2018, "Mosdepth: quick coverage
//! calculation for genomes and exomes".

use std::fmt::Write;
use std::path::Path;

use super::call::write_whole;
use super::{Outcome, file_error};
use crate::engine::metrics::{Depth, MateMetrics, Metrics, ReadMetrics};
use crate::pipeline::analyse::AnalyseReport;

/// Parts of the bases below which mosdepth leaves a depth out.
const PART_MIN: f64 = 8e-5;

/// In which form the figures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsFormat {
    /// DRAGEN's tables
    Dragen,
    /// mosdepth's tables
    Mosdepth,
    /// One JSON document
    Json,
}

/// Writes the files of a call into a folder. `loading_seconds` is the time before the first read.
pub fn write(
    folder: &Path,
    formats: &[MetricsFormat],
    report: &AnalyseReport,
    loading_seconds: f64,
) -> Outcome {
    std::fs::create_dir_all(folder).map_err(file_error(folder))?;
    let put = |ending: &str, text: &str| {
        write_whole(&folder.join(format!("{}.{ending}", report.sample)), text.as_bytes())
    };
    if formats.contains(&MetricsFormat::Json) {
        put("metrics.json", &json(report, loading_seconds))?;
    }
    let dragen = formats.contains(&MetricsFormat::Dragen);
    if dragen {
        put("time_metrics.csv", &times(report, loading_seconds))?;
    }
    let Some(metrics) = &report.metrics else { return Ok(()) };
    if dragen {
        put("trimmer_metrics.csv", &trimming(&metrics.total))?;
        put("mapping_metrics.csv", &mapping(report, metrics))?;
        put("vc_metrics.csv", &variants(report, metrics))?;
    }
    if formats.contains(&MetricsFormat::Mosdepth) {
        put("mosdepth.summary.txt", &depth_summary(metrics))?;
        put("mosdepth.global.dist.txt", &depth_distribution(metrics))?;
    }
    Ok(())
}

/// A table of the columns section, read group or sample, metric, value, and part or seconds.
struct Sheet {
    section: &'static str,
    of: String,
    text: String,
}

impl Sheet {
    fn new() -> Self {
        Self { section: "", of: String::new(), text: String::new() }
    }

    fn section(&mut self, section: &'static str, of: &str) {
        (self.section, self.of) = (section, of.to_owned());
    }

    fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text += &format!("{},{},{name},{value}\n", self.section, self.of);
    }

    fn part(&mut self, name: &str, value: u64, whole: u64) {
        let percent = 100.0 * value as f64 / whole.max(1) as f64;
        self.value(name, format_args!("{value},{percent:.2}"));
    }
}

/// What was cut off the reads before they count in the other tables.
fn trimming(reads: &ReadMetrics) -> String {
    let mut sheet = Sheet::new();
    sheet.section("TRIMMER STATISTICS", "");
    let all = reads.both();
    let bases = all.bases + all.adapter_bases;
    sheet.value("Total input reads", all.reads);
    sheet.value("Total input bases", bases);
    for (mate, number) in reads.mates.iter().zip(["R1", "R2"]) {
        sheet.value(&format!("Total input bases {number}"), mate.bases + mate.adapter_bases);
    }
    sheet.value("Average input read length", ratio(bases, all.reads));
    sheet.part("Total trimmed reads", all.adapter_reads, all.reads);
    sheet.part("Total trimmed bases", all.adapter_bases, bases);
    sheet.value("Average bases trimmed per read", ratio(all.adapter_bases, all.reads));
    sheet.value(
        "Average bases trimmed per trimmed read",
        ratio(all.adapter_bases, all.adapter_reads),
    );
    sheet.text
}

fn mapping(report: &AnalyseReport, metrics: &Metrics) -> String {
    let mut sheet = Sheet::new();
    let genome = metrics.contigs.iter().map(|contig| contig.length).sum::<u64>();
    sheet.section("MAPPING/ALIGNING SUMMARY", "");
    sheet.value("Written by", format_args!("dsgd {}", env!("CARGO_PKG_VERSION")));
    mapping_section(&mut sheet, "Total input reads", &metrics.total, genome);
    let rate = metrics.total.both().reads as f64 / 1e6 / report.seconds.max(1e-9);
    sheet.value("DRAGEN mapping rate [mil. reads/second]", format_args!("{rate:.4}"));
    for group in &metrics.groups {
        sheet.section("MAPPING/ALIGNING PER RG", &group.id.replace(',', " "));
        mapping_section(&mut sheet, "Total reads in RG", &group.reads, genome);
    }
    sheet.text
}

fn mapping_section(sheet: &mut Sheet, total: &str, metrics: &ReadMetrics, genome: u64) {
    reads(sheet, total, metrics);
    bases(sheet, metrics);
    let all = metrics.both();
    sheet.value("Total alignments", all.mapped);
    sheet.value("Secondary alignments", 0);
    sheet.value("Supplementary (chimeric) alignments", 0);
    sheet.value("Estimated read length", ratio(all.bases, all.reads));
    sheet.value("Bases in reference genome", genome);
    sheet.value("Average sequenced coverage over genome", ratio(all.bases, genome));
    sheet.value("Insert length: mean", format_args!("{:.2}", metrics.insert.mean));
    sheet.value("Insert length: median", format_args!("{:.2}", metrics.insert.median));
    let deviation = metrics.insert.deviation;
    sheet.value("Insert length: standard deviation", format_args!("{deviation:.2}"));
}

fn reads(sheet: &mut Sheet, total: &str, metrics: &ReadMetrics) {
    let [first, second] = &metrics.mates;
    let all = metrics.both();
    let mut part = |name: &str, value: u64| sheet.part(name, value, all.reads);
    part(total, all.reads);
    part("Number of duplicate marked reads", metrics.duplicates);
    let unique = all.reads.saturating_sub(metrics.duplicates);
    part("Number of unique reads (excl. duplicate marked reads)", unique);
    part("Reads with mate sequenced", metrics.paired);
    part("Reads without mate sequenced", all.reads - metrics.paired);
    part("QC-failed reads", 0);
    part("Mapped reads", all.mapped);
    part("Mapped reads R1", first.mapped);
    part("Mapped reads R2", second.mapped);
    part(
        "Number of unique & mapped reads (excl. duplicate marked reads)",
        all.mapped.saturating_sub(metrics.duplicates),
    );
    part("Unmapped reads", all.reads - all.mapped);
    part("Singleton reads (itself mapped; mate unmapped)", metrics.singletons);
    part("Paired reads (itself & mate mapped)", metrics.both_mapped);
    part("Properly paired reads", metrics.properly_paired);
    let discordant = metrics.both_mapped.saturating_sub(metrics.properly_paired);
    part("Not properly paired reads (discordant)", discordant);
    part("Paired reads mapped to different chromosomes", metrics.mate_elsewhere);
    let confident = metrics.mate_elsewhere_confident;
    part("Paired reads mapped to different chromosomes (MAPQ>=10)", confident);
    let classes = ["[40:inf)", "[30:40)", "[20:30)", "[10:20)", "[ 0:10)"];
    for (class, count) in classes.iter().zip(metrics.mapping_quality.iter().rev()) {
        part(&format!("Reads with MAPQ {class}"), *count);
    }
    part("Reads with MAPQ NA (Unmapped reads)", all.reads - all.mapped);
    part("Reads with indel R1", first.gapped);
    part("Reads with indel R2", second.gapped);
}

fn bases(sheet: &mut Sheet, metrics: &ReadMetrics) {
    type Part = fn(&MateMetrics) -> u64;
    let all = metrics.both();
    let kinds: [(&str, Part); 5] = [
        ("Total bases", |mate| mate.bases),
        ("Mapped bases", |mate| mate.aligned_bases),
        ("Soft-clipped bases", |mate| mate.clipped_bases),
        ("Mismatched bases", |mate| mate.mismatched_bases),
        ("Q30 bases", |mate| mate.q30_bases),
    ];
    for (name, of) in kinds {
        sheet.part(name, of(&all), all.bases);
        for (mate, number) in metrics.mates.iter().zip(["R1", "R2"]) {
            sheet.part(&format!("{name} {number}"), of(mate), mate.bases);
        }
    }
}

fn ratio(part: u64, whole: u64) -> String {
    format!("{:.2}", part as f64 / whole.max(1) as f64)
}

fn variants(report: &AnalyseReport, metrics: &Metrics) -> String {
    let counts = &metrics.variants;
    let mut sheet = Sheet::new();
    sheet.section("VARIANT CALLER SUMMARY", "");
    sheet.value("Number of samples", 1);
    sheet.value("Reads Processed", report.reads);
    sheet.value("Written by", format_args!("dsgd {}", env!("CARGO_PKG_VERSION")));
    let found = counts.passed + counts.failed;
    sheet.section("VARIANT CALLER PREFILTER", &report.sample);
    sheet.part("Total", found, found);
    sheet.section("VARIANT CALLER POSTFILTER", &report.sample);
    let mut part = |name: &str, value: u64| sheet.part(name, value, counts.passed);
    part("Total", counts.passed);
    part("Biallelic", counts.passed - counts.multiallelic);
    part("Multiallelic", counts.multiallelic);
    part("SNPs", counts.substitutions);
    part("Insertions (Hom)", counts.insertions[0]);
    part("Insertions (Het)", counts.insertions[1]);
    part("Deletions (Hom)", counts.deletions[0]);
    part("Deletions (Het)", counts.deletions[1]);
    part("Indels (Het)", counts.insertions[1] + counts.deletions[1]);
    sheet.value("SNP Transitions", counts.transitions);
    sheet.value("SNP Transversions", counts.transversions);
    sheet.value("Ti/Tv ratio", ratio(counts.transitions, counts.transversions));
    sheet.value("Heterozygous", counts.heterozygous);
    sheet.value("Homozygous", counts.homozygous);
    sheet.value("Het/Hom ratio", ratio(counts.heterozygous, counts.homozygous));
    sheet.text
}

fn times(report: &AnalyseReport, loading_seconds: f64) -> String {
    let mut sheet = Sheet::new();
    sheet.section("RUN TIME", "");
    let mut time = |name: &str, seconds: f64| {
        let (hours, minutes) = ((seconds / 3600.0) as u64, (seconds / 60.0) as u64 % 60);
        let rest = seconds % 60.0;
        let clock = format!("{hours:02}:{minutes:02}:{rest:06.3}");
        sheet.value(name, format_args!("{clock},{seconds:.2}"));
    };
    time("Time loading reference", loading_seconds);
    for stage in &report.stages {
        let name = stage.stage.replace(',', " ");
        time(&format!("Time in stage {name}"), stage.busy_seconds / stage.workers.max(1) as f64);
    }
    time("Total runtime", loading_seconds + report.seconds);
    sheet.text
}

fn depth_summary(metrics: &Metrics) -> String {
    let mut text = "chrom\tlength\tbases\tmean\tmin\tmax\n".to_owned();
    for depth in metrics.contigs.iter().chain([&metrics.total_depth()]) {
        let Depth { name, length, bases, minimum, maximum, .. } = depth;
        let mean = ratio(*bases, *length);
        text += &format!("{name}\t{length}\t{bases}\t{mean}\t{minimum}\t{maximum}\n");
    }
    text
}

/// Contig, depth and the part of its bases that is at least so deep, deepest first.
fn depth_distribution(metrics: &Metrics) -> String {
    let mut text = String::new();
    for depth in metrics.contigs.iter().chain([&metrics.total_depth()]) {
        let total = depth.counts.total().max(1) as f64;
        let mut above = 0;
        for (number, count) in depth.counts.each().iter().enumerate().rev() {
            above += count;
            let part = above as f64 / total;
            if part >= PART_MIN {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{}\t{number}\t{part:.4}", depth.name);
            }
        }
    }
    text
}

fn json(report: &AnalyseReport, loading_seconds: f64) -> String {
    let contigs = report.metrics.iter().flat_map(|metrics| &metrics.contigs);
    let contigs: Vec<_> = contigs
        .map(|contig| {
            serde_json::json!({
                "name": contig.name,
                "length": contig.length,
                "bases": contig.bases,
                "minimum": contig.minimum,
                "maximum": contig.maximum,
            })
        })
        .collect();
    let document = serde_json::json!({
        "schema": 1,
        "program": format!("dsgd {}", env!("CARGO_PKG_VERSION")),
        "loading_seconds": loading_seconds,
        "report": report,
        "contigs": contigs,
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::metrics::RegionMetrics;
    use crate::genome::Reference;
    use crate::genome::reference::Contig;

    fn counted() -> (AnalyseReport, Metrics) {
        let contig = Contig { name: "c1".into(), bases: vec![0; 200] };
        let mut region = RegionMetrics { bases: 300, bounds: (3, 3), ..RegionMetrics::default() };
        region.counts.add(3, 100);
        let mut metrics = Metrics::new([("lane1", "a"), ("lane2", "b")]);
        metrics.merge_region(&region);
        let mate = MateMetrics { reads: 10, bases: 1000, mapped: 9, ..Default::default() };
        let cut = MateMetrics { mapped: 8, adapter_reads: 1, adapter_bases: 40, ..mate };
        let mut reads = ReadMetrics::default();
        (reads.mates, reads.duplicates) = ([mate, cut], 2);
        metrics.merge(0, &reads);
        metrics.finish(&Reference { contigs: vec![contig] }, None);
        let report = AnalyseReport {
            sample: "S1".into(),
            seconds: 3661.5,
            metrics: Some(metrics.clone()),
            ..AnalyseReport::default()
        };
        (report, metrics)
    }

    #[test]
    fn reads_are_told_in_the_known_lines() {
        let (report, metrics) = counted();
        let text = mapping(&report, &metrics);
        for line in [
            "MAPPING/ALIGNING SUMMARY,,Total input reads,20,100.00",
            "MAPPING/ALIGNING SUMMARY,,Number of unique reads (excl. duplicate marked reads),18,90.00",
            "MAPPING/ALIGNING SUMMARY,,Mapped reads R2,8,40.00",
            "MAPPING/ALIGNING SUMMARY,,Bases in reference genome,200",
            "MAPPING/ALIGNING PER RG,lane1,Total reads in RG,20,100.00",
            "MAPPING/ALIGNING PER RG,lane1,Number of duplicate marked reads,2,10.00",
            "MAPPING/ALIGNING PER RG,lane2,Total reads in RG,0,0.00",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let text = trimming(&metrics.total);
        for line in [
            "TRIMMER STATISTICS,,Total input bases,2040",
            "TRIMMER STATISTICS,,Total trimmed reads,1,5.00",
            "TRIMMER STATISTICS,,Total trimmed bases,40,1.96",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn times_have_five_columns_and_names_that_begin_with_time() {
        let text = times(&counted().0, 0.25);
        assert_eq!(text.lines().last(), Some("RUN TIME,,Total runtime,01:01:01.750,3661.75"));
        for line in text.lines() {
            let cells: Vec<&str> = line.split(',').collect();
            assert_eq!(cells.len(), 5, "{line}");
            assert!(cells[2].starts_with("Time ") || cells[2] == "Total runtime", "{line}");
        }
    }

    #[test]
    fn depth_is_told_by_contig_and_in_total() {
        let (_, metrics) = counted();
        let expected = "chrom\tlength\tbases\tmean\tmin\tmax\n\
                        c1\t200\t300\t1.50\t0\t3\ntotal\t200\t300\t1.50\t0\t3\n";
        assert_eq!(depth_summary(&metrics), expected);
        let parts = [3, 2, 1].map(|depth| format!("c1\t{depth}\t0.5000\n")).concat();
        let distribution = depth_distribution(&metrics);
        assert!(distribution.starts_with(&(parts + "c1\t0\t1.0000\ntotal\t3\t")), "{distribution}");
    }
}
