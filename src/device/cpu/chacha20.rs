//! ChaCha20 on vectors: each word of the state is a vector with one lane for every block, sixteen blocks
//! at a time with AVX-512, eight with AVX2, four with NEON.
//!
//! Source: RFC 8439; Goll and Gueron 2014, "Vectorization on ChaCha stream cipher".
#![allow(unsafe_code)]

use super::keystream::clear_stack;
use crate::kernel::chacha20 as twin;

/// The rounds of section 2.3 on vectors `x`, with the quarter round `q`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! rounds {
    ($q:ident, $x:ident) => {
        for _ in 0..10 {
            $q(&mut $x, 0, 4, 8, 12);
            $q(&mut $x, 1, 5, 9, 13);
            $q(&mut $x, 2, 6, 10, 14);
            $q(&mut $x, 3, 7, 11, 15);
            $q(&mut $x, 0, 5, 10, 15);
            $q(&mut $x, 1, 6, 11, 12);
            $q(&mut $x, 2, 7, 8, 13);
            $q(&mut $x, 3, 4, 9, 14);
        }
    };
}

#[cfg(target_arch = "aarch64")]
mod arm;

/// A way to compute the same stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Form {
    /// The forms that this CPU can run, the fastest first.
    fn available() -> impl Iterator<Item = Form> {
        #[cfg(target_arch = "x86_64")]
        let wide = [
            is_x86_feature_detected!("avx512f").then_some(Form::Avx512),
            is_x86_feature_detected!("avx2").then_some(Form::Avx2),
        ];
        #[cfg(target_arch = "aarch64")]
        let wide = [std::arch::is_aarch64_feature_detected!("neon").then_some(Form::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let wide: [Option<Form>; 0] = [];
        wide.into_iter().flatten().chain([Form::Portable])
    }
}

/// Fills `out` with key stream; the contract is that of [`twin::fill`].
pub fn fill(key: &[u8; 32], counter: u32, out: &mut [u8]) {
    let form = Form::available().next().unwrap_or(Form::Portable);
    fill_by(form, key, counter, out);
}

fn fill_by(form: Form, key: &[u8; 32], counter: u32, out: &mut [u8]) {
    twin::check(counter, out.len());
    match form {
        // SAFETY: a form is available only where the processor has its instructions.
        #[cfg(target_arch = "x86_64")]
        Form::Avx512 => unsafe { x86::fill_avx512(key, counter, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Form::Avx2 => unsafe { x86::fill_avx2(key, counter, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Form::Neon => unsafe { arm::fill_neon(key, counter, out) },
        Form::Portable => twin::fill(key, counter, out),
    }
    clear_stack();
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use zeroize::Zeroize;

    use crate::kernel::chacha20::{BLOCK_BYTES, state};

    const STEP_512: usize = 16 * BLOCK_BYTES;
    const STEP_256: usize = 8 * BLOCK_BYTES;

    #[target_feature(enable = "avx512f")]
    pub fn fill_avx512(key: &[u8; 32], counter: u32, out: &mut [u8]) {
        let mut first = state(key).map(|word| _mm512_set1_epi32(word as i32));
        let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        first[12] = _mm512_add_epi32(_mm512_set1_epi32(counter as i32), lanes);
        let mut pieces = out.chunks_exact_mut(STEP_512);
        for piece in &mut pieces {
            blocks_avx512(&first, piece.try_into().expect("a whole step"));
            first[12] = _mm512_add_epi32(first[12], _mm512_set1_epi32(16));
        }
        let rest = pieces.into_remainder();
        if !rest.is_empty() {
            let mut last = [0; STEP_512];
            blocks_avx512(&first, &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
            last.zeroize();
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn quarter_512(x: &mut [__m512i; 16], a: usize, b: usize, c: usize, d: usize) {
        x[a] = _mm512_add_epi32(x[a], x[b]);
        x[d] = _mm512_rol_epi32::<16>(_mm512_xor_si512(x[d], x[a]));
        x[c] = _mm512_add_epi32(x[c], x[d]);
        x[b] = _mm512_rol_epi32::<12>(_mm512_xor_si512(x[b], x[c]));
        x[a] = _mm512_add_epi32(x[a], x[b]);
        x[d] = _mm512_rol_epi32::<8>(_mm512_xor_si512(x[d], x[a]));
        x[c] = _mm512_add_epi32(x[c], x[d]);
        x[b] = _mm512_rol_epi32::<7>(_mm512_xor_si512(x[b], x[c]));
    }

    #[target_feature(enable = "avx512f")]
    fn blocks_avx512(first: &[__m512i; 16], out: &mut [u8; STEP_512]) {
        let mut x = *first;
        rounds!(quarter_512, x);
        for (word, first) in x.iter_mut().zip(first) {
            *word = _mm512_add_epi32(*word, *first);
        }
        // Four words of four blocks in each 128 bits: fours[j][k] has words 4j.. of blocks k, k + 4, …
        let fours: [[__m512i; 4]; 4] = std::array::from_fn(|j| {
            let (a, b, c, d) = (x[4 * j], x[4 * j + 1], x[4 * j + 2], x[4 * j + 3]);
            let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
            let (ab2, cd2) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab, cd),
                _mm512_unpackhi_epi64(ab, cd),
                _mm512_unpacklo_epi64(ab2, cd2),
                _mm512_unpackhi_epi64(ab2, cd2),
            ]
        });
        for k in 0..4 {
            let [t0, t1, t2, t3] = fours.map(|four| four[k]);
            let (low, low2) =
                (_mm512_shuffle_i32x4::<0x44>(t0, t1), _mm512_shuffle_i32x4::<0x44>(t2, t3));
            let (high, high2) =
                (_mm512_shuffle_i32x4::<0xee>(t0, t1), _mm512_shuffle_i32x4::<0xee>(t2, t3));
            let blocks = [
                _mm512_shuffle_i32x4::<0x88>(low, low2),
                _mm512_shuffle_i32x4::<0xdd>(low, low2),
                _mm512_shuffle_i32x4::<0x88>(high, high2),
                _mm512_shuffle_i32x4::<0xdd>(high, high2),
            ];
            for (lane, block) in blocks.into_iter().enumerate() {
                let place = &mut out[(4 * lane + k) * BLOCK_BYTES..][..BLOCK_BYTES];
                // SAFETY: `place` has the 64 bytes that are written; no alignment is asked for.
                unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), block) };
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn fill_avx2(key: &[u8; 32], counter: u32, out: &mut [u8]) {
        let mut first = state(key).map(|word| _mm256_set1_epi32(word as i32));
        let lanes = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
        first[12] = _mm256_add_epi32(_mm256_set1_epi32(counter as i32), lanes);
        let mut pieces = out.chunks_exact_mut(STEP_256);
        for piece in &mut pieces {
            blocks_avx2(&first, piece.try_into().expect("a whole step"));
            first[12] = _mm256_add_epi32(first[12], _mm256_set1_epi32(8));
        }
        let rest = pieces.into_remainder();
        if !rest.is_empty() {
            let mut last = [0; STEP_256];
            blocks_avx2(&first, &mut last);
            rest.copy_from_slice(&last[..rest.len()]);
            last.zeroize();
        }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn rotate<const LEFT: i32, const RIGHT: i32>(v: __m256i) -> __m256i {
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(v), _mm256_srli_epi32::<RIGHT>(v))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn quarter_256(x: &mut [__m256i; 16], a: usize, b: usize, c: usize, d: usize) {
        let by_16 = _mm256_broadcastsi128_si256(_mm_set_epi8(
            13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2,
        ));
        let by_8 = _mm256_broadcastsi128_si256(_mm_set_epi8(
            14, 13, 12, 15, 10, 9, 8, 11, 6, 5, 4, 7, 2, 1, 0, 3,
        ));
        x[a] = _mm256_add_epi32(x[a], x[b]);
        x[d] = _mm256_shuffle_epi8(_mm256_xor_si256(x[d], x[a]), by_16);
        x[c] = _mm256_add_epi32(x[c], x[d]);
        x[b] = rotate::<12, 20>(_mm256_xor_si256(x[b], x[c]));
        x[a] = _mm256_add_epi32(x[a], x[b]);
        x[d] = _mm256_shuffle_epi8(_mm256_xor_si256(x[d], x[a]), by_8);
        x[c] = _mm256_add_epi32(x[c], x[d]);
        x[b] = rotate::<7, 25>(_mm256_xor_si256(x[b], x[c]));
    }

    #[target_feature(enable = "avx2")]
    fn blocks_avx2(first: &[__m256i; 16], out: &mut [u8; STEP_256]) {
        let mut x = *first;
        rounds!(quarter_256, x);
        for (word, first) in x.iter_mut().zip(first) {
            *word = _mm256_add_epi32(*word, *first);
        }
        let fours: [[__m256i; 4]; 4] = std::array::from_fn(|j| {
            let (a, b, c, d) = (x[4 * j], x[4 * j + 1], x[4 * j + 2], x[4 * j + 3]);
            let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
            let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab, cd),
                _mm256_unpackhi_epi64(ab, cd),
                _mm256_unpacklo_epi64(ab2, cd2),
                _mm256_unpackhi_epi64(ab2, cd2),
            ]
        });
        for k in 0..4 {
            let [t0, t1, t2, t3] = fours.map(|four| four[k]);
            let halves = [
                (k, _mm256_permute2x128_si256::<0x20>(t0, t1)),
                (k, _mm256_permute2x128_si256::<0x20>(t2, t3)),
                (k + 4, _mm256_permute2x128_si256::<0x31>(t0, t1)),
                (k + 4, _mm256_permute2x128_si256::<0x31>(t2, t3)),
            ];
            for (index, (block, half)) in halves.into_iter().enumerate() {
                let place = &mut out[block * BLOCK_BYTES + index % 2 * 32..][..32];
                // SAFETY: `place` has the 32 bytes that are written; no alignment is asked for.
                unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), half) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_wrong_bit_in_a_form_would_be_seen() {
        for form in Form::available() {
            let (mut ours, mut theirs) = (vec![0; 3000], vec![0; 3000]);
            let mut key = [7; 32];
            twin::fill(&key, 3, &mut theirs);
            key[31] ^= 0x80;
            fill_by(form, &key, 3, &mut ours);
            assert!(ours != theirs, "{form:?}");
        }
    }

    proptest! {
        #[test]
        fn every_form_equals_the_scalar_one(
            key: [u8; 32], counter in 0..u32::MAX - 60, length in 0usize..3500,
        ) {
            let mut theirs = vec![1; length];
            twin::fill(&key, counter, &mut theirs);
            for form in Form::available() {
                let mut ours = vec![0; length];
                fill_by(form, &key, counter, &mut ours);
                prop_assert!(ours == theirs, "{:?}", form);
            }
        }
    }
}
