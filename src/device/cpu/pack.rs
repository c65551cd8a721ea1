//! Packing of reads, eight bases at a time: one multiplication gathers a bit of each.

use crate::kernel::pack::{BIN_EDGES, Packed, Read, ReadWord, WORD_BASES};

/// As [`kernel::pack::scalar`](crate::kernel::pack::scalar).
pub fn pack(read: Read<'_>) -> Packed {
    assert_eq!(read.codes.len(), read.qualities.len(), "each base has a quality");
    let forward: Vec<ReadWord> = read.codes.chunks(WORD_BASES).map(word).collect();
    let backward = reverse_complement(&forward, read.codes.len());
    Packed { forward, backward, bins: bins(read.qualities) }
}

/// 1 in each of eight bytes.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Up to eight bytes as one number, the first lowest, zeros behind.
#[inline(always)]
fn eight(bytes: &[u8]) -> u64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(whole)
}

/// Gathers bit 0 of each of eight bytes into one byte, the first byte's bit lowest.
#[inline(always)]
fn gather(bytes: u64) -> u64 {
    (bytes & ONES).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

fn word(codes: &[u8]) -> ReadWord {
    let mut word = ReadWord { valid: u64::MAX >> (WORD_BASES - codes.len()), ..Default::default() };
    for (group, codes) in codes.chunks(8).enumerate() {
        let codes = eight(codes);
        // Every bit but the lowest two, folded into bit 0.
        let beyond = codes >> 2 & (0x3f * ONES);
        let unknown = (beyond + 0x7f * ONES) >> 7 & ONES;
        word.low |= gather(codes & !unknown) << (8 * group);
        word.high |= gather(codes >> 1 & !unknown) << (8 * group);
        word.unknown |= gather(unknown) << (8 * group);
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

/// The bin of a quality is how many edges it has reached, counted in all eight bytes at once.
fn bins(qualities: &[u8]) -> Vec<u32> {
    let word = |qualities: &[u8]| {
        let qualities = eight(qualities);
        // Those from 128 on count as 127, beyond every edge.
        let large = qualities >> 7 & ONES;
        let qualities = (qualities | (large * 0x7f)) & (0x7f * ONES);
        let reached = |edge: &u8| (qualities + u64::from(128 - edge) * ONES) >> 7 & ONES;
        let bins: u64 = BIN_EDGES.iter().map(reached).sum();
        let pairs = (bins | bins >> 4) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
        (fours | fours >> 16) as u32
    };
    qualities.chunks(8).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::pack::scalar;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_twin(bases in proptest::collection::vec((0u8.., 0u8..), 0..300)) {
            let (codes, qualities): (Vec<u8>, Vec<u8>) = bases.into_iter().unzip();
            let read = Read { codes: &codes, qualities: &qualities };
            prop_assert_eq!(pack(read), scalar(read));
        }

        #[test]
        fn agrees_with_the_twin_on_bases(
            bases in proptest::collection::vec((0u8..6, 0u8..50), 0..300),
        ) {
            let (codes, qualities): (Vec<u8>, Vec<u8>) = bases.into_iter().unzip();
            let read = Read { codes: &codes, qualities: &qualities };
            prop_assert_eq!(pack(read), scalar(read));
        }
    }
}
