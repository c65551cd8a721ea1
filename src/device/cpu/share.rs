//! Secret sharing of a stripe with the widest vectors the processor has.
//!
//! Each function is its scalar twin compiled once more for wider vectors: the loops are plain XOR,
//! which the compiler vectorises as well as hand-written intrinsics, and the twin's text stays the
//! only definition.
#![allow(unsafe_code)]

use crate::base::ShareLetter;
use crate::kernel::share as twin;

/// Makes a function that runs `$twin` compiled for AVX-512, AVX2 or the baseline.
macro_rules! widest {
    ($(#[$doc:meta])* $name:ident, $twin:path, ($($argument:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub fn $name($($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
                fn avx512($($argument: $type),*) {
                    $twin($($argument),*);
                }
                #[target_feature(enable = "avx2")]
                fn avx2($($argument: $type),*) {
                    $twin($($argument),*);
                }
                if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
                    // SAFETY: the processor has these instructions, as asked just now.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has these instructions, as asked just now.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $twin($($argument),*);
        }
    };
}

widest! {
    /// Splits a secret in place into share A and gives share B ([`twin::split`]).
    split, twin::split, (secret_to_a: &mut [u8], random: &[u8], b: &mut [u8])
}
widest! {
    /// Restores the secret in place of the first of two shares ([`twin::restore`]).
    restore, twin::restore,
    (first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter))
}
widest! {
    /// Rebuilds the third share in place of the first of two ([`twin::rebuild`]).
    rebuild, twin::rebuild,
    (first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_twin(halves in 0usize..300, seed: u64) {
            let bytes = |salt: u64| -> Vec<u8> {
                let mut state = seed ^ salt;
                (0..2 * halves)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(salt | 1);
                        (state >> 56) as u8
                    })
                    .collect()
            };
            let (secret, random) = (bytes(1), bytes(3));
            let (mut a, mut b) = (secret.clone(), vec![0; secret.len()]);
            split(&mut a, &random, &mut b);
            let (mut twin_a, mut twin_b) = (secret.clone(), vec![0; secret.len()]);
            twin::split(&mut twin_a, &random, &mut twin_b);
            prop_assert_eq!((&a, &b), (&twin_a, &twin_b));
            let mut restored = b.clone();
            restore(&mut restored, &random, (ShareLetter::B, ShareLetter::C));
            prop_assert_eq!(restored, secret);
            rebuild(&mut a, &random, (ShareLetter::A, ShareLetter::C));
            prop_assert_eq!(a, b);
        }
    }
}
