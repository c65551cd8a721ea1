//! Blocks of key that both ends have set aside for packets.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{HEAD_BYTES, Shape};
use crate::base::Chunk;
use crate::base::chunk::wipe;
use crate::device::cpu::otp::{Hash, HashKey};
use crate::key::{KeyLease, KeyRange, UNIT_BYTES};
use crate::otp::Cipher;
use crate::otp::frame::TAG_BYTES;

/// Packets under one AES key: far below the 2^32 of NIST SP 800-38D, section 8.3, and few enough that
/// who repeats is remembered one by one.
pub const PACKETS_PER_KEY: u64 = 1 << 20;

/// A block: its key, and the positions that it serves.
pub struct Grant {
    /// The key.
    pub lease: KeyLease,
    /// Position of its first packet.
    pub first: u64,
}

impl Grant {
    /// Whether a packet at `position` is under this block.
    pub fn serves(&self, cipher: Cipher, position: u64) -> bool {
        let range = self.lease.range();
        match cipher {
            Cipher::Otp => range.position < position && position < range.end(),
            Cipher::Aes256Gcm => position.wrapping_sub(self.first) < PACKETS_PER_KEY,
            Cipher::Plain => false,
        }
    }
}

/// A block in use.
pub(super) struct Block {
    /// First position that it serves, and one past the last.
    pub first: u64,
    pub end: u64,
    material: Material,
}

enum Material {
    Pad { range: KeyRange, bytes: Chunk, hash_key: HashKey },
    Aes(Box<LessSafeKey>),
}

impl Block {
    /// Takes charge of a block for `cipher`; `None` when it has not the key for it.
    pub fn new(grant: Grant, cipher: Cipher) -> Option<Self> {
        let range = grant.lease.range();
        match cipher {
            Cipher::Otp => {
                let hash_key = HashKey::new(grant.lease.bytes().first_chunk()?);
                let (first, end) = (range.position + 1, range.end());
                let bytes = grant.lease.into_chunk();
                Some(Self { first, end, material: Material::Pad { range, bytes, hash_key } })
            }
            Cipher::Aes256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, grant.lease.bytes().get(..32)?).ok()?;
                let end = grant.first.checked_add(PACKETS_PER_KEY)?;
                let material = Material::Aes(Box::new(LessSafeKey::new(key)));
                Some(Self { first: grant.first, end, material })
            }
            Cipher::Plain => None,
        }
    }

    /// Encrypts what is hidden of `packet` and writes its tag; wipes the key.
    pub fn seal(&mut self, shape: &Shape, packet: &mut [u8], position: u64) {
        let body = packet.len() - TAG_BYTES;
        let clear_bytes = shape.headers.clear_bytes();
        let (front, tag) = packet.split_at_mut(body);
        let (clear, hidden) = front.split_at_mut(clear_bytes);
        match &mut self.material {
            Material::Pad { range, bytes, hash_key } => {
                let key = pad(range, bytes, position, hidden.len());
                let (tag_pad, pad) = key.split_at(TAG_BYTES);
                let mut hash = Hash::new(hash_key);
                hash.update(clear);
                hash.seal(hidden, pad);
                tag.copy_from_slice(&finish(hash, clear.len(), hidden.len(), tag_pad));
                wipe(key);
            }
            Material::Aes(key) => {
                let sealed =
                    key.seal_in_place_separate_tag(nonce(position), Aad::from(&*clear), hidden);
                tag.copy_from_slice(
                    sealed.expect("a packet is shorter than AES-GCM can take").as_ref(),
                );
            }
        }
    }

    /// Decrypts `packet` in place if its tag is right; says whether. If not, it is wiped and no key is
    /// consumed.
    pub fn open(&mut self, shape: &Shape, packet: &mut [u8], position: u64) -> bool {
        let body = packet.len() - TAG_BYTES;
        let (front, tag) = packet.split_at_mut(body);
        let (clear, hidden) = front.split_at_mut(shape.headers.clear_bytes());
        let good = match &mut self.material {
            Material::Pad { range, bytes, hash_key } => {
                let key = pad(range, bytes, position, hidden.len());
                let (tag_pad, pad) = key.split_at(TAG_BYTES);
                let mut hash = Hash::new(hash_key);
                hash.update(clear);
                hash.open(hidden, pad);
                let expected = finish(hash, clear.len(), hidden.len(), tag_pad);
                let good = bool::from(subtle::ConstantTimeEq::ct_eq(&expected[..], tag));
                if good {
                    wipe(key);
                }
                good
            }
            Material::Aes(key) => {
                let aad = Aad::from(&*clear);
                key.open_in_place_separate_tag(nonce(position), aad, tag, hidden).is_ok()
            }
        };
        if !good {
            wipe(packet);
        }
        good
    }

    /// Positions that a packet with `hidden` encrypted bytes takes.
    pub fn span(&self, hidden: usize) -> u64 {
        match &self.material {
            Material::Pad { .. } => 1 + (hidden as u64).div_ceil(UNIT_BYTES),
            Material::Aes(_) => 1,
        }
    }

    /// Bytes of key that it has.
    pub fn key_bytes(&self) -> u64 {
        match &self.material {
            Material::Pad { range, .. } => range.bytes(),
            Material::Aes(_) => 2 * UNIT_BYTES,
        }
    }
}

/// The key at `position` for a packet with `hidden` encrypted bytes.
fn pad<'b>(range: &KeyRange, bytes: &'b mut Chunk, position: u64, hidden: usize) -> &'b mut [u8] {
    let start = ((position - range.position) * UNIT_BYTES) as usize;
    &mut bytes[start..start + TAG_BYTES + hidden.next_multiple_of(UNIT_BYTES as usize)]
}

fn finish(mut hash: Hash<'_>, clear: usize, hidden: usize, tag_pad: &[u8]) -> [u8; TAG_BYTES] {
    let mut lengths = [0; TAG_BYTES];
    lengths[..8].copy_from_slice(&(8 * clear as u64).to_le_bytes());
    lengths[8..].copy_from_slice(&(8 * hidden as u64).to_le_bytes());
    hash.update(&lengths);
    let mut tag = hash.finish();
    tag.iter_mut().zip(tag_pad).for_each(|(byte, pad)| *byte ^= pad);
    tag
}

/// The position in 96 bits: unique under its key.
fn nonce(position: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&position.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Encrypted bytes of a packet of `packet_bytes`.
pub(super) fn hidden_bytes(shape: &Shape, packet_bytes: usize) -> usize {
    debug_assert!(packet_bytes >= HEAD_BYTES + shape.tag_bytes(), "callers look at the length");
    packet_bytes - shape.headers.clear_bytes() - shape.tag_bytes()
}
