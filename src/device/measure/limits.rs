//! What this machine's processor can do at most of what kernels consist of, on its widest vectors.
//!
//! Each rate is measured on values that never leave the registers, in as many independent chains as hide
//! the time from an instruction to the next that needs its result. Only the random accesses go to memory.
#![allow(unsafe_code)]

use std::hint::black_box;

use crate::device::conformance::Noise;

/// What bounds a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// Sums and maxima of 16-bit numbers, as many of the ones as of the others.
    Additions,
    /// Sums, XORs and rotations of 32-bit numbers, likewise.
    Rotations,
    /// Rounds of AES on blocks of 16 bytes.
    AesRounds,
    /// Bits counted of 64-bit words.
    Counts,
    /// Reads from random places of a large table.
    Accesses,
}

/// Independent chains.
const CHAINS: usize = 8;
/// Steps of every chain in one run.
const ROUNDS: u32 = 1 << 18;
/// Accesses in one run.
const ACCESSES: u32 = 1 << 20;

impl Bound {
    pub(super) fn name(self) -> &'static str {
        match self {
            Bound::Additions => "16-bit sums and maxima",
            Bound::Rotations => "32-bit sums, XORs and rotations",
            Bound::AesRounds => "rounds of AES",
            Bound::Counts => "population counts of 64 bits",
            Bound::Accesses => "random accesses",
        }
    }

    /// Operations of one run; none where the processor lacks the instructions.
    pub(super) fn amount(self) -> f64 {
        if self == Bound::Accesses {
            return f64::from(ACCESSES);
        }
        let (lanes, per_step) = match (self, self.vectors()) {
            (_, None) => return 0.0,
            (Bound::Additions, Some(vectors)) => (vectors.bytes / 2, 2),
            (Bound::Rotations, Some(vectors)) => (vectors.bytes / 4, 3),
            (Bound::AesRounds, Some(vectors)) => (vectors.bytes / 16, 1),
            (Bound::Counts | Bound::Accesses, Some(vectors)) => (vectors.bytes / 8, 1),
        };
        f64::from(ROUNDS) * (CHAINS * lanes * per_step) as f64
    }

    /// Does one run; [`Accesses`](Bound::Accesses) needs more, and has [`accesses`].
    pub(super) fn run(self) {
        if let Some(vectors) = self.vectors() {
            // SAFETY: vectors are told only where the processor has their instructions.
            unsafe { (vectors.run)(ROUNDS) };
        }
    }

    fn vectors(self) -> Option<Vectors> {
        let form = |able: bool, bytes, run| able.then_some(Vectors { bytes, run });
        self.forms(form).into_iter().flatten().next()
    }

    #[cfg(target_arch = "x86_64")]
    fn forms(self, form: impl Fn(bool, usize, Run) -> Option<Vectors>) -> [Option<Vectors>; 3] {
        let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        let avx2 = is_x86_feature_detected!("avx2");
        match self {
            Bound::Additions => [
                form(avx512, 64, x86::additions_512),
                form(avx2, 32, x86::additions_256),
                form(true, 16, x86::additions_128),
            ],
            Bound::Rotations => [
                form(avx512, 64, x86::rotations_512),
                form(avx2, 32, x86::rotations_256),
                form(true, 16, x86::rotations_128),
            ],
            Bound::AesRounds => [
                form(avx512 && is_x86_feature_detected!("vaes"), 64, x86::aes_rounds_512),
                form(is_x86_feature_detected!("aes"), 16, x86::aes_rounds_128),
                None,
            ],
            Bound::Counts => [
                form(is_x86_feature_detected!("avx512vpopcntdq"), 64, x86::counts_512),
                form(is_x86_feature_detected!("popcnt"), 8, x86::counts_64),
                None,
            ],
            Bound::Accesses => [None; 3],
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn forms(self, form: impl Fn(bool, usize, Run) -> Option<Vectors>) -> [Option<Vectors>; 1] {
        [match self {
            Bound::Additions => form(true, 16, arm::additions),
            Bound::Rotations => form(true, 16, arm::rotations),
            Bound::AesRounds => {
                form(std::arch::is_aarch64_feature_detected!("aes"), 16, arm::aes_rounds)
            }
            Bound::Counts => form(true, 16, arm::counts),
            Bound::Accesses => None,
        }]
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn forms(self, _form: impl Fn(bool, usize, Run) -> Option<Vectors>) -> [Option<Vectors>; 1] {
        [None]
    }
}

/// Goes on for so many steps of every chain. The processor must have the instructions.
type Run = unsafe fn(u32);

/// The widest vectors for a bound, and what works on them.
#[derive(Clone, Copy)]
struct Vectors {
    bytes: usize,
    run: Run,
}

/// Reads from random places, none of which depends on what was read before.
pub(super) fn accesses(table: &[u64], noise: &mut Noise) {
    let (mut state, mut sum) = (noise.next(), 0_u64);
    for _ in 0..ACCESSES {
        // Knuth's generator: its upper bits are good enough, and it waits for one multiplication only.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = ((state >> 32) * table.len() as u64) >> 32;
        sum = sum.wrapping_add(table[at as usize]);
    }
    black_box(sum);
}

/// Makes a function that takes `CHAINS` values one step on, again and again. What the compiler does not
/// know, it cannot work out beforehand.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! chains {
    ($name:ident, $features:literal, $first:expr, |$value:ident, $other:ident| $step:expr) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name(rounds: u32) {
            let first = $first;
            let (mut chains, $other) = ([black_box(first); CHAINS], black_box(first));
            for _ in 0..rounds {
                for chain in &mut chains {
                    let $value = *chain;
                    *chain = $step;
                }
            }
            black_box(chains);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{CHAINS, black_box};

    chains!(additions_512, "avx512f,avx512bw", _mm512_set1_epi16(3), |value, other| {
        _mm512_max_epi16(_mm512_add_epi16(value, other), other)
    });
    chains!(additions_256, "avx2", _mm256_set1_epi16(3), |value, other| {
        _mm256_max_epi16(_mm256_add_epi16(value, other), other)
    });
    chains!(additions_128, "sse2", _mm_set1_epi16(3), |value, other| {
        _mm_max_epi16(_mm_add_epi16(value, other), other)
    });
    chains!(rotations_512, "avx512f", _mm512_set1_epi32(0x1357), |value, other| {
        _mm512_rol_epi32::<7>(_mm512_xor_si512(_mm512_add_epi32(value, other), other))
    });
    chains!(rotations_256, "avx2", _mm256_set1_epi32(0x1357), |value, other| {
        let mixed = _mm256_xor_si256(_mm256_add_epi32(value, other), other);
        _mm256_or_si256(_mm256_slli_epi32::<7>(mixed), _mm256_srli_epi32::<25>(mixed))
    });
    chains!(rotations_128, "sse2", _mm_set1_epi32(0x1357), |value, other| {
        let mixed = _mm_xor_si128(_mm_add_epi32(value, other), other);
        _mm_or_si128(_mm_slli_epi32::<7>(mixed), _mm_srli_epi32::<25>(mixed))
    });
    chains!(aes_rounds_512, "avx512f,vaes", _mm512_set1_epi32(0x1357), |value, other| {
        _mm512_aesenc_epi128(value, other)
    });
    chains!(aes_rounds_128, "aes", _mm_set1_epi32(0x1357), |value, other| {
        _mm_aesenc_si128(value, other)
    });
    chains!(counts_512, "avx512f,avx512vpopcntdq", _mm512_set1_epi64(-1), |value, other| {
        _mm512_xor_si512(_mm512_popcnt_epi64(value), other)
    });
    chains!(counts_64, "popcnt", u64::MAX, |value, other| {
        u64::from(value.count_ones()) ^ other
    });
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{CHAINS, black_box};

    chains!(additions, "neon", vdupq_n_s16(3), |value, other| {
        vmaxq_s16(vaddq_s16(value, other), other)
    });
    chains!(rotations, "neon", vdupq_n_u32(0x1357), |value, other| {
        let mixed = veorq_u32(vaddq_u32(value, other), other);
        vsriq_n_u32::<25>(vshlq_n_u32::<7>(mixed), mixed)
    });
    chains!(aes_rounds, "aes", vdupq_n_u8(0x57), |value, other| {
        vaesmcq_u8(vaeseq_u8(value, other))
    });
    chains!(counts, "neon", vdupq_n_u8(0xff), |value, other| {
        let bytes = veorq_u8(vcntq_u8(value), other);
        vreinterpretq_u8_u64(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes))))
    });
}
