//! Encoding of one stripe so that any change of one share shows.
//!
//! XOR sharing is malleable: who flips a bit of a share flips a bit of the secret. Each stripe is
//! therefore an algebraic manipulation detection code (Cramer, Dodis, Fehr, Padró, Wichs 2008,
//! "Detection of algebraic manipulation with applications to robust secret sharing"): with the
//! blocks `s_1 … s_d` of the stripe in GF(2^128) and a random `x`,
//!
//! ```text
//! f(x) = x^(d+2) + s_1 x^d + s_2 x^(d-1) + … + s_d x        (d odd)
//! ```
//!
//! is stored with it. A holder of one share does not learn `s` or `x`, so whatever it adds is
//! independent of both, and passes with probability at most `(d + 1) / 2^128`: for stripes of 1 MiB
//! 2^-112, without assumptions on its computing power and without any key to keep. `f` is computed as
//! POLYVAL (RFC 8452, section 3) under the key `x`, whose constant factor only renames `x`. The first
//! block names the file, so that a stripe of another file shows as well.

use subtle::ConstantTimeEq;

use super::{Error, FORMAT};
use crate::base::{Chunk, DatasetId};
use crate::device::cpu::otp::{Hash, HashKey};

/// Bytes of a stripe that are not payload.
pub const OVERHEAD_BYTES: usize = 48;

const TAG_BYTES: usize = 16;

/// Encodes and checks the stripes of one file.
#[derive(Clone)]
pub struct Codec {
    file: [u8; 16],
    stripe_bytes: usize,
}

/// What a stripe says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Bytes of payload.
    pub payload_bytes: usize,
    /// Whether the file ends here.
    pub last: bool,
}

impl Codec {
    /// The codec of file `member` of `dataset`, with stripes of `stripe_bytes` bytes, or nothing
    /// where that is no multiple of 32 or leaves no room for payload.
    pub fn new(dataset: &DatasetId, member: u32, stripe_bytes: u32) -> Option<Self> {
        let stripe_bytes = stripe_bytes as usize;
        if stripe_bytes <= OVERHEAD_BYTES || !stripe_bytes.is_multiple_of(32) {
            return None;
        }
        let name = blake3::hash(format!("dsgd share 1 {dataset}/{member}").as_bytes());
        let mut file = [0; 16];
        file.copy_from_slice(&name.as_bytes()[..16]);
        Some(Self { file, stripe_bytes })
    }

    /// Bytes of a stripe.
    pub fn stripe_bytes(&self) -> usize {
        self.stripe_bytes
    }

    /// Bytes of payload that a stripe has room for.
    pub fn payload_bytes(&self) -> usize {
        self.stripe_bytes - OVERHEAD_BYTES
    }

    /// Turns a payload into an encoded stripe, in place; the chunk's number is the stripe's.
    ///
    /// `x` must be fresh, uniform and secret.
    ///
    /// # Panics
    /// When the payload is longer than [`payload_bytes`](Codec::payload_bytes), or the chunk has no
    /// room for a stripe.
    pub fn encode(&self, chunk: &mut Chunk, last: bool, x: &[u8; 16]) {
        let payload = chunk.len();
        assert!(payload <= self.payload_bytes(), "a payload fits its stripe");
        let number = chunk.seq();
        chunk.set_len(self.stripe_bytes);
        chunk[payload..self.stripe_bytes - OVERHEAD_BYTES].fill(0);
        let trailer = &mut chunk[self.stripe_bytes - OVERHEAD_BYTES..];
        trailer[..8].copy_from_slice(&number.to_le_bytes());
        trailer[8..12].copy_from_slice(&(payload as u32).to_le_bytes());
        trailer[12..16].copy_from_slice(&[u8::from(last), FORMAT as u8, 0, 0]);
        trailer[16..32].copy_from_slice(x);
        let tag = self.tag(chunk);
        chunk[self.stripe_bytes - TAG_BYTES..].copy_from_slice(&tag);
        chunk.mark_secret();
    }

    /// Checks a restored stripe and cuts it down to its payload.
    ///
    /// Errors: [`Error::Manipulated`] when a share was changed, belongs to another file, or is out
    /// of order; [`Error::Version`] when it is newer than this program.
    pub fn decode(&self, chunk: &mut Chunk) -> Result<Content, Error> {
        let stripe = chunk.seq();
        let manipulated = Error::Manipulated { stripe };
        if chunk.len() != self.stripe_bytes {
            return Err(manipulated);
        }
        let tag = self.tag(chunk);
        let (body, stored) = chunk.split_at(self.stripe_bytes - TAG_BYTES);
        if !bool::from(tag.ct_eq(stored)) {
            return Err(manipulated);
        }
        let trailer = &body[self.stripe_bytes - OVERHEAD_BYTES..];
        let number = u64::from_le_bytes(trailer[..8].try_into().expect("eight bytes"));
        let payload = u32::from_le_bytes(trailer[8..12].try_into().expect("four bytes")) as usize;
        let (last, version) = (trailer[12], trailer[13]);
        if u16::from(version) != FORMAT {
            return Err(Error::Version { stripe, version });
        }
        // Only the last stripe may be short: nothing else is ever written.
        let whole = last == 1 || payload == self.payload_bytes();
        if number != stripe || payload > self.payload_bytes() || last > 1 || !whole {
            return Err(manipulated);
        }
        chunk.set_len(payload);
        Ok(Content { payload_bytes: payload, last: last == 1 })
    }

    /// `f(x)` of a stripe whose `x` is in place.
    fn tag(&self, stripe: &[u8]) -> [u8; TAG_BYTES] {
        let (body, rest) = stripe.split_at(self.stripe_bytes - 2 * TAG_BYTES);
        let mut leading = [0; 48];
        leading[0] = 1;
        leading[32..].copy_from_slice(&self.file);
        let x = HashKey::new(rest[..16].try_into().expect("sixteen bytes"));
        let mut hash = Hash::new(&x);
        hash.update(&leading);
        hash.update(body);
        hash.finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Shares, restore, split};
    use super::*;
    use crate::base::ShareLetter;

    const STRIPE: u32 = 256;

    fn codec(member: u32) -> Codec {
        Codec::new(&"g1".parse().unwrap(), member, STRIPE).unwrap()
    }

    fn encoded(payload: &[u8], number: u64, last: bool) -> Chunk {
        let mut chunk = Chunk::with_capacity(STRIPE as usize);
        chunk.set_len(payload.len());
        chunk.copy_from_slice(payload);
        chunk.set_seq(number);
        codec(0).encode(&mut chunk, last, b"0123456789abcdef");
        chunk
    }

    fn copy(chunk: &Chunk) -> Chunk {
        Chunk::from_bytes(chunk.seq(), chunk)
    }

    #[test]
    fn the_number_of_blocks_is_odd_as_the_code_needs() {
        // The file's name, then the stripe without x and tag, in blocks of 16 bytes.
        for stripe_bytes in [64, 96, STRIPE, super::super::STRIPE_BYTES] {
            assert!(Codec::new(&"g".parse().unwrap(), 0, stripe_bytes).is_some());
            assert_eq!((1 + (stripe_bytes - 32) / 16) % 2, 1);
        }
        for stripe_bytes in [0, 32, 48, 100] {
            assert!(Codec::new(&"g".parse().unwrap(), 0, stripe_bytes).is_none());
        }
    }

    proptest! {
        #[test]
        fn any_pair_of_shares_gives_the_payload_back(
            payload in proptest::collection::vec(any::<u8>(), 0..=208),
            random in proptest::collection::vec(any::<u8>(), 256),
            number: u64,
        ) {
            let stripe = encoded(&payload, number, true);
            let shares = split(stripe, Chunk::from_bytes(number, &random), Chunk::with_capacity(256));
            let Shares(shares) = shares;
            for (i, j) in [(0, 1), (0, 2), (1, 2), (1, 0), (2, 0), (2, 1)] {
                let letters = (ShareLetter::ALL[i], ShareLetter::ALL[j]);
                let mut restored = restore(copy(&shares[i]), &shares[j], letters).unwrap();
                let content = codec(0).decode(&mut restored).unwrap();
                prop_assert_eq!(content, Content { payload_bytes: payload.len(), last: true });
                prop_assert_eq!(&restored[..], &payload[..]);
            }
        }

        #[test]
        fn any_change_of_one_share_shows(
            change in proptest::collection::vec(any::<u8>(), 256), which in 0usize..3,
        ) {
            prop_assume!(change.iter().any(|byte| *byte != 0));
            let random = Chunk::from_bytes(0, &[0x5a; 256]);
            let Shares(mut shares) = split(encoded(b"ACGT", 0, true), random, Chunk::with_capacity(256));
            for (byte, flip) in shares[which].iter_mut().zip(&change) {
                *byte ^= flip;
            }
            let other = (which + 1) % 3;
            let letters = (ShareLetter::ALL[which], ShareLetter::ALL[other]);
            let mut restored = restore(copy(&shares[which]), &shares[other], letters).unwrap();
            prop_assert!(codec(0).decode(&mut restored).is_err());
        }
    }

    #[test]
    fn every_single_bit_counts() {
        for bit in 0..8 * STRIPE as usize {
            let mut stripe = encoded(b"ACGT", 3, true);
            stripe[bit / 8] ^= 1 << (bit % 8);
            assert!(codec(0).decode(&mut stripe).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_stripe_of_another_place_or_file_is_refused() {
        let mut stripe = encoded(b"ACGT", 3, true);
        stripe.set_seq(4);
        assert!(matches!(codec(0).decode(&mut stripe), Err(Error::Manipulated { stripe: 4 })));
        let mut stripe = encoded(b"ACGT", 3, true);
        assert!(codec(1).decode(&mut stripe).is_err());
    }

    #[test]
    fn a_short_stripe_in_the_middle_is_refused() {
        let mut stripe = encoded(b"ACGT", 3, false);
        assert!(codec(0).decode(&mut stripe).is_err());
    }
}
