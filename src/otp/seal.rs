//! The sending direction.

use crate::base::Chunk;
use crate::device::cpu::otp::HashKey;
use crate::key::{KeyLease, UNIT_BYTES};

use super::error::Error;
use super::frame::{Header, TAG_BYTES, Type, key_units};
use super::keys::Spend;
use super::rotation::{HashKeys, KeyParts};
use super::session::{Envelope, Limits, Traffic};

/// Seals frame after frame with one stream's keys.
pub(super) struct Sealer {
    keys: Box<dyn Spend>,
    hash_keys: HashKeys,
    limits: Limits,
    sequence: u64,
    traffic: Traffic,
}

impl Sealer {
    pub fn new(keys: Box<dyn Spend>, limits: Limits) -> Self {
        let hash_keys = HashKeys::new(limits);
        Self { keys, hash_keys, limits, sequence: 0, traffic: Traffic::default() }
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
        let (tag, new) = self.hash_keys.tag(&bytes, &KeyParts::of(&header, &lease), |hash| {
            hash.update(bound);
            bound.len()
        });
        self.finish(&header, new);
        Ok(Envelope { header: bytes, tag })
    }

    /// Encrypts `payload` in place.
    pub fn seal(&mut self, kind: u16, payload: &mut [u8]) -> Result<Envelope, Error> {
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
