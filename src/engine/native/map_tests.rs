//! Mapping: places of simulated reads, and that it does not matter how many go together.

use proptest::prelude::*;

use super::Index;
use super::aligned::AlignedRead;
use super::extend::{DELETION, INSERTION, MATCH, SOFT_CLIP, span};
use super::insert::InsertModel;
use super::map::Mapper;
use super::offload::Sizes;
use super::place::{LAST, PROPER, REVERSE, UNMAPPED, aligned};
use super::simulate::{Random, batches, mapper, random_bases, reference_of, reverse_complement};
use crate::genome::{Layout, Reference};

fn map(reference: &Reference, reads: &[Vec<u8>], layout: Layout) -> Vec<AlignedRead> {
    map_with(&mapper(Index::build(reference, 1).unwrap()), reference, reads, layout)
}

fn map_with(
    mapper: &Mapper,
    reference: &Reference,
    reads: &[Vec<u8>],
    layout: Layout,
) -> Vec<AlignedRead> {
    let mut out = Vec::new();
    let mut work = mapper.workspace().unwrap();
    for batch in batches(reads, layout, 1000) {
        let take = |number, placed| {
            aligned(mapper.index().genome(), &batch, number, &placed, |_, read| out.push(read));
        };
        mapper.place(&batch, &InsertModel::default(), &mut work, take).unwrap();
    }
    for read in &out {
        check(read, reference);
    }
    out
}

/// What holds for every read, wherever it lies.
fn check(read: &AlignedRead, reference: &Reference) {
    assert_eq!(read.bases.len(), read.qualities.len());
    if read.flags & UNMAPPED != 0 {
        assert!(read.cigar.is_empty() && read.mapping_quality == 0);
        return;
    }
    let contig = &reference.contigs[read.contig as usize];
    assert!((read.position + span(&read.cigar)) as usize <= contig.bases.len());
    let taken: u32 = read.cigar.iter().filter(|&&op| op & 15 != DELETION).map(|op| op >> 4).sum();
    assert_eq!(taken as usize, read.bases.len());
    let codes: Vec<u32> = read.cigar.iter().map(|op| op & 15).collect();
    assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{codes:?}");
    let inner: Vec<_> = codes.iter().filter(|&&code| code != SOFT_CLIP).collect();
    assert!(*inner[0] == MATCH && *inner[inner.len() - 1] == MATCH, "{codes:?}");
}

pub(super) fn genome() -> Reference {
    let repeat = random_bases(77, 900);
    let first = [random_bases(1, 30_000), repeat.clone(), random_bases(2, 20_000), repeat].concat();
    reference_of(&[first, random_bases(3, 9_000)])
}

#[test]
fn mates_that_disagree_on_their_template_stay_whole() {
    let reference = genome();
    let piece = &reference.contigs[0].bases[5000..5100];
    let adapter = random_bases(99, 50);
    // The first 30 bases of the second mate are of the template; what follows is not.
    let other = [reverse_complement(&piece[70..]), random_bases(98, 120)].concat();
    let reads = [[piece, &adapter].concat(), other];
    let placed = map(&reference, &reads, Layout::Paired);
    assert_eq!((placed[0].position, &placed[0].cigar[..]), (5000, &[100 << 4, 50 << 4 | 4][..]));
    assert!(placed.iter().all(|read| read.bases.len() == 150));
}

#[test]
fn a_mate_with_a_gap_is_found_beside_the_other_although_its_seeds_lead_elsewhere() {
    let mut bases = random_bases(21, 60_000);
    // Many copies of what is behind the gap, so that its seeds say nothing.
    let copied = bases[5300..5420].to_vec();
    for copy in 0..100 {
        let at = 10_000 + copy * 400;
        bases[at..at + 120].copy_from_slice(&copied);
    }
    let reference = reference_of(&[bases.clone()]);
    let read = [&bases[5210..5300], &[3, 1], &bases[5300..5358]].concat();
    let reads = [bases[5000..5150].to_vec(), reverse_complement(&read)];
    let placed = map(&reference, &reads, Layout::Paired);
    assert!(placed[1].flags & PROPER != 0 && placed[1].position == 5210, "{:?}", placed[1]);
}

#[test]
fn the_copies_of_a_tandem_repeat_are_places_of_their_own() {
    let unit = random_bases(31, 53);
    let repeat: Vec<u8> = std::iter::repeat_n(&unit, 8).flatten().copied().collect();
    let bases = [random_bases(32, 5000), repeat, random_bases(33, 5000)].concat();
    let reference = reference_of(std::slice::from_ref(&bases));
    for start in [5060, 5120, 5200] {
        let placed = map(&reference, &[bases[start..start + 150].to_vec()], Layout::Single);
        assert_eq!(placed[0].mapping_quality, 0, "{placed:?}");
    }
    let unique = map(&reference, &[bases[4960..5110].to_vec()], Layout::Single);
    assert!(unique[0].mapping_quality >= 40 && unique[0].position == 4960);
}

#[test]
fn alternate_contigs_say_nothing_against_the_place_on_the_chromosome() {
    let chromosome = random_bases(61, 20_000);
    let own = random_bases(62, 1000);
    let alternate = [&chromosome[5000..7000], &own, &chromosome[7000..8000]].concat();
    let shared = chromosome[5500..5650].to_vec();
    let mut nearer = shared.clone();
    nearer[70] = (nearer[70] + 1) % 4;
    let mut changed = alternate;
    changed[570] = nearer[70];
    let reads = [shared, nearer, own[300..450].to_vec()];
    let mut reference = reference_of(&[chromosome, changed]);
    for (name, qualities) in [("chr1_KI270762v1_alt", [60, 60, 60]), ("chr2", [27, 27, 60])] {
        reference.contigs[1].name = name.into();
        let placed = map(&reference, &reads, Layout::Single);
        let found: Vec<u8> = placed.iter().map(|read| read.mapping_quality).collect();
        assert_eq!(found, qualities, "{name}");
        let on_chromosome = name != "chr2";
        assert_eq!((placed[0].contig, placed[1].contig == 0), (0, on_chromosome));
        assert_eq!(placed[2].contig, 1);
    }
}

#[test]
fn mapping_qualities_are_no_higher_than_the_errors_allow() {
    // A genome of copies that differ in one base of 150, so that places are often in doubt.
    let mut random = Random::new(41);
    let unit = random_bases(42, 4000);
    let mut bases = random_bases(43, 20_000);
    for _ in 0..12 {
        let changed = |&base: &u8| match random.below(150) {
            0 => (base + 1 + random.below(3) as u8) % 4,
            _ => base,
        };
        bases.extend(unit.iter().map(changed));
    }
    let reference = reference_of(&[bases.clone()]);
    let (places, reads) = pairs(&bases, 6000, 100, 44);
    let placed = map(&reference, &reads, Layout::Paired);
    // Of each class of ten units: reads, wrong ones, and how many of them are to be expected.
    let mut classes = [(0, 0, 0.0); 7];
    for (number, read) in placed.iter().enumerate() {
        let right = read.position.abs_diff(places[number / 2][number % 2]) <= 50;
        let class = &mut classes[usize::from(read.mapping_quality / 10)];
        class.0 += 1;
        class.1 += u32::from(!right);
        class.2 += 10f64.powf(-f64::from(read.mapping_quality) / 10.0);
    }
    for (reads, wrong, expected) in &classes[1..] {
        // Three times what the qualities say, and three deviations for chance.
        let most = 3.0 * expected + 3.0 * (3.0 * expected).sqrt() + 3.0;
        assert!(f64::from(*wrong) <= most, "{reads} {wrong} {expected:.2}: {classes:?}");
    }
    assert!(classes[0].0 > 100 && classes[2].0 + classes[3].0 > 500, "{classes:?}");
}

/// A donor piece with one change in its middle: the read and the CIGAR expected.
fn changed(reference: &[u8], at: usize, change: i32, random: &mut Random) -> (Vec<u8>, Vec<u32>) {
    let gap = change.unsigned_abs() as usize;
    let left = &reference[at..at + 75];
    let after = &reference[at + 75..];
    match change {
        0 => (reference[at..at + 150].to_vec(), vec![150 << 4 | MATCH]),
        1.. => {
            let mut inserted: Vec<u8> = (0..gap).map(|_| random.below(4) as u8).collect();
            // The ends differ from their neighbours, so the place is unique.
            inserted[0] = (after[0] + 1) % 4;
            inserted[gap - 1] = (left[74] + 1) % 4;
            if gap == 1 {
                let free = |base: &u8| *base != after[0] && *base != left[74];
                inserted[0] = (0..4).find(free).unwrap();
            }
            let right = 150 - 75 - gap.min(40);
            let read = [left, &inserted, &after[..right]].concat();
            let middle = (gap as u32) << 4 | INSERTION;
            (read, vec![75 << 4 | MATCH, middle, (right as u32) << 4 | MATCH])
        }
        _ => {
            let read = [left, &after[gap..gap + 75]].concat();
            (read, vec![75 << 4 | MATCH, (gap as u32) << 4 | DELETION, 75 << 4 | MATCH])
        }
    }
}

#[test]
fn insertions_and_deletions_of_one_to_fifty_bases_are_found() {
    let reference = genome();
    let bases = &reference.contigs[0].bases;
    let mut random = Random::new(8);
    for gap in 1..=50i32 {
        for change in [gap, -gap] {
            if change > 35 {
                continue;
            }
            let at = 1000 + random.below(25_000);
            let (read, cigar) = changed(bases, at, change, &mut random);
            let placed = &map(&reference, &[read], Layout::Single)[0];
            assert_eq!((placed.contig, placed.position), (0, at as u32), "{change}");
            assert!(placed.mapping_quality >= 40, "{change}: {}", placed.mapping_quality);
            if change > 0 {
                assert_eq!(placed.cigar, cigar, "{change}");
            } else {
                // The bases beside a deletion may be equal, and it is then placed further left.
                let lengths = |cigar: &[u32], code| -> u32 {
                    cigar.iter().filter(|&&op| op & 15 == code).map(|op| op >> 4).sum()
                };
                assert_eq!(lengths(&placed.cigar, DELETION), gap as u32, "{:?}", placed.cigar);
                assert_eq!(lengths(&placed.cigar, MATCH), 150);
            }
        }
    }
}

/// Pairs from a genome: places of the two mates' leftmost bases, and the reads.
pub(super) fn pairs(
    bases: &[u8],
    count: usize,
    length: usize,
    seed: u64,
) -> (Vec<[u32; 2]>, Vec<Vec<u8>>) {
    let mut random = Random::new(seed);
    let (mut places, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let insert = 250 + random.below(300);
        let start = random.below(bases.len() - insert);
        let mut mutate = |piece: &[u8]| -> Vec<u8> {
            let errors = piece.iter();
            errors.map(|&base| if random.below(100) == 0 { (base + 1) % 4 } else { base }).collect()
        };
        let forward = mutate(&bases[start..start + length]);
        let backward = mutate(&reverse_complement(&bases[start + insert - length..start + insert]));
        let ends = [start as u32, (start + insert - length) as u32];
        if random.below(2) == 0 {
            places.push(ends);
            reads.extend([forward, backward]);
        } else {
            places.push([ends[1], ends[0]]);
            reads.extend([backward, forward]);
        }
    }
    (places, reads)
}

#[test]
fn how_many_reads_go_together_changes_no_place() {
    let reference = genome();
    let bases = &reference.contigs[0].bases;
    let mut random = Random::new(71);
    let (_, mut reads) = pairs(bases, 1500, 150, 72);
    for (number, read) in reads.iter_mut().enumerate() {
        match number % 10 {
            // A gap, which only an alignment finds.
            0 => drop(read.drain(60..63)),
            // No seed is left: it is found around its mate, with a gap or without.
            3 | 7 => {
                (6..150).step_by(17).for_each(|at| read[at] = (read[at] + 1) % 4);
                drop(read.drain(80..80 + number % 3));
            }
            5 => *read = random_bases(number as u64, 20 + random.below(200)),
            _ => {}
        }
    }
    let placed = |sizes, layout| {
        let mapper = mapper(Index::build(&reference, 1).unwrap()).with_sizes(sizes);
        map_with(&mapper, &reference, &reads[1..], layout)
    };
    for layout in [Layout::Paired, Layout::Single] {
        let expected = placed(Sizes::CPU, layout);
        let gapped = expected.iter().filter(|read| read.cigar.iter().any(|op| op & 15 == DELETION));
        assert!(gapped.count() > 250);
        for (tile, group) in [(1, 1), (3, 7), (64, 64), (100, 90), (usize::MAX, usize::MAX)] {
            assert!(placed(Sizes { tile, group }, layout) == expected, "{tile} {group}");
        }
    }
}

#[test]
fn pairs_lie_where_they_came_from_and_repeats_say_so() {
    let reference = genome();
    let (places, reads) = pairs(&reference.contigs[0].bases, 2000, 120, 5);
    let placed = map(&reference, &reads, Layout::Paired);
    let mut wrong = 0;
    for (number, read) in placed.iter().enumerate() {
        let expected = places[number / 2][number % 2];
        let clip = read.cigar.first().filter(|&op| op & 15 == SOFT_CLIP).map_or(0, |op| op >> 4);
        let start = read.position.wrapping_sub(clip);
        let right = read.contig == 0 && start.abs_diff(expected) <= 5;
        wrong += u32::from(!right);
        assert!(right || read.mapping_quality < 20, "{read:?} {expected}");
        assert_eq!(read.flags & LAST != 0, number % 2 == 1);
    }
    assert!(wrong < 40, "{wrong}");
    let proper = placed.iter().filter(|read| read.flags & PROPER != 0).count();
    assert!(proper > 3950, "{proper}");
    let mates = placed.as_chunks::<2>().0;
    for [first, second] in mates.iter().filter(|pair| pair[0].flags & PROPER != 0) {
        assert_eq!(first.template_length, -second.template_length);
        assert_eq!((first.mate_position, second.mate_position), (second.position, first.position));
        assert_ne!(first.flags & REVERSE, second.flags & REVERSE);
    }
}

#[test]
fn a_mate_without_seeds_is_found_beside_the_other() {
    let reference = genome();
    let (places, mut reads) = pairs(&reference.contigs[0].bases[..29_000], 200, 150, 15);
    for read in reads.iter_mut().skip(1).step_by(2) {
        for base in read.iter_mut().step_by(15) {
            *base = (*base + 2) % 4;
        }
    }
    let placed = map(&reference, &reads, Layout::Paired);
    let right = |(number, read): &(usize, &AlignedRead)| {
        read.position.abs_diff(places[number / 2][number % 2]) <= 15
    };
    assert!(placed.iter().enumerate().filter(right).count() >= 395);
}

#[test]
fn adapters_behind_short_templates_are_cut_off() {
    let reference = genome();
    let piece = &reference.contigs[0].bases[5000..5100];
    let adapter = random_bases(99, 50);
    let reads = [
        [piece, &adapter].concat(),
        [reverse_complement(piece), reverse_complement(&adapter)].concat(),
        // Three bases of adapter that happen to match go too.
        reference.contigs[0].bases[5000..5103].to_vec(),
        reverse_complement(&reference.contigs[0].bases[4997..5100]),
    ];
    let placed = map(&reference, &reads, Layout::Paired);
    for read in &placed {
        assert_eq!((read.position, &read.cigar[..]), (5000, &[100 << 4][..]));
        assert_eq!((&read.bases[..], read.qualities.len()), (piece, 100));
    }
    assert_eq!((placed[0].template_length, placed[1].template_length), (100, -100));
}

#[test]
fn reads_over_the_ends_of_contigs_are_clipped_there() {
    let reference = genome();
    let bases = &reference.contigs[1].bases;
    let start = [&random_bases(41, 30), &bases[..90]].concat();
    let end = [&bases[bases.len() - 90..], &random_bases(42, 30)].concat();
    for (read, position, cigar) in [
        (start.clone(), 0, [30 << 4 | 4, 90 << 4]),
        (reverse_complement(&start), 0, [30 << 4 | 4, 90 << 4]),
        (end, bases.len() as u32 - 90, [90 << 4, 30 << 4 | 4]),
    ] {
        let placed = &map(&reference, &[read], Layout::Single)[0];
        assert_eq!((placed.contig, placed.position), (1, position));
        assert_eq!(placed.cigar, cigar);
    }
    let one_over = [&[(bases[0] + 1) % 4][..], &bases[..119]].concat();
    let placed = &map(&reference, &[one_over], Layout::Single)[0];
    assert_eq!((placed.contig, placed.position), (1, 0));
}

#[test]
fn odd_reads_are_given_back_unmapped_or_mapped_but_never_lost() {
    let reference = genome();
    let bases = &reference.contigs[0].bases;
    let reads = vec![
        vec![],
        vec![0],
        vec![4; 150],
        bases[100..121].to_vec(),
        bases[..10_000].to_vec(),
        vec![0; 300],
        bases[500..1524].to_vec(),
        bases[500..1525].to_vec(),
        [&bases[500..560], &[4; 6][..], &bases[566..650]].concat(),
        bases[700..735].to_vec(),
    ];
    for layout in [Layout::Single, Layout::Paired] {
        let placed = map(&reference, &reads, layout);
        assert_eq!(placed.len(), reads.len());
        assert!(placed[2].flags & UNMAPPED != 0 && placed[0].flags & UNMAPPED != 0);
        assert_eq!((placed[6].position, placed[8].position, placed[9].position), (500, 500, 700));
    }
    for contigs in [vec![], vec![vec![]], vec![vec![1, 2, 3]], vec![vec![4; 500]]] {
        let placed = map(&reference_of(&contigs), &reads, Layout::Paired);
        assert!(placed.iter().all(|read| read.flags & UNMAPPED != 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_reads_on_any_genome_keep_the_rules(
        contigs in proptest::collection::vec(proptest::collection::vec(0u8..5, 0..400), 0..4),
        pieces in proptest::collection::vec((0usize..4, 0usize..400, 0usize..200, any::<bool>()), 2..20),
        noise in proptest::collection::vec(0u8..5, 0..60),
    ) {
        let reference = reference_of(&contigs);
        let reads: Vec<Vec<u8>> = pieces.iter().map(|&(contig, start, length, reverse)| {
            let bases = contigs.get(contig).map_or(&[][..], Vec::as_slice);
            let start = start.min(bases.len());
            let piece = &bases[start..(start + length).min(bases.len())];
            let read = [piece, &noise[..noise.len().min(length)]].concat();
            if reverse { reverse_complement(&read) } else { read }
        }).collect();
        let even = &reads[..reads.len() / 2 * 2];
        prop_assert_eq!(map(&reference, even, Layout::Paired).len(), even.len());
        prop_assert_eq!(map(&reference, &reads, Layout::Single).len(), reads.len());
    }
}
