//! Accuracy of the whole engine, reads to PASS records, on the shared test data.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::Chunk;
use crate::engine::compare::{Comparison, compare};
use crate::engine::native::{Index, Native};
use crate::engine::{AlignmentFormat, CallRequest, Engine, Room};
use crate::flow::{Flow, Meters};
use crate::genome::inflate::InflateReader;
use crate::genome::lanes::{Input, Lane, reads};
use crate::genome::region::{Region, Regions};
use crate::genome::vcf::read_variants;
use crate::genome::{ReadGroup, Reference};

/// A folder of the shared test data, or `None` with a note.
fn shared(part: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let root = std::env::var_os("DSGD_SHARED").map_or_else(beside, PathBuf::from);
    let path = root.join("data").join(part);
    if !path.exists() {
        let _ = writeln!(std::io::stderr(), "skipped: shared data absent");
        return None;
    }
    Some(path)
}

fn text(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    InflateReader::new(file, "test data").read_to_end(&mut bytes).unwrap();
    bytes
}

fn input<'a>(path: &Path) -> Input<'a> {
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

/// Calls the sample of these pairs of files and compares the PASS records with the truth.
fn measure(
    folder: &Path,
    reference: &str,
    lanes: &[[&str; 2]],
    truth: &str,
    wanted: &str,
) -> Comparison {
    let reference = Reference::read_fasta(&text(&folder.join(reference))[..]).unwrap();
    let group = |number: usize| ReadGroup {
        id: format!("lane{number}"),
        sample: "sample".into(),
        library: format!("library{number}"),
        unit: String::new(),
        platform: "ILLUMINA".into(),
    };
    let threads = 2;
    let request = CallRequest {
        reference: &reference,
        reference_path: Path::new("reference.fa"),
        sample: "sample".into(),
        read_groups: (0..lanes.len()).map(group).collect(),
        ploidy: 2,
        regions: None,
        threads,
        command_line: "dsgd call".into(),
        room: Room::default(),
        format: AlignmentFormat::Bam,
    };
    let pairs = lanes.iter().map(|files| files.map(|file| input(&folder.join(file))));
    let lanes: Vec<_> =
        (0..).zip(pairs).map(|(group, [one, two])| (group, Lane::Pair(one, two))).collect();
    let meters = Meters::default();
    let reads = Flow::source(&meters, "reads", reads(lanes));
    let engine = Native::new(Arc::new(Index::build(&reference, threads).unwrap()));
    let (mut vcf, mut bam) = (Vec::new(), Vec::new());
    // A folder to keep the records and the alignments in, for looking at them.
    let kept = std::env::var_os("DSGD_CALLS").map(PathBuf::from);
    let wanted_bam = kept.as_ref().map(|_| &mut bam as &mut (dyn Write + Send));
    engine.call(&request, reads, &meters, &mut vcf, wanted_bam).unwrap();
    if let Some(folder) = kept {
        std::fs::write(folder.join("calls.vcf.gz"), &vcf).unwrap();
        std::fs::write(folder.join("reads.bam"), &bam).unwrap();
    }
    let calls = read_variants(&vcf[..], &reference).unwrap();
    let truth = read_variants(&text(&folder.join(truth))[..], &reference).unwrap();
    let comparison = compare(&reference, &truth, &calls, &regions(&folder.join(wanted)), 2);
    let _ = writeln!(std::io::stderr(), "{:?}\n{:?}", comparison.snp, comparison.indel);
    comparison
}

#[test]
fn real_reads_of_hg002_give_the_variants_of_its_truth_set() {
    let Some(folder) = shared("human_HG002_chr20_slices") else { return };
    let lanes = [
        ["HG002_10X_R1.fastq.gz", "HG002_10X_R2.fastq.gz"],
        ["HG002_NIST_R1.fastq.gz", "HG002_NIST_R2.fastq.gz"],
    ];
    let found = measure(&folder, "ref_slices.fa", &lanes, "truth_slices.vcf", "conf_slices.bed");
    assert!(found.snp.f1 >= 0.99, "{:?}", found.snp);
    assert!(found.indel.f1 >= 0.92, "{:?}", found.indel);
}

#[test]
fn simulated_reads_give_the_variants_of_their_donor() {
    let Some(folder) = shared("sim_chr20_2mb_30x") else { return };
    let lanes = [["reads_1.fq.gz", "reads_2.fq.gz"]];
    let found = measure(&folder, "ref.fa.gz", &lanes, "truth.vcf.gz", "eval.bed");
    assert!(found.snp.f1 >= 0.999, "{:?}", found.snp);
    assert!(found.indel.f1 >= 0.98, "{:?}", found.indel);
}
