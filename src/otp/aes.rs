//! AES-256-GCM in the place of the one-time pad, for whoever asks for it: the keys come from the pad.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::frame::{HEADER_BYTES, TAG_BYTES};
use super::rotation::Rotation;

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 32;

/// Keys of AES-256-GCM.
///
/// They are changed as often as hash keys, far below the 2^32 messages and 2^36 bytes a message of NIST
/// SP 800-38D, section 8.3. The nonce is the frame's number, which no two frames of a key share.
pub(super) type AesKeys = Rotation<LessSafeKey>;

impl AesKeys {
    /// Encrypts `payload` in place, under a `new` key or that in force; gives the tag.
    pub fn seal(
        &self,
        new: Option<&LessSafeKey>,
        (header, sequence): (&[u8; HEADER_BYTES], u64),
        payload: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let key = self.of(new).expect("the first frame brings a key");
        let sealed = key.seal_in_place_separate_tag(nonce(sequence), Aad::from(header), payload);
        let tag = sealed.expect("a frame is shorter than AES-GCM can take");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }

    /// Decrypts `payload` in place if its tag is right, which is compared in constant time; else
    /// nothing of it is left.
    pub fn open(
        &self,
        new: Option<&LessSafeKey>,
        (header, sequence): (&[u8; HEADER_BYTES], u64),
        payload: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        let Some(key) = self.of(new) else { return false };
        let aad = Aad::from(header);
        let good = key.open_in_place_separate_tag(nonce(sequence), aad, tag, payload).is_ok();
        if !good {
            crate::base::chunk::wipe(payload);
        }
        good
    }
}

/// The key that the bytes of a lease are.
pub(super) fn key(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, bytes.get(..KEY_BYTES)?).ok().map(LessSafeKey::new)
}

/// A number in 96 bits: unique under its key.
pub(super) fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}
