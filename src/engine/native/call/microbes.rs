//! Genomes of one copy, on shared real reads: a virus without variants, and a mixed population of
//! a phage against what bwa and bcftools find.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::accuracy::{input, shared, text};
use crate::device::assign::Assignment;
use crate::engine::compare::compare;
use crate::engine::native::{Index, Native};
use crate::engine::{CallRequest, Engine};
use crate::flow::{Flow, Meters};
use crate::genome::inflate::InflateReader;
use crate::genome::lanes::{Lane, reads};
use crate::genome::region::Region;
use crate::genome::vcf::read_variants;
use crate::genome::{Reference, Variant};

/// Least QUAL of the other caller's sites that count as confident.
const CONFIDENT: f32 = 30.0;
/// Least depth of its sites that count, the reference's too.
const CONFIDENT_DEPTH: u32 = 10;

/// The calls that pass, and the text of the gVCF.
fn called(reference: &Reference, lane: Lane<'_>) -> (Vec<Variant>, String) {
    let gvcf = Mutex::new(Vec::new());
    let request =
        CallRequest { ploidy: 1, gvcf: Some(&gvcf), threads: 2, ..CallRequest::new(reference) };
    let meters = Meters::default();
    let reads = Flow::source(&meters, "reads", reads(vec![(0, lane)]));
    let index = Arc::new(Index::build(reference, 2).unwrap());
    let engine = Native::new(index, Assignment::cpu()).unwrap();
    let mut vcf = Vec::new();
    engine.call(&request, reads, &meters, &mut vcf, None).unwrap();
    let mut calls = read_variants(&vcf[..], reference).unwrap();
    calls.retain(|call| call.filters.is_empty());
    let mut text = String::new();
    let gvcf = gvcf.into_inner().unwrap();
    InflateReader::new(&gvcf[..], "gVCF").read_to_string(&mut text).unwrap();
    (calls, text)
}

/// For each position from 1 whether the gVCF says reference (0), a variant (1) or nothing.
fn said(gvcf: &str) -> HashMap<u32, u8> {
    let mut said = HashMap::new();
    for line in gvcf.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let start: u32 = columns[1].parse().unwrap();
        let genotype = columns[9].split(':').next().unwrap();
        match columns[7].strip_prefix("END=") {
            Some(end) if genotype == "0" => {
                said.extend((start..=end.parse().unwrap()).map(|position| (position, 0)));
            }
            None if columns[6] == "PASS" => {
                said.insert(start, u8::from(genotype != "0"));
                let inside = start + 1..start + columns[3].len() as u32;
                said.extend(inside.map(|position| (position, 0)));
            }
            _ => {}
        }
    }
    said
}

/// Confident sites of all that bcftools says, and where the gVCF does not say the same.
fn differing(theirs: &str, ours: &HashMap<u32, u8>) -> (usize, Vec<String>) {
    let mut confident = 0;
    let mut differing = Vec::new();
    let mut anchors = HashSet::new();
    for line in theirs.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let position: u32 = columns[1].parse().unwrap();
        let quality = columns[5].parse::<f32>().unwrap_or(0.0);
        let mut entries = columns[7].split(';');
        let depth = entries.find_map(|entry| entry.strip_prefix("DP=")?.parse().ok()).unwrap_or(0);
        let genotype = columns[9].split(':').next().unwrap();
        if quality < CONFIDENT || depth < CONFIDENT_DEPTH || genotype == "." {
            continue;
        }
        // The base before an indel is the reference's in their text, and the indel in ours.
        let wanted = u8::from(genotype != "0");
        if columns[7].starts_with("INDEL") {
            if wanted == 0 {
                continue;
            }
            anchors.insert(position);
            differing.retain(|line: &String| !line.contains(&format!("\t{position}\t")));
        } else {
            confident += 1;
        }
        if ours.get(&position) != Some(&wanted) && !(wanted == 0 && anchors.contains(&position)) {
            differing.push(line.to_owned());
        }
    }
    (confident, differing)
}

#[test]
fn a_virus_of_the_reference_strain_has_no_variants() {
    let Some(folder) = shared("sarscov2_twist_miseq") else { return };
    let fasta = text(&folder.join("NC_045512.2.fasta"));
    let reference = Reference::read_fasta(&fasta[..]).unwrap();
    let file = |mate: u8| input(&folder.join(format!("pos_MN908947_3_1_R{mate}.fastq.gz")));
    assert_eq!(called(&reference, Lane::Pair(file(1), file(2))).0, []);
}

/// Needs bwa, samtools and bcftools: `cargo test --release --lib microbes -- --ignored`.
#[test]
#[ignore = "runs other programs"]
fn a_mixed_population_of_a_phage_is_called_as_bcftools_calls_it() {
    let Some(folder) = shared("lambda_breseq_ga2") else { return };
    let work = tempfile::tempdir().unwrap();
    let fasta = text(&folder.join("lambda.fa"));
    std::fs::write(work.path().join("ref.fa"), &fasta).unwrap();
    let files =
        ["3", "A"].map(|part| folder.join(format!("lambda_mixed_population.{part}.fastq.gz")));
    let fastq = files.iter().flat_map(|file| text(file)).collect::<Vec<u8>>();
    std::fs::write(work.path().join("reads.fq"), &fastq).unwrap();
    let script = "set -e; samtools faidx ref.fa; bwa index ref.fa; \
        bwa mem ref.fa reads.fq | samtools sort -o reads.bam -; samtools index reads.bam; \
        bcftools mpileup -d 10000 -f ref.fa reads.bam >pileup.vcf; \
        bcftools call --ploidy 1 -m pileup.vcf -o all.vcf; \
        bcftools call --ploidy 1 -mv pileup.vcf -o calls.vcf";
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", script]).current_dir(work.path());
    if !shell.output().is_ok_and(|output| output.status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: bwa, samtools or bcftools absent");
        return;
    }
    let reference = Reference::read_fasta(&fasta[..]).unwrap();
    let (calls, gvcf) = called(&reference, Lane::Single(input(&work.path().join("reads.fq"))));
    let all = std::fs::read_to_string(work.path().join("all.vcf")).unwrap();
    let (confident, differing) = differing(&all, &said(&gvcf));
    let _ = writeln!(std::io::stderr(), "{confident} confident sites, {differing:#?}");
    assert!(confident > 30_000 && differing.len() * 100 <= confident, "{differing:#?}");
    let mut theirs = read_variants(&text(&work.path().join("calls.vcf"))[..], &reference).unwrap();
    theirs.retain(|call| call.quality >= CONFIDENT);
    let contig = &reference.contigs[0];
    let end = contig.bases.len() as u32;
    let everywhere = [Region { contig: contig.name.clone(), start: 0, end }].into_iter().collect();
    let comparison = compare(&reference, &theirs, &calls, &everywhere, 1);
    let _ = writeln!(std::io::stderr(), "{:#?}", comparison.disagreements);
    let (snp, indel) = (comparison.snp, comparison.indel);
    assert!(snp.found + indel.found >= 20, "{snp:?} {indel:?}");
    assert!((snp.missed + indel.missed) * 100 <= snp.found + indel.found, "{snp:?} {indel:?}");
}
