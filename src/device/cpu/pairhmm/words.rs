//! Vectors of 16-bit numbers, in the instructions of each kind of processor.
#![allow(unsafe_code)]

/// A vector of `LANES` signed numbers of 16 bits.
///
/// Its functions are sound only on a processor that has the vector's instructions, and fast only inside
/// a function that is compiled for them.
pub(super) trait Words<const LANES: usize>: Copy {
    fn load(from: &[i16; LANES]) -> Self;
    fn store(self, to: &mut [i16; LANES]);
    fn all(number: i16) -> Self;
    /// Sums modulo 2^16.
    fn sum(self, other: Self) -> Self;
    fn lesser(self, other: Self) -> Self;
    /// `equal` where both are equal, `unequal` elsewhere.
    fn choose(self, other: Self, equal: Self, unequal: Self) -> Self;
}

/// Implements [`Words`] by the names of instructions.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! words {
    ($visible:vis $name:ident, $vector:ident, $lanes:literal, $load:ident, $store:ident, $all:ident, $sum:ident,
     $lesser:ident, |$one:ident, $other:ident, $equal:ident, $unequal:ident| $choose:expr) => {
        #[derive(Clone, Copy, Debug)]
        $visible struct $name($vector);

        // Each is safe by the trait's promise, and loads and stores have arrays of the vector's size.
        impl Words<$lanes> for $name {
            #[inline(always)]
            fn load(from: &[i16; $lanes]) -> Self {
                // SAFETY: as above.
                Self(unsafe { $load(from.as_ptr().cast()) })
            }

            #[inline(always)]
            fn store(self, to: &mut [i16; $lanes]) {
                // SAFETY: as above.
                unsafe { $store(to.as_mut_ptr().cast(), self.0) }
            }

            #[inline(always)]
            fn all(number: i16) -> Self {
                // SAFETY: as above.
                Self(unsafe { $all(number) })
            }

            #[inline(always)]
            fn sum(self, other: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { $sum(self.0, other.0) })
            }

            #[inline(always)]
            fn lesser(self, other: Self) -> Self {
                // SAFETY: as above.
                Self(unsafe { $lesser(self.0, other.0) })
            }

            #[inline(always)]
            fn choose(self, other: Self, equal: Self, unequal: Self) -> Self {
                let ($one, $other, $equal, $unequal) = (self.0, other.0, equal.0, unequal.0);
                // SAFETY: as above.
                Self(unsafe { $choose })
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Words;
    use std::arch::x86_64::*;

    words!(
        pub(in super::super) Avx512, __m512i, 32, _mm512_loadu_epi16, _mm512_storeu_epi16, _mm512_set1_epi16,
        _mm512_add_epi16, _mm512_min_epi16, |one, other, equal, unequal| {
            _mm512_mask_blend_epi16(_mm512_cmpeq_epi16_mask(one, other), unequal, equal)
        }
    );
    words!(
        pub(in super::super) Avx2, __m256i, 16, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi16,
        _mm256_add_epi16, _mm256_min_epi16, |one, other, equal, unequal| {
            _mm256_blendv_epi8(unequal, equal, _mm256_cmpeq_epi16(one, other))
        }
    );
    words!(
        pub(in super::super) Sse2, __m128i, 8, _mm_loadu_si128, _mm_storeu_si128, _mm_set1_epi16, _mm_add_epi16,
        _mm_min_epi16, |one, other, equal, unequal| {
            let mask = _mm_cmpeq_epi16(one, other);
            _mm_or_si128(_mm_and_si128(mask, equal), _mm_andnot_si128(mask, unequal))
        }
    );
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Sse2 as Any};

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::Words;
    use std::arch::aarch64::*;

    words!(
        pub(in super::super) Neon, int16x8_t, 8, vld1q_s16, vst1q_s16, vdupq_n_s16, vaddq_s16, vminq_s16,
        |one, other, equal, unequal| vbslq_s16(vceqq_s16(one, other), equal, unequal)
    );
}

#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon as Any;

/// For processors whose vectors are not known here.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Any([i16; 8]);

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl Words<8> for Any {
    fn load(from: &[i16; 8]) -> Self {
        Self(*from)
    }

    fn store(self, to: &mut [i16; 8]) {
        *to = self.0;
    }

    fn all(number: i16) -> Self {
        Self([number; 8])
    }

    fn sum(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].wrapping_add(other.0[lane])))
    }

    fn lesser(self, other: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].min(other.0[lane])))
    }

    fn choose(self, other: Self, equal: Self, unequal: Self) -> Self {
        let chosen = |lane: usize| {
            if self.0[lane] == other.0[lane] { equal.0[lane] } else { unequal.0[lane] }
        };
        Self(std::array::from_fn(chosen))
    }
}
