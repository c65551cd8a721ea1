//! One hop of a relay: the ciphertext that comes in becomes the ciphertext that goes out.
//!
//! Node `i` of a path shares the pad `K(i-1,i)` with the node before and `K(i,i+1)` with the node
//! after. The first node sends `c0 = K ^ K(0,1)`, each relay `c(i) = c(i-1) ^ K(i-1,i) ^ K(i,i+1)`, and
//! the last one finds `K = c(n-1) ^ K(n-1,n)`. Every `c` goes with a tag of Wegman and Carter under 32
//! bytes of the same link's key, so a link gives 32 bytes more than are relayed. A relay could compute
//! `K`; it never does, because it adds its two pads first.
//!
//! The pad of a link is used once both of its ends have it in their records: the node after has claimed
//! it, and would refuse it a second time, before anything is sent. So a node whose state was set back
//! uses none twice, as in a session.

use subtle::ConstantTimeEq;

use super::Error;
use super::protocol::{HASH_BYTES, Hash, TAG_KEY_BYTES, Transaction};
use crate::base::Chunk;
use crate::device::cpu::otp;
use crate::key::KeyLease;

/// Key of one link that is set aside for one relay: a pad, and the key of its tag. Wiped on drop.
pub struct Pad(Chunk);

impl Pad {
    /// Takes the key of a lease of the pad's bytes and [`TAG_KEY_BYTES`] more.
    pub fn new(lease: KeyLease) -> Self {
        let mut key = lease.into_chunk();
        key.mark_secret();
        Self(key)
    }

    /// Bytes that it can encrypt.
    pub fn bytes(&self) -> usize {
        self.0.len().saturating_sub(TAG_KEY_BYTES)
    }

    /// The bytes, as a key that both ends of the link have.
    pub fn into_key(mut self) -> Chunk {
        let bytes = self.bytes();
        self.0[bytes..].fill(0);
        self.0.set_len(bytes);
        self.0
    }

    fn pad(&self) -> &[u8] {
        &self.0[..self.bytes()]
    }

    fn tag(&self, transaction: Transaction, ciphertext: &[u8]) -> Hash {
        let (hash_key, mask) = self.0[self.bytes()..].split_at(HASH_BYTES);
        let hash_key = otp::HashKey::new(hash_key.try_into().expect("two halves of 16 bytes"));
        let mut hash = otp::Hash::new(&hash_key);
        hash.update(&transaction.0);
        hash.update(ciphertext);
        hash.update(&(ciphertext.len() as u64).to_le_bytes());
        let mut tag = hash.finish();
        tag.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
        tag
    }

    /// Whether `ciphertext` is what the other end of the link sent.
    ///
    /// Errors: [`Error::Tag`]. The pad is as good as before: the true ciphertext must still find it.
    pub fn check(
        &self,
        transaction: Transaction,
        ciphertext: &[u8],
        tag: &Hash,
    ) -> Result<(), Error> {
        let right = self.tag(transaction, ciphertext);
        if ciphertext.len() == self.bytes() && bool::from(right.ct_eq(tag)) {
            return Ok(());
        }
        Err(Error::Tag)
    }
}

/// The first node's part: `key` becomes ciphertext.
pub fn begin(key: &[u8], out: &Pad, transaction: Transaction) -> (Vec<u8>, Hash) {
    let mut ciphertext = key.to_vec();
    otp::xor(&mut ciphertext, out.pad());
    let tag = out.tag(transaction, &ciphertext);
    (ciphertext, tag)
}

/// A relay's part: ciphertext whose tag was [checked](Pad::check) becomes the next ciphertext.
pub fn forward(ciphertext: &mut [u8], mut into: Pad, out: &Pad, transaction: Transaction) -> Hash {
    let bytes = into.bytes();
    otp::xor(&mut into.0[..bytes], out.pad());
    otp::xor(ciphertext, into.pad());
    out.tag(transaction, ciphertext)
}

/// The last node's part: ciphertext whose tag was [checked](Pad::check) becomes the key.
pub fn end(ciphertext: &[u8], into: Pad) -> Chunk {
    let mut key = into.into_key();
    otp::xor(&mut key, ciphertext);
    key
}

/// What the ends compare: the hash of everything but the mask at the end of `key`, masked by it.
pub fn masked_hash(hash_key: &Hash, key: &[u8]) -> Hash {
    let (bytes, mask) = key.split_at(key.len().saturating_sub(HASH_BYTES));
    let mut check = otp::polyval_blocks(hash_key, bytes);
    check.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    check
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyRange;
    use crate::key::pool::BlockId;

    fn bytes(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn pad(seed: u8, bytes_relayed: usize) -> Pad {
        let key = bytes(seed, bytes_relayed + TAG_KEY_BYTES);
        let range = KeyRange { position: 0, units: (key.len() / 16) as u64 };
        Pad::new(KeyLease::new(range, Chunk::from_bytes(0, &key)))
    }

    #[test]
    fn every_node_sends_what_the_formula_says_and_the_ends_have_the_same() {
        let (length, transaction) = (160, BlockId([7; 16]));
        let key = bytes(1, length);
        let xor = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a ^ b).collect::<Vec<_>>();
        let (mut c, tag) = begin(&key, &pad(10, length), transaction);
        assert_eq!(c, xor(&key, &bytes(10, length)));
        pad(10, length).check(transaction, &c, &tag).unwrap();
        let tag = forward(&mut c, pad(10, length), &pad(11, length), transaction);
        assert_eq!(c, xor(&key, &bytes(11, length)), "K ^ K01 ^ K01 ^ K12");
        pad(11, length).check(transaction, &c, &tag).unwrap();
        assert!(end(&c, pad(11, length))[..] == key);
    }

    #[test]
    fn any_change_and_any_other_relay_is_noticed() {
        let transaction = BlockId([7; 16]);
        let (c, tag) = begin(&bytes(1, 64), &pad(10, 64), transaction);
        let link = pad(10, 64);
        for bit in 0..8 * 64 {
            let mut changed = c.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(link.check(transaction, &changed, &tag).is_err());
        }
        assert!(link.check(BlockId([8; 16]), &c, &tag).is_err());
        assert!(link.check(transaction, &c[..48], &tag).is_err());
        assert!(pad(11, 64).check(transaction, &c, &tag).is_err());
        link.check(transaction, &c, &tag).expect("failures take nothing");
    }

    #[test]
    fn the_masked_hash_tells_keys_apart_and_depends_on_mask_and_hash_key() {
        let (key, hash_key) = (bytes(1, 80), [3; 16]);
        let check = masked_hash(&hash_key, &key);
        for at in 0..80 {
            let mut other = key.clone();
            other[at] ^= 1;
            assert_ne!(masked_hash(&hash_key, &other), check, "{at}");
        }
        assert_ne!(masked_hash(&[4; 16], &key), check);
    }
}
