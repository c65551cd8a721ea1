//! ChaCha20 on NEON: four blocks at a time, a lane for each.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use zeroize::Zeroize;

use crate::kernel::chacha20::{BLOCK_BYTES, state};

const STEP_BYTES: usize = 4 * BLOCK_BYTES;

#[target_feature(enable = "neon")]
pub(super) fn fill_neon(key: &[u8; 32], counter: u32, out: &mut [u8]) {
    let mut first = state(key).map(|word| vdupq_n_u32(word));
    // SAFETY: the array has the four words that are read.
    let lanes = unsafe { vld1q_u32([0, 1, 2, 3].as_ptr()) };
    first[12] = vaddq_u32(vdupq_n_u32(counter), lanes);
    let mut pieces = out.chunks_exact_mut(STEP_BYTES);
    for piece in &mut pieces {
        blocks(&first, piece.try_into().expect("a whole step"));
        first[12] = vaddq_u32(first[12], vdupq_n_u32(4));
    }
    let rest = pieces.into_remainder();
    if !rest.is_empty() {
        let mut last = [0; STEP_BYTES];
        blocks(&first, &mut last);
        rest.copy_from_slice(&last[..rest.len()]);
        last.zeroize();
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn quarter(x: &mut [uint32x4_t; 16], a: usize, b: usize, c: usize, d: usize) {
    x[a] = vaddq_u32(x[a], x[b]);
    x[d] = by_16(veorq_u32(x[d], x[a]));
    x[c] = vaddq_u32(x[c], x[d]);
    x[b] = rotate::<12, 20>(veorq_u32(x[b], x[c]));
    x[a] = vaddq_u32(x[a], x[b]);
    x[d] = rotate::<8, 24>(veorq_u32(x[d], x[a]));
    x[c] = vaddq_u32(x[c], x[d]);
    x[b] = rotate::<7, 25>(veorq_u32(x[b], x[c]));
}

#[target_feature(enable = "neon")]
#[inline]
fn by_16(v: uint32x4_t) -> uint32x4_t {
    vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(v)))
}

#[target_feature(enable = "neon")]
#[inline]
fn rotate<const LEFT: i32, const RIGHT: i32>(v: uint32x4_t) -> uint32x4_t {
    vsriq_n_u32::<RIGHT>(vshlq_n_u32::<LEFT>(v), v)
}

#[target_feature(enable = "neon")]
fn blocks(first: &[uint32x4_t; 16], out: &mut [u8; STEP_BYTES]) {
    let mut x = *first;
    rounds!(quarter, x);
    for (word, first) in x.iter_mut().zip(first) {
        *word = vaddq_u32(*word, *first);
    }
    for (group, words) in x.chunks_exact(4).enumerate() {
        for (block, four) in transposed(words).into_iter().enumerate() {
            let place = &mut out[block * BLOCK_BYTES + 16 * group..][..16];
            // SAFETY: `place` has the 16 bytes that are written; no alignment is asked for.
            unsafe { vst1q_u8(place.as_mut_ptr(), vreinterpretq_u8_u64(four)) };
        }
    }
}

/// Four words of four blocks: of each block its four.
#[target_feature(enable = "neon")]
#[inline]
fn transposed(words: &[uint32x4_t]) -> [uint64x2_t; 4] {
    let pairs =
        |a, b| (vreinterpretq_u64_u32(vtrn1q_u32(a, b)), vreinterpretq_u64_u32(vtrn2q_u32(a, b)));
    let (even, odd) = pairs(words[0], words[1]);
    let (even2, odd2) = pairs(words[2], words[3]);
    [vtrn1q_u64(even, even2), vtrn1q_u64(odd, odd2), vtrn2q_u64(even, even2), vtrn2q_u64(odd, odd2)]
}
