//! The program itself: exit codes, standard output, standard error and JSON of the verbs that need
//! no site.

#![allow(clippy::unwrap_used)] // Helpers of tests, which clippy does not take for tests.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;

/// What a run of the program gave.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn ends(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        for words in says {
            assert!(self.err.contains(words), "'{words}' is not in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    #[track_caller]
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}", self.out))
    }
}

/// A folder with a reference and reads of it, and the program run there.
struct Bench {
    folder: tempfile::TempDir,
    genome: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"ACGT"[(state >> 61) as usize % 4]
        };
        let genome: Vec<u8> = (0..6000).map(|_| next()).collect();
        let bench = Self { folder: tempfile::tempdir().unwrap(), genome };
        bench.write("ref.fa", [b">c1 one\n", &bench.genome[..], b"\n"].concat());
        let (first, second) = bench.pairs(40);
        bench.write("r1.fq", &first);
        bench.write("r2.fq", &second);
        bench
    }

    /// FASTQ of both mates of this many templates.
    fn pairs(&self, count: usize) -> (String, String) {
        let (mut first, mut second) = (String::new(), String::new());
        for number in 0..count {
            let start = number * 137 % (self.genome.len() - 300);
            let left = &self.genome[start..start + 100];
            let right = reverse_complement(&self.genome[start + 200..start + 300]);
            first += &record(&format!("t{number}/1"), &String::from_utf8_lossy(left));
            second += &record(&format!("t{number}/2"), &right);
        }
        (first, second)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsgd"));
        command.args(arguments).current_dir(self.folder.path()).env("HOME", self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// `dsgd call` on these files.
    fn call(&self, reads: &[&str], more: &[&str]) -> Ran {
        let first = ["call", "--reference", "ref.fa", "--threads", "2", "--output", "o.vcf.gz"];
        self.run(&[&first[..], more, &["--reads"], reads].concat())
    }

    /// `dsgd call` on these files has to fail so, and to leave nothing.
    #[track_caller]
    fn call_fails(&self, reads: &[&str], code: i32, says: &[&str]) {
        let before = self.files();
        self.call(reads, &[]).ends(code, says);
        assert_eq!(self.files(), before, "something is left");
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let entries = fs::read_dir(self.folder.path()).unwrap().map(name);
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The records of a compressed VCF.
    fn records(&self, name: &str) -> usize {
        let mut text = String::new();
        let file = flate2::read::MultiGzDecoder::new(File::open(self.path(name)).unwrap());
        std::io::Read::read_to_string(&mut std::io::BufReader::new(file), &mut text).unwrap();
        assert!(text.starts_with("##fileformat=VCFv4.3\n"), "{text}");
        assert!(text.contains("\n#CHROM\tPOS\t"), "{text}");
        text.lines().filter(|line| !line.starts_with('#')).count()
    }
}

fn record(name: &str, bases: &str) -> String {
    format!("@{name}\n{bases}\n+\n{}\n", "I".repeat(bases.len()))
}

fn reverse_complement(bases: &[u8]) -> String {
    let complement = |base: &u8| match base {
        b'A' => 'T',
        b'C' => 'G',
        b'G' => 'C',
        _ => 'A',
    };
    bases.iter().rev().map(complement).collect()
}

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn help_and_version_are_answers() {
    let bench = Bench::new();
    let help = bench.run(&["help"]).ends(0, &[]);
    for verb in ["call", "compare", "filter", "put", "Exit codes"] {
        assert!(help.out.contains(verb), "{}", help.out);
    }
    assert_eq!(help.err, "");
    assert!(bench.run(&["call", "--help"]).ends(0, &[]).out.contains("--reference"));
    let version = bench.run(&["--version"]).ends(0, &[]);
    assert_eq!(version.out, format!("dsgd {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let bench = Bench::new();
    bench.run(&["cal"]).ends(2, &["cal", "call"]);
    bench.run(&["call", "--referense", "x"]).ends(2, &["--referense", "--reference"]);
    bench.run(&["call"]).ends(2, &["--reads"]);
    bench.run(&["call", "--ploidy", "3"]).ends(2, &["3"]);
    let nothing = bench.run(&[]).ends(2, &["Usage"]);
    assert_eq!(nothing.out, "");
    bench.write("r3.fq", "@a\nA\n+\nI\n");
    bench.call_fails(&["r1.fq", "r2.fq", "r3.fq"], 2, &["3 FASTQ files", "--layout"]);
    let bad = bench.run(&["--json", "cal"]);
    assert_eq!((bad.code, bad.json()["error"]["exit"].as_u64()), (2, Some(2)));
}

#[test]
fn a_missing_file_ends_with_66_and_is_named() {
    let bench = Bench::new();
    bench.call_fails(&["none.fq"], 66, &["none.fq"]);
    let arguments = ["call", "-r", "none.fa", "-o", "o.vcf.gz", "--reads", "r1.fq"];
    let failed = bench.run(&[&["--json"], &arguments[..]].concat()).ends(66, &["none.fa"]);
    let document = failed.json();
    assert_eq!(
        (document["ok"].as_bool(), document["error"]["exit"].as_u64()),
        (Some(false), Some(66))
    );
    bench.write("t.vcf", "##fileformat=VCFv4.3\n");
    let compare = ["compare", "t.vcf", "no.vcf", "-r", "ref.fa", "--regions", "no.bed"];
    bench.run(&compare).ends(66, &["no.bed"]);
    bench.run(&["--config", "no.toml", "config", "check"]).ends(78, &["no.toml"]);
}

#[test]
fn a_call_writes_calls_and_their_index() {
    let bench = Bench::new();
    let ran = bench.call(&["r1.fq", "r2.fq"], &["--json", "--sample", "S1"]).ends(0, &[]);
    let document = ran.json();
    assert_eq!(document["command"], "call");
    assert_eq!(document["data"]["reads"], 80);
    assert_eq!(document["data"]["mapped"], 80);
    assert_eq!(bench.records("o.vcf.gz"), 0);
    assert!(bench.path("o.vcf.gz.tbi").exists());
}

#[test]
fn a_call_writes_its_quality_figures() {
    let bench = Bench::new();
    let more = ["--json", "--sample", "S1", "--metrics", "figures"];
    let document = bench.call(&["r1.fq", "r2.fq"], &more).ends(0, &[]).json();
    let metrics = &document["data"]["metrics"];
    assert_eq!(metrics["properly_paired"], 80);
    assert_eq!(metrics["insert"]["median"], 300);
    assert_eq!(metrics["mates"][1]["aligned_bases"], 4000);
    assert_eq!(metrics["mates"][0]["mismatched_bases"], 0);
    let read = |name: &str| fs::read_to_string(bench.path("figures").join(name)).unwrap();
    let mapping = read("S1.mapping_metrics.csv");
    let unique = "Number of unique reads (excl. duplicate marked reads),80,100.00";
    assert!(mapping.lines().take(50).any(|line| line.ends_with(unique)), "{mapping}");
    assert!(read("S1.vc_metrics.csv").contains("VARIANT CALLER POSTFILTER,S1,Total,0,0.00\n"));
    assert!(read("S1.time_metrics.csv").contains(",Total runtime,00:"));
    let summary = read("S1.mosdepth.summary.txt");
    assert!(summary.contains("c1\t6000\t8000\t1.33\t"), "{summary}");
    assert!(read("S1.mosdepth.global.dist.txt").ends_with("total\t0\t1.0000\n"));
    let figures: serde_json::Value = serde_json::from_str(&read("S1.metrics.json")).unwrap();
    assert_eq!(figures["contigs"][0]["bases"], 8000);
}

#[test]
fn multiqc_finds_the_figures_without_configuration() {
    let bench = Bench::new();
    let more = ["--sample", "S1", "--metrics", "figures"];
    bench.call(&["r1.fq", "r2.fq"], &more).ends(0, &[]);
    bench.write_calls("truth.vcf", &[100, 200, 300], "0/1");
    bench.write("all.bed", "c1\t0\t6000\n");
    let compare = ["compare", "truth.vcf", "truth.vcf", "-r", "ref.fa", "--regions", "all.bed"];
    let summary = ["--summary", "figures/S1.summary.csv"];
    bench.run(&[&compare[..], &summary].concat()).ends(0, &[]);
    let mut command = Command::new("multiqc");
    command.args(["--outdir", "report", "figures"]).current_dir(bench.folder.path());
    let Ok(output) = command.output() else {
        eprintln!("skipped: multiqc is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    for kind in ["mapping_metrics", "vc_metrics", "time_metrics"] {
        assert!(said.contains(&format!("Found 1 add_{kind} reports")), "{kind}: {said}");
    }
    let sources = bench.path("report/multiqc_data/multiqc_sources.txt");
    let sources = fs::read_to_string(sources).unwrap().to_lowercase();
    for file in ["mapping_metrics", "vc_metrics", "time_metrics", "mosdepth", "summary.csv"] {
        assert!(sources.contains(file), "{file}: {sources}");
    }
}

#[test]
fn line_ends_and_compression_change_nothing() {
    let bench = Bench::new();
    bench.call(&["r1.fq", "r2.fq"], &["--sample", "S1"]).ends(0, &[]);
    let expected = fs::read(bench.path("o.vcf.gz")).unwrap();
    let (first, second) = bench.pairs(40);
    // Line ends are no part of a record; the header of the calls names the files.
    bench.write("r1.fq", first.replace('\n', "\r\n"));
    bench.write("r2.fq", second.trim_end());
    bench.call(&["r1.fq", "r2.fq"], &["--sample", "S1"]).ends(0, &[]);
    assert!(fs::read(bench.path("o.vcf.gz")).unwrap() == expected);
    bench.write("r1.fq", gzip(&first));
    bench.write("r2.fq", [gzip(&second[..5000]), gzip(&second[5000..])].concat());
    bench.call(&["r1.fq", "r2.fq"], &["--sample", "S1"]).ends(0, &[]);
    assert!(fs::read(bench.path("o.vcf.gz")).unwrap() == expected);
}

#[test]
fn broken_compression_ends_with_65() {
    let bench = Bench::new();
    let (first, second) = bench.pairs(400);
    let packed = gzip(&first);
    bench.write("two.fq.gz", gzip(&second));
    bench.write("cut.fq.gz", &packed[..packed.len() / 2]);
    bench.call_fails(&["cut.fq.gz", "two.fq.gz"], 65, &["cut.fq.gz", "too early"]);
    let mut wrong = packed.clone();
    let at = wrong.len() - 6; // Within the CRC-32 of the trailer.
    wrong[at] ^= 1;
    bench.write("crc.fq.gz", &wrong);
    bench.call_fails(&["crc.fq.gz", "two.fq.gz"], 65, &["crc.fq.gz", "damaged"]);
    bench.write("tail.fq.gz", [&packed[..], b"more"].concat());
    bench.call_fails(&["tail.fq.gz", "two.fq.gz"], 65, &["tail.fq.gz"]);
}

#[test]
fn mates_that_do_not_fit_end_with_65() {
    let bench = Bench::new();
    let (first, second) = bench.pairs(39);
    bench.write("short.fq", &second);
    bench.call_fails(&["r1.fq", "short.fq"], 65, &["short.fq ends after 39", "r1.fq goes on"]);
    bench.write("short.fq", &first);
    bench.call_fails(&["short.fq", "r2.fq"], 65, &["short.fq ends after 39", "r2.fq goes on"]);
    let (_, renamed) = bench.pairs(40);
    bench.write("named.fq", renamed.replace("@t17/2", "@u17/2"));
    bench.call_fails(&["r1.fq", "named.fq"], 65, &["record 18", "do not match"]);
}

#[test]
fn malformed_records_end_with_65_and_their_line() {
    let bench = Bench::new();
    for (text, says) in [
        ("@a\nACGT\n+\nIII\n", "record 1"),
        ("@a\nACGT\n+\nIIIII\n", "record 1"),
        ("@a\nACGT\n+\nII I\n", "record 1"),
        ("@a\nACGT\n+\nII\u{7f}I\n", "record 1"),
        ("@a\nACGT\n-\nIIII\n", "record 1"),
        ("@a\nAC!T\n+\nIIII\n", "record 1"),
        ("@a\nACGT\n+\nIIII\n@b\nAC\n", "record 2"),
        ("@a\nACGT\n+\nIIII\nb\nAC\n+\nII\n", "record 2"),
    ] {
        bench.write("bad.fq", text);
        bench.call_fails(&["bad.fq"], 65, &["bad.fq", says]);
    }
}

#[test]
fn what_is_no_reads_ends_with_65() {
    let bench = Bench::new();
    bench.write("notes.txt", "These are no reads.\n");
    bench.call_fails(&["notes.txt"], 65, &["notes.txt", "FASTQ"]);
    bench.write("noise.bin", [0u8, 159, 146, 150, 7, 7]);
    bench.call_fails(&["noise.bin"], 65, &["noise.bin"]);
    bench.call_fails(&["ref.fa"], 65, &["ref.fa"]);
    bench.write("cut.bam", gzip(b"BAM\x01\xff\xff\xff\x7f"));
    bench.call_fails(&["cut.bam"], 65, &["cut.bam"]);
}

#[test]
fn no_reads_at_all_are_calls_without_records() {
    let bench = Bench::new();
    bench.write("e1.fq", "");
    bench.write("e2.fq", "");
    bench.call(&["e1.fq", "e2.fq"], &[]).ends(0, &[]);
    assert_eq!(bench.records("o.vcf.gz"), 0);
    bench.write("e1.fq.gz", gzip(""));
    let ran = bench.call(&["e1.fq.gz"], &["--json", "--bam", "o.bam"]).ends(0, &[]);
    assert_eq!(ran.json()["data"]["reads"], 0);
    assert_eq!(bench.records("o.vcf.gz"), 0);
    bench.call_fails(&["r1.fq", "e2.fq"], 65, &["e2.fq ends after 0", "r1.fq goes on"]);
}

#[test]
fn empty_and_very_long_reads_are_read() {
    let bench = Bench::new();
    let (first, second) = bench.pairs(5);
    let long = "ACGTTGCA".repeat(1250);
    bench.write("l1.fq", first + "@e/1\n\n+\n\n" + &record("l/1", &long));
    bench.write("l2.fq", second + "@e/2\n\n+\n\n" + &record("l/2", "ACGTTGCA"));
    let ran = bench.call(&["l1.fq", "l2.fq"], &["--json", "--bam", "o.bam"]).ends(0, &[]);
    let document = ran.json();
    assert_eq!(document["data"]["reads"], 14);
    assert_eq!(document["data"]["mapped"], 10);
}

#[test]
fn indexes_are_checked() {
    let bench = Bench::new();
    let built = bench.run(&["index", "build", "ref.fa", "-o", "ref.idx", "--json"]).ends(0, &[]);
    assert_eq!(built.json()["command"], "index build");
    bench.run(&["index", "check", "ref.fa", "ref.idx"]).ends(0, &[]);
    bench.call(&["r1.fq", "r2.fq"], &["--index", "ref.idx"]).ends(0, &[]);
    fs::remove_file(bench.path("o.vcf.gz")).unwrap();
    let bytes = fs::read(bench.path("ref.idx")).unwrap();
    bench.write("cut.idx", &bytes[..bytes.len() - 100]);
    let cut = bench.run(&["index", "check", "ref.fa", "cut.idx"]);
    assert!([65, 76].contains(&cut.code), "{}: {}", cut.code, cut.err);
    let mut flipped = bytes.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 4;
    bench.write("flipped.idx", flipped);
    bench.run(&["index", "check", "ref.fa", "flipped.idx"]).ends(76, &["flipped.idx"]);
    bench.call(&["r1.fq"], &["--index", "flipped.idx"]).ends(76, &["flipped.idx"]);
    bench.write("text.idx", "no index\n");
    let text = bench.run(&["index", "check", "ref.fa", "text.idx"]);
    assert!([65, 76].contains(&text.code), "{}: {}", text.code, text.err);
    bench.write("other.fa", [b">c1\n", &bench.genome[1..], b"A\n"].concat());
    let other = bench.run(&["index", "check", "other.fa", "ref.idx"]);
    assert!([65, 76, 78].contains(&other.code), "{}: {}", other.code, other.err);
    assert!(!bench.path("o.vcf.gz").exists());
}

#[test]
fn a_broken_reference_ends_with_65() {
    let bench = Bench::new();
    for (text, says) in [
        ("", "no sequence"),
        (">a\nACGT\n>b\nACGT\n>a\nACGT\n", "'a' is there twice"),
        (">a\n>b\nACGT\n", "'a' has no bases"),
        ("ACGT\n", "begins with '>'"),
        (">a\nAC!T\n", "is not a base"),
        ("> \nACGT\n", "no name"),
    ] {
        bench.write("ref.fa", text);
        bench.call_fails(&["r1.fq", "r2.fq"], 65, &["ref.fa", says]);
    }
}

const VCF: &str = "##fileformat=VCFv4.3\n##contig=<ID=c1,length=6000>\n\
    ##FILTER=<ID=PASS,Description=\"All filters passed\">\n\
    ##INFO=<ID=DP,Number=1,Type=Integer,Description=\"Depth\">\n\
    ##FORMAT=<ID=GT,Number=1,Type=String,Description=\"Genotype\">\n\
    #CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1\n";

impl Bench {
    /// A VCF with substitutions at these positions, counted from 1.
    fn write_calls(&self, name: &str, positions: &[usize], genotype: &str) {
        let mut text = VCF.to_owned();
        for &position in positions {
            let base = char::from(self.genome[position - 1]);
            let other = if base == 'A' { 'C' } else { 'A' };
            text +=
                &format!("c1\t{position}\t.\t{base}\t{other}\t50\tPASS\tDP=30\tGT\t{genotype}\n");
        }
        self.write(name, text);
    }
}

#[test]
fn a_filter_lets_through_what_the_right_permits() {
    let bench = Bench::new();
    bench.write_calls("calls.vcf", &[100, 200, 3000], "0/1");
    bench.write(
        "right.toml",
        "id = 'r1'\nuser = 'clinic'\npurpose = 'care'\nregions = ['c1:150-1000']\n",
    );
    let filter = ["filter", "calls.vcf", "--right", "right.toml", "-o", "f.vcf.gz"];
    let ran = bench.run(&[&filter[..], &["--json"]].concat()).ends(0, &[]);
    let document = ran.json();
    assert_eq!(document["data"]["kept"], 1);
    assert_eq!(document["data"]["removed"], 2);
    assert_eq!(bench.records("f.vcf.gz"), 1);
    fs::remove_file(bench.path("f.vcf.gz")).unwrap();
    bench.write("right.toml", "id = 'r1'\nuser = 'clinic'\npurpose = 'care'\nregion = []\n");
    bench.run(&filter).ends(78, &["right.toml", "region"]);
    bench.write(
        "right.toml",
        "id = 'r1'\nuser = 'clinic'\npurpose = 'care'\neverywhere = true\nexpiry = '2001-01-01T00:00:00Z'\n",
    );
    bench.run(&filter).ends(77, &["r1"]);
    let nobody = ["filter", "calls.vcf", "--right", "nobody", "-o", "f.vcf.gz"];
    bench.run(&nobody).ends(78, &[]);
    bench.write("right.toml", "id='r1'\nuser='clinic'\npurpose='care'\neverywhere=true\n");
    bench.write("broken.vcf", format!("{VCF}c1\tx\t.\n"));
    let broken = ["filter", "broken.vcf", "--right", "right.toml", "-o", "f.vcf.gz"];
    bench.run(&broken).ends(65, &["broken.vcf"]);
    assert!(!bench.path("f.vcf.gz").exists());
}

#[test]
fn a_comparison_counts_and_speaks() {
    let bench = Bench::new();
    bench.write_calls("truth.vcf", &[100, 200, 300], "0/1");
    bench.write_calls("calls.vcf", &[100, 200, 400], "0/1");
    bench.write("all.bed", "c1\t0\t6000\n");
    let files = ["--summary", "S1.summary.csv", "--disagreements", "d.vcf"];
    let compare = ["compare", "truth.vcf", "calls.vcf", "-r", "ref.fa", "--regions", "all.bed"];
    let table = bench.run(&compare).ends(0, &[]);
    assert!(table.out.contains("SNP"), "{}", table.out);
    let document = bench.run(&[&compare[..], &["--json"]].concat()).ends(0, &[]).json();
    let snp = &document["data"]["snp"];
    bench.run(&[&compare[..], &files].concat()).ends(0, &[]);
    let summary = fs::read_to_string(bench.path("S1.summary.csv")).unwrap();
    assert!(summary.contains("\nSNP,PASS,3,2,1,3,1,0,0,0,0.666667,0.666667,"), "{summary}");
    let records = fs::read_to_string(bench.path("d.vcf")).unwrap();
    let records: Vec<&str> = records.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(records[0].starts_with("c1\t300\t") && records[0].contains("0/1:FN"), "{records:?}");
    assert!(records[1].starts_with("c1\t400\t") && records[1].ends_with("0/1:FP:."));
    let failed = fs::read_to_string(bench.path("calls.vcf")).unwrap();
    let failed = failed.replacen("50\tPASS", "50\tLowQual", 1);
    bench.write("calls.vcf", failed);
    bench.run(&[&compare[..], &files].concat()).ends(0, &[]);
    let summary = fs::read_to_string(bench.path("S1.summary.csv")).unwrap();
    assert!(summary.contains("\nSNP,ALL,3,2,1,3,1,"), "{summary}");
    assert!(summary.contains("\nSNP,PASS,3,1,2,2,1,"), "{summary}");
    let all = bench.run(&[&compare[..], &["--json", "--all"]].concat()).json();
    assert_eq!(all["data"]["snp"]["found"], 2);
    let packed = ["--disagreements", "d.vcf.gz"];
    bench.run(&[&compare[..], &packed].concat()).ends(0, &[]);
    assert!(fs::read(bench.path("d.vcf.gz")).unwrap().starts_with(&[0x1f, 0x8b]));
    let counts = ["found", "missed", "true_calls", "false_calls"].map(|name| snp[name].as_u64());
    assert_eq!(counts, [2, 1, 2, 1].map(Some));
    let other = if bench.genome[99] == b'A' { 'C' } else { 'A' };
    let elsewhere = format!("{VCF}c1\t100\t.\t{other}\tG\t50\tPASS\tDP=1\tGT\t0/1\n");
    bench.write("calls.vcf", elsewhere);
    bench.run(&compare).ends(65, &["calls.vcf"]);
    bench.write("all.bed", "c1\tx\t6000\n");
    bench.run(&compare).ends(65, &["all.bed"]);
}

#[test]
fn the_configuration_is_shown_with_its_origin_and_checked() {
    let bench = Bench::new();
    bench.write("site.toml", "site = 'tommo'\nstate = 'state'\n[io]\nread-ahead = 3\n");
    let show = ["--config", "site.toml", "config", "show", "--origin"];
    let shown = bench.run(&show).ends(0, &[]).out;
    let line = shown.lines().find(|line| line.starts_with("io.read-ahead")).unwrap();
    assert_eq!(line, "io.read-ahead = 3    # site.toml");
    assert!(shown.lines().any(|line| line.ends_with("# default")), "{shown}");
    bench.run(&["--config", "site.toml", "config", "check"]).ends(0, &[]);
    bench.write("site.toml", "site = 'tommo'\nstate = 'state'\n[io]\nread-ahed = 3\n");
    let check = ["--config", "site.toml", "config", "check"];
    bench.run(&check).ends(78, &["read-ahed", "did you mean 'read-ahead'?", "site.toml"]);
    let help = bench.run(&[&check[..], &["--json"]].concat()).json();
    assert_eq!(help["error"]["help"], "did you mean 'read-ahead'?");
    bench.write("site.toml", "site = \n");
    bench.run(&check).ends(78, &["site.toml"]);
    bench.run(&["config", "check"]).ends(78, &["--config"]);
}

#[test]
fn completions_manual_and_doctor_work() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.run(&["completions", shell]).ends(0, &[]).out.contains("dsgd"));
    }
    bench.run(&["completions", "csh"]).ends(2, &["bash"]);
    bench.run(&["man", "pages"]).ends(0, &[]);
    assert!(fs::read_to_string(bench.path("pages/dsgd-call.1")).unwrap().contains("reference"));
    let doctor = bench.run(&["doctor", "--json"]).ends(0, &[]).json();
    assert_eq!(doctor["data"][0]["what"], "machine");
}

#[test]
fn a_folder_that_is_not_there_takes_no_calls() {
    let bench = Bench::new();
    let arguments = ["call", "-r", "ref.fa", "-o", "no/o.vcf.gz", "--reads", "r1.fq"];
    let ran = bench.run(&arguments);
    assert!([66, 74].contains(&ran.code), "{}: {}", ran.code, ran.err);
    assert!(ran.err.contains("o.vcf.gz"), "{}", ran.err);
}

/// A file system of a few pages; `None` with a note where none can be mounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(&path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path));
        }
        eprintln!("skipped: no small disk can be mounted");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_ends_with_74_and_leaves_no_file() {
    let bench = Bench::new();
    let Some(disk) = SmallDisk::mount(bench.path("disk")) else { return };
    fs::write(disk.0.join("ballast"), vec![0; 60 << 10]).unwrap();
    let index = ["index", "build", "ref.fa", "-o", "disk/ref.idx"];
    bench.run(&index).ends(74, &["ref.idx"]);
    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 1);
    let (first, second) = bench.pairs(400);
    bench.write("r1.fq", first);
    bench.write("r2.fq", second);
    let arguments = ["call", "-r", "ref.fa", "--reads", "r1.fq", "r2.fq", "--bam", "disk/o.bam"];
    bench.run(&[&arguments[..], &["-o", "o.vcf.gz"]].concat()).ends(74, &["o.bam"]);
    let left = fs::read_dir(&disk.0).unwrap().count();
    assert_eq!((left, bench.path("o.vcf.gz").exists()), (1, false));
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let bench = Bench::new();
    for arguments in [&["completions", "bash"][..], &["config", "show", "--defaults"], &["help"]] {
        let mut command = bench.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!err.contains("panicked"), "{err}");
        assert_ne!(output.status.code(), Some(101), "{err}");
    }
    let full = Path::new("/dev/full");
    if full.exists() {
        let mut command = bench.command(&["config", "show", "--defaults"]);
        let status = command.stdout(File::create(full).unwrap()).stderr(Stdio::null()).status();
        assert_eq!(status.unwrap().code(), Some(74), "an answer that nobody got");
    }
}
