//! The checks of `fuzz/` on a small fixed corpus: good files, and those with a few changes that a
//! generator with a fixed seed makes. `cargo fuzz run TARGET` looks further.

#![allow(clippy::unwrap_used)] // Helpers of tests, which clippy does not take for tests.

use std::sync::Arc;

use dsgd::device::assign::Assignment;
use dsgd::engine::native::{Index, Native};
use dsgd::engine::{AlignmentFormat, CallRequest, Engine};
use dsgd::flow::{Flow, Meters};
use dsgd::genome::Layout;
use dsgd::genome::bgzf::Deflater;
use dsgd::genome::fastq::FastqParser;

#[path = "../fuzz/checks/alignment.rs"]
mod alignment;
#[path = "../fuzz/checks/fastq.rs"]
mod fastq;
#[path = "../fuzz/checks/filter.rs"]
mod filter;
#[path = "../fuzz/checks/index.rs"]
mod index;
#[path = "../fuzz/checks/inflate.rs"]
mod inflate;
#[path = "../fuzz/checks/tables.rs"]
mod tables;

/// Numbers that look random and are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % end.max(1) as u64) as usize
    }
}

/// Calls `check` with a good file and with `count` files that a few changes were made to.
fn with_changes(good: &[u8], count: u64, mut check: impl FnMut(&[u8])) {
    check(good);
    for seed in 0..count {
        let mut numbers = Numbers(seed);
        let mut file = good.to_vec();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(file.len());
            match numbers.below(6) {
                _ if file.is_empty() => {}
                0 => file.truncate(at),
                1 => file[at] ^= 1 << numbers.below(8),
                2 => file[at] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'\t', b'@'][numbers.below(8)],
                3 => drop(file.remove(at)),
                4 => file.insert(at, numbers.below(256) as u8),
                _ => {
                    let end = (at + numbers.below(40)).min(file.len());
                    let copy = file[at..end].to_vec();
                    let to = numbers.below(file.len());
                    file.splice(to..to, copy);
                }
            }
        }
        check(&file);
    }
}

const FASTQ: &[u8] =
    b"@a/1\nACGTN\n+\nFFF,:\n@a/2\nGGCC\n+a/2\nFFFF\n@b/1\r\nAC\r\n+\r\n!~\r\n@b/2\n\n+\n\n";

#[test]
fn fastq() {
    for (step, paired) in [(0, true), (2, false), (6, true)] {
        with_changes(FASTQ, 1500, |text| fastq::check((step, paired, text)));
    }
}

#[test]
fn tables() {
    let vcf = "##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS\n\
               c\t3\t.\tG\tT,GA\t50\tPASS\tDP=9\tGT:AD\t0/1:4,5,0\nc\t7\t.\tGT\tG\t.\t.\t.\tGT\t1|1\n";
    let gff = "##gff-version 3\nc\tx\tgene\t1\t9\t.\t+\t.\tID=gene:1;Name=A\n";
    let gtf = "c\tx\tgene\t1\t9\t.\t-\t.\tgene_id \"1\"; gene_name \"A\";\n";
    let fasta = ">c one\nACGTNRYacgt\n\n>d\r\nGGG\r\n";
    for text in [vcf, gff, gtf, fasta, "c\t0\t5\nc\t7\t9\tname\n", "A\tc\t1\t9\n"] {
        with_changes(text.as_bytes(), 1500, tables::check);
    }
}

#[test]
fn filtered_records() {
    let records =
        "c\t5\t.\tA\tG\t50\tPASS\t.\nc\t12\trs1\tAC\tA\t.\t.\tDP=3\nd\t15\t.\tA\tG\t1\tq\t.\n";
    // Fewer: the filter has threads of its own for each file.
    with_changes(records.as_bytes(), 150, filter::check);
}

#[test]
fn compressed_files() {
    let mut file = Vec::new();
    Deflater::new(6).blocks(&FASTQ.repeat(30), &mut file);
    for step in [0, 3, 100] {
        with_changes(&file, 400, |file| inflate::check((step, file)));
    }
}

#[test]
fn indexes() {
    let reference = index::reference();
    let mut file = Vec::new();
    Index::build(&reference, 1).unwrap().write(&mut file).unwrap();
    assert!(index::check(&file));
    // Most of the file are empty buckets: changes go to its ends, where everything else is.
    let end = file.len() - 400;
    for (from, to) in [(0, 80), (end, file.len())] {
        with_changes(&file[from..to], 60, |part| {
            let changed = [&file[..from], part, &file[to..]].concat();
            assert!(changed == file || !index::check(&changed));
        });
    }
}

/// A few pairs of the small reference, aligned.
fn alignments(format: AlignmentFormat) -> Vec<u8> {
    let reference = index::reference();
    let letters: String = reference.contigs[0]
        .bases
        .iter()
        .map(|&code| char::from(b"ACGTN"[code as usize]))
        .collect();
    let mut text = String::new();
    for at in 0..20 {
        let read = &letters[at * 7..at * 7 + 60];
        text += &format!(
            "@r{at}\n{read}\n+\n{}\n@r{at}\n{read}\n+\n{}\n",
            "F".repeat(60),
            "#".repeat(60)
        );
    }
    let (mut parser, mut batches) =
        (FastqParser::new("corpus", Layout::Paired, 0), std::collections::VecDeque::new());
    parser.push(text.as_bytes(), &mut batches).unwrap();
    parser.finish(&mut batches).unwrap();
    let index = Arc::new(Index::build(&reference, 1).unwrap());
    let engine = Native::new(index, Assignment::cpu()).unwrap();
    let request = CallRequest { format, ..CallRequest::new(&reference) };
    let meters = Meters::default();
    let reads = Flow::source(&meters, "reads", batches.into_iter().map(Ok));
    let mut out = Vec::new();
    engine.call(&request, reads, &meters, &mut Vec::new(), Some(&mut out)).unwrap();
    out
}

#[test]
fn alignment_files() {
    let bam = alignments(AlignmentFormat::Bam);
    with_changes(&bam, 300, alignment::check);
    // Blocks whose check fails hide the records: so the text is changed and compressed again.
    let mut text = Vec::new();
    let mut reader = dsgd::genome::inflate::InflateReader::new(&bam[..], "bam");
    std::io::Read::read_to_end(&mut reader, &mut text).unwrap();
    with_changes(&text, 600, |text| {
        let mut file = Vec::new();
        Deflater::new(1).blocks(text, &mut file);
        alignment::check(&file);
    });
    with_changes(&alignments(AlignmentFormat::Cram), 300, alignment::check);
}
