//! The external engine with the programs everybody uses, on real reads.
//! They are skipped, plainly, where data or programs are absent.
#![allow(clippy::unwrap_used)] // Helpers of tests, which clippy does not take for tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use dsgd::base::Chunk;
use dsgd::engine::external::{External, ExternalSettings, Handover};
use dsgd::engine::{CallRequest, Engine};
use dsgd::flow::{Flow, Meters};
use dsgd::genome::inflate::Inflate;
use dsgd::genome::lanes::{Input, Lane, reads};
use dsgd::genome::vcf::read_variants;
use dsgd::genome::{ReadGroup, Reference};

fn shared(part: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let root = std::env::var_os("DSGD_SHARED").map_or_else(beside, PathBuf::from);
    let path = root.join("data").join(part);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: shared data absent");
    None
}

fn installed(program: &str) -> bool {
    let found = Command::new(program).output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

fn input<'a>(folder: &Path, name: &str, meters: &Meters) -> Input<'a> {
    let bytes = fs::read(folder.join(name)).unwrap();
    let chunks: Vec<_> = bytes.chunks(1 << 20).map(|part| Ok(Chunk::from_bytes(0, part))).collect();
    let bytes = Flow::source(meters, "file", chunks).then(Inflate::new(name));
    Input { file: name.into(), bytes }
}

#[test]
fn bwa_and_bcftools_find_the_known_variants() {
    let Some(data) = shared("human_HG002_chr20_slices") else { return };
    if !["bwa", "samtools", "bcftools"].into_iter().all(installed) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fasta = folder.path().join("ref.fa");
    fs::copy(data.join("ref_slices.fa"), &fasta).unwrap();
    let indexed = Command::new("bwa").arg("index").arg(&fasta).output().unwrap();
    assert!(indexed.status.success());
    let script = r#"set -e
        bwa mem -t "$DSGD_THREADS" "$DSGD_REFERENCE" "$DSGD_READS_1" "$DSGD_READS_2" \
        | samtools sort -T "$DSGD_SCRATCH/sort" - \
        | bcftools mpileup -f "$DSGD_REFERENCE" - | bcftools call -mv -Oz -o "$1""#;
    let engine = External::new(ExternalSettings {
        name: "bwa-bcftools".into(),
        command: ["sh", "-c", script, "sh", "{output}"].map(String::from).into(),
        version_command: ["bcftools", "--version"].map(String::from).into(),
        handover: Handover::Pipes,
        scratch: Some(folder.path().into()),
        timeout_seconds: 600,
    });
    assert!(engine.version().starts_with("bcftools "));
    let reference = Reference::read_fasta(File::open(&fasta).unwrap()).unwrap();
    let group = ReadGroup {
        id: "1".into(),
        sample: "HG002".into(),
        library: "1".into(),
        unit: "1".into(),
        platform: "ILLUMINA".into(),
    };
    let request = CallRequest {
        reference_path: &fasta,
        sample: "HG002".into(),
        read_groups: vec![group],
        threads: 2,
        ..CallRequest::new(&reference)
    };
    let meters = Meters::default();
    let files = ["HG002_NIST_R1.fastq.gz", "HG002_NIST_R2.fastq.gz"];
    let [one, two] = files.map(|name| input(&data, name, &meters));
    let batches = Flow::source(&meters, "reads", reads([(0, Lane::Pair(one, two))]));
    let mut vcf = Vec::new();
    let report = engine.call(&request, batches, &meters, &mut vcf, None).unwrap();
    assert_eq!(report.reads, 21_014);
    let called = read_variants(&vcf[..], &reference).unwrap();
    assert_eq!(called.len() as u64, report.records);
    let truth =
        read_variants(File::open(data.join("truth_slices.vcf")).unwrap(), &reference).unwrap();
    let known: Vec<_> = truth.iter().filter(|variant| variant.contig == 0).collect();
    let found = known.iter().filter(|known| {
        called.iter().any(|call| call.position == known.position && call.contig == 0)
    });
    let (found, known) = (found.count(), known.len());
    assert!(known > 100 && found * 10 > known * 9, "{found} of {known} known variants");
}
