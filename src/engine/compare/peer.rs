//! The comparison beside another program's: PacBio's aardvark (crate `aardvark-bio`), on the shared
//! test data.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Score, compare};
use crate::genome::inflate::InflateReader;
use crate::genome::region::{Region, Regions};
use crate::genome::vcf::{VcfHeader, VcfWriter, read_variants};
use crate::genome::{Reference, Variant};

fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn shared() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared"));
    let root = std::env::var_os("DSGD_SHARED").map_or_else(beside, PathBuf::from).join("data");
    root.exists().then_some(root)
}

fn text(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).unwrap();
    InflateReader::new(file, "test data").read_to_end(&mut bytes).unwrap();
    bytes
}

fn regions(bed: &str) -> Regions {
    let fields = bed.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    fields
        .map(|fields| Region {
            contig: fields[0].into(),
            start: fields[1].parse().unwrap(),
            end: fields[2].parse().unwrap(),
        })
        .collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

/// The truth with errors: of a hundred records five are lost, three get another genotype, and two
/// get another allele.
fn spoilt(truth: &[Variant]) -> Vec<Variant> {
    let mut random = Random(7);
    let mut calls = Vec::new();
    for record in truth {
        let mut call = record.clone();
        match random.below(100) {
            0..5 => continue,
            5..8 => call.genotype = if call.genotype == [1, 1] { vec![0, 1] } else { vec![1, 1] },
            8..10 => spoil_allele(&mut call),
            _ => {}
        }
        calls.push(call);
    }
    calls
}

/// Another base for a substitution, a base more for an indel.
fn spoil_allele(call: &mut Variant) {
    let alternate = &mut call.alternates[0];
    if alternate.len() == 1 && call.reference.len() == 1 {
        let other =
            b"ACGT".iter().find(|base| **base != alternate[0] && **base != call.reference[0]);
        alternate[0] = other.copied().unwrap_or(b'N');
    } else {
        alternate.push(b'G');
    }
}

/// Writes records as `NAME.vcf.gz` with their index.
fn write(folder: &Path, name: &str, reference: &Reference, records: &[Variant]) {
    let mut bytes = Vec::new();
    let header = VcfHeader::new("sample", reference);
    let mut writer = VcfWriter::new(&mut bytes, header, 6).unwrap();
    for record in records {
        let bare = Variant { information: String::new(), ..record.clone() };
        writer.write(&bare, reference).unwrap();
    }
    let summary = writer.finish().unwrap();
    std::fs::write(folder.join(format!("{name}.vcf.gz")), bytes).unwrap();
    std::fs::write(folder.join(format!("{name}.vcf.gz.tbi")), summary.tabix).unwrap();
}

/// Found and missed truth records, true and false calls of a class in aardvark's summary, counted as
/// vcfeval does: a wrong genotype is a miss and a false call. Aardvark finds fault with the side alone
/// that has an allele too many: with the truth when 1/1 is called 0/1, with the call when 0/1 is
/// called 1/1.
fn counts_of(summary: &str, wanted: &str) -> [u64; 4] {
    let mut lines = summary.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name: &str| head.iter().position(|known| *known == name).unwrap();
    let names = ["truth_tp", "truth_fn", "query_tp", "query_fp", "truth_fn_gt", "query_fp_gt"];
    let names = names.map(column);
    let (comparison, kind, region) =
        (column("comparison"), column("variant_type"), column("region_label"));
    let rows =
        lines.filter(|row| row[comparison] == "GT" && row[kind] == wanted && row[region] == "ALL");
    let [found, missed, right, wrong, lacking, extra] = rows.fold([0; 6], |sum, row| {
        std::array::from_fn(|at| sum[at] + row[names[at]].parse::<u64>().unwrap())
    });
    [found - extra, missed + extra, right - lacking, wrong + lacking]
}

/// Needs `aardvark` on the path, or its place in `DSGD_AARDVARK` (`cargo install aardvark-bio`):
/// `cargo test --release --lib compare::peer -- --ignored --nocapture`.
#[test]
#[ignore = "runs another program"]
fn aardvark_finds_the_same_records() {
    let Some(data) = shared() else { return say("skipped: shared data absent") };
    let program = std::env::var_os("DSGD_AARDVARK").unwrap_or_else(|| "aardvark".into());
    if !Command::new(&program).arg("--version").output().is_ok_and(|out| out.status.success()) {
        return say("skipped: aardvark absent (cargo install aardvark-bio, or set DSGD_AARDVARK)");
    }
    let sets = [
        ("human_HG002_chr20_slices", "ref_slices.fa", "truth_slices.vcf", "conf_slices.bed"),
        ("sim_chr20_2mb_30x", "ref.fa.gz", "truth.vcf.gz", "eval.bed"),
    ];
    for (folder, fasta, truth, bed) in sets {
        let file = |name: &str| text(&data.join(folder).join(name));
        let (fasta, bed) = (file(fasta), String::from_utf8(file(bed)).unwrap());
        let reference = Reference::read_fasta(&fasta[..]).unwrap();
        let truth = read_variants(&file(truth)[..], &reference).unwrap();
        let calls = spoilt(&truth);
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        std::fs::write(path("ref.fa"), &fasta).unwrap();
        std::fs::write(path("regions.bed"), &bed).unwrap();
        write(work.path(), "truth", &reference, &truth);
        write(work.path(), "calls", &reference, &calls);
        let mut compared = Command::new(&program);
        compared.arg("compare").current_dir(work.path());
        compared.args(["-r", "ref.fa", "-t", "truth.vcf.gz", "-q", "calls.vcf.gz"]);
        compared.args(["-b", "regions.bed", "-o", "out"]);
        let output = compared.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary = std::fs::read_to_string(path("out").join("summary.tsv")).unwrap();
        let ours = compare(&reference, &truth, &calls, &regions(&bed), 2);
        let classes = [("substitutions", &ours.snp, "Snv"), ("indels", &ours.indel, "JointIndel")];
        for (name, score, kind) in classes {
            let theirs = counts_of(&summary, kind);
            let Score { found, missed, true_calls, false_calls, .. } = *score;
            let ours = [found, missed, true_calls, false_calls];
            say(&format!("{folder}, {name}: ours {ours:?}, aardvark's {theirs:?}"));
            // Aardvark counts the two alleles of a record apart; and where records are close, both
            // programs choose among matches of one worth.
            let split = score.truth_kinds.multiallelic;
            let allowed = [split, 0, split, 0].map(|more| 2 + found / 100 + more);
            for ((ours, theirs), allowed) in ours.into_iter().zip(theirs).zip(allowed) {
                assert!(ours.abs_diff(theirs) <= allowed, "{name}\n{summary}");
            }
        }
    }
}
