//! The frame: a clear header, the ciphertext, the tag.
//!
//! ```text
//! offset  bytes  header, integers little-endian
//!      0      3  "DSG"
//!      3      1  version, 1
//!      4      1  type: 1 PROOF, 2 DATA, 3 KEYED, 4 END
//!      5      1  flags: bit 0 = a new hash key stands in front of the tag pad,
//!                bit 1 = AES-256-GCM, bit 2 = under a new key
//!      6      2  kind: what the payload is; the meaning is the application's
//!      8      4  channel, 0
//!     12      4  payload length n in bytes
//!     16      8  sequence number in this direction of this session, from 0
//!     24      8  key position in units of 16 bytes
//!     32      8  first unit of the sender's reservation that the key is from
//!     40      8  one past its last unit
//!     48      n  ciphertext; absent from a KEYED frame
//!  48 + n     16  tag; absent from plain frames
//! ```
//!
//! Key, from the header's position on: `[16 hash key, if flagged][16 tag pad][n, rounded up to 16]`.
//! Tag: `POLYVAL_r(header . ciphertext, filled with zeros to 16 . header bits . ciphertext bits) ^ tag
//! pad`, the bit counts as two 64-bit integers, `r` the hash key in force. A PROOF has the two
//! greetings in place of the ciphertext, without carrying them.
//!
//! In a session of AES-256-GCM, which both ends must be set to, DATA frames have bit 1: the payload is
//! encrypted by it, the nonce is the sequence number, the header is associated data. Their only key is
//! that of AES, 32 bytes in the frame that has bit 2; position and reservation are 0 in all others.
//!
//! A KEYED frame carries an all-zero plaintext, whose ciphertext is the pad itself and is not sent:
//! both ends take the pad as payload. It is in the hash, so pads that differ are noticed, and the tag
//! pad hides the hash, so it tells nothing of them.

use std::ops::Range;

use crate::key::{KeyRange, UNIT_BYTES};

/// Bytes of a header: three blocks of the hash.
pub const HEADER_BYTES: usize = 48;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;
/// Most bytes of payload: a stripe of 1 MiB and what describes it.
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) + 4096;

const MAGIC: [u8; 3] = *b"DSG";
const VERSION: u8 = 1;
const FLAG_NEW_HASH_KEY: u8 = 1;
const FLAG_AES: u8 = 2;
const FLAG_NEW_AES_KEY: u8 = 4;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// The first frame of a direction: proves possession of the key.
    Proof,
    /// Payload.
    Data,
    /// Payload that is the pad itself.
    Keyed,
    /// Nothing follows in this direction.
    End,
}

impl Type {
    const ALL: [Type; 4] = [Type::Proof, Type::Data, Type::Keyed, Type::End];

    fn code(self) -> u8 {
        match self {
            Type::Proof => 1,
            Type::Data => 2,
            Type::Keyed => 3,
            Type::End => 4,
        }
    }
}

/// Whether a frame under AES-256-GCM brings a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewAesKey(pub bool);

/// The clear part of a frame. Everything in it is under the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is for.
    pub frame: Type,
    /// Whether its key begins with a new hash key.
    pub new_hash_key: bool,
    /// Whether it is under AES-256-GCM, and then whether its key is a new AES key.
    pub aes: Option<NewAesKey>,
    /// What the payload is, in the application's terms.
    pub kind: u16,
    /// Bytes of payload.
    pub payload_bytes: u32,
    /// Number of the frame in its direction.
    pub sequence: u64,
    /// First unit of its key.
    pub position: u64,
    /// Where the sender's reservation begins.
    pub reservation_start: u64,
    /// One past where it ends.
    pub reservation_end: u64,
}

impl Header {
    /// The header as it is sent and hashed.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&MAGIC);
        bytes[3] = VERSION;
        bytes[4] = self.frame.code();
        let aes = match self.aes {
            None => 0,
            Some(NewAesKey(false)) => FLAG_AES,
            Some(NewAesKey(true)) => FLAG_AES | FLAG_NEW_AES_KEY,
        };
        bytes[5] = aes | if self.new_hash_key { FLAG_NEW_HASH_KEY } else { 0 };
        bytes[6..8].copy_from_slice(&self.kind.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        let long = [self.sequence, self.position, self.reservation_start, self.reservation_end];
        for (place, value) in bytes[16..].chunks_exact_mut(8).zip(long) {
            place.copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads a header. Whether it fits the session is the session's to say.
    ///
    /// Errors: what is wrong, for an error that also says where.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, &'static str> {
        if bytes[..3] != MAGIC {
            return Err("it does not begin like a frame");
        }
        if bytes[3] != VERSION {
            return Err("its version is unknown");
        }
        let frame = Type::ALL.into_iter().find(|frame| frame.code() == bytes[4]);
        let frame = frame.ok_or("its type is unknown")?;
        let aes = match bytes[5] & !FLAG_NEW_HASH_KEY {
            0 => None,
            FLAG_AES => Some(NewAesKey(false)),
            flags if flags == FLAG_AES | FLAG_NEW_AES_KEY => Some(NewAesKey(true)),
            _ => return Err("it has unknown flags"),
        };
        if bytes[8..12] != [0; 4] || aes.is_some() && frame != Type::Data {
            return Err("it has unknown flags");
        }
        let header = Self {
            frame,
            new_hash_key: bytes[5] & FLAG_NEW_HASH_KEY != 0,
            aes,
            kind: u16::from_le_bytes([bytes[6], bytes[7]]),
            payload_bytes: u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
            sequence: long(bytes, 16),
            position: long(bytes, 24),
            reservation_start: long(bytes, 32),
            reservation_end: long(bytes, 40),
        };
        if header.position.checked_add(header.key_units()).is_none() {
            return Err("its key position is out of range");
        }
        Ok(header)
    }

    /// Bytes of ciphertext that follow the header.
    pub fn ciphertext_bytes(&self) -> usize {
        if self.frame == Type::Keyed { 0 } else { self.payload_bytes as usize }
    }

    /// Units of key that the frame uses.
    pub fn key_units(&self) -> u64 {
        match self.aes {
            None => key_units(self.new_hash_key, self.payload_bytes as usize),
            Some(NewAesKey(new)) => {
                if new {
                    AES_KEY_UNITS
                } else {
                    0
                }
            }
        }
    }

    /// Bytes of its key in front of the pad of the payload: the hash key and the tag pad.
    pub fn key_front_bytes(&self) -> usize {
        TAG_BYTES * (1 + usize::from(self.new_hash_key))
    }

    /// Which of its key's bytes are the pad of the payload.
    pub fn pad_bytes(&self) -> Range<usize> {
        let front = self.key_front_bytes();
        front..front + self.payload_bytes as usize
    }

    /// Where its key lies.
    pub fn key_range(&self) -> KeyRange {
        KeyRange { position: self.position, units: self.key_units() }
    }

    /// Where the sender's reservation lies; nothing if it ends before it begins.
    pub fn reservation(&self) -> KeyRange {
        KeyRange {
            position: self.reservation_start,
            units: self.reservation_end.saturating_sub(self.reservation_start),
        }
    }
}

/// Kinds of payload from here on are the session's own: always under the pad, whatever the cipher.
pub const PAD_KINDS: u16 = 0xfff0;

/// Units of an AES key.
pub const AES_KEY_UNITS: u64 = 2;

/// Units of key for a payload of `payload_bytes`, its tag and, if `new_hash_key`, a hash key.
pub fn key_units(new_hash_key: bool, payload_bytes: usize) -> u64 {
    u64::from(new_hash_key) + 1 + (payload_bytes as u64).div_ceil(UNIT_BYTES)
}

fn long(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_header() -> Header {
        Header {
            frame: Type::Data,
            new_hash_key: false,
            aes: None,
            kind: 0x0102,
            payload_bytes: 17,
            sequence: 3,
            position: 1000,
            reservation_start: 900,
            reservation_end: 2000,
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = some_header().encode();
        assert_eq!(&bytes[..16], b"DSG\x01\x02\x00\x02\x01\x00\x00\x00\x00\x11\x00\x00\x00");
        assert_eq!(
            (bytes[16], bytes[24], bytes[25], bytes[32], bytes[40]),
            (3, 0xe8, 3, 0x84, 0xd0)
        );
        assert_eq!(some_header().key_units(), 3);
    }

    #[test]
    fn what_is_unknown_is_refused() {
        for (at, value) in [(0, b'X'), (3, 2), (4, 0), (4, 5), (5, 4), (5, 8), (8, 1), (11, 1)] {
            let mut bytes = some_header().encode();
            bytes[at] = value;
            assert!(Header::decode(&bytes).is_err(), "byte {at}");
        }
        let far = Header { position: u64::MAX - 1, ..some_header() };
        assert!(Header::decode(&far.encode()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_round_trip(bytes in proptest::array::uniform32(any::<u8>())) {
            let mut whole = some_header().encode();
            whole[4..36].copy_from_slice(&bytes);
            if let Ok(header) = Header::decode(&whole) {
                prop_assert_eq!(header.encode(), whole);
            }
        }
    }
}
