//! AES-256 in counter mode as a generator, at any position: the keys of a simulated link, and the part of
//! a pad that is worked out and not stored.

use aes::Aes256;
use ctr::cipher::{KeyIvInit, StreamCipher};

/// Fills `out` with the key stream of AES-256-CTR whose first counter block is `counter`, big-endian.
///
/// Source: NIST FIPS 197; NIST SP 800-38A, section 6.5.
pub fn fill(key: &[u8; 32], counter: u128, out: &mut [u8]) {
    let counter = counter.to_be_bytes();
    let mut cipher = ctr::Ctr128BE::<Aes256>::new(key.into(), &counter.into());
    cipher.write_keystream(out);
}

/// `data ^=` the key stream that [`fill`] would give.
pub fn apply(key: &[u8; 32], counter: u128, data: &mut [u8]) {
    let counter = counter.to_be_bytes();
    ctr::Ctr128BE::<Aes256>::new(key.into(), &counter.into()).apply_keystream(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A, F.5.5: the key stream is plaintext XOR ciphertext of the first block.
    #[test]
    fn known_answer() {
        let hex = |text: &str| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(byte).collect()
        };
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let counter = u128::from_str_radix("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16).unwrap();
        let plain = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let cipher = hex("601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5");
        let mut stream = [0; 32];
        fill(key[..].try_into().unwrap(), counter, &mut stream);
        let expected: Vec<u8> = plain.iter().zip(&cipher).map(|(p, c)| p ^ c).collect();
        assert_eq!(&stream[..], expected);
        let mut data = plain;
        apply(&key.try_into().unwrap(), counter, &mut data);
        assert_eq!(data, cipher);
    }
}
