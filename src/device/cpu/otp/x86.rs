//! The x86-64 forms: AVX-512 with VPCLMULQDQ, and AVX with PCLMULQDQ.
//!
//! A stride of blocks is multiplied by descending powers of the key, the 256-bit products are added,
//! and only the sum is reduced. The running state joins the first block, so it waits for nothing but
//! its own product: that one is computed last.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::super::keystream::Stream;
use super::super::keystream::x86::{RoundKeys, STEP_BYTES, Steps, ask_ahead};
use super::{BLOCK_BYTES, Form, HASH, HashKey, OPEN, Powers, SEAL, STRIDE_BLOCKS, STRIDE_BYTES};

/// Bytes of one AVX-512 vector.
const VECTOR_BYTES: usize = 64;
const VECTOR_BLOCKS: usize = VECTOR_BYTES / BLOCK_BYTES;
/// Bytes that [`xor`] takes at once.
const FOUR_BYTES: usize = 4 * VECTOR_BYTES;

pub(super) fn can_run_wide() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("vpclmulqdq")
        && can_run_narrow()
}

pub(super) fn can_run_narrow() -> bool {
    is_x86_feature_detected!("avx") && is_x86_feature_detected!("pclmulqdq")
}

/// Works out the powers from the first, which stands last.
pub(super) fn fill_powers(powers: &mut Powers) {
    assert!(can_run_narrow(), "the form was chosen by what the CPU can do");
    // SAFETY: the CPU has the instructions, as just asserted.
    unsafe { fill_powers_narrow(powers) }
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
    match key.form {
        // SAFETY: a key has this form only where the CPU can run it; the pointers are the caller's word.
        Form::Wide => unsafe { wide::<HOW>(&key.powers, state, data, pad, len) },
        // SAFETY: as above.
        Form::Narrow => unsafe { narrow::<HOW>(&key.powers, state, data, pad, len) },
        Form::Portable => unreachable!("the portable form keeps its own state"),
    }
}

/// Seals or opens whole strides by the next bytes of `stream`, and of `stored` besides, and gives the new
/// state; `None`, with nothing done, where that takes two steps.
///
/// # Panics
/// When `data` is not whole strides, or `stored` is of another length.
pub(super) fn run_fused<const HOW: u8>(
    key: &HashKey,
    state: u128,
    stream: &mut Stream,
    data: &mut [u8],
    stored: Option<&[u8]>,
) -> Option<u128> {
    assert!(data.len().is_multiple_of(STRIDE_BYTES));
    assert!(stored.is_none_or(|stored| stored.len() == data.len()));
    if key.form != Form::Wide {
        return None;
    }
    let (keys, counter) = stream.pass_wide(data.len())?;
    // SAFETY: the key and the stream have their forms only where the CPU can run them.
    Some(unsafe { fused::<HOW>(&key.powers, state, (keys, counter), data, stored) })
}

/// `data ^= pad` by AVX-512; gives whether this CPU can.
pub(super) fn xor_wide(data: &mut [u8], pad: &[u8]) -> bool {
    let pad = &pad[..data.len()];
    let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    if able {
        // SAFETY: the CPU has the instructions; the slices are of one length.
        unsafe { xor_avx512(data.as_mut_ptr(), pad.as_ptr(), data.len()) };
    }
    able
}

/// `data ^= pad` by AVX2; gives whether this CPU can.
pub(super) fn xor_narrow(data: &mut [u8], pad: &[u8]) -> bool {
    let pad = &pad[..data.len()];
    let able = is_x86_feature_detected!("avx2");
    if able {
        // SAFETY: the CPU has the instructions.
        unsafe { xor_avx2(data, pad) };
    }
    able
}

/// The plain loop, compiled for these vectors.
#[target_feature(enable = "avx2")]
fn xor_avx2(data: &mut [u8], pad: &[u8]) {
    data.iter_mut().zip(pad).for_each(|(byte, pad)| *byte ^= pad);
}

/// # Safety
/// The CPU must have AVX-512F and BW, `data` be writable and `pad` readable for `len` bytes.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn xor_avx512(data: *mut u8, pad: *const u8, len: usize) {
    let mut at = 0;
    while len - at >= FOUR_BYTES {
        // SAFETY: four whole vectors are left.
        unsafe {
            let mixed: [__m512i; 4] = std::array::from_fn(|index| {
                let place = at + VECTOR_BYTES * index;
                _mm512_xor_si512(
                    _mm512_loadu_si512(data.add(place).cast()),
                    _mm512_loadu_si512(pad.add(place).cast()),
                )
            });
            for (index, mixed) in mixed.into_iter().enumerate() {
                _mm512_storeu_si512(data.add(at + VECTOR_BYTES * index).cast(), mixed);
            }
        }
        at += FOUR_BYTES;
    }
    while at < len {
        // SAFETY: the mask keeps the access within `len`, for which the caller answers.
        unsafe { wide_pass::<SEAL>(data.add(at), pad.add(at), mask_of(len - at)) };
        at += VECTOR_BYTES;
    }
}

/// One bit for each of the next bytes, 64 at most.
fn mask_of(bytes: usize) -> u64 {
    if bytes >= VECTOR_BYTES { u64::MAX } else { (1 << bytes) - 1 }
}

// ---- AVX-512 --------------------------------------------------------------------------------

/// Unreduced products, four lanes each.
#[derive(Clone, Copy)]
struct WideSum {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

#[target_feature(enable = "avx512f,vpclmulqdq")]
#[inline]
fn wide_product(sum: WideSum, x: __m512i, power: __m512i) -> WideSum {
    const XOR3: i32 = 0x96;
    WideSum {
        low: _mm512_xor_si512(sum.low, _mm512_clmulepi64_epi128::<0x00>(x, power)),
        middle: _mm512_ternarylogic_epi64::<XOR3>(
            sum.middle,
            _mm512_clmulepi64_epi128::<0x01>(x, power),
            _mm512_clmulepi64_epi128::<0x10>(x, power),
        ),
        high: _mm512_xor_si512(sum.high, _mm512_clmulepi64_epi128::<0x11>(x, power)),
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn add_lanes(v: __m512i) -> __m128i {
    let half = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
    _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
}

/// Up to four blocks: loaded, padded, stored as `HOW` says; gives the ciphertext.
///
/// # Safety
/// As [`wide`], for the bytes in `mask`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn wide_pass<const HOW: u8>(data: *mut u8, pad: *const u8, mask: u64) -> __m512i {
    // SAFETY: the caller answers for the masked bytes.
    unsafe {
        let before = _mm512_maskz_loadu_epi8(mask, data.cast());
        if HOW == HASH {
            return before;
        }
        let after = _mm512_xor_si512(before, _mm512_maskz_loadu_epi8(mask, pad.cast()));
        _mm512_mask_storeu_epi8(data.cast(), mask, after);
        if HOW == SEAL { after } else { before }
    }
}

/// # Safety
/// The CPU must have AVX-512F and BW, VPCLMULQDQ, AVX and PCLMULQDQ; `data` must be readable for `len`
/// bytes and, unless `HOW` is `HASH`, writable, with `pad` readable.
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,avx2,pclmulqdq")]
unsafe fn wide<const HOW: u8>(
    powers: &Powers,
    state: u128,
    data: *mut u8,
    pad: *const u8,
    len: usize,
) -> u128 {
    let mut state = from_u128(state);
    let mut at = 0;
    while len - at >= STRIDE_BYTES {
        // SAFETY: a whole stride is left, and `powers` has a whole stride.
        state = unsafe { wide_whole::<HOW>(powers, state, data.add(at), pad.add(at)) };
        at += STRIDE_BYTES;
    }
    if at < len {
        let left = len - at;
        let first = STRIDE_BLOCKS - left.div_ceil(BLOCK_BYTES);
        // SAFETY: less than a stride is left; the table has a vector's worth of zeros behind it.
        state = unsafe {
            wide_stride::<HOW>(powers.0.as_ptr().add(first), state, data.add(at), pad.add(at), left)
        };
    }
    to_u128(state)
}

/// The powers for one vector of a stride.
#[target_feature(enable = "avx512f")]
#[inline]
fn power_of(powers: &Powers, vector: usize) -> __m512i {
    let powers = &powers.0[VECTOR_BLOCKS * vector..][..VECTOR_BLOCKS];
    // SAFETY: the vector is in the table, which begins with a line and ends with spare blocks.
    unsafe { _mm512_load_si512(powers.as_ptr().cast()) }
}

/// A stride without a rest: nothing is masked.
///
/// # Safety
/// As [`wide`], for `STRIDE_BYTES` bytes.
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,avx2,pclmulqdq")]
#[inline]
unsafe fn wide_whole<const HOW: u8>(
    powers: &Powers,
    state: __m128i,
    data: *mut u8,
    pad: *const u8,
) -> __m128i {
    let zero = _mm512_setzero_si512();
    let mut sum = WideSum { low: zero, middle: zero, high: zero };
    // SAFETY: every vector is within the stride, and `powers` has a whole stride of them.
    unsafe {
        for vector in 1..STRIDE_BYTES / VECTOR_BYTES {
            let at = VECTOR_BYTES * vector;
            ask_ahead(data.add(at));
            ask_ahead(pad.add(at));
            let x = wide_pass::<HOW>(data.add(at), pad.add(at), u64::MAX);
            sum = wide_product(sum, x, power_of(powers, vector));
        }
        // This one comes last: it alone waits for the state.
        ask_ahead(data);
        ask_ahead(pad);
        let x = wide_pass::<HOW>(data, pad, u64::MAX);
        let x = _mm512_xor_si512(x, _mm512_zextsi128_si512(state));
        sum = wide_product(sum, x, power_of(powers, 0));
    }
    reduce(add_lanes(sum.low), add_lanes(sum.middle), add_lanes(sum.high))
}

/// Whole strides under a key stream, each vector of which goes from the rounds of AES into the text and, as
/// ciphertext, into the hash: the two have execution units of their own.
#[target_feature(enable = "avx512f,avx512bw,vaes,aes,vpclmulqdq,avx2,pclmulqdq")]
fn fused<const HOW: u8>(
    powers: &Powers,
    state: u128,
    (keys, counter): (&RoundKeys, u128),
    data: &mut [u8],
    stored: Option<&[u8]>,
) -> u128 {
    let mut state = from_u128(state);
    let mut steps = Steps::new(keys, counter);
    let zero = _mm512_setzero_si512();
    for (number, stride) in data.chunks_exact_mut(STRIDE_BYTES).enumerate() {
        let stored = stored.map(|stored| &stored[number * STRIDE_BYTES..][..STRIDE_BYTES]);
        let mut sum = WideSum { low: zero, middle: zero, high: zero };
        let mut first = zero;
        for step in (0..STRIDE_BYTES).step_by(STEP_BYTES) {
            for (index, stream) in steps.next().into_iter().enumerate() {
                let at = step + VECTOR_BYTES * index;
                // SAFETY: the vector is within the stride of the data and of what is stored.
                let x = unsafe {
                    let place = stride.as_mut_ptr().add(at);
                    ask_ahead(place);
                    let before = _mm512_loadu_si512(place.cast());
                    let mut after = _mm512_xor_si512(before, stream);
                    if let Some(stored) = stored {
                        let stored = stored.as_ptr().add(at);
                        ask_ahead(stored);
                        after = _mm512_xor_si512(after, _mm512_loadu_si512(stored.cast()));
                    }
                    _mm512_storeu_si512(place.cast(), after);
                    if HOW == OPEN { before } else { after }
                };
                if at == 0 {
                    first = x;
                } else {
                    sum = wide_product(sum, x, power_of(powers, at / VECTOR_BYTES));
                }
            }
        }
        // This one comes last: it alone waits for the state.
        let x = _mm512_xor_si512(first, _mm512_zextsi128_si512(state));
        sum = wide_product(sum, x, power_of(powers, 0));
        state = reduce(add_lanes(sum.low), add_lanes(sum.middle), add_lanes(sum.high));
    }
    to_u128(state)
}

/// # Safety
/// As [`wide`], for `len` bytes, `1..=STRIDE_BYTES`; `powers` must be readable for as many blocks,
/// rounded up to whole vectors.
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq,avx2,pclmulqdq")]
#[inline]
unsafe fn wide_stride<const HOW: u8>(
    powers: *const u128,
    state: __m128i,
    data: *mut u8,
    pad: *const u8,
    len: usize,
) -> __m128i {
    let zero = _mm512_setzero_si512();
    let mut sum = WideSum { low: zero, middle: zero, high: zero };
    let mut at = VECTOR_BYTES;
    // SAFETY: the masks keep every access within `len`; the caller answers for the rest.
    unsafe {
        while at < len {
            let mask = mask_of(len - at);
            let x = wide_pass::<HOW>(data.add(at), pad.add(at), mask);
            let power = _mm512_loadu_si512(powers.add(at / BLOCK_BYTES).cast());
            sum = wide_product(sum, x, power);
            at += VECTOR_BYTES;
        }
        let x = wide_pass::<HOW>(data, pad, mask_of(len));
        let x = _mm512_xor_si512(x, _mm512_zextsi128_si512(state));
        sum = wide_product(sum, x, _mm512_loadu_si512(powers.cast()));
    }
    reduce(add_lanes(sum.low), add_lanes(sum.middle), add_lanes(sum.high))
}

// ---- AVX ------------------------------------------------------------------------------------

/// # Safety
/// The CPU must have AVX and PCLMULQDQ; the pointers are as for [`wide`].
#[target_feature(enable = "avx,pclmulqdq")]
unsafe fn narrow<const HOW: u8>(
    powers: &Powers,
    state: u128,
    data: *mut u8,
    pad: *const u8,
    len: usize,
) -> u128 {
    let mut state = from_u128(state);
    let mut at = 0;
    while at < len {
        let left = (len - at).min(STRIDE_BYTES);
        let first = STRIDE_BLOCKS - left.div_ceil(BLOCK_BYTES);
        // SAFETY: `left` bytes are there, and as many powers follow `first`.
        state = unsafe {
            narrow_stride::<HOW>(&powers.0[first..], state, data.add(at), pad.add(at), left)
        };
        at += left;
    }
    to_u128(state)
}

/// # Safety
/// As [`narrow`], for `len` bytes, `1..=STRIDE_BYTES`.
#[target_feature(enable = "avx,pclmulqdq")]
#[inline]
unsafe fn narrow_stride<const HOW: u8>(
    powers: &[u128],
    state: __m128i,
    data: *mut u8,
    pad: *const u8,
    len: usize,
) -> __m128i {
    let zero = _mm_setzero_si128();
    let (mut low, mut middle, mut high) = (zero, zero, zero);
    for block in (0..len.div_ceil(BLOCK_BYTES)).rev() {
        let at = block * BLOCK_BYTES;
        // SAFETY: the block begins within `len`, and its size is what is left of it.
        let x =
            unsafe { narrow_pass::<HOW>(data.add(at), pad.add(at), (len - at).min(BLOCK_BYTES)) };
        let x = if block == 0 { _mm_xor_si128(x, state) } else { x };
        let power = from_u128(powers[block]);
        low = _mm_xor_si128(low, _mm_clmulepi64_si128::<0x00>(x, power));
        middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x01>(x, power));
        middle = _mm_xor_si128(middle, _mm_clmulepi64_si128::<0x10>(x, power));
        high = _mm_xor_si128(high, _mm_clmulepi64_si128::<0x11>(x, power));
    }
    reduce(low, middle, high)
}

/// One block of `len` bytes: loaded, padded, stored as `HOW` says; gives the ciphertext.
///
/// # Safety
/// As [`narrow`], for `len` bytes, `1..=16`.
#[target_feature(enable = "avx")]
#[inline]
unsafe fn narrow_pass<const HOW: u8>(data: *mut u8, pad: *const u8, len: usize) -> __m128i {
    // SAFETY: whole blocks are accessed in place, a part of a block through a copy of its bytes.
    unsafe {
        let before = load(data, len);
        if HOW == HASH {
            return before;
        }
        let after = _mm_xor_si128(before, load(pad, len));
        if len == BLOCK_BYTES {
            _mm_storeu_si128(data.cast(), after);
        } else {
            let bytes = to_u128(after).to_le_bytes();
            data.copy_from_nonoverlapping(bytes.as_ptr(), len);
        }
        if HOW == SEAL { after } else { before }
    }
}

/// # Safety
/// `from` must be readable for `len` bytes, `1..=16`.
#[target_feature(enable = "avx")]
#[inline]
unsafe fn load(from: *const u8, len: usize) -> __m128i {
    // SAFETY: only `len` bytes are read.
    unsafe {
        if len == BLOCK_BYTES {
            return _mm_loadu_si128(from.cast());
        }
        let mut bytes = [0; BLOCK_BYTES];
        bytes.as_mut_ptr().copy_from_nonoverlapping(from, len);
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx,pclmulqdq")]
fn fill_powers_narrow(powers: &mut Powers) {
    let key = from_u128(powers.0[STRIDE_BLOCKS - 1]);
    let mut power = key;
    for place in powers.0[..STRIDE_BLOCKS - 1].iter_mut().rev() {
        let middle = _mm_xor_si128(
            _mm_clmulepi64_si128::<0x01>(power, key),
            _mm_clmulepi64_si128::<0x10>(power, key),
        );
        power = reduce(
            _mm_clmulepi64_si128::<0x00>(power, key),
            middle,
            _mm_clmulepi64_si128::<0x11>(power, key),
        );
        *place = to_u128(power);
    }
}

/// A 256-bit product times x^-128 modulo x^128 + x^127 + x^126 + x^121 + 1: each step adds the
/// multiple of the modulus that clears the lowest 64 bits, and drops them.
#[target_feature(enable = "avx,pclmulqdq")]
#[inline]
fn reduce(low: __m128i, middle: __m128i, high: __m128i) -> __m128i {
    let modulus = _mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1);
    let low = _mm_xor_si128(low, _mm_slli_si128::<8>(middle));
    let high = _mm_xor_si128(high, _mm_srli_si128::<8>(middle));
    let once =
        _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(low), _mm_clmulepi64_si128::<0x10>(low, modulus));
    let twice =
        _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(once), _mm_clmulepi64_si128::<0x10>(once, modulus));
    _mm_xor_si128(high, twice)
}

#[inline]
fn from_u128(value: u128) -> __m128i {
    bytemuck::cast(value)
}

#[inline]
fn to_u128(value: __m128i) -> u128 {
    bytemuck::cast(value)
}

const _: () = assert!(STRIDE_BLOCKS.is_multiple_of(VECTOR_BLOCKS));
