//! Extension without gaps: where a read, laid on the reference, differs from it.
//!
//! Reference and read are bit planes, so 64 bases are compared by a few XORs, counted by one
//! population count.

use bytemuck::{Pod, Zeroable};

use super::pack::{ReadWord, WORD_BASES};

/// 64 bases of a reference, the first in bit 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct GenomeWord {
    /// Bit 0 of each base's code.
    pub low: u64,
    /// Bit 1 of each base's code.
    pub high: u64,
    /// Which bases are unknown.
    pub unknown: u64,
}

impl ReadWord {
    /// Its bases as those of a reference: where it holds none, they are known.
    pub fn bases(&self) -> GenomeWord {
        GenomeWord { low: self.low, high: self.high, unknown: self.unknown }
    }
}

/// A read and where it is laid: one of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Laid<'a> {
    /// The oriented read.
    pub read: &'a [ReadWord],
    /// The reference base under its first base.
    pub position: u32,
}

/// Where a read differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatches {
    /// How often, or [`OUTSIDE`].
    pub count: u32,
    /// A word for each word of the read.
    pub marks: Vec<u64>,
}

/// Number of mismatches of a read that reaches over the end of the reference.
pub const OUTSIDE: u32 = u32::MAX;

/// Marks the places where the read differs, a word of marks for each word of it; gives their number.
///
/// Unknown bases of either side differ from everything. The reference must reach one word beyond the
/// read's last; else every bit is marked and the number is [`OUTSIDE`].
///
/// # Panics
/// When `marks` has not as many words as the read.
#[inline(always)]
pub fn scalar(genome: &[GenomeWord], laid: Laid<'_>, marks: &mut [u64]) -> u32 {
    assert_eq!(marks.len(), laid.read.len(), "a word of marks for each word of the read");
    let (first, shift) = (laid.position as usize / WORD_BASES, laid.position % 64);
    let Some(words) = genome.get(first..first + laid.read.len() + 1) else {
        marks.fill(u64::MAX);
        return OUTSIDE;
    };
    let mut count = 0;
    for ((read, pair), mark) in laid.read.iter().zip(words.windows(2)).zip(marks) {
        let join = |a: u64, b: u64| (a >> shift) | ((b << 1) << (63 - shift));
        let low = join(pair[0].low, pair[1].low) ^ read.low;
        let high = join(pair[0].high, pair[1].high) ^ read.high;
        let unknown = join(pair[0].unknown, pair[1].unknown) | read.unknown;
        *mark = (low | high | unknown) & read.valid;
        count += mark.count_ones();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::pack::{Read, scalar as pack};
    use proptest::prelude::*;

    fn genome(codes: &[u8]) -> Vec<GenomeWord> {
        let packed = pack(Read { codes, qualities: &vec![0; codes.len()] });
        let word =
            |word: &ReadWord| GenomeWord { unknown: word.unknown | !word.valid, ..word.bases() };
        packed.forward.iter().map(word).collect()
    }

    proptest! {
        #[test]
        fn the_marks_are_those_of_a_plain_comparison(
            codes in proptest::collection::vec(0u8..6, 260..600),
            start in 0usize..200, length in 1usize..190,
            changed in proptest::collection::vec((0usize..190, 0u8..5), 0..8),
        ) {
            let mut read = codes[start..(start + length).min(codes.len())].to_vec();
            for (at, code) in changed {
                let at = at % read.len();
                read[at] = code;
            }
            let differ = |at: usize| {
                let (read, from) = (read[at], codes[start + at]);
                read > 3 || from > 3 || read != from
            };
            let packed = pack(Read { codes: &read, qualities: &vec![0; read.len()] });
            let words = genome(&codes);
            let mut marks = vec![0; packed.forward.len()];
            let laid = Laid { read: &packed.forward, position: start as u32 };
            let count = scalar(&words, laid, &mut marks);
            if start / 64 + marks.len() + 1 > words.len() {
                prop_assert_eq!((count, marks[0]), (OUTSIDE, u64::MAX));
                return Ok(());
            }
            let places: Vec<usize> = (0..read.len()).filter(|&at| differ(at)).collect();
            let marked = |at: &usize| marks[at / 64] >> (at % 64) & 1 == 1;
            prop_assert_eq!(count as usize, places.len());
            prop_assert_eq!((0..64 * marks.len()).filter(marked).collect::<Vec<_>>(), places);
        }
    }
}
