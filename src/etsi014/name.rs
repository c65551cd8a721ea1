//! Names of keys: UUIDs that are never the same and say nothing, neither of the key nor of its place.
//!
//! The name of a key is the place of the key in its virtual stream, permuted. Both key managers of
//! a link do the same permutation, AES-256 under a key that was taken from the link itself, so that
//! no name is ever sent between them. AES permutes all 128-bit blocks; a UUID of version 8 (RFC 9562,
//! section 5.8) has 122 bits of its own. Repeating AES until the block is such a UUID again makes
//! a permutation of just these ("cycle walking": Black and Rogaway 2002, section 4); on the average
//! that takes 64 blocks. Different places therefore never have the same name, and whoever sees
//! names without the key of the permutation cannot tell them from random numbers: not how many
//! keys there were between two of them, whose those were, or how long. No byte of a key goes in, so
//! that even who breaks AES learns places and nothing of keys; and a name that somebody makes up
//! opens nothing, because who may have which key is said inside the one-time pad.

use std::fmt;
use std::str::FromStr;

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

use serde::{Deserialize, Serialize};

use crate::base::Secret;

/// Bytes of key that a permutation takes.
pub const PERMUTATION_KEY_BYTES: usize = 32;

/// The name of a key, a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; 16]);

/// Why a text is no name of a key.
#[derive(Debug, thiserror::Error)]
#[error("a key_ID is a UUID, 32 hexadecimal digits and 4 hyphens")]
pub struct KeyIdError;

const HYPHENS: [usize; 4] = [8, 13, 18, 23];

impl KeyId {
    /// The UUID with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Its 36 characters.
    pub fn to_text(self) -> [u8; 36] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let places = (0..36).filter(|place| !HYPHENS.contains(place));
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        for (place, digit) in places.zip(digits) {
            text[place] = DIGITS[usize::from(digit)];
        }
        text
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_text()).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;

    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        let text: &[u8; 36] = text.as_bytes().try_into().map_err(|_| KeyIdError)?;
        if HYPHENS.iter().any(|place| text[*place] != b'-') {
            return Err(KeyIdError);
        }
        let mut digits = (0..36).filter(|place| !HYPHENS.contains(place)).map(|place| {
            let digit = char::from(text[place]).to_digit(16).ok_or(KeyIdError)?;
            Ok(digit as u8)
        });
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let mut digit = || digits.next().unwrap_or(Err(KeyIdError));
            *byte = digit()? << 4 | digit()?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for KeyId {
    type Error = KeyIdError;

    fn try_from(text: String) -> Result<Self, KeyIdError> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.to_string()
    }
}

/// The names of one virtual stream, one after the other.
pub struct Names {
    cipher: Aes256,
    next: u64,
}

impl Names {
    /// The names that belong to a key of the permutation, which is used for nothing else.
    pub fn new(key: &Secret<[u8; PERMUTATION_KEY_BYTES]>) -> Self {
        Self { cipher: Aes256::new(key.expose().into()), next: 0 }
    }

    /// The name of the next key.
    pub fn issue(&mut self) -> KeyId {
        let mut block = [0; 16];
        block[8..].copy_from_slice(&self.next.to_be_bytes());
        // 62 bits are left of it, as the last eight bytes of such a UUID have two of their own.
        assert!(self.next < 1 << 62, "no stream has that many keys");
        block[6] = 0x80;
        block[8] |= 0x80;
        self.next += 1;
        loop {
            self.cipher.encrypt_block((&mut block).into());
            if block[6] >> 4 == 8 && block[8] >> 6 == 2 {
                return KeyId(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn names(key: u8) -> Names {
        Names::new(&Secret::new([key; 32]))
    }

    #[test]
    fn names_read_back_and_nothing_else_does() {
        let id = names(1).issue();
        assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
        assert_eq!(id.to_string().to_uppercase().parse::<KeyId>().unwrap(), id);
        let text = "550e8400-e29b-41d4-a716-446655440000";
        assert_eq!(text.parse::<KeyId>().unwrap().to_string(), text);
        for bad in ["", "550e8400e29b41d4a716446655440000", &text[1..], &text.replace('e', "g")] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
        assert!("550e8400-e29b-41d4-a716-44665544000\u{e9}".parse::<KeyId>().is_err());
        assert!("550e840-0e29b-41d4-a716-446655440000".parse::<KeyId>().is_err());
    }

    #[test]
    fn both_ends_give_the_same_names_and_never_one_twice() {
        let (mut a, mut b, mut seen) = (names(2), names(2), HashSet::new());
        for _ in 0..20_000 {
            let id = a.issue();
            assert_eq!(id, b.issue());
            assert!(seen.insert(id));
            let text = id.to_string();
            assert_eq!(&text[14..15], "8", "version");
            assert!("89ab".contains(&text[19..20]), "variant");
        }
    }

    /// Counts over names in a row. In each of the 122 bits, and in each bit of the difference of
    /// neighbours, half are ones: within five standard deviations of what chance gives. A name that
    /// carried its position, or a part of it, in any bit would not pass.
    #[test]
    fn names_in_a_row_look_like_random_numbers() {
        const COUNT: u32 = 20_000;
        let mut names = names(3);
        let mut previous = u128::from_be_bytes(names.issue().0);
        let (mut ones, mut changes, mut growing) = ([0u32; 128], [0u32; 128], 0u32);
        for _ in 0..COUNT {
            let id = u128::from_be_bytes(names.issue().0);
            for bit in 0..128 {
                ones[bit] += u32::from(id >> bit & 1 == 1);
                changes[bit] += u32::from((id ^ previous) >> bit & 1 == 1);
            }
            growing += u32::from(id > previous);
            previous = id;
        }
        let tolerance = 5.0 * f64::from(COUNT).sqrt() / 2.0;
        let fixed = |bit: usize| (76..80).contains(&bit) || (62..64).contains(&bit);
        for bit in (0..128).filter(|bit| !fixed(*bit)) {
            for count in [ones[bit], changes[bit]] {
                let off = (f64::from(count) - f64::from(COUNT / 2)).abs();
                assert!(off < tolerance, "bit {bit}: {count}");
            }
        }
        assert!((f64::from(growing) - f64::from(COUNT / 2)).abs() < tolerance, "{growing}");
    }

    #[test]
    fn other_keys_give_other_names() {
        let (mut a, mut b) = (names(4), names(5));
        let of_a: HashSet<_> = (0..1000).map(|_| a.issue()).collect();
        assert!((0..1000).all(|_| !of_a.contains(&b.issue())));
    }
}
