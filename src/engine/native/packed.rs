//! The reference as bit planes: 64 bases a word, so that a read is compared in a few operations.

use crate::device::cpu::pages;
use crate::genome::Reference;
pub use crate::kernel::pack::ReadWord;
pub use crate::kernel::ungapped::WORDS_MAX;
use crate::kernel::ungapped::{self, GenomeWord};

/// Longest read that is mapped, in bases; longer ones stay unmapped.
pub const READ_BASES_MAX: usize = 64 * WORDS_MAX;

/// Unknown bases before each contig and behind the last: no read can lie on two contigs.
const GAP_BASES: u64 = 2 * READ_BASES_MAX as u64;

/// A reference in one coordinate space, contigs apart by unknown bases.
#[derive(Debug)]
pub struct PackedGenome {
    words: Vec<GenomeWord>,
    starts: Vec<u32>,
    lengths: Vec<u32>,
    /// Which contigs are alternate forms of a part of another; empty when none is.
    alternates: Vec<bool>,
}

/// Gathers bit 0 of each of eight bytes into one byte, the first byte's bit lowest.
#[inline(always)]
fn gather(bytes: u64) -> u64 {
    (bytes & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// Packs up to 64 base codes.
#[inline(always)]
fn pack(codes: &[u8]) -> GenomeWord {
    let mut word = GenomeWord::default();
    for (group, eight) in codes.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..eight.len()].copy_from_slice(eight);
        let bytes = u64::from_le_bytes(bytes);
        word.low |= gather(bytes) << (8 * group);
        word.high |= gather(bytes >> 1) << (8 * group);
        word.unknown |= gather(bytes >> 2) << (8 * group);
    }
    word
}

/// Packs a read's codes forward, then its reverse complement: `2 * length.div_ceil(64)` words.
pub fn pack_read(codes: &[u8], out: &mut Vec<ReadWord>) {
    let first = out.len();
    for chunk in codes.chunks(64) {
        let valid = u64::MAX >> (64 - chunk.len());
        let GenomeWord { low, high, unknown } = pack(chunk);
        out.push(ReadWord { low, high, unknown, valid });
    }
    let count = out.len() - first;
    let shift = (count * 64 - codes.len()) as u32;
    for i in 0..count {
        let here = reversed(&out[first + count - 1 - i]);
        let next = if i + 1 < count { reversed(&out[first + count - 2 - i]) } else { [0; 4] };
        let join = |plane: usize| (here[plane] >> shift) | ((next[plane] << 1) << (63 - shift));
        let (low, high) = (!join(0), !join(1));
        out.push(ReadWord { low, high, unknown: join(2), valid: join(3) });
    }
}

fn reversed(word: &ReadWord) -> [u64; 4] {
    [word.low, word.high, word.unknown, word.valid].map(u64::reverse_bits)
}

/// Whether a contig is an alternate form of a part of another, by the names of GRCh38's analysis sets:
/// `chr1_KI270762v1_alt`, `HLA-A*01:01:01:01`.
pub fn is_alternate(name: &str) -> bool {
    name.ends_with("_alt") || name.starts_with("HLA-")
}

impl PackedGenome {
    /// Packs a reference; `None` when it has more bases than 32-bit positions can name.
    pub fn new(reference: &Reference) -> Option<Self> {
        let (mut starts, mut lengths) = (Vec::new(), Vec::new());
        let mut end = GAP_BASES;
        for contig in &reference.contigs {
            starts.push(u32::try_from(end).ok()?);
            lengths.push(u32::try_from(contig.bases.len()).ok()?);
            // Contigs begin at whole words, so that each is packed by itself.
            end = (end + contig.bases.len() as u64 + GAP_BASES).next_multiple_of(64);
        }
        u32::try_from(end).ok()?;
        let unknown = GenomeWord { unknown: u64::MAX, ..GenomeWord::default() };
        let mut words = pages::vector((end / 64 + 2) as usize, || unknown);
        for (contig, &start) in reference.contigs.iter().zip(&starts) {
            let first = start as usize / 64;
            for (word, chunk) in words[first..].iter_mut().zip(contig.bases.chunks(64)) {
                *word = pack(chunk);
                word.unknown |= u64::MAX.checked_shl(chunk.len() as u32).unwrap_or(0);
            }
        }
        let mut alternates: Vec<bool> =
            reference.contigs.iter().map(|contig| is_alternate(&contig.name)).collect();
        if !alternates.contains(&true) {
            alternates.clear();
        }
        Some(Self { words, starts, lengths, alternates })
    }

    /// Whether any contig is an alternate form of a part of another.
    pub fn has_alternates(&self) -> bool {
        !self.alternates.is_empty()
    }

    /// Whether the contig at a global position is an alternate form of a part of another.
    pub fn is_alternate(&self, position: u32) -> bool {
        self.has_alternates() && self.alternates[self.contig_of(position)]
    }

    /// Number of contigs.
    pub fn contigs(&self) -> usize {
        self.starts.len()
    }

    /// Global position of the first base of each contig.
    pub fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// Length of a contig in bases.
    pub fn length(&self, contig: usize) -> u32 {
        self.lengths[contig]
    }

    /// The contig on or after whose start the global position lies; 0 for positions before all.
    pub fn contig_of(&self, position: u32) -> usize {
        self.starts.partition_point(|&start| start <= position).saturating_sub(1)
    }

    /// The bit planes of all contigs.
    pub fn words(&self) -> &[GenomeWord] {
        &self.words
    }

    /// Marks the places where a read, laid at the global `position`, differs; gives their number.
    #[inline(always)]
    pub fn mismatches(&self, read: &[ReadWord], position: u32, marks: &mut [u64]) -> u32 {
        ungapped::mismatches(&self.words, read, position, marks)
    }

    /// Whether a read, laid at the global `position`, matches in `run` bases one after the other.
    ///
    /// `run` is 8 to 16.
    #[inline]
    pub fn matches_in_run(&self, read: &[ReadWord], position: u32, run: u32) -> bool {
        let mut marks = [0u64; WORDS_MAX];
        let marks = &mut marks[..read.len()];
        self.mismatches(read, position, marks);
        for (mark, read) in marks.iter_mut().zip(read) {
            *mark = !*mark & read.valid;
        }
        for shift in [1, 2, 4, run - 8] {
            // A bit stays when the one `shift` further is set too: runs of `shift` more bases.
            for word in 0..marks.len() {
                let next = marks.get(word + 1).copied().unwrap_or(0);
                marks[word] &= (marks[word] >> shift) | ((next << 1) << (63 - shift));
            }
        }
        marks.iter().any(|&mark| mark != 0)
    }

    /// Appends the codes of `count` bases from the global `position`; 4 outside of the genome.
    pub fn unpack(&self, position: u32, count: usize, out: &mut Vec<u8>) {
        for at in u64::from(position)..u64::from(position) + count as u64 {
            let code = self.words.get((at / 64) as usize).map_or(4, |word| {
                let bit = |plane: u64| (plane >> (at % 64)) as u8 & 1;
                if bit(word.unknown) == 1 { 4 } else { bit(word.low) | bit(word.high) << 1 }
            });
            out.push(code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genome::reference::Contig;
    use proptest::prelude::*;

    fn reference(contigs: &[Vec<u8>]) -> Reference {
        let contigs = contigs.iter().map(|bases| Contig { name: "c".into(), bases: bases.clone() });
        Reference { contigs: contigs.collect() }
    }

    fn differ(a: u8, b: u8) -> bool {
        a != b || a > 3
    }

    proptest! {
        #[test]
        fn mismatches_are_those_of_a_plain_comparison(
            contig in proptest::collection::vec(0u8..5, 300..700),
            read in proptest::collection::vec(0u8..5, 1..200),
            offset in 0usize..300,
        ) {
            let genome = PackedGenome::new(&reference(&[vec![1; 70], contig.clone()])).unwrap();
            let mut words = Vec::new();
            pack_read(&read, &mut words);
            let count = read.len().div_ceil(64);
            prop_assert_eq!(words.len(), 2 * count);
            let complement = |&code: &u8| if code < 4 { 3 - code } else { 4 };
            let reverse: Vec<u8> = read.iter().rev().map(complement).collect();
            for (words, read) in [(&words[..count], &read), (&words[count..], &reverse)] {
                let mut marks = vec![0; count];
                let found = genome.mismatches(words, genome.starts()[1] + offset as u32, &mut marks);
                let base = |i: usize| contig.get(offset + i).copied().unwrap_or(4);
                let expected: Vec<bool> =
                    read.iter().enumerate().map(|(i, &code)| differ(code, base(i))).collect();
                prop_assert_eq!(found as usize, expected.iter().filter(|&&bad| bad).count());
                for (i, &bad) in expected.iter().enumerate() {
                    prop_assert_eq!(marks[i / 64] >> (i % 64) & 1 == 1, bad);
                }
            }
        }

        #[test]
        fn runs_are_those_of_a_plain_comparison(
            contig in proptest::collection::vec(0u8..2, 300..400),
            read in proptest::collection::vec(0u8..2, 1..200),
            offset in 0usize..100,
            run in 8u32..=16,
        ) {
            let genome = PackedGenome::new(&reference(std::slice::from_ref(&contig))).unwrap();
            let mut words = Vec::new();
            pack_read(&read, &mut words);
            let words = &words[..read.len().div_ceil(64)];
            let equal: Vec<bool> = read.iter().zip(&contig[offset..]).map(|(a, b)| a == b).collect();
            let longest = equal.split(|&equal| !equal).map(<[bool]>::len).max().unwrap_or(0);
            let found = genome.matches_in_run(words, genome.starts()[0] + offset as u32, run);
            prop_assert_eq!(found, longest >= run as usize);
        }

        #[test]
        fn what_was_packed_comes_back(contig in proptest::collection::vec(0u8..5, 0..300)) {
            let genome = PackedGenome::new(&reference(std::slice::from_ref(&contig))).unwrap();
            let mut out = Vec::new();
            genome.unpack(genome.starts()[0], contig.len(), &mut out);
            prop_assert_eq!(out, contig);
        }
    }

    #[test]
    fn positions_outside_are_unknown() {
        let genome = PackedGenome::new(&reference(&[vec![0; 10]])).unwrap();
        let mut out = Vec::new();
        genome.unpack(u32::MAX - 2, 5, &mut out);
        assert_eq!(out, [4; 5]);
        let mut words = Vec::new();
        pack_read(&[0; 10], &mut words);
        assert_eq!(genome.mismatches(&words[..1], u32::MAX - 5, &mut [0]), u32::MAX);
    }
}
