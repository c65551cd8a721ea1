//! Blocks of key that both ends have set aside for packets.

use aws_lc_rs::aead::{Aad, LessSafeKey};
use zeroize::Zeroizing;

use super::{HEAD_BYTES, Shape};
use crate::base::chunk::wipe;
use crate::device::cpu::otp::{Hash, HashKey, write};
use crate::key::{KeyLease, UNIT_BYTES};
use crate::otp::Cipher;
use crate::otp::aes::{self, nonce};
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
    Pad { lease: KeyLease, hash_key: HashKey },
    Aes(Box<LessSafeKey>),
}

impl Block {
    /// Takes charge of a block for `cipher`; `None` when it has not the key for it.
    pub fn new(grant: Grant, cipher: Cipher) -> Option<Self> {
        let range = grant.lease.range();
        match cipher {
            Cipher::Otp if range.units > 1 => {
                let mut lease = grant.lease;
                let hash_key = HashKey::new(&unit_at(&lease, 0));
                lease.wipe(0..TAG_BYTES);
                let (first, end) = (range.position + 1, range.end());
                Some(Self { first, end, material: Material::Pad { lease, hash_key } })
            }
            Cipher::Aes256Gcm => {
                let key = aes::key(grant.lease.bytes())?;
                let end = grant.first.checked_add(PACKETS_PER_KEY)?;
                let material = Material::Aes(Box::new(key));
                Some(Self { first: grant.first, end, material })
            }
            Cipher::Otp | Cipher::Plain => None,
        }
    }

    /// Encrypts what is hidden of `packet` and writes its tag; wipes the key.
    pub fn seal(&mut self, shape: &Shape, packet: &mut [u8], position: u64) {
        let body = packet.len() - TAG_BYTES;
        let clear_bytes = shape.headers.clear_bytes();
        let (front, tag) = packet.split_at_mut(body);
        let (clear, hidden) = front.split_at_mut(clear_bytes);
        match &mut self.material {
            Material::Pad { lease, hash_key } => {
                let (start, end) = part(lease, position, hidden.len());
                let mut hash = Hash::new(hash_key);
                hash.update(clear);
                hash.seal(hidden, lease.pad().slice(start + TAG_BYTES..end));
                tag.copy_from_slice(&finish(
                    hash,
                    clear.len(),
                    hidden.len(),
                    &unit_at(lease, start),
                ));
                lease.wipe(start..end);
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
            Material::Pad { lease, hash_key } => {
                let (start, end) = part(lease, position, hidden.len());
                let mut hash = Hash::new(hash_key);
                hash.update(clear);
                hash.open(hidden, lease.pad().slice(start + TAG_BYTES..end));
                let expected = finish(hash, clear.len(), hidden.len(), &unit_at(lease, start));
                let good = bool::from(subtle::ConstantTimeEq::ct_eq(&expected[..], tag));
                if good {
                    lease.wipe(start..end);
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
            Material::Pad { lease, .. } => lease.range().bytes(),
            Material::Aes(_) => 2 * UNIT_BYTES,
        }
    }
}

/// Where in the lease the key lies of a packet at `position` with `hidden` encrypted bytes.
fn part(lease: &KeyLease, position: u64, hidden: usize) -> (usize, usize) {
    let start = ((position - lease.range().position) * UNIT_BYTES) as usize;
    (start, start + TAG_BYTES + hidden.next_multiple_of(UNIT_BYTES as usize))
}

/// The unit at `start`.
fn unit_at(lease: &KeyLease, start: usize) -> Zeroizing<[u8; TAG_BYTES]> {
    let mut unit = Zeroizing::new([0; TAG_BYTES]);
    write(&lease.pad().slice(start..start + TAG_BYTES), &mut unit[..]);
    unit
}

fn finish(
    mut hash: Hash<'_>,
    clear: usize,
    hidden: usize,
    tag_pad: &[u8; TAG_BYTES],
) -> [u8; TAG_BYTES] {
    let mut lengths = [0; TAG_BYTES];
    lengths[..8].copy_from_slice(&(8 * clear as u64).to_le_bytes());
    lengths[8..].copy_from_slice(&(8 * hidden as u64).to_le_bytes());
    hash.update(&lengths);
    let mut tag = hash.finish();
    tag.iter_mut().zip(tag_pad).for_each(|(byte, pad)| *byte ^= pad);
    tag
}

/// Encrypted bytes of a packet of `packet_bytes`.
pub(super) fn hidden_bytes(shape: &Shape, packet_bytes: usize) -> usize {
    debug_assert!(packet_bytes >= HEAD_BYTES + shape.tag_bytes(), "callers look at the length");
    packet_bytes - shape.headers.clear_bytes() - shape.tag_bytes()
}
