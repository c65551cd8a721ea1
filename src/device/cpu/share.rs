//! Secret sharing of a stripe with the widest vectors the processor has.
//!
//! Each function is its scalar twin compiled once more for wider vectors: the loops are plain XOR,
//! which the compiler vectorises as well as hand-written intrinsics, and the twin's text stays the
//! only definition. Restoring and rebuilding work in place, so every line that they write is in the
//! cache already, and they run at the rate of the memory as they are.
//!
//! A split writes share B where nothing was read. The processor would first fetch every line of it
//! only to overwrite it: a fifth more traffic. So a large B goes past the caches, by `share::x86`. A stripe
//! does not: whoever seals it or writes it out reads it at once.
#![allow(unsafe_code)]

use crate::base::ShareLetter;
use crate::kernel::share as twin;

#[cfg(target_arch = "x86_64")]
mod x86;

/// From this length on a share B is written past the caches: more than a core's own cache holds.
#[cfg(target_arch = "x86_64")]
const STREAM_BYTES_MIN: usize = 4 << 20;

/// A way to compute the same bytes. Other processors than x86-64 have their vectors in every program
/// (NEON), and see by themselves that whole lines are overwritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

impl Form {
    /// The widest that this processor can run.
    fn widest() -> Form {
        Form::available().next().unwrap_or(Form::Baseline)
    }

    /// The forms that this processor can run, the widest first.
    fn available() -> impl Iterator<Item = Form> {
        #[cfg(target_arch = "x86_64")]
        let wide = [
            super::has_avx512().then_some(Form::Avx512),
            is_x86_feature_detected!("avx2").then_some(Form::Avx2),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let wide: [Option<Form>; 0] = [];
        wide.into_iter().flatten().chain([Form::Baseline])
    }
}

/// Makes a function that runs `$twin` compiled for a form. The form must be an available one.
macro_rules! compiled_for {
    ($name:ident, $twin:path, ($($argument:ident: $type:ty),*)) => {
        fn $name(form: Form, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
            fn avx512($($argument: $type),*) {
                $twin($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $type),*) {
                $twin($($argument),*);
            }
            match form {
                // SAFETY: a form is available only where the processor has its instructions.
                #[cfg(target_arch = "x86_64")]
                Form::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Form::Avx2 => unsafe { avx2($($argument),*) },
                Form::Baseline => $twin($($argument),*),
            }
        }
    };
}

compiled_for!(split_by, twin::split, (secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]));
compiled_for!(
    restore_by,
    twin::restore,
    (first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter))
);
compiled_for!(
    rebuild_by,
    twin::rebuild,
    (first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter))
);

/// Splits a secret in place into share A and gives share B ([`twin::split`]).
///
/// A share B of 4 MiB or more is not in the caches afterwards.
pub fn split(secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) {
    let form = Form::widest();
    #[cfg(target_arch = "x86_64")]
    if b.len() >= STREAM_BYTES_MIN && x86::split(form, secret_to_a, random, b) {
        return;
    }
    split_by(form, secret_to_a, random, b);
}

/// Restores the secret in place of the first of two shares ([`twin::restore`]).
pub fn restore(first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter)) {
    restore_by(Form::widest(), first, second, letters);
}

/// Rebuilds the third share in place of the first of two ([`twin::rebuild`]).
pub fn rebuild(first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter)) {
    rebuild_by(Form::widest(), first, second, letters);
}

#[cfg(test)]
mod tests {
    use ShareLetter::{A, B, C};
    use proptest::prelude::*;

    use super::*;

    const PAIRS: [(ShareLetter, ShareLetter); 6] = [(A, C), (C, A), (B, C), (C, B), (A, B), (B, A)];

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    }

    /// A, B and C of one secret, by the twin.
    fn shares(secret: &[u8], random: &[u8]) -> [Vec<u8>; 3] {
        let (mut a, mut b) = (secret.to_vec(), vec![0; secret.len()]);
        twin::split(&mut a, random, &mut b);
        [a, b, random.to_vec()]
    }

    proptest! {
        /// Wherever the slices begin, and whatever is left behind the last whole vector.
        #[test]
        fn every_form_agrees_with_the_twin(
            halves in 0usize..900, starts in [0usize..64, 0usize..64, 0usize..64], seed: u64,
        ) {
            let len = 2 * halves;
            let (secret, random) = (noise(starts[0] + len, seed), noise(starts[1] + len, seed ^ 9));
            let (secret, random) = (&secret[starts[0]..], &random[starts[1]..]);
            let want = shares(secret, random);
            for form in Form::available() {
                let mut a = noise(starts[2], 1);
                a.extend_from_slice(secret);
                let mut b = vec![0xee; starts[0] + len];
                split_by(form, &mut a[starts[2]..], random, &mut b[starts[0]..]);
                prop_assert!(a[starts[2]..] == want[0] && b[starts[0]..] == want[1], "{:?}", form);
                prop_assert!(b[..starts[0]].iter().all(|byte| *byte == 0xee), "{:?}", form);
                for pair in PAIRS {
                    let mut restored = want[pair.0 as usize].clone();
                    restore_by(form, &mut restored, &want[pair.1 as usize], pair);
                    prop_assert!(restored == secret, "{:?} {:?}", form, pair);
                    let mut rebuilt = want[pair.0 as usize].clone();
                    rebuild_by(form, &mut rebuilt, &want[pair.1 as usize], pair);
                    let third = 3 - pair.0 as usize - pair.1 as usize;
                    prop_assert!(rebuilt == want[third], "{:?} {:?}", form, pair);
                }
            }
        }
    }

    #[test]
    fn a_large_share_is_the_twins_too() {
        for len in [4 << 20, (4 << 20) + 2 * 77] {
            let (secret, random) = (noise(len, 3), noise(len, 4));
            let want = shares(&secret, &random);
            let (mut a, mut b) = (secret, vec![0; len]);
            split(&mut a, &random, &mut b);
            assert!(a == want[0] && b == want[1], "{len}");
        }
    }
}
