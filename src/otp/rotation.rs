//! The key in force in one direction, for hashes or for AES-256-GCM, and when the next one is due.

use zeroize::Zeroizing;

use crate::device::cpu::otp::{Hash, HashKey, write};
use crate::key::KeyLease;

use super::frame::{HEADER_BYTES, Header, TAG_BYTES};
use super::session::Limits;

/// The key in force of one direction, and how much went under it.
pub(super) struct Rotation<K> {
    limits: Limits,
    current: Option<K>,
    frames: u64,
    bytes: u64,
}

impl<K> Rotation<K> {
    pub fn new(limits: Limits) -> Self {
        Self { limits, current: None, frames: 0, bytes: 0 }
    }

    /// Whether the next frame must bring a new key. Both ends know without being told.
    pub fn due(&self) -> bool {
        self.current.is_none()
            || self.frames >= self.limits.frames_per_hash_key
            || self.bytes >= self.limits.bytes_per_hash_key
    }

    /// The key of a frame: a `new` one, or that in force.
    pub fn of<'k>(&'k self, new: Option<&'k K>) -> Option<&'k K> {
        new.or(self.current.as_ref())
    }

    /// Counts a good frame and puts its key in force, if it brought one.
    pub fn advance(&mut self, new: Option<K>, payload_bytes: u32) {
        if new.is_some() {
            (self.current, self.frames, self.bytes) = (new, 0, 0);
        }
        self.frames += 1;
        self.bytes += u64::from(payload_bytes);
    }
}

/// Hash keys.
///
/// Masked by fresh key, a hash key may serve many frames (Portmann 2014, "Key recycling in
/// authentication"); it is changed long before what accepted and refused forgeries tell adds up.
pub(super) type HashKeys = Rotation<HashKey>;

/// The part of a frame's key that makes its tag: in front of the pad of its payload.
pub(super) struct TagKey {
    hash_key: Option<Zeroizing<[u8; TAG_BYTES]>>,
    tag_pad: Zeroizing<[u8; TAG_BYTES]>,
}

impl TagKey {
    pub fn of(header: &Header, lease: &KeyLease) -> Self {
        let mut front = Zeroizing::new([0; 2 * TAG_BYTES]);
        let front = &mut front[..header.key_front_bytes()];
        write(&lease.pad(), front);
        let block = |at: usize| {
            let mut block = Zeroizing::new([0; TAG_BYTES]);
            block.copy_from_slice(&front[at..at + TAG_BYTES]);
            block
        };
        let hash_key = header.new_hash_key.then(|| block(0));
        Self { hash_key, tag_pad: block(front.len() - TAG_BYTES) }
    }
}

impl HashKeys {
    /// Works out the tag of a frame. `pass` hashes what stands in the place of the ciphertext, and
    /// gives its length in bytes. Gives back the new hash key, to be [put in force](Self::advance)
    /// when the frame is good.
    pub fn tag(
        &self,
        header: &[u8; HEADER_BYTES],
        key: &TagKey,
        pass: impl FnOnce(&mut Hash<'_>) -> usize,
    ) -> ([u8; TAG_BYTES], Option<HashKey>) {
        let new = key.hash_key.as_deref().map(HashKey::new);
        let hash_key = self.of(new.as_ref());
        let mut hash = Hash::new(hash_key.expect("the first frame brings a hash key"));
        hash.update(header);
        let bytes = pass(&mut hash);
        let mut lengths = [0; TAG_BYTES];
        lengths[..8].copy_from_slice(&(8 * HEADER_BYTES as u64).to_le_bytes());
        lengths[8..].copy_from_slice(&(8 * bytes as u64).to_le_bytes());
        hash.update(&lengths);
        let mut tag = hash.finish();
        for (byte, pad) in tag.iter_mut().zip(key.tag_pad.iter()) {
            *byte ^= pad;
        }
        (tag, new)
    }
}
