//! Accuracy of the whole engine, reads to PASS records, on the shared test data.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::base::Chunk;
use crate::device::assign::Assignment;
use crate::engine::compare::{Calibration, Comparison, compare};
use crate::engine::native::{Index, Native};
use crate::engine::{CallRequest, Engine};
use crate::flow::{Flow, Meters};
use crate::genome::inflate::InflateReader;
use crate::genome::lanes::{Input, Lane, reads};
use crate::genome::region::{Region, Regions};
use crate::genome::vcf::read_variants;
use crate::genome::{ReadGroup, Reference};

/// A folder of the shared test data, or `None` with a note.
pub(super) fn shared(part: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let root = std::env::var_os("DSGD_SHARED").map_or_else(beside, PathBuf::from);
    let path = root.join("data").join(part);
    if !path.exists() {
        let _ = writeln!(std::io::stderr(), "skipped: shared data absent");
        return None;
    }
    Some(path)
}

pub(super) fn text(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    InflateReader::new(file, "test data").read_to_end(&mut bytes).unwrap();
    bytes
}

pub(super) fn input<'a>(path: &Path) -> Input<'a> {
    let bytes = text(path);
    let chunks: Vec<_> = bytes.chunks(1 << 20).map(|part| Ok(Chunk::from_bytes(0, part))).collect();
    let file = path.file_name().unwrap().to_string_lossy().into_owned();
    Input { file, bytes: Flow::source(&Meters::default(), "file", chunks) }
}

fn regions(path: &Path) -> Regions {
    let text = String::from_utf8(text(path)).unwrap();
    text.lines()
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [start, end] = [fields[1], fields[2]].map(|field| field.parse().unwrap());
            Region { contig: fields[0].into(), start, end }
        })
        .collect()
}

/// What came of a measurement.
struct Measured {
    comparison: Comparison,
    /// With all calls, whatever their filters.
    all: Comparison,
    gvcf: Vec<u8>,
    gvcf_tabix: Vec<u8>,
    contigs: Vec<(String, usize)>,
}

/// Calls the sample of these pairs of files and compares the PASS records with the truth.
fn measure(
    folder: &Path,
    reference: &str,
    lanes: &[[&str; 2]],
    truth: &str,
    wanted: &str,
) -> Measured {
    let reference = Reference::read_fasta(&text(&folder.join(reference))[..]).unwrap();
    let group = |number: usize| ReadGroup {
        id: format!("lane{number}"),
        sample: "sample".into(),
        library: format!("library{number}"),
        unit: String::new(),
        platform: "ILLUMINA".into(),
    };
    let threads = 2;
    let gvcf = Mutex::new(Vec::new());
    let request = CallRequest {
        read_groups: (0..lanes.len()).map(group).collect(),
        gvcf: Some(&gvcf),
        threads,
        ..CallRequest::new(&reference)
    };
    let pairs = lanes.iter().map(|files| files.map(|file| input(&folder.join(file))));
    let lanes: Vec<_> =
        (0..).zip(pairs).map(|(group, [one, two])| (group, Lane::Pair(one, two))).collect();
    let meters = Meters::default();
    let reads = Flow::source(&meters, "reads", reads(lanes));
    let index = Arc::new(Index::build(&reference, threads).unwrap());
    let engine = Native::new(index, Assignment::cpu()).unwrap();
    let (mut vcf, mut bam) = (Vec::new(), Vec::new());
    // A folder to keep the records and the alignments in, for looking at them.
    let kept = std::env::var_os("DSGD_CALLS").map(PathBuf::from);
    let wanted_bam = kept.as_ref().map(|_| &mut bam as &mut (dyn Write + Send));
    let report = engine.call(&request, reads, &meters, &mut vcf, wanted_bam).unwrap();
    if let Some(folder) = kept {
        std::fs::write(folder.join("calls.vcf.gz"), &vcf).unwrap();
        std::fs::write(folder.join("reads.bam"), &bam).unwrap();
    }
    let calls = read_variants(&vcf[..], &reference).unwrap();
    let truth = read_variants(&text(&folder.join(truth))[..], &reference).unwrap();
    let wanted = regions(&folder.join(wanted));
    let comparison = compare(&reference, &truth, &calls, &wanted, 2);
    let mut unfiltered = calls;
    unfiltered.iter_mut().for_each(|call| call.filters.clear());
    let all = compare(&reference, &truth, &unfiltered, &wanted, 2);
    let Comparison { snp, indel, homopolymer, phase, .. } = &comparison;
    let _ = writeln!(std::io::stderr(), "{snp:?}\n{indel:?}\n{homopolymer:?}\n{phase:?}");
    let _ = writeln!(std::io::stderr(), "{}", all.calibration.csv());
    let contigs = reference.contigs.iter().map(|c| (c.name.clone(), c.bases.len())).collect();
    let gvcf = gvcf.into_inner().unwrap();
    Measured { comparison, all, gvcf, gvcf_tabix: report.gvcf_tabix, contigs }
}

#[test]
fn real_reads_of_hg002_give_the_variants_of_its_truth_set() {
    let Some(folder) = shared("human_HG002_chr20_slices") else { return };
    let lanes = [
        ["HG002_10X_R1.fastq.gz", "HG002_10X_R2.fastq.gz"],
        ["HG002_NIST_R1.fastq.gz", "HG002_NIST_R2.fastq.gz"],
    ];
    let measured = measure(&folder, "ref_slices.fa", &lanes, "truth_slices.vcf", "conf_slices.bed");
    let found = &measured.comparison;
    assert!(found.snp.f1 >= 0.998, "{:?}", found.snp);
    assert!(found.indel.f1 >= 0.94, "{:?}", found.indel);
    // Its truth is not phased.
    assert_eq!((found.phase.pairs, found.phase.switches), (0, 0));
    assert!(found.phase.phased > 100, "{:?}", found.phase);
}

#[test]
fn simulated_reads_give_the_variants_of_their_donor() {
    let Some(folder) = shared("sim_chr20_2mb_30x") else { return };
    let lanes = [["reads_1.fq.gz", "reads_2.fq.gz"]];
    let measured = measure(&folder, "ref.fa.gz", &lanes, "truth.vcf.gz", "eval.bed");
    let found = &measured.comparison;
    assert!(found.snp.f1 >= 0.999, "{:?}", found.snp);
    // The best peer has 0.9853; two records of the truth do not spell what was simulated.
    assert!(found.indel.f1 >= 0.989, "{:?}", found.indel);
    for class in &found.indel_by_length[..3] {
        for score in [&class.insertions, &class.deletions] {
            assert!(score.missed <= 2 && score.found > 0, "{class:?}");
        }
    }
    assert!(found.homopolymer.f1 >= 0.98, "{:?}", found.homopolymer);
    assert!(found.phase.pairs > 300, "{:?}", found.phase);
    assert_eq!(found.phase.switches, 0, "{:?}", found.phase);
    qualities_are_true(&measured.all.calibration);
    every_base_is_said_once(&measured);
    bcftools_reads_it(&measured);
}

/// Few of the calls with a high quality are wrong, and some of those with a low one are.
fn qualities_are_true(calibration: &Calibration) {
    for bins in [&calibration.quality, &calibration.genotype_quality] {
        for bin in bins {
            // Three times as many as predicted, and what chance adds to small numbers.
            let most = 3.0 * bin.expected + 3.0;
            assert!((bin.wrong as f64) <= most, "{bin:?}");
        }
        let high = bins.iter().filter(|bin| bin.from >= 40);
        let (calls, wrong) = high.fold((0, 0), |sum, bin| (sum.0 + bin.calls, sum.1 + bin.wrong));
        assert!(calls > 1000 && wrong * 500 <= calls, "{calls} {wrong}");
    }
}

/// Blocks and variants follow each other without a gap; blocks overlap nothing.
fn every_base_is_said_once(measured: &Measured) {
    let mut text = String::new();
    InflateReader::new(&measured.gvcf[..], "gVCF").read_to_string(&mut text).unwrap();
    let mut ends: HashMap<&str, usize> = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let start = columns[1].parse::<usize>().unwrap() - 1;
        let end = ends.entry(columns[0]).or_default();
        match columns[7].strip_prefix("END=") {
            Some(last) => {
                assert_eq!(start, *end, "{line}");
                *end = last.parse().unwrap();
            }
            None => {
                assert!(start <= *end, "{line}");
                *end = (*end).max(start + columns[3].len());
            }
        }
    }
    for (name, bases) in &measured.contigs {
        assert_eq!(ends.get(&name[..]), Some(bases));
    }
}

fn bcftools_reads_it(measured: &Measured) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calls.g.vcf.gz");
    std::fs::write(&path, &measured.gvcf).unwrap();
    std::fs::write(folder.path().join("calls.g.vcf.gz.tbi"), &measured.gvcf_tabix).unwrap();
    let (name, bases) = &measured.contigs[0];
    let middle = bases / 2;
    let region = format!("{name}:{middle}-{middle}");
    let output = Command::new("bcftools").args(["view", "-H", "-r", &region]).arg(&path).output();
    let Ok(output) = output else {
        let _ = writeln!(std::io::stderr(), "skipped: bcftools absent");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    assert!(!output.stdout.is_empty());
}
