//! Packing of reads, eight bases at a time: one multiplication gathers a bit of each.

use crate::kernel::pack::{Packed, Read, ReadWord, WORD_BASES, bin};

/// As [`kernel::pack::scalar`](crate::kernel::pack::scalar).
pub fn pack(read: Read<'_>) -> Packed {
    assert_eq!(read.codes.len(), read.qualities.len(), "each base has a quality");
    let forward: Vec<ReadWord> = read.codes.chunks(WORD_BASES).map(word).collect();
    let backward = reverse_complement(&forward, read.codes.len());
    Packed { forward, backward, bins: bins(read.qualities) }
}

/// Gathers bit 0 of each of eight bytes into one byte, the first byte's bit lowest.
#[inline(always)]
fn gather(bytes: u64) -> u64 {
    (bytes & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

fn word(codes: &[u8]) -> ReadWord {
    let mut word = ReadWord { valid: u64::MAX >> (WORD_BASES - codes.len()), ..Default::default() };
    for (group, eight) in codes.chunks(8).enumerate() {
        let mut bytes = [0; 8];
        for (byte, &code) in bytes.iter_mut().zip(eight) {
            *byte = code.min(4);
        }
        let bytes = u64::from_le_bytes(bytes);
        word.low |= gather(bytes) << (8 * group);
        word.high |= gather(bytes >> 1) << (8 * group);
        word.unknown |= gather(bytes >> 2) << (8 * group);
    }
    word
}

/// Turns whole words round, and shifts the places that hold no base out of the first.
fn reverse_complement(forward: &[ReadWord], bases: usize) -> Vec<ReadWord> {
    let shift = (forward.len() * WORD_BASES - bases) as u32;
    let turned = |at: Option<usize>| {
        let word = at.map_or_else(ReadWord::default, |at| forward[at]);
        [word.low, word.high, word.unknown, word.valid].map(u64::reverse_bits)
    };
    let word = |at: usize| {
        let (here, next) = (turned(Some(at)), turned(at.checked_sub(1)));
        let [low, high, unknown, valid] =
            std::array::from_fn(|plane| here[plane] >> shift | (next[plane] << 1) << (63 - shift));
        let known = valid & !unknown;
        ReadWord { low: !low & known, high: !high & known, unknown, valid }
    };
    (0..forward.len()).rev().map(word).collect()
}

fn bins(qualities: &[u8]) -> Vec<u32> {
    let eight =
        |eight: &[u8]| eight.iter().rev().fold(0, |word, &quality| word << 4 | bin(quality));
    qualities.chunks(8).map(eight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::pack::scalar;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_twin(bases in proptest::collection::vec((0u8..9, 0u8..99), 0..300)) {
            let (codes, qualities): (Vec<u8>, Vec<u8>) = bases.into_iter().unzip();
            let read = Read { codes: &codes, qualities: &qualities };
            prop_assert_eq!(pack(read), scalar(read));
        }
    }
}
