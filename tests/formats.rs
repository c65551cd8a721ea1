//! Readers and writers of genome formats against real files and the programs everybody uses.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use dsgd::genome::Reference;
use dsgd::genome::vcf::{VcfHeader, VcfWriter, read_variants};

/// The folder of shared test data, or `None` with a note.
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

/// Runs a program and gives its output; `None` with a note if it is not installed.
fn output_of(program: &str, arguments: &[&str], folder: &Path) -> Option<(String, String)> {
    let Ok(output) = Command::new(program).args(arguments).current_dir(folder).output() else {
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(output.stderr));
    Some((text(output.stdout), text(output.stderr)))
}

#[test]
fn bcftools_reads_what_we_write_and_its_index() {
    let Some(data) = shared("human_HG002_chr20_slices") else { return };
    let open = |name: &str| File::open(data.join(name)).unwrap();
    let reference = Reference::read_fasta(open("ref_slices.fa")).unwrap();
    let truth = read_variants(open("truth_slices.vcf"), &reference).unwrap();
    assert_eq!(truth.len(), 578);

    let folder = tempfile::tempdir().unwrap();
    let header = VcfHeader::new("HG002", &reference).with_line("source", "dsgd test");
    let file = File::create(folder.path().join("a.vcf.gz")).unwrap();
    let mut writer = VcfWriter::new(file, header, 6).unwrap();
    for variant in &truth {
        writer
            .write(
                &dsgd::genome::Variant { information: String::new(), ..variant.clone() },
                &reference,
            )
            .unwrap();
    }
    let summary = writer.finish().unwrap();
    fs::write(folder.path().join("a.vcf.gz.tbi"), &summary.tabix).unwrap();

    let run = |arguments: &[&str]| output_of("bcftools", arguments, folder.path());
    let Some((records, complaints)) = run(&["view", "-H", "a.vcf.gz"]) else { return };
    assert_eq!((records.lines().count(), complaints.as_str()), (578, ""));
    let (counts, complaints) = run(&["index", "--nrecords", "a.vcf.gz"]).unwrap();
    assert_eq!((counts.trim(), complaints.as_str()), ("578", ""));
    let contig = &reference.contigs[truth[100].contig as usize].name;
    let place = format!("{contig}:{}", truth[100].position + 1);
    let (found, complaints) = run(&["view", "-H", "-r", &place, "a.vcf.gz"]).unwrap();
    assert_eq!((found.lines().count(), complaints.as_str()), (1, ""));
}
