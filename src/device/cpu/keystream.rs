//! AES-256-CTR key stream, 32 blocks at a time where the processor has VAES on 512-bit vectors.
//!
//! Source: NIST FIPS 197; the key expansion after Gueron 2010, "Intel Advanced Encryption Standard
//! (AES) New Instructions Set".
#![allow(unsafe_code)]

use crate::base::Secret;
use crate::base::chunk::wipe;
use crate::kernel::keystream as twin;

/// Fills `out` with key stream; the contract is that of [`twin::fill`].
pub fn fill(key: &[u8; 32], counter: u128, out: &mut [u8]) {
    let mut stream = Stream::new(key, counter);
    for tile in out.chunks_mut(TILE_BYTES) {
        tile.fill(0);
        stream.apply(tile, None);
    }
}

/// Bytes that stay in the first-level cache from one pass to the next; whole blocks.
const TILE_BYTES: usize = 8192;

/// A key stream from some block on, its round keys worked out. Wiped on drop.
pub struct Stream {
    counter: Secret<u128>,
    form: Form,
}

enum Form {
    #[cfg(target_arch = "x86_64")]
    Wide(Box<x86::RoundKeys>),
    Portable(Secret<[u8; 32]>),
}

impl Stream {
    /// The stream whose first counter block is `counter`, big-endian.
    pub fn new(key: &[u8; 32], counter: u128) -> Self {
        Self { counter: Secret::new(counter), form: Form::best(key) }
    }

    /// The round keys and the counter of the next block, for a loop that works out the next `bytes` itself
    /// and does more with them; the stream goes on behind them. `None` where [`apply`](Self::apply) has to
    /// do it: without VAES, or when the low half of the counter runs over meanwhile.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn pass_wide(&mut self, bytes: usize) -> Option<(&x86::RoundKeys, u128)> {
        let Form::Wide(keys) = &self.form else { return None };
        let counter = *self.counter.expose();
        let blocks = (bytes / 16) as u64;
        (counter as u64).checked_add(blocks)?;
        *self.counter.expose_mut() = counter.wrapping_add(blocks.into());
        Some((keys, counter))
    }

    /// `data ^=` the next bytes of the stream `^ stored`: the stream is in registers only. A call that
    /// does not end with a whole block must be the last.
    ///
    /// # Panics
    /// When `stored` is shorter than `data`.
    pub fn apply(&mut self, data: &mut [u8], stored: Option<&[u8]>) {
        let stored = stored.map(|stored| &stored[..data.len()]);
        let counter = *self.counter.expose();
        *self.counter.expose_mut() = counter.wrapping_add(data.len().div_ceil(16) as u128);
        match &self.form {
            #[cfg(target_arch = "x86_64")]
            Form::Wide(keys) => x86::apply(keys, counter, data, stored),
            Form::Portable(key) => {
                if let Some(stored) = stored {
                    data.iter_mut().zip(stored).for_each(|(byte, stored)| *byte ^= stored);
                }
                twin::apply(key.expose(), counter, data);
            }
        }
    }
}

impl Form {
    fn best(key: &[u8; 32]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if x86::can_run() {
            return Form::Wide(x86::RoundKeys::new(key));
        }
        Form::Portable(Secret::new(*key))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        clear_stack();
    }
}

/// Overwrites what keys that did not fit the registers left on the stack.
#[inline(never)]
pub(super) fn clear_stack() {
    wipe(&mut [0; 4096]);
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    use zeroize::Zeroize;

    use crate::base::chunk::wipe;

    const ROUND_KEYS: usize = 15;
    /// Vectors of one step: as many rounds as are under way at once.
    const VECTORS: usize = 8;
    /// Bytes of one step.
    pub const STEP_BYTES: usize = 64 * VECTORS;

    pub fn can_run() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("aes")
    }

    /// The keys of all rounds; wiped on drop.
    pub struct RoundKeys([__m128i; ROUND_KEYS]);

    impl RoundKeys {
        pub fn new(key: &[u8; 32]) -> Box<Self> {
            assert!(can_run(), "the form was chosen by what the CPU can do");
            let mut keys = Box::new(Self([bytemuck::Zeroable::zeroed(); ROUND_KEYS]));
            // SAFETY: the processor has the instructions, as just asserted.
            unsafe { expand(key, &mut keys.0) };
            keys
        }
    }

    impl Drop for RoundKeys {
        fn drop(&mut self) {
            self.0.zeroize();
        }
    }

    pub fn apply(keys: &RoundKeys, counter: u128, data: &mut [u8], stored: Option<&[u8]>) {
        // The vectors count in the low half only: what comes after a carry begins anew.
        let before_carry = (u128::from(u64::MAX) + 1 - u128::from(counter as u64)) * 16;
        if (data.len() as u128) <= before_carry {
            // SAFETY: round keys are made only where the processor has the instructions.
            return unsafe { run(keys, counter, data, stored) };
        }
        let (first, rest) = data.split_at_mut(before_carry as usize);
        let parts = stored.map(|stored| stored.split_at(first.len()));
        let next = counter.wrapping_add(first.len() as u128 / 16);
        apply(keys, counter, first, parts.map(|parts| parts.0));
        apply(keys, next, rest, parts.map(|parts| parts.1));
    }

    #[target_feature(enable = "avx512f,avx512bw,vaes,aes,sse2")]
    fn run(keys: &RoundKeys, counter: u128, data: &mut [u8], stored: Option<&[u8]>) {
        let mut steps = Steps::new(keys, counter);
        let whole = data.len() / STEP_BYTES * STEP_BYTES;
        let (pieces, rest) = data.split_at_mut(whole);
        match stored {
            None => pieces.chunks_exact_mut(STEP_BYTES).for_each(|piece| steps.add(piece, None)),
            Some(stored) => {
                let pieces = pieces.chunks_exact_mut(STEP_BYTES).zip(stored.chunks(STEP_BYTES));
                pieces.for_each(|(piece, stored)| steps.add(piece, Some(stored)));
            }
        }
        if !rest.is_empty() {
            let mut last = [0; STEP_BYTES];
            last[..rest.len()].copy_from_slice(rest);
            steps.add(&mut last, None);
            rest.copy_from_slice(&last[..rest.len()]);
            wipe(&mut last);
            if let Some(stored) = stored {
                rest.iter_mut().zip(&stored[whole..]).for_each(|(byte, stored)| *byte ^= stored);
            }
        }
    }

    /// The key stream, a step at a time. The vectors count in the low half only.
    pub struct Steps {
        keys: [__m512i; ROUND_KEYS],
        /// The counters of the next four blocks, each half as a number.
        next: __m512i,
    }

    impl Steps {
        /// From the block with this counter on.
        #[target_feature(enable = "avx512f")]
        #[inline]
        pub fn new(keys: &RoundKeys, counter: u128) -> Self {
            let (high, low) = ((counter >> 64) as i64, counter as i64);
            let after = |blocks: i64| low.wrapping_add(blocks);
            let mut wide = [_mm512_setzero_si512(); ROUND_KEYS];
            for (wide, key) in wide.iter_mut().zip(keys.0) {
                *wide = _mm512_broadcast_i32x4(key);
            }
            Self {
                keys: wide,
                next: _mm512_set_epi64(after(3), high, after(2), high, after(1), high, low, high),
            }
        }

        /// The next step of the stream.
        #[target_feature(enable = "avx512f,avx512bw,vaes")]
        #[inline]
        pub fn next(&mut self) -> [__m512i; VECTORS] {
            // Both halves of a counter block are big-endian.
            let swap = _mm512_broadcast_i32x4(_mm_set_epi8(
                8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7,
            ));
            let mut state = [self.next; VECTORS];
            for (index, vector) in state.iter_mut().enumerate() {
                let counters = _mm512_add_epi64(*vector, blocks(4 * index as i64));
                *vector = _mm512_xor_si512(_mm512_shuffle_epi8(counters, swap), self.keys[0]);
            }
            self.next = _mm512_add_epi64(self.next, blocks(4 * VECTORS as i64));
            for key in &self.keys[1..ROUND_KEYS - 1] {
                for vector in &mut state {
                    *vector = _mm512_aesenc_epi128(*vector, *key);
                }
            }
            for vector in &mut state {
                *vector = _mm512_aesenclast_epi128(*vector, self.keys[ROUND_KEYS - 1]);
            }
            state
        }

        /// `data ^= stored ^` the next step of the stream.
        #[target_feature(enable = "avx512f,avx512bw,vaes")]
        #[inline]
        fn add(&mut self, data: &mut [u8], stored: Option<&[u8]>) {
            let data: &mut [u8; STEP_BYTES] = data.try_into().expect("the caller cuts steps");
            let stored: Option<&[u8; STEP_BYTES]> =
                stored.map(|stored| stored.try_into().expect("the caller cuts steps"));
            for (index, stream) in self.next().into_iter().enumerate() {
                let at = 64 * index;
                // SAFETY: the vectors are within the step; no alignment is asked for.
                unsafe {
                    let place = data.as_mut_ptr().add(at);
                    ask_ahead(place);
                    let mut mixed = _mm512_xor_si512(_mm512_loadu_si512(place.cast()), stream);
                    if let Some(stored) = stored {
                        let stored = stored.as_ptr().add(at);
                        ask_ahead(stored);
                        mixed = _mm512_xor_si512(mixed, _mm512_loadu_si512(stored.cast()));
                    }
                    _mm512_storeu_si512(place.cast(), mixed);
                }
            }
        }
    }

    /// How far ahead lines are asked for: the processor's own prefetching ends at each page.
    const AHEAD_BYTES: usize = 2048;

    /// Asks for the line some way behind `at`; beyond the end of the data that does nothing.
    #[inline(always)]
    pub fn ask_ahead(at: *const u8) {
        // SAFETY: this reads nothing that the program could see, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD_BYTES).cast()) };
    }

    /// What adds `number` to the low half of each counter.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn blocks(number: i64) -> __m512i {
        _mm512_set_epi64(number, 0, number, 0, number, 0, number, 0)
    }

    #[target_feature(enable = "aes,sse2")]
    fn expand(key: &[u8; 32], keys: &mut [__m128i; ROUND_KEYS]) {
        // SAFETY: both loads stay within the 32 bytes of the key; no alignment is asked for.
        let (mut even, mut odd) = unsafe {
            (_mm_loadu_si128(key.as_ptr().cast()), _mm_loadu_si128(key.as_ptr().add(16).cast()))
        };
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

        #[test]
        fn a_stream_in_pieces_is_the_whole_stream(
            key: [u8; 32], counter: u128, blocks in 0usize..70, rest in 0usize..600, stored: bool,
        ) {
            let noise = |salt: usize| -> Vec<u8> {
                (0..16 * blocks + rest).map(|n| (n * 31 + salt) as u8).collect()
            };
            let (mut ours, kept) = (noise(1), stored.then(|| noise(9)));
            let mut theirs = ours.clone();
            twin::apply(&key, counter, &mut theirs);
            for (byte, kept) in theirs.iter_mut().zip(kept.iter().flatten()) {
                *byte ^= kept;
            }
            let mut stream = Stream::new(&key, counter);
            stream.apply(&mut ours[..16 * blocks], kept.as_deref());
            stream.apply(&mut ours[16 * blocks..], kept.as_ref().map(|kept| &kept[16 * blocks..]));
            prop_assert!(ours == theirs);
        }
    }
}
