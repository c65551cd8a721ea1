//! The sending direction.

use crate::base::Chunk;
use crate::device::cpu::otp::HashKey;
use crate::key::{KeyLease, UNIT_BYTES};

use super::aes::{self, AesKeys};
use super::cipher::Cipher;
use super::error::Error;
use super::frame::{Header, NewAesKey, PAD_KINDS, Type, key_units};
use super::keys::Spend;
use super::rotation::{HashKeys, TagKey};
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

    /// The stream that is spent.
    pub fn keys(&mut self) -> &mut dyn Spend {
        &mut *self.keys
    }

    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// A frame without payload; its tag is also over `bound`, which is not sent.
    pub fn seal_bound(&mut self, frame: Type, bound: &[u8]) -> Result<Envelope, Error> {
        let (header, lease) = self.begin(frame, 0, 0)?;
        let bytes = header.encode();
        let (tag, new) = self.hash_keys.tag(&bytes, &TagKey::of(&header, &lease), |hash| {
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
        let (key, pad) = (TagKey::of(&header, &lease), lease.pad().slice(header.pad_bytes()));
        let (tag, new) = self.hash_keys.tag(&bytes, &key, |hash| {
            hash.seal(payload, pad);
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
        let key = TagKey::of(&header, &lease);
        let payload = pad_as_payload(&header, lease);
        let (tag, new) = self.hash_keys.tag(&bytes, &key, |hash| {
            hash.update(&payload);
            payload_bytes
        });
        self.finish(&header, new);
        Ok((Envelope { header: bytes, tag }, payload))
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

/// The pad of the payload, and nothing else of the key.
pub(super) fn pad_as_payload(header: &Header, lease: KeyLease) -> Chunk {
    lease.into_part(header.key_front_bytes(), header.payload_bytes as usize)
}
