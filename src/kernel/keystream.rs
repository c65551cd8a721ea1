//! AES-256 in counter mode as a generator, at any position: the keys of a simulated link, and the part of
//! a pad that is worked out and not stored.

use aes::Aes256;
use aes::hazmat::{cipher_round, inv_mix_columns};
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

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

/// Keys of the rounds of AES-256, and the one before them.
pub const ROUND_KEYS: usize = 15;

/// The key schedule of AES-256, for forms that have the rounds alone. In constant time.
///
/// Source: NIST FIPS 197, section 5.2.
pub fn round_keys(key: &[u8; 32]) -> Zeroizing<[[u8; 16]; ROUND_KEYS]> {
    let mut keys = Zeroizing::new([[0; 16]; ROUND_KEYS]);
    let words: &mut [[u8; 4]] = bytemuck::cast_slice_mut(keys.as_flattened_mut());
    for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
        word.copy_from_slice(bytes);
    }
    let mut constant = 1;
    for at in 8..words.len() {
        let mut word = words[at - 1];
        if at % 8 == 0 {
            word.rotate_left(1);
            word = substitute(word);
            word[0] ^= constant;
            constant <<= 1;
        } else if at % 8 == 4 {
            word = substitute(word);
        }
        words[at] = std::array::from_fn(|byte| word[byte] ^ words[at - 8][byte]);
    }
    keys
}

/// The S-box on each byte: a round on a state of equal columns, without its key and its mixing.
fn substitute(word: [u8; 4]) -> [u8; 4] {
    let mut state = Zeroizing::new([0; 16]);
    state.chunks_exact_mut(4).for_each(|column| column.copy_from_slice(&word));
    let block: &mut aes::Block = (&mut *state).into();
    cipher_round(block, &[0; 16].into());
    inv_mix_columns(block);
    std::array::from_fn(|byte| block[byte])
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
    /// NIST FIPS 197, appendix A.3.
    #[test]
    fn round_keys_are_those_of_the_standard() {
        let key = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";
        let byte = |at: usize| u8::from_str_radix(&key[2 * at..2 * at + 2], 16).unwrap();
        let keys = round_keys(&std::array::from_fn(byte));
        assert_eq!(keys[2][..4], [0x9b, 0xa3, 0x54, 0x11]);
        assert_eq!(keys[3][..4], [0xa8, 0xb0, 0x9c, 0x1a]);
        assert_eq!(keys[14][12..], [0x70, 0x6c, 0x63, 0x1e]);
    }
}
