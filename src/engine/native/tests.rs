//! The engine as a whole: nothing depends on threads or batches, and others read what it writes.

use std::sync::Arc;

use super::map_tests::{genome, pairs};
use super::simulate::{batches, random_bases, reference_of};
use super::{Index, Native};
use crate::base::ByteCount;
use crate::device::assign::Assignment;
use crate::engine::{AlignmentFormat, CallReport, CallRequest, Engine, Room};
use crate::flow::{Flow, Meters};
use crate::genome::{Layout, ReadBatch, ReadGroup, Reference};

struct Output {
    vcf: Vec<u8>,
    bam: Vec<u8>,
    report: CallReport,
}

fn call(reference: &Reference, batches: Vec<ReadBatch>, threads: usize) -> Output {
    call_within(reference, batches, threads, Room::default())
}

fn call_within(
    reference: &Reference,
    batches: Vec<ReadBatch>,
    threads: usize,
    room: Room,
) -> Output {
    call_as(reference, batches, threads, room, AlignmentFormat::Bam)
}

fn call_as(
    reference: &Reference,
    batches: Vec<ReadBatch>,
    threads: usize,
    room: Room,
    format: AlignmentFormat,
) -> Output {
    let index = Arc::new(Index::build(reference, threads).unwrap());
    let engine = Native::new(index, Assignment::cpu()).unwrap();
    let group = |id: &str, library: &str| ReadGroup {
        id: id.into(),
        sample: "sample".into(),
        library: library.into(),
        unit: String::new(),
        platform: "ILLUMINA".into(),
    };
    let request = CallRequest {
        read_groups: vec![group("a", "one"), group("b", "one")],
        threads,
        room,
        format,
        ..CallRequest::new(reference)
    };
    let meters = Meters::default();
    let reads = Flow::source(&meters, "reads", batches.into_iter().map(Ok));
    let (mut vcf, mut bam) = (Vec::new(), Vec::new());
    let report = engine.call(&request, reads, &meters, &mut vcf, Some(&mut bam)).unwrap();
    let stages: Vec<String> = meters.snapshot().into_iter().map(|report| report.stage).collect();
    assert!(["map", "order", "call"].iter().all(|name| stages.iter().any(|stage| stage == name)));
    Output { vcf, bam, report }
}

#[test]
fn nothing_depends_on_threads_or_batches() {
    let reference = genome();
    let (_, mut reads) = pairs(&reference.contigs[0].bases, 6000, 100, 25);
    let copies = reads[..200].to_vec();
    reads.extend(copies);
    let expected = call(&reference, batches(&reads, Layout::Paired, 6100), 1);
    assert_eq!(expected.report.reads, 12_200);
    // Besides the copies, a few templates have the same ends by chance.
    assert!((195..215).contains(&expected.report.duplicates), "{}", expected.report.duplicates);
    for (threads, batch_templates) in [(1, 97), (2, 1000), (7, 311)] {
        let found = call(&reference, batches(&reads, Layout::Paired, batch_templates), threads);
        assert_eq!(found.report, expected.report);
        assert!(found.vcf == expected.vcf && found.bam == expected.bam, "{threads}");
    }
}

#[test]
fn a_small_memory_gives_the_same_bytes() {
    let reference = genome();
    let (_, mut reads) = pairs(&reference.contigs[0].bases, 2000, 100, 45);
    reads.extend([vec![4; 40], vec![4; 41]]);
    let batches = || batches(&reads, Layout::Paired, 300);
    let expected = call(&reference, batches(), 2);
    assert_eq!(expected.report.spilled_bytes, 0);
    let folder = tempfile::tempdir().unwrap();
    for memory in [0, 100_000] {
        let room = Room { memory: ByteCount(memory), scratch: folder.path().into() };
        let mut found = call_within(&reference, batches(), 2, room);
        assert!(found.report.spilled_bytes > 200_000, "{}", found.report.spilled_bytes);
        found.report.spilled_bytes = 0;
        assert_eq!(found.report, expected.report);
        assert!(found.vcf == expected.vcf && found.bam == expected.bam, "{memory}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[test]
fn the_alignments_are_a_sorted_bam_that_others_read() {
    use noodles::bam;
    use noodles::csi::BinningIndex;
    let reference = genome();
    let (_, mut reads) = pairs(&reference.contigs[0].bases, 500, 100, 35);
    reads.extend([vec![4; 40], vec![4; 41]]);
    let out = call(&reference, batches(&reads, Layout::Paired, 100), 2);
    let index = bam::bai::io::Reader::new(&out.report.alignment_index[..]).read_index().unwrap();
    assert_eq!(index.unplaced_unmapped_record_count(), Some(2));
    let mut reader = bam::io::Reader::new(&out.bam[..]);
    let header = reader.read_header().unwrap();
    assert_eq!((header.reference_sequences().len(), header.read_groups().len()), (2, 2));
    let records: Vec<bam::Record> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 1002);
    let mut last = 0;
    for record in &records[..1000] {
        let start = usize::from(record.alignment_start().unwrap().unwrap());
        assert!(start >= last);
        last = start;
        assert_eq!(record.sequence().len(), 100);
        assert_eq!(record.quality_scores().as_ref(), [30; 100]);
        let name = record.name().unwrap().to_string();
        assert!(name.starts_with("read") && !name.contains(' '), "{name}");
        use noodles::sam::alignment::record::data::field::Tag;
        for tag in [Tag::READ_GROUP, Tag::MISMATCHED_POSITIONS, Tag::EDIT_DISTANCE] {
            assert!(record.data().get(&tag).is_some());
        }
    }
    assert!(records[1000].flags().is_unmapped() && records[1001].alignment_start().is_none());
}

#[test]
fn samtools_reads_bam_and_cram() {
    let samtools = |arguments: &[&str]| {
        std::process::Command::new("samtools").args(arguments).output().map(|output| {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{arguments:?}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    if samtools(&["--version"]).is_err() {
        eprintln!("skipped: samtools is not there");
        return;
    }
    let reference = genome();
    let (_, mut reads) = pairs(&reference.contigs[0].bases, 3000, 100, 55);
    let (_, others) = pairs(&reference.contigs[1].bases, 500, 90, 56);
    reads.extend(others);
    reads.extend([vec![4; 40], random_bases(123, 41)]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let mut fasta = Vec::new();
    for contig in &reference.contigs {
        fasta.extend(format!(">{}\n", contig.name).bytes());
        fasta.extend(contig.bases.iter().map(|&code| b"ACGTN"[usize::from(code)]));
        fasta.push(b'\n');
    }
    std::fs::write(path("r.fa"), fasta).unwrap();
    let mut texts = Vec::new();
    for (format, name) in [(AlignmentFormat::Bam, "a.bam"), (AlignmentFormat::Cram, "a.cram")] {
        let batches = |count| batches(&reads, Layout::Paired, count);
        let out = call_as(&reference, batches(100), 2, Room::default(), format);
        let again = call_as(&reference, batches(333), 1, Room::default(), format);
        let seven = call_as(&reference, batches(97), 7, Room::default(), format);
        assert!(out.bam == again.bam && out.bam == seven.bam, "{name}");
        assert!(out.vcf == again.vcf && out.vcf == seven.vcf, "{name}");
        let index = &out.report.alignment_index;
        assert!(*index == again.report.alignment_index && *index == seven.report.alignment_index);
        std::fs::write(path(name), &out.bam).unwrap();
        samtools(&["quickcheck", &path(name)]).unwrap();
        let ending = if format == AlignmentFormat::Bam { "bai" } else { "crai" };
        std::fs::write(path(&format!("{name}.{ending}")), &out.report.alignment_index).unwrap();
        let fasta = path("r.fa");
        let region = ["view", "-c", "-T", &fasta, &path(name), "contig1:2000-3000"];
        let counted: usize = samtools(&region).unwrap().trim().parse().unwrap();
        let all = samtools(&["view", "-T", &fasta, &path(name)]).unwrap();
        let overlaps = |line: &&str| {
            let fields: Vec<&str> = line.split('\t').collect();
            let start: u32 = fields[3].parse().unwrap();
            fields[2] == "contig1" && start <= 3000 && start + 89 >= 2000
        };
        let expected = all.lines().filter(overlaps).count();
        assert!(counted.abs_diff(expected) < 5 && counted > 80, "{counted} {expected}");
        if format == AlignmentFormat::Bam {
            // The tags are those that samtools computes itself.
            let computed = samtools(&["calmd", &path(name), &fasta]).unwrap();
            let records = computed.lines().filter(|line| !line.starts_with('@'));
            assert!(all.lines().eq(records));
        }
        texts.push(all);
    }
    assert_eq!(texts[0].lines().count(), reads.len());
    assert!(texts[0].lines().all(|line| line.matches("RG:Z:").count() == 1));
    let different = texts[0].lines().zip(texts[1].lines()).find(|(bam, cram)| bam != cram);
    assert_eq!(different, None);
    assert_eq!(texts[0].len(), texts[1].len());
}

#[test]
fn long_reads_are_counted_and_have_no_place() {
    let reference = genome();
    let bases = &reference.contigs[0].bases;
    let reads: Vec<Vec<u8>> = [1000, 1024, 1025, 10_000]
        .iter()
        .map(|&length| bases[700..700 + length].to_vec())
        .collect();
    let out = call(&reference, batches(&reads, Layout::Single, 2), 1);
    assert_eq!((out.report.reads, out.report.mapped, out.report.too_long), (4, 2, 2));
    let mut reader = noodles::bam::io::Reader::new(&out.bam[..]);
    reader.read_header().unwrap();
    let lengths: Vec<usize> =
        reader.records().map(|record| record.unwrap().sequence().len()).collect();
    assert_eq!(lengths, [1000, 1024, 1025, 10_000]);
}

#[test]
fn no_reads_give_no_calls() {
    let out = call(&genome(), Vec::new(), 2);
    assert_eq!((out.report.reads, out.report.records), (0, 0));
    assert!(!out.vcf.is_empty() && !out.report.tabix.is_empty());
}

#[test]
fn an_index_of_another_reference_is_refused() {
    let index = Arc::new(Index::build(&reference_of(&[vec![0; 50]]), 1).unwrap());
    let engine = Native::new(index, Assignment::cpu()).unwrap();
    let reference = genome();
    let request = CallRequest::new(&reference);
    let meters = Meters::default();
    let reads = Flow::source(&meters, "reads", std::iter::empty());
    let refused = engine.call(&request, reads, &meters, &mut Vec::new(), None);
    assert!(matches!(refused, Err(crate::engine::Error::OtherReference)));
}
