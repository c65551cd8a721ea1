//! The receiving direction.

use subtle::ConstantTimeEq;

use crate::base::Chunk;
use crate::device::cpu::otp::{HashKey, xor};
use crate::key::KeyRange;

use super::aes::{self, AesKeys};
use super::cipher::Cipher;
use super::error::Error;
use super::frame::{HEADER_BYTES, Header, NewAesKey, PAD_KINDS, TAG_BYTES, Type};
use super::keys::Follow;
use super::rotation::{HashKeys, TagKey};
use super::seal::pad_as_payload;
use super::session::{Limits, Traffic};

/// Opens frame after frame with one stream's keys.
pub(super) struct Opener {
    keys: Box<dyn Follow>,
    hash_keys: HashKeys,
    /// Of a session that was asked to use AES-256-GCM.
    aes: Option<AesKeys>,
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
            aes: (limits.cipher == Cipher::Aes256Gcm).then(|| AesKeys::new(limits)),
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
        // The sender does not choose: both ends were set to one cipher.
        let may_be = header.frame == Type::Data && header.kind < PAD_KINDS;
        let aes = self.aes.as_ref().filter(|_| may_be);
        if header.aes != aes.map(|aes| NewAesKey(aes.due())) {
            return Err(malformed(
                "it is under another cipher, or its key comes at the wrong time",
            ));
        }
        if header.new_hash_key != (aes.is_none() && self.hash_keys.due()) {
            return Err(malformed("its hash key comes at the wrong time"));
        }
        if header.key_units() > 0 && header.position < self.floor {
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
        if header.aes.is_some() {
            return self.open_aes(header, payload, tag);
        }
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

    /// Decrypts in place what is under AES-256-GCM.
    fn open_aes(
        &mut self,
        header: &Header,
        payload: &mut Chunk,
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Error> {
        let Some(aes) = &mut self.aes else { return Err(Error::Closed) };
        let brings = header.key_units() > 0;
        let lease = brings.then(|| self.keys.fetch(header.key_range())).transpose()?;
        let new = lease.as_ref().and_then(|lease| aes::key(lease.bytes()));
        payload.mark_secret();
        if !aes.open(new.as_ref(), (&header.encode(), self.sequence), payload, tag) {
            return Err(Error::Tag { sequence: self.sequence });
        }
        if brings {
            if let Err(error) = self.keys.accept(header.key_range(), header.reservation()) {
                crate::base::chunk::wipe(payload);
                return Err(error.into());
            }
            self.floor = header.key_range().end();
        }
        aes.advance(new, header.payload_bytes);
        self.sequence += 1;
        self.traffic.count(header);
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
