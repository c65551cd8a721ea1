//! The caller on reads whose truth is known, and on reads that make no sense.

use proptest::prelude::*;

use super::haplotype::Event;
use super::{CallSettings, MARGIN, Output, Qualities, RegionCalls};
use crate::device::open;
use crate::engine::CallReport;
use crate::engine::native::AlignedRead;
use crate::genome::inflate::InflateReader;
use crate::genome::reference::Contig;
use crate::genome::region::Region;
use crate::genome::vcf::{VcfHeader, read_variants};
use crate::genome::{Reference, Variant};

const MATCH: u32 = 0;
const INSERTION: u32 = 1;
const DELETION: u32 = 2;
const READ_BASES: usize = 120;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

fn call(
    reference: &Reference,
    start: u32,
    end: u32,
    reads: &[AlignedRead],
    settings: &CallSettings,
) -> RegionCalls {
    let mut queue = open("cpu").and_then(|cpu| cpu.queue(1 << 20)).unwrap();
    super::call(reference, 0, start, end, reads, settings, queue.as_mut()).unwrap()
}

fn reference() -> Reference {
    let mut random = Random(11);
    let mut bases: Vec<u8> = (0..9000).map(|_| random.below(4) as u8).collect();
    bases[4000..4012].fill(0);
    Reference { contigs: vec![Contig { name: "c".into(), bases }] }
}

fn event(position: u32, removed: u32, inserted: &[u8]) -> Event {
    Event { position, removed, inserted: inserted.to_vec() }
}

/// A haplotype as its bases, each with its reference position; inserted ones have none.
fn haplotype(reference: &[u8], events: &[Event]) -> Vec<(u8, Option<u32>)> {
    let mut bases = Vec::new();
    let mut next = 0;
    for event in events {
        bases.extend((next..event.position).map(|on| (reference[on as usize], Some(on))));
        let place = |at: usize| (at < event.removed as usize).then(|| event.position + at as u32);
        bases.extend(event.inserted.iter().enumerate().map(|(at, &base)| (base, place(at))));
        next = event.end();
    }
    bases.extend((next..reference.len() as u32).map(|on| (reference[on as usize], Some(on))));
    bases
}

/// A read of part of a haplotype, with the alignment that it came with.
fn read(part: &[(u8, Option<u32>)], template: u64, reverse: bool) -> Option<AlignedRead> {
    let mut cigar: Vec<u32> = Vec::new();
    let mut push = |code: u32, length: u32| match cigar.last_mut() {
        Some(last) if *last & 15 == code => *last += length << 4,
        _ => cigar.push(length << 4 | code),
    };
    let position = part.first()?.1?;
    part.last()?.1?;
    let mut next = position;
    for &(_, place) in part {
        match place {
            Some(on) => {
                if on > next {
                    push(DELETION, on - next);
                }
                push(MATCH, 1);
                next = on + 1;
            }
            None => push(INSERTION, 1),
        }
    }
    Some(AlignedRead {
        template,
        flags: if reverse { 0x10 } else { 0 },
        contig: 0,
        position,
        mapping_quality: 60,
        cigar,
        bases: part.iter().map(|&(base, _)| base).collect(),
        qualities: vec![35; part.len()],
        mate_contig: u32::MAX,
        mate_position: 0,
        template_length: 0,
        read_group: 0,
    })
}

/// Reads of all haplotypes with errors, in coordinate order.
fn reads(reference: &[u8], haplotypes: &[Vec<Event>], depth: usize) -> Vec<AlignedRead> {
    let mut random = Random(5);
    let mut reads = Vec::new();
    for events in haplotypes {
        let mut bases = haplotype(reference, events);
        for base in &mut bases {
            assert!(base.0 < 5);
        }
        for _ in 0..bases.len() * depth / READ_BASES {
            let at = random.below(bases.len() - READ_BASES);
            let mut part = bases[at..at + READ_BASES].to_vec();
            for base in &mut part {
                if random.below(400) == 0 {
                    base.0 = (base.0 + 1) % 4;
                }
            }
            reads.extend(read(&part, reads.len() as u64, random.below(2) == 0));
        }
    }
    reads.sort_by_key(|read| read.position);
    reads
}

/// The events of two haplotypes: the first two lists, those of both last.
fn donor() -> [Vec<Event>; 2] {
    let one = [event(1200, 1, &[9]), event(2500, 3, &[]), event(6000, 1, &[9])];
    let two = [event(1210, 1, &[9]), event(4000, 0, &[0]), event(6001, 1, &[9])];
    let both = [event(3000, 0, &[1, 2, 2, 1, 0, 3, 1]), event(7000, 1, &[9]), event(7500, 20, &[])];
    [one, two].map(|own| {
        let mut all: Vec<Event> = own.into_iter().chain(both.clone()).collect();
        all.sort();
        all
    })
}

/// Puts another base for each substitution's 9.
fn resolved(reference: &[u8], events: Vec<Event>) -> Vec<Event> {
    let resolve = |mut event: Event| {
        if event.inserted == [9] {
            event.inserted = vec![(reference[event.position as usize] + 1) % 4];
        }
        event
    };
    events.into_iter().map(resolve).collect()
}

fn short(variant: &Variant) -> (u32, String, Vec<u8>) {
    let text = |letters: &[u8]| String::from_utf8(letters.to_vec()).unwrap();
    let alternates: Vec<String> = variant.alternates.iter().map(|letters| text(letters)).collect();
    let change = format!("{}>{}", text(&variant.reference), alternates.join(","));
    (variant.position, change, variant.genotype.clone())
}

fn passed(variants: &[Variant]) -> Vec<(u32, usize, usize, Vec<u8>)> {
    let all = variants.iter().filter(|variant| variant.filters.is_empty());
    all.map(|variant| {
        let (from, to) = (variant.reference.len(), variant.alternates[0].len());
        (variant.position, from, to, variant.genotype.clone())
    })
    .collect()
}

#[test]
fn a_donor_is_called_as_it_is_and_the_cut_does_not_matter() {
    let reference = reference();
    let bases = &reference.contigs[0].bases;
    let haplotypes = donor().map(|events| resolved(bases, events));
    let reads = reads(bases, &haplotypes, 20);
    let whole = call(&reference, 0, 9000, &reads, &CallSettings::new(2)).variants;
    let found = passed(&whole);
    let het = vec![0, 1];
    let positions: Vec<u32> = found.iter().map(|variant| variant.0).collect();
    assert_eq!(positions.len(), 9, "{:?}", whole.iter().map(short).collect::<Vec<_>>());
    assert_eq!(found[0], (1200, 1, 1, het.clone()));
    assert_eq!(found[1], (1210, 1, 1, het.clone()));
    // Indels may stand further left, where the bases allow it.
    assert!(positions[2] <= 2499 && positions[2] > 2480);
    assert_eq!((found[2].1, found[2].2, &found[2].3), (4, 1, &het));
    assert_eq!((found[3].1, found[3].2, &found[3].3), (1, 8, &vec![1, 1]));
    assert_eq!(found[4].0, 3999);
    assert_eq!((found[4].1, found[4].2, &found[4].3), (1, 2, &het));
    assert_eq!(found[5], (6000, 1, 1, het.clone()));
    assert_eq!(found[6], (6001, 1, 1, het));
    assert_eq!(found[7], (7000, 1, 1, vec![1, 1]));
    assert_eq!((found[8].1, found[8].2, &found[8].3), (21, 1, &vec![1, 1]));
    for step in [333u32, 1200] {
        let mut cut = Vec::new();
        for start in (0..9000u32).step_by(step as usize) {
            let (low, high) = (start.saturating_sub(MARGIN), start + step + MARGIN);
            let near = |read: &&AlignedRead| {
                read.position < high && read.position + 2 * READ_BASES as u32 > low
            };
            let part: Vec<AlignedRead> = reads.iter().filter(near).cloned().collect();
            let settings = CallSettings::new(2);
            cut.extend(call(&reference, start, start + step, &part, &settings).variants);
        }
        assert_eq!(cut, whole, "{step}");
    }
}

/// The VCF and the gVCF of the genome cut into regions of `step` bases.
fn written(reference: &Reference, reads: &[AlignedRead], step: u32) -> (Vec<u8>, String) {
    let settings = CallSettings { blocks: true, ..CallSettings::new(2) };
    let (mut vcf, gvcf) = (Vec::new(), std::sync::Mutex::new(Vec::new()));
    let header = VcfHeader::new("s", reference);
    let mut output = Output::new(reference, header, &mut vcf, Some(&gvcf)).unwrap();
    for start in (0..9000).step_by(step as usize) {
        output.add(call(reference, start, start + step, reads, &settings)).unwrap();
    }
    output.finish(&mut CallReport::default()).unwrap();
    let mut text = String::new();
    let gvcf = gvcf.into_inner().unwrap();
    std::io::Read::read_to_string(&mut InflateReader::new(&gvcf[..], "gVCF"), &mut text).unwrap();
    (vcf, text)
}

#[test]
fn phase_and_blocks_do_not_depend_on_the_cut() {
    let reference = reference();
    let bases = &reference.contigs[0].bases;
    let haplotypes = donor().map(|events| resolved(bases, events));
    let reads = reads(bases, &haplotypes, 20);
    let whole = written(&reference, &reads, 9000);
    for step in [333, 1200, 4000] {
        assert!(written(&reference, &reads, step) == whole, "{step}");
    }
    let variants = read_variants(&whole.0[..], &reference).unwrap();
    let phased = |position: u32| {
        let site = variants.iter().find(|site| site.position == position).unwrap();
        (site.genotype.clone(), site.phase_set)
    };
    // On different haplotypes, as reads show.
    assert_eq!(phased(1200), (vec![0, 1], Some(1201)));
    assert_eq!(phased(1210), (vec![1, 0], Some(1201)));
    assert_eq!(phased(6001), (vec![1, 0], Some(6001)));
    assert_eq!(phased(3999), (vec![0, 1], None));
    let blocks = whole.1.lines().filter(|line| line.contains("\tEND=")).count();
    assert!((50..5000).contains(&blocks), "{blocks}");
}

#[test]
fn a_haploid_donor_has_one_allele() {
    let reference = reference();
    let bases = &reference.contigs[0].bases;
    let events = resolved(bases, donor()[0].clone());
    let reads = reads(bases, &[events], 12);
    let variants = call(&reference, 0, 9000, &reads, &CallSettings::new(1)).variants;
    let passed = passed(&variants);
    assert_eq!(passed.len(), 6, "{:?}", variants.iter().map(short).collect::<Vec<_>>());
    assert!(passed.iter().all(|variant| variant.3 == [1]));
    assert!(variants.iter().all(|variant| variant.likelihoods.len() == 2));
}

#[test]
fn haploid_regions_have_one_allele_and_others_two() {
    let reference = reference();
    let bases = &reference.contigs[0].bases;
    let haplotypes = donor().map(|events| resolved(bases, events));
    let reads = reads(bases, &haplotypes, 20);
    let diploid = call(&reference, 0, 9000, &reads, &CallSettings::new(2)).variants;
    // The second part ends just before a site.
    let parts = [(2800, 3500), (6500, 7000), (7400, 9000)];
    let region = |(start, end)| Region { contig: "c".into(), start, end };
    let haploid = Some(parts.into_iter().map(region).collect());
    let settings = CallSettings { haploid, ..CallSettings::new(2) };
    let variants = call(&reference, 0, 9000, &reads, &settings).variants;
    assert_eq!(variants.len(), diploid.len());
    for (mixed, diploid) in variants.iter().zip(&diploid) {
        let inside = parts.iter().any(|part| (part.0..part.1).contains(&mixed.position));
        if inside {
            assert_eq!((&mixed.genotype[..], mixed.likelihoods.len()), (&[1][..], 2));
        } else {
            assert_eq!(mixed, diploid);
        }
    }
    assert_eq!(variants.iter().filter(|variant| variant.genotype.len() == 1).count(), 2);
    let mut cut = Vec::new();
    for start in (0..9000).step_by(700) {
        cut.extend(call(&reference, start, start + 700, &reads, &settings).variants);
    }
    assert_eq!(cut, variants);
}

#[test]
fn overlapping_mates_count_once_and_duplicates_not_at_all() {
    let reference = reference();
    let bases = &reference.contigs[0].bases;
    let events = vec![event(2000, 1, &[(bases[2000] + 1) % 4])];
    let parts = haplotype(bases, &events);
    let mut all = Vec::new();
    for template in 0..6u64 {
        let start = 1900 + template as usize * 5;
        for (first, reverse) in [(start, false), (start + 30, true)] {
            let mut read = read(&parts[first..first + READ_BASES], template, reverse).unwrap();
            read.flags |= 0x1 | if reverse { 0 } else { 0x20 };
            read.flags |= if template == 5 { 0x400 } else { 0 };
            read.mate_contig = 0;
            read.mate_position = if reverse { start } else { start + 30 } as u32;
            read.template_length = if reverse { -150 } else { 150 };
            all.push(read);
        }
    }
    all.sort_by_key(|read| read.position);
    let variants = call(&reference, 0, 9000, &all, &CallSettings::default()).variants;
    assert_eq!(variants.len(), 1);
    assert_eq!(variants[0].allele_depths, [0, 5]);
    assert_eq!(variants[0].genotype, [1, 1]);
}

#[test]
fn nothing_is_called_where_the_reference_has_no_base() {
    let mut reference = reference();
    let donor = reference.contigs[0].bases.clone();
    let events = resolved(&donor, vec![event(2000, 1, &[9]), event(3000, 6, &[])]);
    let reads = reads(&donor, &[events.clone(), events], 15);
    // A base that is another one in the sample, one that is the same, one inside the deletion, and
    // a run of them.
    for at in [2000, 2500, 3003] {
        reference.contigs[0].bases[at] = 4;
    }
    reference.contigs[0].bases[5000..5040].fill(4);
    let settings = CallSettings { blocks: true, ..CallSettings::new(2) };
    let calls = call(&reference, 0, 9000, &reads, &settings);
    let found: Vec<_> = calls.variants.iter().map(short).collect();
    assert!(found.is_empty(), "{found:?}");
    // The gVCF says that nothing is known there, and what is known beside it.
    let block = |position: u32| {
        let covers =
            |block: &&crate::genome::vcf::Block| (block.start..block.end).contains(&position);
        calls.blocks.iter().find(covers).map(|block| (block.depth_min, block.quality))
    };
    for position in [2500, 5010] {
        assert_eq!(block(position), Some((0, 0)), "{position}");
    }
    assert!(block(2400).is_some_and(|(depth, quality)| depth > 10 && quality > 20));
}

#[test]
fn deep_reads_are_sampled_alike_whatever_the_cut_and_the_order() {
    let reference = reference();
    let bases = &reference.contigs[0].bases;
    let haplotypes = donor().map(|events| resolved(bases, events));
    let first = reads(bases, &haplotypes, 20);
    let passed_first =
        passed(&call(&reference, 0, 9000, &first, &CallSettings::default()).variants);
    // The same reads four hundred times over one part: 16,000x there.
    let deep = |read: &&AlignedRead| (1000..1500).contains(&read.position);
    let deep: Vec<AlignedRead> = first.iter().filter(deep).cloned().collect();
    let mut all = first.clone();
    for copy in 1..400 {
        all.extend(deep.iter().cloned().map(|mut read| {
            read.template += copy * first.len() as u64;
            read
        }));
    }
    all.sort_by_key(|read| (read.position, read.template));
    let evidence = super::evidence::prepare(&all, 0, bases, &Qualities::default());
    assert!(all.len() > 60_000 && evidence.len() < 9_000, "{} {}", all.len(), evidence.len());
    let whole = call(&reference, 0, 9000, &all, &CallSettings::default()).variants;
    let sites = |found: Vec<(u32, usize, usize, Vec<u8>)>| -> Vec<(u32, Vec<u8>)> {
        found.into_iter().map(|site| (site.0, site.3)).collect()
    };
    assert_eq!(sites(passed(&whole)), sites(passed_first));
    let mut cut = Vec::new();
    for start in (0..9000u32).step_by(1100) {
        let (low, high) = (start.saturating_sub(MARGIN), start + 1100 + MARGIN);
        let near = |read: &&AlignedRead| {
            read.position < high && read.position + 2 * READ_BASES as u32 > low
        };
        let part: Vec<AlignedRead> = all.iter().filter(near).cloned().collect();
        cut.extend(call(&reference, start, start + 1100, &part, &CallSettings::default()).variants);
    }
    assert_eq!(cut, whole);
}

#[test]
fn a_virus_of_another_lineage_is_called_haploid() {
    // One base in twenty differs, with gaps between.
    let reference = reference();
    let bases = &reference.contigs[0].bases;
    let mut events = Vec::new();
    for (number, position) in (60u32..8900).step_by(20).enumerate() {
        let at = position + number as u32 * 7 % 11;
        let change = match number % 25 {
            7 => event(at, 3, &[]),
            19 => event(at, 0, &[0, 3, 1]),
            _ => event(at, 1, &[9]),
        };
        events.push(change);
    }
    let events = resolved(bases, events);
    let reads = reads(bases, std::slice::from_ref(&events), 30);
    let variants = call(&reference, 0, 9000, &reads, &CallSettings::new(1)).variants;
    let substitutions: Vec<u32> =
        passed(&variants).iter().filter(|site| site.1 == site.2).map(|site| site.0).collect();
    let wanted: Vec<u32> = events
        .iter()
        .filter(|event| !event.is_indel() && (300..8700).contains(&event.position))
        .map(|event| event.position)
        .collect();
    let found = wanted.iter().filter(|at| substitutions.contains(at)).count();
    assert!(found * 100 >= wanted.len() * 99, "{found} of {}", wanted.len());
    let false_ones = substitutions.iter().filter(|at| !events.iter().any(|e| e.position == **at));
    assert!(false_ones.count() <= 2);
}

fn any_read() -> impl Strategy<Value = AlignedRead> {
    let cigar = prop::collection::vec((0u32..9, 0u32..30), 0..7);
    let numbers = (0u32..700, 0u32..700, -400i32..400, 0u64..20, 0u16..0x1000);
    (cigar, numbers, 0u8..61, prop::bool::weighted(0.9), any::<u64>()).prop_map(
        |(
            cigar,
            (position, mate_position, template_length, template, flags),
            quality,
            fits,
            seed,
        )| {
            let cigar: Vec<u32> = cigar.iter().map(|&(code, length)| length << 4 | code).collect();
            let takes = |operation: &&u32| matches!(*operation & 15, 0 | 1 | 4 | 7 | 8);
            let bases: u32 = cigar.iter().filter(takes).map(|operation| operation >> 4).sum();
            let mut random = Random(seed);
            let bases: Vec<u8> = (0..bases).map(|_| random.below(5) as u8).collect();
            AlignedRead {
                template,
                flags: flags & !0x704,
                contig: u32::from(!fits),
                position,
                mapping_quality: quality,
                cigar,
                qualities: bases.iter().map(|_| random.below(60) as u8).collect(),
                bases,
                mate_contig: 0,
                mate_position,
                template_length,
                read_group: 0,
            }
        },
    )
}

proptest! {
    #[test]
    fn no_reads_make_it_fail(
        mut reads in prop::collection::vec(any_read(), 0..60),
        copies in 1usize..4,
        bases in prop::collection::vec(0u8..5, 1..700),
        ploidy in 1u8..3,
    ) {
        reads = reads.iter().cycle().take(reads.len() * copies).cloned().collect();
        for (template, read) in reads.iter_mut().enumerate() {
            read.template += template as u64 / 40 * 20;
        }
        reads.sort_by_key(|read| read.position);
        let length = bases.len() as u32;
        let reference = Reference { contigs: vec![Contig { name: "c".into(), bases }] };
        let settings = CallSettings::new(ploidy);
        let variants = call(&reference, 0, length, &reads, &settings).variants;
        for variant in &variants {
            prop_assert!(variant.position < length);
            prop_assert_eq!(variant.genotype.len(), usize::from(ploidy));
            let alleles = variant.alternates.len() + 1;
            prop_assert!(variant.genotype.iter().all(|&allele| usize::from(allele) < alleles));
            prop_assert_eq!(variant.allele_depths.len(), alleles);
            let genotypes = if ploidy == 1 { alleles } else { alleles * (alleles + 1) / 2 };
            prop_assert_eq!(variant.likelihoods.len(), genotypes);
        }
    }
}
