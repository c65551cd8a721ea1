//! The (2,3) XOR secret sharing of one stripe.
//!
//! With halves `S = S1.S2` of the secret and `R = R1.R2` of random bytes of the same length:
//!
//! ```text
//! A = (S1 ^ R1)      . (S2 ^ R2 ^ R1)
//! B = (S1 ^ R1 ^ R2) . (S2 ^ R2)
//! C = R1             . R2
//! ```
//!
//! One share alone is uniform noise, any two restore `S`, and `A ^ B ^ swap(C) = 0`, where `swap`
//! exchanges the halves: so any share can be rebuilt from the other two without the secret.
//! Source: Fujiwara et al. 2022, Sci. Rep. 12:18530, "Secret sharing".

use crate::base::ShareLetter;

/// Splits `secret` in place into share A, and gives share B; share C is `random` itself.
///
/// Shapes: all three of one even length.
#[inline(always)]
pub fn split(secret_to_a: &mut [u8], random: &[u8], b: &mut [u8]) {
    let half = half_of(&[secret_to_a.len(), random.len(), b.len()]);
    let (s1, s2) = secret_to_a.split_at_mut(half);
    let (r1, r2) = random.split_at(half);
    let (b1, b2) = b.split_at_mut(half);
    for i in 0..half {
        let (secret1, secret2) = (s1[i], s2[i]);
        s1[i] = secret1 ^ r1[i];
        s2[i] = secret2 ^ r2[i] ^ r1[i];
        b1[i] = secret1 ^ r1[i] ^ r2[i];
        b2[i] = secret2 ^ r2[i];
    }
}

/// Restores the secret from two different shares, in place of the `first`.
///
/// Shapes: both of one even length.
///
/// # Panics
/// When both are the same share: the caller chose the letters.
#[inline(always)]
pub fn restore(first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter)) {
    use ShareLetter::{A, B, C};
    match letters {
        (A, C) => combine(first, second, |a1, a2, c1, c2| (a1 ^ c1, a2 ^ c2 ^ c1)),
        (C, A) => combine(first, second, |c1, c2, a1, a2| (a1 ^ c1, a2 ^ c2 ^ c1)),
        (B, C) => combine(first, second, |b1, b2, c1, c2| (b1 ^ c1 ^ c2, b2 ^ c2)),
        (C, B) => combine(first, second, |c1, c2, b1, b2| (b1 ^ c1 ^ c2, b2 ^ c2)),
        (A, B) => combine(first, second, |a1, a2, b1, b2| (a1 ^ a2 ^ b2, b2 ^ a1 ^ b1)),
        (B, A) => combine(first, second, |b1, b2, a1, a2| (a1 ^ a2 ^ b2, b2 ^ a1 ^ b1)),
        (A, A) | (B, B) | (C, C) => panic!("a secret is restored from two different shares"),
    }
}

/// Rebuilds the third share from two different ones, in place of the `first`.
///
/// Shapes: both of one even length. The secret does not appear on the way.
///
/// # Panics
/// When both are the same share.
#[inline(always)]
pub fn rebuild(first: &mut [u8], second: &[u8], letters: (ShareLetter, ShareLetter)) {
    use ShareLetter::{A, B, C};
    match letters {
        (A | B, C) => combine(first, second, |x1, x2, c1, c2| (x1 ^ c2, x2 ^ c1)),
        (C, A | B) => combine(first, second, |c1, c2, y1, y2| (y1 ^ c2, y2 ^ c1)),
        (A, B) | (B, A) => combine(first, second, |x1, x2, y1, y2| (x2 ^ y2, x1 ^ y1)),
        (A, A) | (B, B) | (C, C) => panic!("a share is rebuilt from two different ones"),
    }
}

/// Replaces both halves of `x` by what `step` makes of the halves of `x` and `y`.
#[inline(always)]
fn combine(x: &mut [u8], y: &[u8], step: impl Fn(u8, u8, u8, u8) -> (u8, u8)) {
    let half = half_of(&[x.len(), y.len()]);
    let (x1, x2) = x.split_at_mut(half);
    let (y1, y2) = y.split_at(half);
    for i in 0..half {
        (x1[i], x2[i]) = step(x1[i], x2[i], y1[i], y2[i]);
    }
}

fn half_of(lengths: &[usize]) -> usize {
    let length = lengths[0];
    assert!(lengths.iter().all(|other| *other == length), "shares of one stripe have one length");
    assert!(length.is_multiple_of(2), "a stripe has two halves");
    length / 2
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PAIRS: [(ShareLetter, ShareLetter); 6] = [
        (ShareLetter::A, ShareLetter::C),
        (ShareLetter::C, ShareLetter::A),
        (ShareLetter::B, ShareLetter::C),
        (ShareLetter::C, ShareLetter::B),
        (ShareLetter::A, ShareLetter::B),
        (ShareLetter::B, ShareLetter::A),
    ];

    fn shares(secret: &[u8], random: &[u8]) -> [Vec<u8>; 3] {
        let (mut a, mut b) = (secret.to_vec(), vec![0; secret.len()]);
        split(&mut a, random, &mut b);
        [a, b, random.to_vec()]
    }

    /// The paper's formulas, worked out by hand for one word.
    #[test]
    fn known_answer() {
        let [a, b, c] = shares(&[0b1100, 0b1010], &[0b0110, 0b0101]);
        assert_eq!(a, [0b1100 ^ 0b0110, 0b1010 ^ 0b0101 ^ 0b0110]);
        assert_eq!(b, [0b1100 ^ 0b0110 ^ 0b0101, 0b1010 ^ 0b0101]);
        assert_eq!(c, [0b0110, 0b0101]);
    }

    /// For every secret and every random word of two 2-bit halves: any two shares restore the
    /// secret, any two rebuild the third, and each single share takes every value equally often
    /// whatever the secret is.
    #[test]
    fn exhaustive_on_small_words() {
        for secret in 0..16u8 {
            let secret = [secret >> 2, secret & 3];
            let mut seen = [const { BTreeMap::<Vec<u8>, u32>::new() }; 3];
            for random in 0..16u8 {
                let shares = shares(&secret, &[random >> 2, random & 3]);
                for pair in PAIRS {
                    let mut restored = shares[pair.0 as usize].clone();
                    restore(&mut restored, &shares[pair.1 as usize], pair);
                    assert_eq!(restored, secret, "{pair:?}");
                    let mut rebuilt = shares[pair.0 as usize].clone();
                    rebuild(&mut rebuilt, &shares[pair.1 as usize], pair);
                    let third = 3 - pair.0 as usize - pair.1 as usize;
                    assert_eq!(rebuilt, shares[third], "{pair:?}");
                }
                for (counts, share) in seen.iter_mut().zip(shares) {
                    *counts.entry(share).or_default() += 1;
                }
            }
            for counts in &seen {
                assert_eq!(counts.len(), 16);
                assert!(counts.values().all(|count| *count == 1));
            }
        }
    }

    /// A scheme with a slip in it fails the same check: the check can fail.
    #[test]
    fn a_share_without_its_mask_is_not_uniform() {
        let mut counts = BTreeMap::<u8, u32>::new();
        for random in 0..4u8 {
            let broken_share = 0b10 ^ (random & 0b01);
            *counts.entry(broken_share).or_default() += 1;
        }
        assert_ne!(counts.len(), 4);
    }
}
