//! Reads packed for comparison: bit planes of both strands, and qualities in eight bins.
//!
//! The bins are those of Illumina 2014, "Reducing Whole-Genome Data Storage Footprint", table 1: a
//! quality is replaced by one that stands for its bin, which changes few calls and makes reads small.

use bytemuck::{Pod, Zeroable};

/// Bases that one word holds.
pub const WORD_BASES: usize = 64;

/// Up to 64 bases of a read, the first in bit 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ReadWord {
    /// Bit 0 of each base's code.
    pub low: u64,
    /// Bit 1 of each base's code.
    pub high: u64,
    /// Which bases are unknown, whatever their code's bits are; [`scalar`] leaves these zero.
    pub unknown: u64,
    /// Which places hold a base at all.
    pub valid: u64,
}

/// The lowest quality of each bin but the first.
pub const BIN_EDGES: [u8; 7] = [2, 10, 20, 25, 30, 35, 40];

/// The quality that stands for each bin.
pub const BIN_QUALITIES: [u8; 8] = [0, 6, 15, 22, 27, 33, 37, 40];

/// A read as sequenced: one of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    /// Base codes, 0 to 3 for A, C, G, T; others are unknown.
    pub codes: &'a [u8],
    /// Phred qualities, as many as codes.
    pub qualities: &'a [u8],
}

/// A read in its packed form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// As sequenced.
    pub forward: Vec<ReadWord>,
    /// The reverse complement; as many words.
    pub backward: Vec<ReadWord>,
    /// The bin of each base's quality, eight to a word of 32 bits, the first in the lowest bits.
    pub bins: Vec<u32>,
}

/// Packs one read.
///
/// # Panics
/// When there are not as many qualities as codes.
pub fn scalar(read: Read<'_>) -> Packed {
    assert_eq!(read.codes.len(), read.qualities.len(), "each base has a quality");
    let complement = |&code: &u8| if code < 4 { 3 - code } else { code };
    Packed {
        forward: planes(read.codes.iter().copied()),
        backward: planes(read.codes.iter().rev().map(complement)),
        bins: read.qualities.chunks(8).map(bins).collect(),
    }
}

fn planes(codes: impl ExactSizeIterator<Item = u8>) -> Vec<ReadWord> {
    let mut words = vec![ReadWord::default(); codes.len().div_ceil(WORD_BASES)];
    for (at, code) in codes.enumerate() {
        let word = &mut words[at / WORD_BASES];
        let bit = |set: bool| u64::from(set) << (at % WORD_BASES);
        word.low |= bit(code < 4 && code & 1 == 1);
        word.high |= bit(code < 4 && code & 2 == 2);
        word.unknown |= bit(code > 3);
        word.valid |= bit(true);
    }
    words
}

/// The bin of a quality.
#[inline]
pub fn bin(quality: u8) -> u32 {
    BIN_EDGES.iter().map(|&edge| u32::from(quality >= edge)).sum()
}

fn bins(eight: &[u8]) -> u32 {
    eight.iter().rev().fold(0, |word, &quality| word << 4 | bin(quality))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bin_holds_the_quality_that_stands_for_it() {
        for (number, quality) in (0..).zip(BIN_QUALITIES) {
            assert_eq!(bin(quality), number);
        }
        assert_eq!([0, 1, 2, 9, 10, 39, 40, 93].map(bin), [0, 0, 1, 1, 2, 6, 7, 7]);
    }

    proptest! {
        #[test]
        fn every_base_is_found_again_on_both_strands(
            bases in proptest::collection::vec((0u8..6, 0u8..60), 0..200),
        ) {
            let (codes, qualities): (Vec<u8>, Vec<u8>) = bases.into_iter().unzip();
            let packed = scalar(Read { codes: &codes, qualities: &qualities });
            let code = |words: &[ReadWord], at: usize| {
                let (word, at) = (words[at / 64], at % 64);
                assert_eq!(word.valid >> at & 1, 1);
                let bit = |plane: u64| (plane >> at & 1) as u8;
                if bit(word.unknown) == 1 { 4 } else { bit(word.low) | bit(word.high) << 1 }
            };
            for (at, &expected) in codes.iter().enumerate() {
                let expected = expected.min(4);
                prop_assert_eq!(code(&packed.forward, at), expected);
                let other = code(&packed.backward, codes.len() - 1 - at);
                prop_assert_eq!(other, if expected < 4 { 3 - expected } else { 4 });
                prop_assert_eq!(packed.bins[at / 8] >> (4 * (at % 8)) & 15, bin(qualities[at]));
            }
            let valid: u32 = packed.backward.iter().map(|word| word.valid.count_ones()).sum();
            prop_assert_eq!(valid as usize, codes.len());
        }
    }
}
