//! Seeds: the k-mers that both the reference and the reads are sampled at.
//!
//! A k-mer is taken when the middle one of its five s-mers has the smallest hash ("open syncmer",
//! Edgar 2021, PeerJ 9:e10805). Both strands of a sequence give the same k-mers.

/// Bases of a seed.
pub const SEED_BASES: usize = 22;

/// Bases of the s-mers that decide which k-mers are taken.
const CORE_BASES: usize = 18;

/// Bits of a seed's hash; no two seeds share a hash.
pub const HASH_BITS: u32 = 2 * SEED_BASES as u32;

const SEED_MASK: u64 = (1 << HASH_BITS) - 1;
const CORE_MASK: u64 = (1 << (2 * CORE_BASES)) - 1;

/// A sampled k-mer of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Invertible hash of the k-mer or its reverse complement, whichever is smaller.
    pub hash: u64,
    /// First base in the sequence.
    pub offset: u32,
    /// Whether the reverse complement was the smaller one.
    pub reverse: bool,
}

/// Calls `take` with each seed of a sequence of base codes, in order.
#[inline]
pub fn seeds(codes: &[u8], mut take: impl FnMut(Seed)) {
    let (mut forward, mut backward) = (0u64, 0u64);
    let mut known = 0;
    // Hashes of the last five s-mers, the newest last.
    let mut cores = [0u64; 5];
    for (end, &code) in codes.iter().enumerate() {
        if code > 3 {
            known = 0;
            continue;
        }
        known += 1;
        forward = (forward << 2 | u64::from(code)) & SEED_MASK;
        backward = backward >> 2 | u64::from(3 - code) << (HASH_BITS - 2);
        let core = (forward & CORE_MASK).min(backward >> (2 * (SEED_BASES - CORE_BASES)));
        cores = [cores[1], cores[2], cores[3], cores[4], scatter(core)];
        if known >= SEED_BASES && middle_is_least(&cores) {
            let reverse = backward < forward;
            let hash = mix(if reverse { backward } else { forward });
            take(Seed { hash, offset: (end + 1 - SEED_BASES) as u32, reverse });
        }
    }
}

#[inline(always)]
fn middle_is_least(cores: &[u64; 5]) -> bool {
    cores[2] < cores[0].min(cores[1]).min(cores[3].min(cores[4]))
}

/// A cheap hash for comparing s-mers.
#[inline(always)]
fn scatter(core: u64) -> u64 {
    let product = core.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ product >> 32
}

/// Mixes the bits of a k-mer; each step can be undone, so no two k-mers meet.
#[inline(always)]
fn mix(seed: u64) -> u64 {
    let mixed = seed.wrapping_mul(0xD6E8_FEB8_6659_FD93) & SEED_MASK;
    let mixed = mixed ^ mixed >> (HASH_BITS / 2);
    mixed.wrapping_mul(0xA076_1D64_78BD_642F) & SEED_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(codes: &[u8]) -> Vec<Seed> {
        let mut found = Vec::new();
        seeds(codes, |seed| found.push(seed));
        found
    }

    proptest! {
        #[test]
        fn both_strands_give_the_same_seeds(codes in proptest::collection::vec(0u8..4, 0..300)) {
            let other: Vec<u8> = codes.iter().rev().map(|code| 3 - code).collect();
            let mut mirrored = of(&other);
            mirrored.reverse();
            for seed in &mut mirrored {
                seed.offset = (codes.len() - SEED_BASES) as u32 - seed.offset;
                seed.reverse = !seed.reverse;
            }
            prop_assert_eq!(of(&codes), mirrored);
        }
    }

    #[test]
    fn one_in_five_is_taken_and_none_across_an_unknown_base() {
        let mut state = 1u64;
        let mut codes: Vec<u8> = (0..100_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 62) as u8
            })
            .collect();
        let count = of(&codes).len();
        assert!((18_000..22_000).contains(&count), "{count}");
        codes[50_000] = 4;
        let crossing = |seed: &Seed| (50_000 - 21..=50_000).contains(&seed.offset);
        assert!(!of(&codes).iter().any(crossing));
    }

    #[test]
    fn short_sequences_have_no_seeds() {
        assert!(of(&[0; 21]).is_empty() && of(&[]).is_empty());
    }
}
