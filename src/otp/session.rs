//! An established session: seals in one direction, opens in the other, and closes at the first doubt.

use serde::Serialize;

use crate::base::{ByteCount, Chunk, SiteId};
use crate::key::UNIT_BYTES;

use super::cipher::Cipher;
use super::error::Error;
use super::frame::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, TAG_BYTES, Type};
use super::keys::{Follow, Spend};
use super::open::Opener;
use super::seal::Sealer;

/// What both ends must agree on beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames after which the hash key is changed.
    pub frames_per_hash_key: u64,
    /// Payload bytes after which the hash key is changed.
    pub bytes_per_hash_key: u64,
    /// Most bytes of payload in one frame.
    pub payload_bytes_max: usize,
    /// What protects payload.
    pub cipher: Cipher,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames_per_hash_key: 1 << 20,
            bytes_per_hash_key: 64 << 30,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            cipher: Cipher::Otp,
        }
    }
}

/// What goes before and behind a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The clear header.
    pub header: [u8; HEADER_BYTES],
    /// The tag.
    pub tag: [u8; TAG_BYTES],
}

/// What was carried in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Frames, with proof and end.
    pub frames: u64,
    /// Bytes of payload, with those of KEYED frames.
    pub payload_bytes: u64,
    /// Bytes of key used.
    pub key_bytes: u64,
}

impl Traffic {
    pub(super) fn count(&mut self, header: &Header) {
        self.frames += 1;
        self.payload_bytes += u64::from(header.payload_bytes);
        self.key_bytes += header.key_units() * UNIT_BYTES;
    }
}

/// What was carried in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// From this site.
    pub sent: Traffic,
    /// To this site.
    pub received: Traffic,
}

/// What an opened frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Payload, of the sender's kind.
    Message {
        /// What the payload is, in the application's terms.
        kind: u16,
    },
    /// The peer sends nothing more.
    End,
}

/// One session with one peer.
///
/// After any error but exhaustion it is closed: nothing is sealed or opened any more. After
/// exhaustion it is as before, and the same call may be tried again.
pub struct Session {
    peer: SiteId,
    sealer: Sealer,
    opener: Opener,
    may_send: bool,
    may_receive: bool,
}

impl Session {
    pub(super) fn new(
        peer: SiteId,
        spend: Box<dyn Spend>,
        (follow, floor): (Box<dyn Follow>, u64),
        limits: Limits,
    ) -> Self {
        let (sealer, opener) = (Sealer::new(spend, limits), Opener::new(follow, floor, limits));
        Self { peer, sealer, opener, may_send: true, may_receive: true }
    }

    /// Who is at the other end; proven by possession of the key.
    pub fn peer(&self) -> &SiteId {
        &self.peer
    }

    /// What was carried so far.
    pub fn statistics(&self) -> Statistics {
        Statistics { sent: self.sealer.traffic(), received: self.opener.traffic() }
    }

    /// Says that `frames` frames of `payload_bytes` bytes each come now, so that key for just these is
    /// reserved.
    pub fn expect_to_send(&mut self, frames: u64, payload_bytes: u64) {
        let key = payload_bytes.next_multiple_of(UNIT_BYTES) + UNIT_BYTES;
        // And a few small messages, and the key of the hash.
        let rest = 4096;
        self.sealer.expect(ByteCount(frames.saturating_mul(key).saturating_add(rest)));
    }

    /// Encrypts `payload` in place. Header, payload and tag are to be sent in this order.
    ///
    /// Errors: [`Error::TooLong`] changes nothing; exhaustion changes nothing.
    pub fn seal(&mut self, kind: u16, payload: &mut [u8]) -> Result<Envelope, Error> {
        self.sending(|sealer| sealer.seal(kind, payload))
    }

    /// Makes `payload_bytes` of pad the payload at both ends. Header and tag are to be sent.
    ///
    /// Errors: as for [`Session::seal`].
    pub fn seal_keyed(
        &mut self,
        kind: u16,
        payload_bytes: usize,
    ) -> Result<(Envelope, Chunk), Error> {
        self.sending(|sealer| sealer.seal_keyed(kind, payload_bytes))
    }

    /// The last frame: tells the peer that nothing was cut off. Header and tag are to be sent.
    pub fn seal_end(&mut self) -> Result<Envelope, Error> {
        let envelope = self.sending(|sealer| sealer.seal_bound(Type::End, &[]))?;
        self.may_send = false;
        Ok(envelope)
    }

    /// Looks at a header: how much ciphertext to read before its tag, if it can be the next frame.
    pub fn expect(&mut self, header: &[u8; HEADER_BYTES]) -> Result<Header, Error> {
        self.receiving(|opener| opener.expect(header))
    }

    /// Opens a frame in place. A KEYED frame comes with an empty `payload`, which is replaced.
    ///
    /// Errors: [`Error::Tag`] and others; `payload` is then ciphertext still, or wiped by its owner.
    pub fn open(
        &mut self,
        header: &Header,
        payload: &mut Chunk,
        tag: &[u8; TAG_BYTES],
    ) -> Result<Received, Error> {
        self.receiving(|opener| {
            let header = opener.expect(&header.encode())?;
            if payload.len() != header.ciphertext_bytes() {
                return Err(Error::Malformed {
                    sequence: header.sequence,
                    what: "it is cut short",
                });
            }
            opener.open(&header, payload, tag)
        })?;
        if header.frame == Type::End {
            self.may_receive = false;
            return Ok(Received::End);
        }
        Ok(Received::Message { kind: header.kind })
    }

    /// Gives up: nothing is sealed or opened any more.
    pub fn abort(&mut self) {
        self.may_send = false;
        self.may_receive = false;
    }

    pub(super) fn sending<T>(
        &mut self,
        act: impl FnOnce(&mut Sealer) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !self.may_send {
            return Err(Error::Closed);
        }
        let result = act(&mut self.sealer);
        if !matches!(&result, Err(Error::TooLong { .. })) {
            self.close_after(&result);
        }
        result
    }

    pub(super) fn receiving<T>(
        &mut self,
        act: impl FnOnce(&mut Opener) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if !self.may_receive {
            return Err(Error::Closed);
        }
        let result = act(&mut self.opener);
        self.close_after(&result);
        result
    }

    fn close_after<T>(&mut self, result: &Result<T, Error>) {
        if result.as_ref().is_err_and(|error| !error.is_exhaustion()) {
            self.abort();
        }
    }
}
