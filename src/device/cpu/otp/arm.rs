//! The AArch64 form: PMULL, one block at a time.
//!
//! As on x86-64 a stride of blocks is multiplied by descending powers of the key, the 256-bit products are
//! added, and only the sum is reduced.
#![allow(unsafe_code)]

use std::arch::aarch64::*;

use super::{BLOCK_BYTES, HASH, HashKey, Powers, SEAL, STRIDE_BLOCKS};

/// The feature of this name has PMULL too.
pub(super) fn can_run() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

/// Works out the powers from the first, which stands last.
pub(super) fn fill_powers(powers: &mut Powers) {
    assert!(can_run(), "the form was chosen by what the CPU can do");
    // SAFETY: the CPU has the instructions, as just asserted.
    unsafe { fill(powers) }
}

/// Takes bytes into the hash `state`, sealed or opened as `HOW` says, and gives the new state.
///
/// # Safety
/// `data` must be readable for `len` bytes and, unless `HOW` is `HASH`, writable, with `pad` readable.
pub(super) unsafe fn run<const HOW: u8>(
    key: &HashKey,
    state: u128,
    data: *mut u8,
    pad: *const u8,
    len: usize,
) -> u128 {
    // SAFETY: a key has this form only where the CPU can run it; the pointers are the caller's word.
    unsafe { strides::<HOW>(&key.powers, state, data, pad, len) }
}

/// # Safety
/// The CPU must have PMULL; `data` must be readable for `len` bytes and, unless `HOW` is `HASH`, writable,
/// with `pad` readable.
#[target_feature(enable = "neon,aes")]
unsafe fn strides<const HOW: u8>(
    powers: &Powers,
    state: u128,
    data: *mut u8,
    pad: *const u8,
    len: usize,
) -> u128 {
    let mut state = from_u128(state);
    let mut at = 0;
    while at < len {
        let left = (len - at).min(STRIDE_BLOCKS * BLOCK_BYTES);
        let first = STRIDE_BLOCKS - left.div_ceil(BLOCK_BYTES);
        // SAFETY: `left` bytes are there, and as many powers follow `first`.
        state =
            unsafe { stride::<HOW>(&powers.0[first..], state, data.add(at), pad.add(at), left) };
        at += left;
    }
    to_u128(state)
}

/// # Safety
/// As [`strides`], for `len` bytes, one block at least and as many powers at most.
#[target_feature(enable = "neon,aes")]
#[inline]
unsafe fn stride<const HOW: u8>(
    powers: &[u128],
    state: uint64x2_t,
    data: *mut u8,
    pad: *const u8,
    len: usize,
) -> uint64x2_t {
    let mut sum = Sum { low: zero(), middle: zero(), high: zero() };
    let whole = len / BLOCK_BYTES;
    for (block, power) in powers.iter().enumerate().take(whole).skip(1) {
        let at = block * BLOCK_BYTES;
        // SAFETY: a whole block begins here.
        let x = unsafe { pass::<HOW>(data.add(at), pad.add(at)) };
        sum = product(sum, x, from_u128(*power));
    }
    if whole > 0 && whole * BLOCK_BYTES < len {
        let at = whole * BLOCK_BYTES;
        // SAFETY: less than a block begins here.
        let x = unsafe { part::<HOW>(data.add(at), pad.add(at), len - at) };
        sum = product(sum, x, from_u128(powers[whole]));
    }
    // The first block comes last: it alone waits for the state.
    // SAFETY: it has a block, or as much as there is.
    let x = unsafe { if whole > 0 { pass::<HOW>(data, pad) } else { part::<HOW>(data, pad, len) } };
    sum = product(sum, veorq_u64(x, state), from_u128(powers[0]));
    reduce(sum)
}

/// One block: loaded, padded, stored as `HOW` says; gives the ciphertext.
///
/// # Safety
/// As [`strides`], for a block.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn pass<const HOW: u8>(data: *mut u8, pad: *const u8) -> uint64x2_t {
    // SAFETY: the caller answers for a block; no alignment is asked for.
    unsafe {
        let before = vld1q_u8(data);
        if HOW == HASH {
            return vreinterpretq_u64_u8(before);
        }
        let after = veorq_u8(before, vld1q_u8(pad));
        vst1q_u8(data, after);
        vreinterpretq_u64_u8(if HOW == SEAL { after } else { before })
    }
}

/// As [`pass`] for `len` bytes, less than a block, filled with zeros.
///
/// # Safety
/// As [`strides`].
#[target_feature(enable = "neon")]
unsafe fn part<const HOW: u8>(data: *mut u8, pad: *const u8, len: usize) -> uint64x2_t {
    let (mut block, mut key) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
    // SAFETY: the copies are as long as the caller answers for, and shorter than a block.
    unsafe {
        block.as_mut_ptr().copy_from_nonoverlapping(data, len);
        if HOW != HASH {
            key.as_mut_ptr().copy_from_nonoverlapping(pad, len);
        }
        let x = pass::<HOW>(block.as_mut_ptr(), key.as_ptr());
        if HOW != HASH {
            data.copy_from_nonoverlapping(block.as_ptr(), len);
        }
        x
    }
}

/// Unreduced products.
#[derive(Clone, Copy)]
struct Sum {
    low: uint64x2_t,
    middle: uint64x2_t,
    high: uint64x2_t,
}

#[target_feature(enable = "neon,aes")]
#[inline]
fn product(sum: Sum, x: uint64x2_t, power: uint64x2_t) -> Sum {
    let crossed = vextq_u64::<1>(power, power);
    let middle = veorq_u64(lower(x, crossed), upper(x, crossed));
    Sum {
        low: veorq_u64(sum.low, lower(x, power)),
        middle: veorq_u64(sum.middle, middle),
        high: veorq_u64(sum.high, upper(x, power)),
    }
}

/// The product without carries of the lower halves.
#[target_feature(enable = "neon,aes")]
#[inline]
fn lower(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    from_u128(vmull_p64(vgetq_lane_u64::<0>(a), vgetq_lane_u64::<0>(b)))
}

/// Likewise of the upper ones.
#[target_feature(enable = "neon,aes")]
#[inline]
fn upper(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
    from_u128(vmull_high_p64(vreinterpretq_p64_u64(a), vreinterpretq_p64_u64(b)))
}

#[target_feature(enable = "neon,aes")]
fn fill(powers: &mut Powers) {
    let key = from_u128(powers.0[STRIDE_BLOCKS - 1]);
    let mut power = key;
    for place in powers.0[..STRIDE_BLOCKS - 1].iter_mut().rev() {
        power = reduce(product(Sum { low: zero(), middle: zero(), high: zero() }, power, key));
        *place = to_u128(power);
    }
}

/// A 256-bit product times x^-128 modulo x^128 + x^127 + x^126 + x^121 + 1: each step adds the
/// multiple of the modulus that clears the lowest 64 bits, and drops them.
#[target_feature(enable = "neon,aes")]
#[inline]
fn reduce(sum: Sum) -> uint64x2_t {
    const MODULUS: u64 = 0xc200_0000_0000_0000;
    let low = veorq_u64(sum.low, vextq_u64::<1>(zero(), sum.middle));
    let high = veorq_u64(sum.high, vextq_u64::<1>(sum.middle, zero()));
    let modulus = vdupq_n_u64(MODULUS);
    let once = veorq_u64(vextq_u64::<1>(low, low), lower(low, modulus));
    let twice = veorq_u64(vextq_u64::<1>(once, once), lower(once, modulus));
    veorq_u64(high, twice)
}

#[target_feature(enable = "neon")]
#[inline]
fn zero() -> uint64x2_t {
    vdupq_n_u64(0)
}

#[target_feature(enable = "neon,aes")]
#[inline]
fn from_u128(value: u128) -> uint64x2_t {
    vreinterpretq_u64_p128(value)
}

#[target_feature(enable = "neon,aes")]
#[inline]
fn to_u128(value: uint64x2_t) -> u128 {
    vreinterpretq_p128_u64(value)
}
