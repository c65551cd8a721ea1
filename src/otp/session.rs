//! An established session: seals in one direction, opens in the other, and closes at the first doubt.
//!
//! Whoever drives a session has three duties. After each call, and before anything else is sealed,
//! [`Session::control`] is asked, and what it gives is sent. Frames that [`Session::open`] finds to be
//! [`Received::Control`] are none of the application's. And when sealing fails because keys are not
//! countersigned ([`Error::awaits_peer`]), it is tried again after the peer's next frame.
//!
//! A control frame is a DATA frame of one of the kinds from [`CONTROL_KINDS`] on, whose payload is a
//! range of key: first unit and number of units, 8 bytes each, little-endian.
//!
//! | kind | meaning |
//! |---|---|
//! | fff0 | RESERVE: I have reserved this, durably, and want to use it |
//! | fff1 | SIGNED: I have claimed it for this session, durably; use it |
//! | fff2 | REFUSED: it was claimed before; your record was set back |
//! | fff3 | GREETING: I have set these greeting keys aside, durably |
//! | fff4 | HELD: so have I |

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use crate::base::{ByteCount, Chunk, SiteId};
use crate::key::{self, KeyRange, UNIT_BYTES};

use super::cipher::Cipher;
use super::error::Error;
use super::frame::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, TAG_BYTES, Type};
use super::handshake::Role;
use super::keys::{Follow, Spend};
use super::open::Opener;
use super::seal::Sealer;

/// Kinds of messages from here on are the session's own.
pub const CONTROL_KINDS: u16 = 0xfff0;
/// Bytes of a control frame's payload.
const CONTROL_BYTES: usize = 16;
/// Control frames that may wait to be sent: the peer sends one at a time.
const OUTBOX_MAX: usize = 8;

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

/// A frame of the session's own, to be sent: header, payload, tag.
pub struct ControlFrame {
    /// Header and tag.
    pub envelope: Envelope,
    /// Ciphertext between the two.
    pub payload: Vec<u8>,
}

/// What one end says to the other about keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Reserve(KeyRange),
    Signed(KeyRange),
    Refused(KeyRange),
    Greeting(KeyRange),
    Held(KeyRange),
}

impl Control {
    fn encode(self) -> (u16, [u8; CONTROL_BYTES]) {
        let (kind, range) = match self {
            Control::Reserve(range) => (0, range),
            Control::Signed(range) => (1, range),
            Control::Refused(range) => (2, range),
            Control::Greeting(range) => (3, range),
            Control::Held(range) => (4, range),
        };
        let mut bytes = [0; CONTROL_BYTES];
        bytes[..8].copy_from_slice(&range.position.to_le_bytes());
        bytes[8..].copy_from_slice(&range.units.to_le_bytes());
        (CONTROL_KINDS + kind, bytes)
    }

    fn decode(kind: u16, payload: &[u8]) -> Option<Self> {
        let (position, units) = payload.split_first_chunk()?;
        let position = u64::from_le_bytes(*position);
        let range = KeyRange { position, units: u64::from_le_bytes(units.try_into().ok()?) };
        Some(match kind.checked_sub(CONTROL_KINDS)? {
            0 => Control::Reserve(range),
            1 => Control::Signed(range),
            2 => Control::Refused(range),
            3 => Control::Greeting(range),
            4 => Control::Held(range),
            _ => return None,
        })
    }
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
    /// Between the sessions: the driver asks for [`Session::control`] and goes on.
    Control,
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
    /// What both PROOF frames are over.
    transcript: Arc<[u8]>,
    proof: Proof,
    /// Whether this site has still to hear the caller's proof that its keys are countersigned.
    awaits_proof: bool,
    outbox: VecDeque<Control>,
}

/// How far this site's own PROOF frame is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// Not before the peer's.
    Waiting,
    Due,
    Sent,
}

impl Session {
    pub(super) fn new(
        peer: SiteId,
        spend: Box<dyn Spend>,
        (follow, floor): (Box<dyn Follow>, u64),
        limits: Limits,
        (role, transcript): (Role, Vec<u8>),
    ) -> Self {
        let (sealer, opener) = (Sealer::new(spend, limits), Opener::new(follow, floor, limits));
        let awaits_proof = role == Role::Listener;
        let proof = if awaits_proof { Proof::Waiting } else { Proof::Due };
        Self {
            peer,
            sealer,
            opener,
            may_send: true,
            may_receive: true,
            transcript: transcript.into(),
            proof,
            awaits_proof,
            outbox: VecDeque::new(),
        }
    }

    /// Who is at the other end; proven by possession of the key.
    pub fn peer(&self) -> &SiteId {
        &self.peer
    }

    /// What was carried so far.
    pub fn statistics(&self) -> Statistics {
        Statistics { sent: self.sealer.traffic(), received: self.opener.traffic() }
    }

    /// Makes sure of the key for `frames` frames of `payload_bytes` bytes each, which come now.
    ///
    /// Errors: exhaustion changes nothing.
    pub fn expect_to_send(&mut self, frames: u64, payload_bytes: u64) -> Result<(), Error> {
        let key = payload_bytes.next_multiple_of(UNIT_BYTES) + UNIT_BYTES;
        // And a few small messages, and the key of the hash.
        let rest = 4096;
        let bytes = ByteCount(frames.saturating_mul(key).saturating_add(rest));
        self.sending(|sealer| Ok(sealer.keys().admit(bytes)?))
    }

    /// Leaves so much key of the link to others, whenever key for payload is reserved.
    pub fn leave(&mut self, bytes: ByteCount) {
        self.sealer.keys().leave(bytes);
    }

    /// The next frame of the session's own that is to be sent, before any other; `None` if there is
    /// none now.
    ///
    /// Errors: exhaustion changes nothing.
    pub fn control(&mut self) -> Result<Option<ControlFrame>, Error> {
        match self.proof {
            _ if !self.may_send => return Ok(None),
            Proof::Waiting => return Ok(None),
            Proof::Due => {
                let bound = Arc::clone(&self.transcript);
                let envelope = self.own(|sealer| sealer.seal_bound(Type::Proof, &bound))?;
                self.proof = Proof::Sent;
                return Ok(Some(ControlFrame { envelope, payload: Vec::new() }));
            }
            Proof::Sent => {}
        }
        if self.outbox.is_empty() {
            let keys = self.sealer.keys();
            let asked = keys.ask();
            let asked = self.sending(|_| Ok(asked?))?;
            self.outbox.extend(asked.map(Control::Reserve));
            self.outbox.extend(self.sealer.keys().ask_greeting().map(Control::Greeting));
        }
        let Some(control) = self.outbox.front().copied() else { return Ok(None) };
        let (kind, mut payload) = control.encode();
        let envelope = self.own(|sealer| sealer.seal(kind, &mut payload))?;
        self.outbox.pop_front();
        Ok(Some(ControlFrame { envelope, payload: payload.to_vec() }))
    }

    /// Whether the peer owes an answer without which nothing more may be sealed soon.
    pub fn awaits_peer(&mut self) -> bool {
        self.proof == Proof::Waiting || self.sealer.keys().awaits_signature()
    }

    /// Seals what may use the key that is kept for control.
    fn own<T>(&mut self, seal: impl FnOnce(&mut Sealer) -> Result<T, Error>) -> Result<T, Error> {
        self.sealer.keys().for_control(true);
        let result = self.sending(seal);
        self.sealer.keys().for_control(false);
        result
    }

    /// Encrypts `payload` in place. Header, payload and tag are to be sent in this order.
    ///
    /// Errors: [`Error::TooLong`] changes nothing; exhaustion changes nothing.
    pub fn seal(&mut self, kind: u16, payload: &mut [u8]) -> Result<Envelope, Error> {
        self.check_begun(kind)?;
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
        self.check_begun(kind)?;
        self.sending(|sealer| sealer.seal_keyed(kind, payload_bytes))
    }

    /// Nothing goes before the proof, and nothing under the session's own kinds.
    fn check_begun(&mut self, kind: u16) -> Result<(), Error> {
        if kind >= CONTROL_KINDS {
            return Err(Error::Kind { kind });
        }
        if self.may_send && self.proof != Proof::Sent {
            let stream = self.sealer.keys().stream();
            return Err(key::Error::Unsigned { stream }.into());
        }
        Ok(())
    }

    /// The last frame: tells the peer that nothing was cut off. Header and tag are to be sent.
    pub fn seal_end(&mut self) -> Result<Envelope, Error> {
        self.check_begun(0)?;
        let envelope = self.own(|sealer| sealer.seal_bound(Type::End, &[]))?;
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
        let bound = Arc::clone(&self.transcript);
        self.receiving(|opener| {
            let header = opener.expect(&header.encode())?;
            if payload.len() != header.ciphertext_bytes() {
                return Err(Error::Malformed {
                    sequence: header.sequence,
                    what: "it is cut short",
                });
            }
            match header.frame {
                Type::Proof => opener.open_bound(&header, tag, &bound),
                _ => opener.open(&header, payload, tag),
            }
        })?;
        if header.frame == Type::Proof {
            return self.heard_proof();
        }
        if header.frame == Type::Data && header.kind >= CONTROL_KINDS {
            let heard = self.hear(header.kind, payload);
            return self.receiving(|_| heard).map(|()| Received::Control);
        }
        if header.frame == Type::End {
            self.may_receive = false;
            return Ok(Received::End);
        }
        Ok(Received::Message { kind: header.kind })
    }

    /// The caller has checked this site's opening, and so has countersigned its reservation.
    fn heard_proof(&mut self) -> Result<Received, Error> {
        if self.awaits_proof {
            self.awaits_proof = false;
            self.sealer.keys().sign_first();
            self.proof = Proof::Due;
        }
        Ok(Received::Control)
    }

    fn hear(&mut self, kind: u16, payload: &[u8]) -> Result<(), Error> {
        let sequence = self.opener.traffic().frames;
        let malformed = |what| Error::Malformed { sequence, what };
        let heard = Control::decode(kind, payload);
        let heard = heard.ok_or_else(|| malformed("it is no control frame"))?;
        let unasked = malformed("it answers what was not asked");
        let answer = match heard {
            Control::Reserve(range) => match self.opener.keys().countersign(range) {
                Ok(()) => Control::Signed(range),
                Err(key::Error::Reused { .. }) => Control::Refused(range),
                Err(error) => return Err(error.into()),
            },
            Control::Greeting(range) => match self.opener.keys().countersign_greeting(range) {
                Ok(()) => Control::Held(range),
                Err(key::Error::Reused { .. }) => Control::Refused(range),
                Err(error) => return Err(error.into()),
            },
            Control::Signed(range) if self.sealer.keys().sign(range) => return Ok(()),
            Control::Held(range) if self.sealer.keys().sign_greeting(range)? => return Ok(()),
            Control::Refused(_) => return Err(self.sealer.keys().refused().into()),
            Control::Signed(_) | Control::Held(_) => return Err(unasked),
        };
        if self.outbox.len() >= OUTBOX_MAX {
            return Err(unasked);
        }
        // Answers go before own wishes, so that two ends that both ask do not wait for each other.
        self.outbox.push_front(answer);
        Ok(())
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
