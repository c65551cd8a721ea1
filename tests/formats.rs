//! Readers and writers of genome formats against real files and the programs everybody uses.

#![allow(clippy::unwrap_used)] // Helpers of tests, which clippy does not take for tests.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use dsgd::disclosure::{FilterOptions, Right, filter};
use dsgd::genome::alignment::AlignmentReads;
use dsgd::genome::fastq::FastqParser;
use dsgd::genome::inflate::InflateReader;
use dsgd::genome::vcf::{VcfHeader, VcfWriter, read_variants};
use dsgd::genome::{Layout, Reference};

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

/// Reads of one template in one line: sorted, two readers' orders do not matter.
fn lines_of(batches: AlignmentReads<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let batch = batch.unwrap();
        for index in 0..batch.len() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let mate = if batch.layout == Layout::Paired { 1 + index % 2 } else { 0 };
            let (name, bases) = (text(batch.name(index)), text(batch.bases(index)));
            lines.push(format!("{name} {mate} {bases} {}", text(batch.qualities(index))));
        }
    }
    lines.sort_unstable();
    lines
}

/// What `samtools fastq` makes of the same file: pairs, and single reads, as lines.
fn samtools_lines(path: &Path, reference: Option<&Path>) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let collated = folder.path().join("c.bam");
    let (path, collated) = (path.to_str().unwrap(), collated.to_str().unwrap());
    let mut arguments = vec!["collate", "-o", collated];
    if let Some(reference) = reference {
        arguments.extend(["--reference", reference.to_str().unwrap()]);
    }
    arguments.push(path);
    output_of("samtools", &arguments, folder.path())?;
    let fastq = ["fastq", "-n", "-1", "1.fq", "-2", "2.fq", "-s", "s.fq", "-0", "0.fq", collated];
    output_of("samtools", &fastq, folder.path())?;
    let mut lines = Vec::new();
    for (file, mate) in [("1.fq", 1), ("2.fq", 2), ("s.fq", 0), ("0.fq", 0)] {
        let text = fs::read_to_string(folder.path().join(file)).unwrap();
        let all: Vec<&str> = text.lines().collect();
        for record in all.chunks(4) {
            lines.push(format!("{} {mate} {} {}", &record[0][1..], record[1], record[3]));
        }
    }
    lines.sort_unstable();
    Some(lines)
}

#[test]
fn bam_reads_are_those_that_samtools_gives() {
    let Some(data) = shared("bam_cram_misc") else { return };
    for (name, groups) in [
        ("freebayes_NA12878.chr22.tiny.bam", 1),
        ("htsjdk_CEUTrio.HiSeq.WGS.b37.NA12878.20.first.8000.bam", 0),
        ("strelka_NA12878_chrM_200-200.bam", 0),
    ] {
        let path = data.join(name);
        let reads = AlignmentReads::bam(File::open(&path).unwrap(), name).unwrap();
        assert!(
            reads.read_groups().len() > groups / 2 && !reads.read_groups()[0].sample.is_empty()
        );
        let ours = lines_of(reads);
        let Some(theirs) = samtools_lines(&path, None) else { return };
        assert!(ours == theirs, "{name}: {} and {} reads", ours.len(), theirs.len());
    }
}

#[test]
fn cram_reads_are_those_that_samtools_gives() {
    let Some(data) = shared("bam_cram_misc") else { return };
    let (path, fasta) =
        (data.join("freebayes_NA12878.chr22.tiny.cram"), data.join("freebayes_q.fa"));
    let reference = Arc::new(Reference::read_fasta(File::open(&fasta).unwrap()).unwrap());
    let open = || File::open(&path).unwrap();
    let ours = lines_of(AlignmentReads::cram(open(), "c", reference.clone()).unwrap());
    assert!(ours.len() > 3000);
    let other = Arc::new(Reference::default());
    let failed = AlignmentReads::cram(open(), "c", other).unwrap().any(|batch| batch.is_err());
    assert!(failed, "the wrong reference must be noticed");
    let local = tempfile::tempdir().unwrap();
    fs::copy(&fasta, local.path().join("q.fa")).unwrap();
    let Some(theirs) = samtools_lines(&path, Some(&local.path().join("q.fa"))) else { return };
    assert!(ours == theirs, "{} and {} reads", ours.len(), theirs.len());
}

#[test]
fn a_cut_bam_is_noticed() {
    let Some(data) = shared("bam_cram_misc") else { return };
    let bytes = fs::read(data.join("freebayes_NA12878.chr22.tiny.bam")).unwrap();
    let cut = &bytes[..bytes.len() / 2];
    let mut reads = AlignmentReads::bam(cut, "cut.bam").unwrap();
    assert!(reads.any(|batch| batch.is_err()));
}

#[test]
fn real_fastq_of_several_sequencers_is_read() {
    let Some(data) = shared("") else { return };
    for (name, layout, records) in [
        ("human_HG002_chr20_slices/HG002_NIST_R1.fastq.gz", Layout::Single, 10_507),
        ("sarscov2_twist_miseq/pos_MN908947_3_1_R2.fastq.gz", Layout::Single, 19_970),
        ("lambda_breseq_ga2/lambda_mixed_population.3.fastq.gz", Layout::Single, 40_000),
    ] {
        let mut reader = InflateReader::new(File::open(data.join(name)).unwrap(), name);
        let (mut parser, mut out) = (FastqParser::new(name, layout, 0), VecDeque::new());
        let mut buffer = vec![0; 100_003];
        loop {
            let len = reader.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            parser.push(&buffer[..len], &mut out).unwrap();
        }
        parser.finish(&mut out).unwrap();
        assert_eq!(parser.records(), records, "{name}");
        assert_eq!(out.iter().map(|batch| batch.len() as u64).sum::<u64>(), records);
    }
}

#[test]
fn bcftools_reads_what_the_filter_lets_leave() {
    let Some(data) = shared("human_HG002_chr20_slices") else { return };
    let text = "id='r1'\nuser='hospital'\npurpose='care'\nfilter=['PASS', '.']\n\
                bed='conf_slices.bed'\npseudonym='P0001'";
    let mut right: Right = toml::from_str(text).unwrap();
    right.relative_to(&data);
    let permit = right.resolve().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut out = File::create(folder.path().join("f.vcf.gz")).unwrap();
    let input = File::open(data.join("truth_slices.vcf")).unwrap();
    let report = filter(input, &permit, &FilterOptions::default(), &mut out).unwrap();
    fs::write(folder.path().join("f.vcf.gz.tbi"), &report.tabix).unwrap();
    let run = |arguments: &[&str]| output_of("bcftools", arguments, folder.path());
    let Some((records, complaints)) = run(&["view", "-H", "f.vcf.gz"]) else { return };
    assert_eq!((records.lines().count() as u64, complaints.as_str()), (report.kept, ""));
    let (counts, complaints) = run(&["index", "--nrecords", "f.vcf.gz"]).unwrap();
    assert_eq!((counts.trim().to_owned(), complaints.as_str()), (report.kept.to_string(), ""));
    let bed = data.join("conf_slices.bed");
    let truth = data.join("truth_slices.vcf");
    let targets = ["view", "-H", "-f", "PASS,.", "--targets-overlap", "2", "-T"];
    let inside = [&targets[..], &[bed.to_str().unwrap(), truth.to_str().unwrap()]].concat();
    let (inside, _) = run(&inside).unwrap();
    // bcftools counts a record that overlaps; we count one that lies inside as a whole.
    let whole = |line: &&str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let start: u32 = fields[1].parse().unwrap();
        permit.covers(fields[0], start - 1, start - 1 + fields[3].len() as u32)
    };
    assert_eq!(inside.lines().filter(whole).count() as u64, report.kept);
    assert!(report.kept > 300);
}
