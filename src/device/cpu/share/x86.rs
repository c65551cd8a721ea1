//! Splitting on x86-64 with share B written past the caches.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::Form;

/// Splits as the twin does, B by stores that bypass the caches; gives whether it did.
///
/// It does not where the two halves of B do not lie alike on the lines of the cache, or without vectors.
pub(super) fn split(form: Form, secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) -> bool {
    let len = b.len();
    assert!(
        secret_to_a.len() == len && random.len() == len,
        "shares of one stripe have one length"
    );
    let half = len / 2;
    if !len.is_multiple_of(2) || !half.is_multiple_of(LINE_BYTES) {
        return false;
    }
    let columns = Columns {
        secret: halves(secret_to_a, half),
        random: [random.as_ptr(), random[half..].as_ptr()],
        b: halves(b, half),
    };
    let head = columns.b[0].align_offset(LINE_BYTES).min(half);
    let whole = (half - head) / LINE_BYTES * LINE_BYTES;
    match form {
        Form::Baseline => return false,
        // SAFETY: the form is available; the columns are within the slices, which do not overlap, and
        // those of B begin with a line.
        Form::Avx512 => unsafe { avx512(&columns, head, head + whole) },
        // SAFETY: as above.
        Form::Avx2 => unsafe { avx2(&columns, head, head + whole) },
    }
    for at in (0..head).chain(head + whole..half) {
        // SAFETY: the column is within the slices.
        unsafe { columns.split_bytes(at) };
    }
    true
}

fn halves(bytes: &mut [u8], half: usize) -> [*mut u8; 2] {
    let (first, second) = bytes.split_at_mut(half);
    [first.as_mut_ptr(), second.as_mut_ptr()]
}

/// Bytes of a line of the cache.
const LINE_BYTES: usize = 64;

/// How far ahead of the stores lines are asked for.
const AHEAD_BYTES: usize = 1024;

/// Where both halves of each text begin.
struct Columns {
    secret: [*mut u8; 2],
    random: [*const u8; 2],
    b: [*mut u8; 2],
}

impl Columns {
    /// # Safety
    /// `at` must be within the halves.
    unsafe fn split_bytes(&self, at: usize) {
        // SAFETY: the caller's word.
        unsafe {
            let (s1, s2) = (*self.secret[0].add(at), *self.secret[1].add(at));
            let (r1, r2) = (*self.random[0].add(at), *self.random[1].add(at));
            *self.secret[0].add(at) = s1 ^ r1;
            *self.secret[1].add(at) = s2 ^ r2 ^ r1;
            *self.b[0].add(at) = s1 ^ r1 ^ r2;
            *self.b[1].add(at) = s2 ^ r2;
        }
    }
}

/// Makes the loop over the columns `from..to` for one width of vectors.
macro_rules! streamed {
    ($name:ident, $features:literal, $bytes:literal,
     $load:ident, $store:ident, $stream:ident, $xor:ident) => {
        /// # Safety
        /// The processor must have the instructions; `from..to` must be whole lines of B within the halves.
        #[target_feature(enable = $features)]
        unsafe fn $name(columns: &Columns, from: usize, to: usize) {
            let Columns { secret: [s1, s2], random: [r1, r2], b: [b1, b2] } = *columns;
            for line in (from..to).step_by(LINE_BYTES) {
                for text in [s1.cast_const(), s2.cast_const(), r1, r2] {
                    // Asking for a line beyond the end does nothing.
                    _mm_prefetch::<_MM_HINT_T0>(text.wrapping_add(line + AHEAD_BYTES).cast());
                }
                for at in (line..line + LINE_BYTES).step_by($bytes) {
                    // SAFETY: the column is within the halves, and of B it begins with a vector.
                    unsafe {
                        let (x1, x2) = ($load(s1.add(at).cast()), $load(s2.add(at).cast()));
                        let (y1, y2) = ($load(r1.add(at).cast()), $load(r2.add(at).cast()));
                        let (masked1, masked2) = ($xor(x1, y1), $xor(x2, y2));
                        $store(s1.add(at).cast(), masked1);
                        $store(s2.add(at).cast(), $xor(masked2, y1));
                        $stream(b1.add(at).cast(), $xor(masked1, y2));
                        $stream(b2.add(at).cast(), masked2);
                    }
                }
            }
            // Such stores are not in order with others before this.
            _mm_sfence();
        }
    };
}

streamed!(
    avx512,
    "avx512f",
    64,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_stream_si512,
    _mm512_xor_si512
);
streamed!(
    avx2,
    "avx2",
    32,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_stream_si256,
    _mm256_xor_si256
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::share as twin;

    proptest! {
        /// Wherever B begins, the bytes before its first whole line and behind its last one too.
        #[test]
        fn every_form_agrees_with_the_twin(
            lines in 0usize..40, starts in [0usize..64, 0usize..64, 0usize..64], seed: u8,
        ) {
            let len = 2 * LINE_BYTES * lines;
            let text = |start: usize, salt: u8| -> Vec<u8> {
                (0..start + len).map(|at| (at as u8).wrapping_mul(167) ^ (at >> 5) as u8 ^ seed ^ salt).collect()
            };
            let (secret, random, b) = (text(starts[0], 1), text(starts[1], 77), text(starts[2], 9));
            let (mut twin_a, mut twin_b) = (secret[starts[0]..].to_vec(), vec![0; len]);
            twin::split(&mut twin_a, &random[starts[1]..], &mut twin_b);
            for form in Form::available() {
                let (mut a, mut b) = (secret.clone(), b.clone());
                let done =
                    split(form, &mut a[starts[0]..], &random[starts[1]..], &mut b[starts[2]..]);
                prop_assert_eq!(done, form != Form::Baseline);
                if done {
                    prop_assert!(a[starts[0]..] == twin_a && b[starts[2]..] == twin_b, "{:?}", form);
                }
            }
        }
    }

    #[test]
    fn halves_that_lie_differently_on_the_lines_are_left_to_the_other_way() {
        let (mut a, mut b) = ([1; 2 * 65], [2; 2 * 65]);
        assert!(!split(Form::widest(), &mut a, &[3; 2 * 65], &mut b));
        assert_eq!((a, b), ([1; 130], [2; 130]));
    }
}
