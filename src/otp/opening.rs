//! The opening message of either end: proves that it holds the link's keys, to the other's fresh
//! nonce, and asks for the first keys of the session.
//!
//! ```text
//! offset  bytes  integers little-endian
//!      0      4  "dsgo"
//!      4      2  version, 2
//!      6      1  from the listener: 1 if it has countersigned the caller's reservation, else 0
//!      7      1  zero
//!      8      8  first unit of the range of greeting keys
//!     16      8  which of its keys
//!     24      8  first unit of the reservation that is asked for
//!     32      8  one past its last
//!     40      8  zeros
//!     48     16  tag
//! ```
//!
//! The tag is over both greetings, the caller's opening if this is the listener's, and the 48 bytes.
//! With `m` for these and the key cut into blocks `r, a, b_1 .. b_14`, it is
//!
//! ```text
//! h = POLYVAL_r(m)        tag = POLYVAL_h(b_1 .. b_14) ^ a
//! ```
//!
//! which is a polynomial of degree 14 at the point `h`, with secret and uniform coefficients: its
//! values at up to 15 points are independent. So a key may make [`USES_MAX`] tags of different
//! messages and tell nothing of the next: a forgery, the 15th, succeeds with a probability below
//! 2^-110, that two of the messages have the same `h` included. A key makes one tag in every course
//! of events; more than one come from a site whose state was set back, which cannot know it before
//! it has heard an answer.
//!
//! Source: Wegman, Carter 1981, "New hash functions and their use in authentication and set
//! equality", section 4 (tags from a strongly universal_n class).

use subtle::ConstantTimeEq;

use super::error::Error;
use super::frame::{HEADER_BYTES, TAG_BYTES};
use crate::device::cpu::otp::{Hash, HashKey};
use crate::key::KeyRange;
use crate::key::greeting::{KEY_UNITS, USES_MAX};

/// Bytes of an opening without its tag: as many as a frame's header has.
pub const OPENING_BYTES: usize = HEADER_BYTES;

const MAGIC: [u8; 4] = *b"dsgo";
const VERSION: u16 = 2;
const BLOCK: usize = 16;
const _: () = assert!(KEY_UNITS == USES_MAX as u64 + 2, "a hash key, and a coefficient more");

/// What an opening message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Whether the caller's reservation was countersigned.
    pub countersigned: bool,
    /// Where the range of greeting keys begins.
    pub start: u64,
    /// Which of its keys made the tag.
    pub slot: u32,
    /// The keys that are asked for.
    pub reservation: KeyRange,
}

impl Opening {
    /// The message as it is sent and hashed.
    pub fn encode(&self) -> [u8; OPENING_BYTES] {
        let mut bytes = [0; OPENING_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = u8::from(self.countersigned);
        let (from, to) = (self.reservation.position, self.reservation.end());
        let words = [self.start, self.slot.into(), from, to];
        for (place, word) in bytes[8..40].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a message.
    ///
    /// Errors: [`Error::Foreign`].
    pub fn decode(bytes: &[u8; OPENING_BYTES]) -> Result<Self, Error> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let foreign = || Error::Foreign { what: "its opening message is not one" };
        let opening = Self {
            countersigned: bytes[6] == 1,
            start: word(8),
            slot: u32::try_from(word(16)).map_err(|_| foreign())?,
            reservation: KeyRange::between(word(24), word(32)),
        };
        if opening.encode() == *bytes { Ok(opening) } else { Err(foreign()) }
    }
}

/// The tag of `message`, a whole number of blocks, made with a greeting key.
///
/// # Panics
/// When `key` is not of 16 units.
pub fn tag(key: &[u8], message: &[u8]) -> [u8; TAG_BYTES] {
    assert_eq!(key.len(), KEY_UNITS as usize * BLOCK, "the caller has a whole greeting key");
    let (front, coefficients) = key.split_at(2 * BLOCK);
    let point = polynomial(front[..BLOCK].try_into().expect("one block"), message);
    let mut tag = polynomial(&point, coefficients);
    for (byte, pad) in tag.iter_mut().zip(&front[BLOCK..]) {
        *byte ^= pad;
    }
    tag
}

/// Whether `found` is the tag of `message`, in a time that does not depend on how much of it is.
pub fn is_right(key: &[u8], message: &[u8], found: &[u8; TAG_BYTES]) -> bool {
    tag(key, message).ct_eq(found).into()
}

fn polynomial(point: &[u8; BLOCK], blocks: &[u8]) -> [u8; BLOCK] {
    let point = HashKey::new(point);
    let mut hash = Hash::new(&point);
    hash.update(blocks);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::cpu::otp::polyval_blocks;

    fn key(seed: u8) -> Vec<u8> {
        let mut key = vec![0; 256];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut key);
        key
    }

    #[test]
    fn the_tag_is_the_documented_polynomial() {
        let (key, message) = (key(1), [7; 48]);
        let point = polyval_blocks(key[..16].try_into().unwrap(), &message);
        let mut expected = polyval_blocks(&point, &key[32..]);
        expected.iter_mut().zip(&key[16..32]).for_each(|(byte, pad)| *byte ^= pad);
        assert_eq!(tag(&key, &message), expected);
        assert!(is_right(&key, &message, &expected));
    }

    #[test]
    fn any_other_bit_makes_another_tag() {
        let (key, message) = (key(2), vec![3; 3 * 48]);
        let right = tag(&key, &message);
        for bit in 0..message.len() * 8 {
            let mut other = message.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(&key, &other, &right), "{bit}");
        }
        for bit in 0..128 {
            let mut wrong = right;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(&key, &message, &wrong), "{bit}");
        }
    }

    /// Two tags under one ordinary key give their hash key away; here every coefficient counts.
    #[test]
    fn every_block_of_the_key_counts() {
        let (right, message) = (key(3), [9; 64]);
        for block in 0..16 {
            let mut other = right.clone();
            other[block * 16] ^= 1;
            assert_ne!(tag(&right, &message), tag(&other, &message), "{block}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_round_trip(bytes in proptest::collection::vec(any::<u8>(), 42)) {
            let mut whole = [0; OPENING_BYTES];
            whole[..4].copy_from_slice(&MAGIC);
            whole[4..6].copy_from_slice(&VERSION.to_le_bytes());
            whole[6..].copy_from_slice(&bytes);
            if let Ok(opening) = Opening::decode(&whole) {
                prop_assert_eq!(opening.encode(), whole);
            }
        }

        #[test]
        fn an_opening_round_trips(start: u64, slot: u32, from in 0u64..1 << 60, units in 0u64..1 << 60) {
            let reservation = KeyRange { position: from, units };
            for countersigned in [false, true] {
                let opening = Opening { countersigned, start, slot, reservation };
                prop_assert_eq!(Opening::decode(&opening.encode()).unwrap(), opening);
            }
        }
    }
}
