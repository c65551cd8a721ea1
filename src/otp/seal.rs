//! The sending direction.

use crate::base::{ByteCount, Chunk};
use crate::device::cpu::otp::HashKey;
use crate::key::{KeyLease, UNIT_BYTES};

use super::aes::{self, AesKeys};
use super::cipher::Cipher;
use super::error::Error;
use super::frame::{Header, NewAesKey, PAD_KINDS, TAG_BYTES, Type, key_units};
use super::keys::Spend;
use super::rotation::{HashKeys, KeyParts};
use super::session::{Envelope, Limits, Traffic};

/// Seals frame after frame with one stream's keys.
pub(super) struct Sealer {
    keys: Box<dyn Spend>,
    hash_keys: HashKeys,
    /// Of a session that was asked to use AES-256-GCM.
    aes: Option<AesKeys>,
    limits: Limits,
    sequence: u64,
    traffic: Traffic,
}

impl Sealer {
    pub fn new(keys: Box<dyn Spend>, limits: Limits) -> Self {
        let hash_keys = HashKeys::new(limits);
        let aes = (limits.cipher == Cipher::Aes256Gcm).then(|| AesKeys::new(limits));
        Self { keys, hash_keys, aes, limits, sequence: 0, traffic: Traffic::default() }
    }

    /// Says how much key will still be needed.
    pub fn expect(&mut self, bytes: ByteCount) {
        self.keys.expect(bytes);
    }

    /// Uses no key before `position`.
    pub fn skip_to(&mut self, position: u64) -> Result<(), Error> {
        Ok(self.keys.skip_to(position)?)
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// A frame without payload; its tag is also over `bound`, which is not sent.
    pub fn seal_bound(&mut self, frame: Type, bound: &[u8]) -> Result<Envelope, Error> {
        let (header, lease) = self.begin(frame, 0, 0)?;
        let bytes = header.encode();
        let (tag, new) = self.hash_keys.tag(&bytes, &KeyParts::of(&header, &lease), |hash| {
            hash.update(bound);
            bound.len()
        });
        self.finish(&header, new);
        Ok(Envelope { header: bytes, tag })
    }

    /// Encrypts `payload` in place.
    pub fn seal(&mut self, kind: u16, payload: &mut [u8]) -> Result<Envelope, Error> {
        if self.aes.is_some() && kind < PAD_KINDS {
            return self.seal_aes(kind, payload);
        }
        let (header, lease) = self.begin(Type::Data, kind, payload.len())?;
        let bytes = header.encode();
        let key = KeyParts::of(&header, &lease);
        let (tag, new) = self.hash_keys.tag(&bytes, &key, |hash| {
            hash.seal(payload, key.pad);
            payload.len()
        });
        self.finish(&header, new);
        Ok(Envelope { header: bytes, tag })
    }

    /// Encrypts `payload` in place by AES-256-GCM.
    fn seal_aes(&mut self, kind: u16, payload: &mut [u8]) -> Result<Envelope, Error> {
        let max = self.limits.payload_bytes_max;
        if payload.len() > max {
            return Err(Error::TooLong { bytes: payload.len() as u64, max: max as u64 });
        }
        let Some(aes) = &mut self.aes else { return Err(Error::Closed) };
        let mut header = Header {
            frame: Type::Data,
            new_hash_key: false,
            aes: Some(NewAesKey(aes.due())),
            kind,
            payload_bytes: payload.len() as u32,
            sequence: self.sequence,
            position: 0,
            reservation_start: 0,
            reservation_end: 0,
        };
        let mut new = None;
        if aes.due() {
            let lease = self.keys.take(aes::KEY_BYTES)?;
            let reservation = self.keys.reservation();
            header.position = lease.range().position;
            header.reservation_start = reservation.position;
            header.reservation_end = reservation.end();
            new = aes::key(lease.bytes());
        }
        let bytes = header.encode();
        let tag = aes.seal(new.as_ref(), (&bytes, self.sequence), payload);
        aes.advance(new, header.payload_bytes);
        self.sequence += 1;
        self.traffic.count(&header);
        Ok(Envelope { header: bytes, tag })
    }

    /// A frame whose payload is its pad.
    pub fn seal_keyed(
        &mut self,
        kind: u16,
        payload_bytes: usize,
    ) -> Result<(Envelope, Chunk), Error> {
        let (header, lease) = self.begin(Type::Keyed, kind, payload_bytes)?;
        let bytes = header.encode();
        let key = KeyParts::of(&header, &lease);
        let (tag, new) = self.hash_keys.tag(&bytes, &key, |hash| {
            hash.update(key.pad);
            payload_bytes
        });
        self.finish(&header, new);
        Ok((Envelope { header: bytes, tag }, pad_as_payload(&header, lease)))
    }

    /// Takes the key of the next frame and writes its header. Without key nothing has changed.
    fn begin(
        &mut self,
        frame: Type,
        kind: u16,
        payload_bytes: usize,
    ) -> Result<(Header, KeyLease), Error> {
        let max = self.limits.payload_bytes_max;
        if payload_bytes > max {
            return Err(Error::TooLong { bytes: payload_bytes as u64, max: max as u64 });
        }
        let new_hash_key = self.hash_keys.due();
        let lease =
            self.keys.take((key_units(new_hash_key, payload_bytes) * UNIT_BYTES) as usize)?;
        let reservation = self.keys.reservation();
        let header = Header {
            frame,
            new_hash_key,
            aes: None,
            kind,
            payload_bytes: payload_bytes as u32,
            sequence: self.sequence,
            position: lease.range().position,
            reservation_start: reservation.position,
            reservation_end: reservation.end(),
        };
        Ok((header, lease))
    }

    fn finish(&mut self, header: &Header, new: Option<HashKey>) {
        self.hash_keys.advance(new, header.payload_bytes);
        self.sequence += 1;
        self.traffic.count(header);
    }
}

/// Moves the pad to the front of its own memory and cuts off the rest.
pub(super) fn pad_as_payload(header: &Header, lease: KeyLease) -> Chunk {
    let start = if header.new_hash_key { 2 * TAG_BYTES } else { TAG_BYTES };
    let payload_bytes = header.payload_bytes as usize;
    let mut chunk = lease.into_chunk();
    chunk.copy_within(start..start + payload_bytes, 0);
    chunk[payload_bytes..].fill(0);
    chunk.set_len(payload_bytes);
    chunk
}
