//! One-time pad and universal hash, scalar form: what every faster form must equal.
//!
//! The hash is POLYVAL (RFC 8452, section 3): the blocks of a message are the coefficients of a
//! polynomial over GF(2^128), evaluated at the key. Masked with 16 fresh key bytes it becomes the
//! tag of Wegman and Carter 1981, "New hash functions and their use in authentication and set
//! equality": forging it succeeds with a chance of at most blocks / 2^128, however much one computes.

use polyval::Polyval;
use polyval::universal_hash::UniversalHash;

/// Bytes of one block, of a hash key and of a hash value.
pub const BLOCK_BYTES: usize = 16;

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
    pub fn seal(&mut self, data: &mut [u8], pad: &[u8]) {
        xor(data, pad);
        self.update(data);
    }

    /// Hashes the ciphertext and decrypts it in place.
    ///
    /// # Panics
    /// When `pad` is shorter than `data`.
    pub fn open(&mut self, data: &mut [u8], pad: &[u8]) {
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
pub fn xor(data: &mut [u8], pad: &[u8]) {
    let pad = &pad[..data.len()];
    for (byte, key) in data.iter_mut().zip(pad) {
        *byte ^= key;
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
