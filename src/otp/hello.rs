//! The greeting: who speaks to whom, in which version, from which marks on. In clear and by itself
//! worth nothing; the openings that follow are over both greetings.
//!
//! ```text
//! offset  bytes  integers little-endian
//!      0      4  "dsgd"
//!      4      2  version, 2
//!      6      1  cipher: 0 one-time pad, 1 plain, 2 AES-256-GCM
//!      7      1  refusal: 0 none, else why there will be no session
//!      8     16  nonce
//!     24      8  mark of the stream that the speaker encrypts with
//!     32      8  mark of the stream that the speaker follows
//!     40      1  length of the speaker's name, 0 to 64
//!     41     64  the name, filled with zeros
//!    105      1  length of the listener's name, 0 to 64
//!    106     64  the name, filled with zeros
//!    170      1  number of greeting ranges that the speaker holds of the stream it follows, 0 to 2
//!    171     16  first units of these, the newest first, filled with zeros
//!    187      5  zeros
//! ```

use std::ops::Range;

use crate::base::SiteId;
use crate::key::greeting::RANGES_MAX;

use super::cipher::Cipher;
use super::error::{Error, Refusal};

/// Bytes of a greeting, in every version.
pub const HELLO_BYTES: usize = 192;
/// Version of the protocol.
pub const VERSION: u16 = 2;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 16;

const MAGIC: [u8; 4] = *b"dsgd";
const NAME_BYTES: usize = 64;
const GREETINGS: Range<usize> = 171..171 + 8 * RANGES_MAX;

/// One site's greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What protects payload.
    pub cipher: Cipher,
    /// Who speaks.
    pub from: SiteId,
    /// Who is meant.
    pub to: SiteId,
    /// Fresh random bytes: a recorded opening does not fit them.
    pub nonce: [u8; NONCE_BYTES],
    /// Mark of the stream that the speaker encrypts with.
    pub sender_mark: u64,
    /// Mark of the stream that the speaker follows.
    pub follower_mark: u64,
    /// Where the ranges of greeting keys begin that the speaker holds of the stream it follows; at
    /// most [`RANGES_MAX`].
    pub greetings: Vec<u64>,
}

impl Hello {
    /// The greeting as it is sent and hashed.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = blank();
        bytes[6] = self.cipher.code();
        bytes[8..24].copy_from_slice(&self.nonce);
        bytes[24..32].copy_from_slice(&self.sender_mark.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.follower_mark.to_le_bytes());
        put_name(&mut bytes[40..105], &self.from);
        put_name(&mut bytes[105..170], &self.to);
        bytes[170] = self.greetings.len().min(RANGES_MAX) as u8;
        for (start, place) in self.greetings.iter().zip(bytes[GREETINGS].chunks_exact_mut(8)) {
            place.copy_from_slice(&start.to_le_bytes());
        }
        bytes
    }

    /// Reads a greeting.
    ///
    /// Errors: [`Error::Foreign`], [`Error::Version`], [`Error::RefusedByPeer`].
    pub fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, Error> {
        if bytes[..4] != MAGIC {
            return Err(Error::Foreign { what: "it does not begin with a greeting" });
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(Error::Version { theirs: version });
        }
        if bytes[7] != 0 {
            return Err(match Refusal::from_code(bytes[7]) {
                Some(reason) => Error::RefusedByPeer { reason },
                None => Error::Foreign { what: "its reason to refuse is unknown" },
            });
        }
        let hello = Self {
            cipher: Cipher::from_code(bytes[6])
                .ok_or(Error::Foreign { what: "the cipher in its greeting is unknown" })?,
            from: name(&bytes[40..105])?,
            to: name(&bytes[105..170])?,
            nonce: bytes[8..24].try_into().expect("16 bytes"),
            sender_mark: u64::from_le_bytes(bytes[24..32].try_into().expect("8 bytes")),
            follower_mark: u64::from_le_bytes(bytes[32..40].try_into().expect("8 bytes")),
            greetings: bytes[GREETINGS]
                .chunks_exact(8)
                .take(bytes[170].into())
                .map(|start| u64::from_le_bytes(start.try_into().expect("8 bytes")))
                .collect(),
        };
        if hello.encode() == *bytes {
            Ok(hello)
        } else {
            Err(Error::Foreign { what: "its greeting has unknown parts" })
        }
    }
}

/// The refusal that stands in place of an opening, if that is what it begins like.
pub fn refusal_in(beginning: &[u8]) -> Option<Refusal> {
    let refuses = beginning.len() >= 8 && beginning[..4] == MAGIC;
    refuses.then(|| Refusal::from_code(beginning[7])).flatten()
}

/// What is sent instead of a greeting or an opening: nothing but the reason.
pub fn refuse(reason: Refusal) -> [u8; HELLO_BYTES] {
    let mut bytes = blank();
    bytes[7] = reason.code();
    bytes
}

fn blank() -> [u8; HELLO_BYTES] {
    let mut bytes = [0; HELLO_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

fn put_name(place: &mut [u8], name: &SiteId) {
    let name = name.as_str().as_bytes();
    place[0] = name.len() as u8;
    place[1..=name.len()].copy_from_slice(name);
}

fn name(place: &[u8]) -> Result<SiteId, Error> {
    let foreign = || Error::Foreign { what: "a site name in its greeting is not valid" };
    let bytes = place[1..=NAME_BYTES].get(..usize::from(place[0])).ok_or_else(foreign)?;
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(foreign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            cipher: Cipher::Otp,
            from: "hospital".parse().unwrap(),
            to: "x".repeat(64).parse().unwrap(),
            nonce: [7; NONCE_BYTES],
            sender_mark: 5,
            follower_mark: u64::MAX,
            greetings: vec![0, 77],
        }
    }

    #[test]
    fn a_greeting_round_trips() {
        assert_eq!(Hello::decode(&hello().encode()).unwrap(), hello());
    }

    #[test]
    fn more_ranges_than_there_are_are_refused() {
        let mut bytes = hello().encode();
        bytes[170] = 3;
        assert!(Hello::decode(&bytes).is_err());
    }

    #[test]
    fn refusals_say_why_and_nothing_else() {
        for reason in [Refusal::Version, Refusal::UnknownPeer] {
            let bytes = refuse(reason);
            assert!(bytes[8..].iter().all(|byte| *byte == 0));
            let error = Hello::decode(&bytes).unwrap_err();
            assert!(matches!(error, Error::RefusedByPeer { reason: told } if told == reason));
        }
    }

    #[test]
    fn other_versions_and_protocols_are_told_apart() {
        let mut bytes = hello().encode();
        bytes[4] = 9;
        assert!(matches!(Hello::decode(&bytes), Err(Error::Version { theirs: 9 })));
        let mut http = [b' '; HELLO_BYTES];
        http[..14].copy_from_slice(b"GET / HTTP/1.1");
        assert!(matches!(Hello::decode(&http), Err(Error::Foreign { .. })));
    }

    proptest! {
        #[test]
        fn any_change_is_refused_or_read_back(at in 0..HELLO_BYTES, value: u8) {
            let mut bytes = hello().encode();
            bytes[at] = value;
            if let Ok(hello) = Hello::decode(&bytes) {
                prop_assert_eq!(hello.encode(), bytes);
            }
        }
    }
}
