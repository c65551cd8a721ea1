//! AES-256-CTR key stream, 32 blocks at a time where the processor has VAES on 512-bit vectors.
//!
//! Source: NIST FIPS 197; the key expansion after Gueron 2010, "Intel Advanced Encryption Standard
//! (AES) New Instructions Set".
#![allow(unsafe_code)]

use crate::kernel::keystream as twin;

/// Fills `out` with key stream; the contract is that of [`twin::fill`].
pub fn fill(key: &[u8; 32], counter: u128, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        let there = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes");
        let blocks = out.len().div_ceil(x86::STEP_BYTES) as u64 * x86::STEP_BLOCKS;
        // The vectors count in the low half only.
        if there && (counter as u64).checked_add(blocks).is_some() {
            // SAFETY: the processor has these instructions, as asked just now.
            return unsafe { x86::fill(key, counter, out) };
        }
    }
    twin::fill(key, counter, out);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    const ROUND_KEYS: usize = 15;
    const VECTORS: usize = 8;

    /// Blocks of one step.
    pub const STEP_BLOCKS: u64 = 4 * VECTORS as u64;
    /// Bytes of one step.
    pub const STEP_BYTES: usize = 64 * VECTORS;

    #[target_feature(enable = "avx512f,avx512bw,vaes,aes,sse2")]
    pub fn fill(key: &[u8; 32], counter: u128, out: &mut [u8]) {
        let keys = expand(key).map(|key| _mm512_broadcast_i32x4(key));
        let (high, low) = ((counter >> 64) as i64, counter as i64);
        let first = _mm512_set_epi64(low + 3, high, low + 2, high, low + 1, high, low, high);
        let mut counters = [first; VECTORS];
        for (index, vector) in counters.iter_mut().enumerate() {
            *vector = _mm512_add_epi64(first, step(4 * index as i64));
        }
        let mut pieces = out.chunks_exact_mut(STEP_BYTES);
        for piece in &mut pieces {
            encrypt(&keys, &mut counters, piece.try_into().expect("a whole step"));
        }
        let rest = pieces.into_remainder();
        if !rest.is_empty() {
            let mut last = [0; STEP_BYTES];
            encrypt(&keys, &mut counters, &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
            zeroize::Zeroize::zeroize(&mut last);
        }
    }

    /// What adds `blocks` to the low half of each counter.
    #[target_feature(enable = "avx512f")]
    fn step(blocks: i64) -> __m512i {
        _mm512_set_epi64(blocks, 0, blocks, 0, blocks, 0, blocks, 0)
    }

    #[target_feature(enable = "avx512f,avx512bw,vaes")]
    fn encrypt(
        keys: &[__m512i; ROUND_KEYS],
        counters: &mut [__m512i; VECTORS],
        out: &mut [u8; STEP_BYTES],
    ) {
        // Both halves of a counter block are big-endian.
        let swap = _mm512_broadcast_i32x4(_mm_set_epi8(
            8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7,
        ));
        let mut state = *counters;
        for (vector, counter) in state.iter_mut().zip(counters.iter_mut()) {
            *vector = _mm512_xor_si512(_mm512_shuffle_epi8(*vector, swap), keys[0]);
            *counter = _mm512_add_epi64(*counter, step(STEP_BLOCKS as i64));
        }
        for key in &keys[1..ROUND_KEYS - 1] {
            for vector in &mut state {
                *vector = _mm512_aesenc_epi128(*vector, *key);
            }
        }
        for (vector, place) in state.iter().zip(out.chunks_exact_mut(64)) {
            let block = _mm512_aesenclast_epi128(*vector, keys[ROUND_KEYS - 1]);
            // SAFETY: `place` has the 64 bytes that are written; no alignment is asked for.
            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), block) };
        }
    }

    #[target_feature(enable = "aes,sse2")]
    fn expand(key: &[u8; 32]) -> [__m128i; ROUND_KEYS] {
        // SAFETY: both loads stay within the 32 bytes of the key; no alignment is asked for.
        let (mut even, mut odd) = unsafe {
            (_mm_loadu_si128(key.as_ptr().cast()), _mm_loadu_si128(key.as_ptr().add(16).cast()))
        };
        let mut keys = [_mm_setzero_si128(); ROUND_KEYS];
        (keys[0], keys[1]) = (even, odd);
        macro_rules! round {
            ($index:literal, $constant:literal) => {
                let assist = _mm_aeskeygenassist_si128::<$constant>(odd);
                even = mix(even, _mm_shuffle_epi32::<0xff>(assist));
                keys[2 * $index] = even;
                // The last of these would be one key too many.
                if let Some(place) = keys.get_mut(2 * $index + 1) {
                    let assist = _mm_aeskeygenassist_si128::<0>(even);
                    odd = mix(odd, _mm_shuffle_epi32::<0xaa>(assist));
                    *place = odd;
                }
            };
        }
        round!(1, 0x01);
        round!(2, 0x02);
        round!(3, 0x04);
        round!(4, 0x08);
        round!(5, 0x10);
        round!(6, 0x20);
        round!(7, 0x40);
        keys
    }

    #[target_feature(enable = "sse2")]
    fn mix(key: __m128i, assist: __m128i) -> __m128i {
        let mut shifted = key;
        let mut mixed = key;
        for _ in 0..3 {
            shifted = _mm_slli_si128::<4>(shifted);
            mixed = _mm_xor_si128(mixed, shifted);
        }
        _mm_xor_si128(mixed, assist)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_twin(key: [u8; 32], counter: u128, length in 0usize..3000) {
            let (mut ours, mut theirs) = (vec![0; length], vec![1; length]);
            fill(&key, counter, &mut ours);
            twin::fill(&key, counter, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn agrees_where_the_low_half_of_the_counter_runs_over(before in 0u64..100) {
            let counter = (7u128 << 64) | u128::from(u64::MAX - before);
            let (mut ours, mut theirs) = (vec![0; 2000], vec![1; 2000]);
            fill(&[5; 32], counter, &mut ours);
            twin::fill(&[5; 32], counter, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }
    }
}
