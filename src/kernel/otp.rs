//! One-time pad and universal hash, scalar form: what every faster form must equal.
//!
//! The hash is POLYVAL (RFC 8452, section 3): the blocks of a message are the coefficients of a
//! polynomial over GF(2^128), evaluated at the key. Masked with 16 fresh key bytes it becomes the
//! tag of Wegman and Carter 1981, "New hash functions and their use in authentication and set
//! equality": forging it succeeds with a chance of at most blocks / 2^128, however much one computes.

use std::ops::Range;

use polyval::Polyval;
use polyval::universal_hash::UniversalHash;

use super::keystream;
use crate::base::Secret;

/// Bytes of one block, of a hash key and of a hash value.
pub const BLOCK_BYTES: usize = 16;

/// A part of a pad that is worked out when it is used: AES-256 in counter mode. Wiped on drop.
pub struct Expansion {
    start: usize,
    /// On the heap, so that moving the expansion leaves no copy behind.
    secret: Box<(Secret<[u8; 32]>, Secret<u128>)>,
}

impl Expansion {
    /// The key stream whose first counter block is `counter`, for the pad from byte `start` on to where
    /// the next expansion starts.
    ///
    /// # Panics
    /// When `start` is not a multiple of [`BLOCK_BYTES`].
    pub fn new(start: usize, key: &[u8; 32], counter: u128) -> Self {
        assert!(start.is_multiple_of(BLOCK_BYTES), "an expansion begins with a whole block");
        let mut secret = Box::new((Secret::new([0; 32]), Secret::new(0)));
        secret.0.expose_mut().copy_from_slice(key);
        *secret.1.expose_mut() = counter;
        Self { start, secret }
    }

    /// The AES-256 key.
    pub fn key(&self) -> &[u8; 32] {
        self.secret.0.expose()
    }

    /// The counter block at byte `at` of the pad.
    fn counter_at(&self, at: usize) -> u128 {
        self.secret.1.expose().wrapping_add(((at - self.start) / BLOCK_BYTES) as u128)
    }
}

/// The bytes of a one-time pad: stored ones, key stream that is worked out, or the XOR of both, which is
/// K4 = K1 ^ K3 of Fujiwara et al. 2022, Sci. Rep. 12:18530, Fig. 5.
#[derive(Clone, Copy)]
pub struct Pad<'a> {
    stored: Option<&'a [u8]>,
    expansions: &'a [Expansion],
    /// Where this pad lies in the bytes that the expansions count.
    range: (usize, usize),
}

impl<'a> Pad<'a> {
    /// The first `len` bytes of `stored`, or of zeros, with the key stream of `expansions` on them.
    ///
    /// # Panics
    /// When `stored` is shorter, neither is given, or the expansions are not in order or the first does
    /// not start at 0.
    pub fn new(stored: Option<&'a [u8]>, expansions: &'a [Expansion], len: usize) -> Self {
        let first = expansions.first().map_or(0, |expansion| expansion.start);
        assert!(first == 0 && expansions.is_sorted_by_key(|expansion| expansion.start));
        assert!(stored.is_some() || !expansions.is_empty(), "a pad of zeros hides nothing");
        Self { stored: stored.map(|stored| &stored[..len]), expansions, range: (0, len) }
    }

    /// Bytes of the pad.
    pub fn len(&self) -> usize {
        self.range.1 - self.range.0
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the pad.
    ///
    /// # Panics
    /// When the pad has no such bytes, or the part does not start with a block of the expansions.
    #[must_use]
    pub fn slice(&self, part: Range<usize>) -> Self {
        assert!(part.start <= part.end && part.end <= self.len(), "a part of the pad");
        let (start, end) = (self.range.0 + part.start, self.range.0 + part.end);
        assert!(self.expansions.is_empty() || start.is_multiple_of(BLOCK_BYTES));
        let stored = self.stored.map(|stored| &stored[part]);
        Self { stored, range: (start, end), ..*self }
    }

    /// The bytes that are stored, without what has to be worked out.
    pub fn stored(&self) -> Option<&'a [u8]> {
        self.stored
    }

    /// What has to be worked out: each part of the pad with its key and its first counter block.
    pub fn streams(&self) -> impl Iterator<Item = (Range<usize>, &'a [u8; 32], u128)> {
        let (start, end) = self.range;
        let ends = self.expansions.iter().skip(1).map(|next| next.start).chain([usize::MAX]);
        let parts =
            self.expansions.iter().zip(ends).map(move |(expansion, next)| {
                (expansion.start.max(start)..next.min(end), expansion)
            });
        parts.filter(|(part, _)| part.start < part.end).map(move |(part, expansion)| {
            let counter = expansion.counter_at(part.start);
            (part.start - start..part.end - start, expansion.key(), counter)
        })
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for Pad<'a> {
    fn from(stored: &'a T) -> Self {
        let stored = stored.as_ref();
        Self::new(Some(stored), &[], stored.len())
    }
}

/// A running hash.
///
/// Every call that takes bytes fills its last block with zeros, so what is hashed in one call must
/// not be split over two except at a multiple of [`BLOCK_BYTES`].
pub struct Hash(Polyval);

impl Hash {
    /// Begins under `key`.
    pub fn new(key: &[u8; BLOCK_BYTES]) -> Self {
        Self(Polyval::new(key.into()))
    }

    /// Hashes `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update_padded(bytes);
    }

    /// Encrypts in place and hashes the ciphertext.
    ///
    /// # Panics
    /// When `pad` is shorter than `data`.
    pub fn seal<'p>(&mut self, data: &mut [u8], pad: impl Into<Pad<'p>>) {
        xor(data, pad);
        self.update(data);
    }

    /// Hashes the ciphertext and decrypts it in place.
    ///
    /// # Panics
    /// When `pad` is shorter than `data`.
    pub fn open<'p>(&mut self, data: &mut [u8], pad: impl Into<Pad<'p>>) {
        self.update(data);
        xor(data, pad);
    }

    /// The hash of all that went in.
    pub fn finish(self) -> [u8; BLOCK_BYTES] {
        self.0.finalize().into()
    }
}

/// `data ^= pad`, byte by byte: the one-time pad (Vernam 1926), in either direction.
///
/// # Panics
/// When `pad` is shorter than `data`.
pub fn xor<'p>(data: &mut [u8], pad: impl Into<Pad<'p>>) {
    let pad = pad.into().slice(0..data.len());
    for (byte, key) in data.iter_mut().zip(pad.stored().unwrap_or_default()) {
        *byte ^= key;
    }
    for (part, key, counter) in pad.streams() {
        keystream::apply(key, counter, &mut data[part]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; BLOCK_BYTES] {
        u128::from_str_radix(hex, 16).unwrap().to_be_bytes()
    }

    /// RFC 8452, section 3, one bit at a time: `a * b * x^-128`.
    fn dot(a: u128, b: u128) -> u128 {
        let mut product = 0;
        for bit in 0..128 {
            if b >> bit & 1 == 1 {
                product ^= a;
            }
            // Division by x: an odd polynomial first gets the modulus added, which makes it even.
            let odd = product & 1;
            product >>= 1;
            if odd == 1 {
                product ^= 1 << 127 | 1 << 126 | 1 << 125 | 1 << 120;
            }
        }
        product
    }

    #[test]
    fn the_hash_is_that_of_the_standard() {
        // RFC 8452, appendix A.
        let mut hash = Hash::new(&bytes("25629347589242761d31f826ba4b757b"));
        hash.update(&bytes("4f4f95668c83dfb6401762bb2d01a262"));
        hash.update(&bytes("d1a24ddd2721d006bbe45f20d3c9f362"));
        assert_eq!(hash.finish(), bytes("f7a3b47b846119fae5b7866cf5e5b77e"));
    }

    #[test]
    fn the_hash_is_the_polynomial_worked_out_by_bits() {
        let key = bytes("25629347589242761d31f826ba4b757b");
        let message: Vec<u8> = (0..100).map(|n| n as u8 ^ 0xa5).collect();
        let mut hash = Hash::new(&key);
        hash.update(&message);
        let mut sum = 0;
        for chunk in message.chunks(BLOCK_BYTES) {
            let mut block = [0; BLOCK_BYTES];
            block[..chunk.len()].copy_from_slice(chunk);
            sum = dot(sum ^ u128::from_le_bytes(block), u128::from_le_bytes(key));
        }
        assert_eq!(hash.finish(), sum.to_le_bytes());
    }

    /// K4 = K1 ^ AES-256-CTR(K2), over two sub-blocks with keys of their own, from any block on.
    #[test]
    fn a_pad_is_what_is_stored_with_the_key_stream_on_it() {
        let expansion = |start, key: u8, counter| Expansion::new(start, &[key; 32], counter);
        let expansions = [expansion(0, 1, u128::MAX - 1), expansion(64, 2, 7)];
        let stored: Vec<u8> = (0..100).collect();
        let mut whole = vec![0; 100];
        keystream::fill(&[1; 32], u128::MAX - 1, &mut whole[..64]);
        keystream::fill(&[2; 32], 7, &mut whole[64..]);
        let worked_out = whole.clone();
        whole.iter_mut().zip(&stored).for_each(|(byte, stored)| *byte ^= stored);
        for (stored, expected) in [(Some(&stored[..]), &whole), (None, &worked_out)] {
            let pad = Pad::new(stored, &expansions, 100);
            for (start, end) in [(0, 100), (16, 90), (64, 65), (80, 80), (48, 81)] {
                let mut data = vec![0; end - start];
                xor(&mut data, pad.slice(0..100).slice(start..end));
                assert_eq!(data, expected[start..end], "{start}..{end}");
            }
        }
        assert_eq!(Pad::new(None, &expansions, 100).slice(16..48).streams().count(), 1);
    }

    #[test]
    fn open_undoes_seal_and_both_hash_the_ciphertext() {
        let (key, pad) = ([7; BLOCK_BYTES], [0x5a; 33]);
        let mut data = *b"thirty-three bytes of some genome";
        let mut sealing = Hash::new(&key);
        sealing.seal(&mut data, &pad);
        let mut plain_hash = Hash::new(&key);
        plain_hash.update(&data);
        let mut opening = Hash::new(&key);
        opening.open(&mut data, &pad);
        assert_eq!(&data, b"thirty-three bytes of some genome");
        let tag = sealing.finish();
        assert_eq!((opening.finish(), plain_hash.finish()), (tag, tag));
    }
}
