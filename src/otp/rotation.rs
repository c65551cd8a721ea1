//! The hash key of one direction, and when the next one is due.

use crate::device::cpu::otp::{Hash, HashKey};
use crate::key::KeyLease;

use super::frame::{HEADER_BYTES, Header, TAG_BYTES};
use super::session::Limits;

/// The hash key in force and how much was hashed under it.
///
/// Masked by fresh key, the hash key may serve many frames (Portmann 2014, "Key recycling in
/// authentication"); it is changed long before what accepted and refused forgeries tell adds up.
pub(super) struct HashKeys {
    limits: Limits,
    current: Option<HashKey>,
    frames: u64,
    bytes: u64,
}

/// The parts of a frame's key, in their order.
pub(super) struct KeyParts<'a> {
    pub hash_key: Option<&'a [u8; TAG_BYTES]>,
    pub tag_pad: &'a [u8],
    pub pad: &'a [u8],
}

impl<'a> KeyParts<'a> {
    pub fn of(header: &Header, lease: &'a KeyLease) -> Self {
        let (hash_key, rest) = if header.new_hash_key {
            let (first, rest) = lease.bytes().split_at(TAG_BYTES);
            (first.try_into().ok(), rest)
        } else {
            (None, lease.bytes())
        };
        let (tag_pad, pad) = rest.split_at(TAG_BYTES);
        Self { hash_key, tag_pad, pad: &pad[..header.payload_bytes as usize] }
    }
}

impl HashKeys {
    pub fn new(limits: Limits) -> Self {
        Self { limits, current: None, frames: 0, bytes: 0 }
    }

    /// Whether the next frame must bring a new hash key. Both ends know without being told.
    pub fn due(&self) -> bool {
        self.current.is_none()
            || self.frames >= self.limits.frames_per_hash_key
            || self.bytes >= self.limits.bytes_per_hash_key
    }

    /// Works out the tag of a frame. `pass` hashes what stands in the place of the ciphertext, and
    /// gives its length in bytes. Gives back the new hash key, to be [put in force](Self::advance)
    /// when the frame is good.
    pub fn tag(
        &self,
        header: &[u8; HEADER_BYTES],
        key: &KeyParts<'_>,
        pass: impl FnOnce(&mut Hash<'_>) -> usize,
    ) -> ([u8; TAG_BYTES], Option<HashKey>) {
        let new = key.hash_key.map(HashKey::new);
        let hash_key = new.as_ref().or(self.current.as_ref());
        let mut hash = Hash::new(hash_key.expect("the first frame brings a hash key"));
        hash.update(header);
        let bytes = pass(&mut hash);
        let mut lengths = [0; TAG_BYTES];
        lengths[..8].copy_from_slice(&(8 * HEADER_BYTES as u64).to_le_bytes());
        lengths[8..].copy_from_slice(&(8 * bytes as u64).to_le_bytes());
        hash.update(&lengths);
        let mut tag = hash.finish();
        for (byte, pad) in tag.iter_mut().zip(key.tag_pad) {
            *byte ^= pad;
        }
        (tag, new)
    }

    /// Counts a good frame and puts its hash key in force, if it brought one.
    pub fn advance(&mut self, new: Option<HashKey>, payload_bytes: u32) {
        if new.is_some() {
            (self.current, self.frames, self.bytes) = (new, 0, 0);
        }
        self.frames += 1;
        self.bytes += u64::from(payload_bytes);
    }
}
