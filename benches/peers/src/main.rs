//! Banded alignment beside block-aligner and parasail, on the same pairs: `cargo run --release`.
//!
//! The whole read, ends of the window free: clips are so dear that none pays. One pair after the other for the
//! peers, which is how they work; all pairs at once for dsgd, which is how its engine works. Scores
//! are compared before anything is measured.

use std::hint::black_box;

use block_aligner::cigar::Cigar;
use block_aligner::scan_block::{Block, PaddedBytes};
use block_aligner::scores::{Gaps, NucMatrix};
use dsgd::device::cpu::align::{Lanes, Rows, align, align_all};
use dsgd::kernel::align::{Matrix, Pair, Scores};
use dsgd_peers::{Contender, Noise, compare, letters};
use parasail_rs::prelude::Aligner;

const PAIRS: usize = 2048;
const TURNS: usize = 15;
const SCORES: Scores = Scores { matched: 1, mismatch: 4, gap_open: 6, gap_extend: 1, clip: 1000 };
const GAPS: Gaps = Gaps { open: -7, extend: -1 };
const NUCLEOTIDES: NucMatrix = NucMatrix::new_simple(1, -4);
/// More than the longest query, as block-aligner asks for when the window's ends are free.
const WHOLE: usize = 256;
/// The smallest block that block-aligner makes grow.
const SMALL: usize = 32;

/// A read and its window, in the form that each program takes.
struct Sequences {
    query: Vec<u8>,
    target: Vec<u8>,
    letters: [Vec<u8>; 2],
    padded: [PaddedBytes; 2],
    /// The part of the window that the read is from.
    origin: PaddedBytes,
}

fn sequences(length: usize, band: usize, noise: &mut Noise) -> Sequences {
    let target = noise.codes(length + band - 1);
    let (query, used) = noise.read(&target[band / 2..], length);
    let letters = [letters(&query), letters(&target)];
    let padded = |letters: &[u8]| PaddedBytes::from_bytes::<NucMatrix>(letters, WHOLE);
    let origin = padded(&letters[1][band / 2..][..used.min(length + band / 2 - 1)]);
    let padded = [padded(&letters[0]), padded(&letters[1])];
    Sequences { query, target, letters, padded, origin }
}

/// Parasail with the window's ends free.
fn parasail(trace: bool) -> Aligner {
    let matrix = parasail_rs::prelude::Matrix::create(b"ACGT", 1, -4).expect("a matrix");
    let mut builder = Aligner::new();
    let ends = ["prefix", "suffix"].map(String::from);
    builder.matrix(matrix).gap_open(7).gap_extend(1).semi_global().striped().solution_width(16);
    builder.allow_query_gaps(vec![]).allow_ref_gaps(ends.into());
    if trace {
        builder.use_trace();
    }
    builder.build()
}

/// Block-aligner on all pairs: their scores.
fn whole_blocks<const TRACE: bool>(all: &[Sequences], cigar: &mut Cigar) -> Vec<i32> {
    let most = all.iter().map(|pair| pair.target.len()).max().unwrap_or(0);
    let mut block = Block::<TRACE, false, false, true, true>::new(WHOLE, most, WHOLE);
    let one = |pair: &Sequences| {
        let [query, target] = &pair.padded;
        block.align(query, target, &NUCLEOTIDES, GAPS, WHOLE..=WHOLE, 0);
        let end = block.res();
        if TRACE {
            block.trace().cigar(end.query_idx, end.reference_idx, cigar);
        }
        end.score
    };
    all.iter().map(one).collect()
}

/// Block-aligner from end to end of what the read is from, with the smallest blocks.
fn small_blocks<const TRACE: bool>(all: &[Sequences], most: usize, cigar: &mut Cigar) -> Vec<i32> {
    let longest = all.iter().map(|pair| pair.target.len()).max().unwrap_or(0);
    let mut block = Block::<TRACE>::new(WHOLE, longest, most);
    let one = |pair: &Sequences| {
        block.align(&pair.padded[0], &pair.origin, &NUCLEOTIDES, GAPS, SMALL..=most, 0);
        let end = block.res();
        if TRACE {
            block.trace().cigar(end.query_idx, end.reference_idx, cigar);
        }
        end.score
    };
    all.iter().map(one).collect()
}

fn run(length: usize, band: usize) {
    let mut noise = Noise(0x5eed_0000 + (length * band) as u64);
    let all: Vec<Sequences> = (0..PAIRS).map(|_| sequences(length, band, &mut noise)).collect();
    let pairs: Vec<Pair<'_>> =
        all.iter().map(|one| Pair { query: &one.query, target: &one.target }).collect();
    let mut lanes = Lanes::default();
    let ours = align_all(&pairs, &SCORES, &mut lanes);
    let ours: Vec<i32> = ours.into_iter().map(|one| one.expect("lengths that fit").score).collect();
    let [traced, scored] = [true, false].map(parasail);
    let parasails = |aligner: &Aligner| -> Vec<i32> {
        let one = |one: &Sequences| {
            let [query, target] = &one.letters;
            aligner.align(Some(query), target).expect("an alignment").get_score()
        };
        all.iter().map(one).collect()
    };
    let cigars = || {
        for one in &all {
            let [query, target] = &one.letters;
            let aligned = traced.align(Some(query), target).expect("an alignment");
            black_box(aligned.get_cigar(query, target).expect("its columns"));
        }
    };
    let mut cigar = Cigar::new(length, length + band);
    assert_eq!(ours, whole_blocks::<true>(&all, &mut cigar));
    assert_eq!(ours, parasails(&traced));
    assert_eq!(ours, parasails(&scored));
    let small = small_blocks::<false>(&all, SMALL, &mut cigar);
    let grown = small_blocks::<false>(&all, WHOLE, &mut cigar);
    let same = |scores: &[i32]| scores.iter().zip(&ours).filter(|(one, own)| one == own).count();
    println!(
        "\n{PAIRS} reads of {length}, bands of {band}. Of the scores of block-aligner from end to"
    );
    println!(
        "end {} with blocks of 32 and {} with growing ones are the same.\n",
        same(&small),
        same(&grown)
    );
    println!("| form | ns a pair | cells a pair | GCUPS of these |\n| --- | ---: | ---: | ---: |");
    let (banded, rectangle) = ((length * band) as f64, (length * (length + band - 1)) as f64);
    let (mut matrix, mut rows) = (Matrix::default(), Rows::default());
    let mut cigar = [(); 4].map(|()| Cigar::new(length, length + band));
    let [one, two, three, four] = &mut cigar;
    let contenders = vec![
        Contender::new("dsgd, many pairs, traced", Some(banded), || {
            black_box(align_all(&pairs, &SCORES, &mut lanes));
        }),
        Contender::new("dsgd, one pair, traced", Some(banded), || {
            for pair in &pairs {
                black_box(align(pair.query, pair.target, &SCORES, &mut matrix, &mut rows));
            }
        }),
        Contender::new("block-aligner, window's ends free, traced", Some(rectangle), || {
            black_box(whole_blocks::<true>(&all, one));
        }),
        Contender::new("block-aligner, window's ends free, scores only", Some(rectangle), || {
            black_box(whole_blocks::<false>(&all, two));
        }),
        Contender::new(
            "block-aligner, end to end, blocks of 32, traced",
            Some(64.0 * length as f64),
            || {
                black_box(small_blocks::<true>(&all, SMALL, three));
            },
        ),
        Contender::new(
            "block-aligner, end to end, blocks of 32, scores only",
            Some(64.0 * length as f64),
            || {
                black_box(small_blocks::<false>(&all, SMALL, four));
            },
        ),
        Contender::new("parasail sg_dx, striped, 16 bits, traced", Some(rectangle), cigars),
        Contender::new("parasail sg_dx, striped, 16 bits, scores only", Some(rectangle), || {
            black_box(parasails(&scored));
        }),
    ];
    compare(contenders, PAIRS, TURNS);
}

fn main() {
    for length in [150, 250] {
        for band in [32, 64] {
            run(length, band);
        }
    }
}
