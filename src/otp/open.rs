//! The receiving direction.

use subtle::ConstantTimeEq;

use crate::base::Chunk;
use crate::device::cpu::otp::{HashKey, xor};
use crate::key::KeyRange;

use super::error::Error;
use super::frame::{HEADER_BYTES, Header, TAG_BYTES, Type};
use super::keys::Follow;
use super::rotation::{HashKeys, TagKey};
use super::seal::pad_as_payload;
use super::session::{Limits, Traffic};

/// Opens frame after frame with one stream's keys.
pub(super) struct Opener {
    keys: Box<dyn Follow>,
    hash_keys: HashKeys,
    limits: Limits,
    sequence: u64,
    /// First key position that the next frame may have.
    floor: u64,
    traffic: Traffic,
    /// Accepts every tag: what the tests of the tests compare with.
    #[cfg(test)]
    pub trusts_blindly: bool,
}

impl Opener {
    /// Refuses key positions before `floor`, the sender's mark at the beginning of the session.
    pub fn new(mut keys: Box<dyn Follow>, floor: u64, limits: Limits) -> Self {
        keys.skip_to(floor);
        Self {
            floor,
            keys,
            hash_keys: HashKeys::new(limits),
            limits,
            sequence: 0,
            traffic: Traffic::default(),
            #[cfg(test)]
            trusts_blindly: false,
        }
    }

    /// The stream that is followed.
    pub fn keys(&mut self) -> &mut dyn Follow {
        &mut *self.keys
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Whether the frame can be the next one, by its header alone.
    pub fn expect(&self, bytes: &[u8; HEADER_BYTES]) -> Result<Header, Error> {
        let malformed = |what| Error::Malformed { sequence: self.sequence, what };
        let header = Header::decode(bytes).map_err(malformed)?;
        if header.sequence != self.sequence {
            return Err(Error::OutOfOrder { expected: self.sequence, found: header.sequence });
        }
        if (header.frame == Type::Proof) != (self.sequence == 0) {
            return Err(malformed("a proof comes first and only first"));
        }
        let max = self.limits.payload_bytes_max;
        if header.payload_bytes as usize > max {
            return Err(Error::TooLong { bytes: header.payload_bytes.into(), max: max as u64 });
        }
        if matches!(header.frame, Type::Proof | Type::End) && header.payload_bytes != 0 {
            return Err(malformed("it has a payload where none belongs"));
        }
        if header.new_hash_key != self.hash_keys.due() {
            return Err(malformed("its hash key comes at the wrong time"));
        }
        if header.position < self.floor {
            return Err(malformed("its key position goes back"));
        }
        if !encloses(header.reservation(), header.key_range()) {
            return Err(malformed("its key is not of its reservation"));
        }
        Ok(header)
    }

    /// Checks a frame without payload, whose tag is also over `bound`.
    pub fn open_bound(
        &mut self,
        header: &Header,
        tag: &[u8; TAG_BYTES],
        bound: &[u8],
    ) -> Result<(), Error> {
        let lease = self.keys.fetch(header.key_range())?;
        let new = self.check(header, tag, &TagKey::of(header, &lease), bound)?;
        self.finish(header, new);
        Ok(())
    }

    /// Checks a frame, makes durable that its key is used, then decrypts in place. The payload of a
    /// KEYED frame replaces the chunk.
    pub fn open(
        &mut self,
        header: &Header,
        payload: &mut Chunk,
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Error> {
        let lease = self.keys.fetch(header.key_range())?;
        let key = TagKey::of(header, &lease);
        let new = if header.frame == Type::Keyed {
            let pad = pad_as_payload(header, lease);
            let new = self.check(header, tag, &key, &pad)?;
            *payload = pad;
            new
        } else {
            let new = self.check(header, tag, &key, payload)?;
            xor(payload, lease.pad().slice(header.pad_bytes()));
            new
        };
        payload.mark_secret();
        self.finish(header, new);
        Ok(())
    }

    /// Compares the tag, and only then uses the key up. `hashed` stands in the place of the
    /// ciphertext.
    fn check(
        &mut self,
        header: &Header,
        tag: &[u8; TAG_BYTES],
        key: &TagKey,
        hashed: &[u8],
    ) -> Result<Option<HashKey>, Error> {
        let (expected, new) = self.hash_keys.tag(&header.encode(), key, |hash| {
            hash.update(hashed);
            hashed.len()
        });
        if !self.is_right(&expected, tag) {
            return Err(Error::Tag { sequence: self.sequence });
        }
        self.keys.accept(header.key_range(), header.reservation())?;
        Ok(new)
    }

    fn is_right(&self, expected: &[u8; TAG_BYTES], tag: &[u8; TAG_BYTES]) -> bool {
        #[cfg(test)]
        if self.trusts_blindly {
            return true;
        }
        bool::from(expected.ct_eq(tag))
    }

    fn finish(&mut self, header: &Header, new: Option<HashKey>) {
        self.hash_keys.advance(new, header.payload_bytes);
        self.sequence += 1;
        self.floor = header.key_range().end();
        self.traffic.count(header);
    }
}

fn encloses(outer: KeyRange, inner: KeyRange) -> bool {
    outer.position <= inner.position && inner.end() <= outer.end()
}
