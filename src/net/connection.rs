//! One connection to a proven peer: messages out, messages in.
//!
//! Between them go the session's own frames, by which either end has its keys countersigned. Whoever
//! sends reads what has come meanwhile when he needs an answer, and keeps messages for later.

use std::collections::VecDeque;
use std::time::Duration;

use zeroize::Zeroize;

use crate::base::clock::Stopwatch;
use crate::base::{Chunk, Clock, Pool, SiteId};
use crate::key::{self, Priority};
use crate::otp::frame::Type;
use crate::otp::{self, HEADER_BYTES, Header, Received, Session, Statistics, TAG_BYTES};

use super::dialer::{Carried, Traffic};
use super::wire::Wire;
use super::{Cipher, Error, KeyWait, Settings};

/// A payload and what it is.
pub struct Message {
    /// What the payload is, in the application's terms.
    pub kind: u16,
    /// The payload; wiped on drop unless it came in a plain frame.
    pub payload: Chunk,
}

/// A connection to a peer that has proved who it is.
///
/// After an error it is of no more use, except that keys that have run out may have arrived later.
/// Dropped without [`close`](Self::close), it looks broken to the peer.
pub struct Connection {
    wire: Wire,
    channel: Channel,
    settings: Settings,
    pool: Option<Pool>,
    /// Messages that came while an answer was awaited.
    early: VecDeque<Message>,
    early_bytes: usize,
    /// Whether the peer has closed in order.
    ended: bool,
    /// Where payloads that are only lent are sealed.
    scratch: Vec<u8>,
    /// Where it is counted what was carried, at the end.
    traffic: Option<Traffic>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(traffic) = &self.traffic else { return };
        let Statistics { sent, received } = self.statistics();
        let payload_bytes = sent.payload_bytes + received.payload_bytes;
        let key_bytes = sent.key_bytes + received.key_bytes;
        let computational = self.cipher() == Cipher::Aes256Gcm;
        let computational_bytes = if computational { payload_bytes } else { 0 };
        traffic.add(self.peer(), Carried { payload_bytes, key_bytes, computational_bytes });
    }
}

/// What became of a payload that must not be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was sent.
    Sent,
    /// There was no key for it: nothing was sent.
    Muted,
}

/// What protects the frames.
pub(super) enum Channel {
    Otp(Box<Session>),
    Plain(Plain),
}

/// Plain frames: the same header, no key, no tag.
pub(super) struct Plain {
    pub peer: SiteId,
    pub statistics: Statistics,
}

/// Payloads up to this size get memory of their own, so that small messages take no full chunk.
const SMALL_BYTES: usize = 64 << 10;

/// Most bytes of messages that are kept while an answer is awaited: more means that both ends send
/// much at once and neither reads.
const EARLY_BYTES_MAX: usize = 64 << 20;

/// How often the stock of keys is looked at while waiting for it.
const KEY_POLL: std::ops::Range<Duration> = Duration::from_millis(5)..Duration::from_secs(1);

impl Connection {
    pub(super) fn new(wire: Wire, channel: Channel, settings: &Settings) -> Self {
        let mut connection = Self {
            wire,
            channel,
            settings: settings.clone(),
            pool: None,
            early: VecDeque::new(),
            early_bytes: 0,
            ended: false,
            scratch: Vec::new(),
            traffic: None,
        };
        connection.prioritise(settings.priority);
        connection
    }

    /// Counts what was carried in `traffic` when the connection ends.
    pub(super) fn counted_in(mut self, traffic: Traffic) -> Self {
        self.traffic = Some(traffic);
        self
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &SiteId {
        match &self.channel {
            Channel::Otp(session) => session.peer(),
            Channel::Plain(plain) => &plain.peer,
        }
    }

    /// What protects its payload.
    pub fn cipher(&self) -> Cipher {
        self.settings.cipher
    }

    /// The other end's address.
    pub fn address(&self) -> &str {
        self.wire.address()
    }

    /// What was carried so far.
    pub fn statistics(&self) -> Statistics {
        match &self.channel {
            Channel::Otp(session) => session.statistics(),
            Channel::Plain(plain) => plain.statistics,
        }
    }

    /// Says that `frames` messages of `payload_bytes` bytes each come now, and makes sure of the key
    /// for them: just these are then reserved, and no other job is promised them.
    ///
    /// Errors: waits for keys as set, then [`otp::Error::Key`] with `Exhausted`: what is there is
    /// promised to others, or kept for those of higher priority. Nothing was sent.
    pub fn expect_to_send(&mut self, frames: u64, payload_bytes: u64) -> Result<(), Error> {
        let Channel::Otp(session) = &mut self.channel else { return Ok(()) };
        let address = self.wire.address();
        with_keys(&self.settings, address, || session.expect_to_send(frames, payload_bytes))
    }

    /// What the connection is for, from now on.
    pub fn prioritise(&mut self, priority: Priority) {
        if let Channel::Otp(session) = &mut self.channel {
            session.leave(self.settings.floors.left_by(priority));
        }
    }

    /// Sends a copy of `payload` if there is key for it now, for what is worthless later: a
    /// conference goes mute, it does not wait and never falls back to weaker protection.
    ///
    /// Errors: as for [`send`](Self::send), but for exhaustion.
    pub fn send_or_mute(&mut self, kind: u16, payload: &[u8]) -> Result<Outcome, Error> {
        let waits = (self.settings.key_wait, self.settings.on_wait.take());
        self.settings.key_wait = Duration::ZERO;
        let sent = self.send(kind, payload);
        (self.settings.key_wait, self.settings.on_wait) = waits;
        match sent {
            Ok(()) => Ok(Outcome::Sent),
            Err(Error::Session { source, .. }) if source.is_exhaustion() => Ok(Outcome::Muted),
            Err(error) => Err(error),
        }
    }

    /// Sends a copy of `payload`, at most [`otp::PAYLOAD_BYTES_MAX`] bytes. For large ones
    /// [`send_chunk`](Self::send_chunk) saves the copy.
    ///
    /// Errors: waits for keys as set, then [`otp::Error::Key`] with `Exhausted`; nothing was sent.
    pub fn send(&mut self, kind: u16, payload: &[u8]) -> Result<(), Error> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(payload);
        let result = self.send_in_place(kind, &mut scratch);
        if result.is_err() {
            // It may not have become ciphertext.
            scratch.zeroize();
        }
        self.scratch = scratch;
        result
    }

    /// Sends `payload`, which is encrypted in place.
    ///
    /// Errors: as for [`send`](Self::send).
    pub fn send_chunk(&mut self, kind: u16, mut payload: Chunk) -> Result<(), Error> {
        self.send_in_place(kind, &mut payload)
    }

    /// Makes `bytes` of fresh key the payload at both ends and gives them: costs key and no
    /// transmission.
    ///
    /// Errors: [`Error::Unsupported`] on a plain connection; else as for [`send`](Self::send).
    pub fn send_keyed(&mut self, kind: u16, bytes: usize) -> Result<Chunk, Error> {
        let Channel::Otp(_) = &self.channel else {
            return Err(Error::Unsupported { address: self.wire.address().into() });
        };
        let (envelope, pad) = self.sealed(|session| session.seal_keyed(kind, bytes))?;
        self.wire.write(&[&envelope.header, &envelope.tag])?;
        self.send_control()?;
        Ok(pad)
    }

    /// The next message; `None` when the peer has closed in order.
    ///
    /// Errors: [`Error::CutOff`] when it just went away; [`Error::Session`] with a bad tag, a
    /// repetition or anything else that is not the next frame. Nothing is delivered then.
    pub fn receive(&mut self) -> Result<Option<Message>, Error> {
        if let Some(message) = self.early.pop_front() {
            self.early_bytes -= message.payload.len();
            return Ok(Some(message));
        }
        // Who asks and leaves before the answer has ended in order all the same, if the end came.
        let mut unanswered = None;
        while !self.ended {
            match self.receive_frame() {
                Ok((Received::Message { kind }, payload)) => {
                    return Ok(Some(Message { kind, payload }));
                }
                Ok((Received::End, _)) => self.ended = true,
                Ok((Received::Control, _)) => match self.send_control() {
                    Err(broken @ Error::Broken { .. }) => unanswered = Some(broken),
                    answered => answered?,
                },
                Err(error) => return Err(unanswered.unwrap_or(error)),
            }
        }
        Ok(None)
    }

    fn receive_frame(&mut self) -> Result<(Received, Chunk), Error> {
        let bytes = self.wire.read_header()?;
        let address = self.wire.address().to_owned();
        let in_session = |source| Error::Session { address: address.clone(), source };
        let header = match &mut self.channel {
            Channel::Otp(session) => session.expect(&bytes).map_err(in_session)?,
            Channel::Plain(plain) => plain.expect(&bytes, &self.settings).map_err(in_session)?,
        };
        let mut payload = self.chunk(header.ciphertext_bytes());
        let received = match &mut self.channel {
            Channel::Otp(session) => {
                let mut tag = [0; TAG_BYTES];
                self.wire.read_body(&mut payload, &mut tag)?;
                with_keys(&self.settings, &address, || session.open(&header, &mut payload, &tag))?
            }
            Channel::Plain(plain) => {
                self.wire.read_body(&mut payload, &mut [])?;
                plain.received(&header)
            }
        };
        Ok((received, payload))
    }

    /// Sends the frames of the session's own that are due.
    pub(super) fn send_control(&mut self) -> Result<(), Error> {
        let Channel::Otp(session) = &mut self.channel else { return Ok(()) };
        let (settings, address) = (&self.settings, self.wire.address().to_owned());
        while let Some(frame) = with_keys(settings, &address, || session.control())? {
            let envelope = &frame.envelope;
            self.wire.write(&[&envelope.header, &frame.payload, &envelope.tag])?;
        }
        Ok(())
    }

    /// Seals with keys that the peer has countersigned: asks for them and awaits the answer, if
    /// need be.
    fn sealed<T>(
        &mut self,
        mut seal: impl FnMut(&mut Session) -> Result<T, otp::Error>,
    ) -> Result<T, Error> {
        loop {
            let Channel::Otp(session) = &mut self.channel else {
                return Err(Error::Unsupported { address: self.wire.address().into() });
            };
            match seal(session) {
                Ok(sealed) => return Ok(sealed),
                Err(source) if source.awaits_peer() => self.await_peer()?,
                Err(source) => {
                    return Err(Error::Session { address: self.wire.address().into(), source });
                }
            }
        }
    }

    fn await_peer(&mut self) -> Result<(), Error> {
        self.send_control()?;
        while let Channel::Otp(session) = &mut self.channel
            && session.awaits_peer()
        {
            match self.receive_frame()? {
                (Received::Control, _) => self.send_control()?,
                (Received::Message { kind }, payload) => {
                    self.early_bytes += payload.len();
                    self.early.push_back(Message { kind, payload });
                    if self.early_bytes > EARLY_BYTES_MAX {
                        return Err(Error::Flooded { address: self.wire.address().into() });
                    }
                }
                // What has ended countersigns nothing more.
                (Received::End, _) => {
                    self.ended = true;
                    return Err(Error::CutOff { address: self.wire.address().into() });
                }
            }
        }
        Ok(())
    }

    /// Ends this direction in order, so that the peer knows that nothing was cut off, and leaves.
    ///
    /// Errors: as for [`send`](Self::send); the end takes 16 bytes of key.
    pub fn close(mut self) -> Result<(), Error> {
        match &mut self.channel {
            Channel::Otp(_) => {
                let end = self.sealed(Session::seal_end)?;
                let told = self.wire.write(&[&end.header, &end.tag]);
                // Who has ended in order may be gone by now, and needs not be told.
                if !self.ended {
                    told?;
                }
                if self.statistics().received.frames == 0 {
                    // The peer's proof is on its way: a socket that is closed before it is read
                    // would look broken to the peer.
                    self.wire.hasten();
                    let _ = self.receive_frame();
                }
            }
            Channel::Plain(plain) => {
                let header = plain.next(Type::End, 0, 0);
                self.wire.write(&[&header.encode()])?;
            }
        }
        self.wire.finish();
        Ok(())
    }

    fn send_in_place(&mut self, kind: u16, payload: &mut [u8]) -> Result<(), Error> {
        match &mut self.channel {
            Channel::Otp(_) => {
                let envelope = self.sealed(|session| session.seal(kind, payload))?;
                self.wire.write(&[&envelope.header, payload, &envelope.tag])?;
                self.send_control()
            }
            Channel::Plain(plain) => {
                check_length(payload.len(), &self.settings).map_err(|source| Error::Session {
                    address: self.wire.address().into(),
                    source,
                })?;
                let header = plain.next(Type::Data, kind, payload.len());
                self.wire.write(&[&header.encode(), payload])
            }
        }
    }

    /// Room for `bytes`: never waits, because whoever receives may hold all the chunks that there are.
    fn chunk(&mut self, bytes: usize) -> Chunk {
        let limits = &self.settings.limits;
        let pooled = (bytes > SMALL_BYTES).then(|| {
            let chunks = self.settings.chunks;
            self.pool.get_or_insert_with(|| Pool::new(chunks, limits.payload_bytes_max)).try_take()
        });
        let mut chunk = pooled.flatten().unwrap_or_else(|| Chunk::with_capacity(bytes));
        chunk.set_len(bytes);
        chunk
    }
}

/// Repeats `act` until there are keys for it, or the time for waiting is over.
pub(super) fn with_keys<T>(
    settings: &Settings,
    address: &str,
    mut act: impl FnMut() -> Result<T, otp::Error>,
) -> Result<T, Error> {
    let watch = Stopwatch::start();
    loop {
        let source = match act() {
            Ok(result) => return Ok(result),
            Err(source) => source,
        };
        let left = settings.key_wait.saturating_sub(watch.elapsed());
        let otp::Error::Key(key::Error::Exhausted { peer, needed, available, wait }) = &source
        else {
            return Err(Error::Session { address: address.into(), source });
        };
        if left.is_zero() {
            return Err(Error::Session { address: address.into(), source });
        }
        if let Some(on_wait) = &settings.on_wait {
            let (needed, available, wait) = (*needed, *available, *wait);
            on_wait(&KeyWait { peer: peer.clone(), needed, available, wait });
        }
        let pause = wait.unwrap_or(KEY_POLL.end).clamp(KEY_POLL.start, KEY_POLL.end);
        Clock::system().sleep(pause.min(left));
    }
}

impl Plain {
    fn next(&mut self, frame: Type, kind: u16, payload_bytes: usize) -> Header {
        let sent = &mut self.statistics.sent;
        let header = Header {
            frame,
            new_hash_key: false,
            aes: None,
            kind,
            payload_bytes: payload_bytes as u32,
            sequence: sent.frames,
            position: 0,
            reservation_start: 0,
            reservation_end: 0,
        };
        sent.frames += 1;
        sent.payload_bytes += payload_bytes as u64;
        header
    }

    fn expect(
        &self,
        bytes: &[u8; HEADER_BYTES],
        settings: &Settings,
    ) -> Result<Header, otp::Error> {
        let expected = self.statistics.received.frames;
        let malformed = |what| otp::Error::Malformed { sequence: expected, what };
        let header = Header::decode(bytes).map_err(malformed)?;
        if header.sequence != expected {
            return Err(otp::Error::OutOfOrder { expected, found: header.sequence });
        }
        if !matches!(header.frame, Type::Data | Type::End) {
            return Err(malformed("plain connections have no such frames"));
        }
        check_length(header.payload_bytes as usize, settings)?;
        Ok(header)
    }

    fn received(&mut self, header: &Header) -> Received {
        self.statistics.received.frames += 1;
        self.statistics.received.payload_bytes += u64::from(header.payload_bytes);
        match header.frame {
            Type::End => Received::End,
            _ => Received::Message { kind: header.kind },
        }
    }
}

fn check_length(bytes: usize, settings: &Settings) -> Result<(), otp::Error> {
    let max = settings.limits.payload_bytes_max;
    if bytes <= max {
        return Ok(());
    }
    Err(otp::Error::TooLong { bytes: bytes as u64, max: max as u64 })
}

#[cfg(test)]
impl Connection {
    /// A frame as it would be sent, to be changed first.
    pub(super) fn sealed_frame(&mut self, kind: u16, payload: &mut [u8]) -> Vec<u8> {
        let Channel::Otp(session) = &mut self.channel else { return Vec::new() };
        let envelope = session.seal(kind, payload).expect("there is key");
        [&envelope.header[..], payload, &envelope.tag].concat()
    }

    /// The bare socket, to misbehave with.
    pub(super) fn clone_stream(&self) -> std::net::TcpStream {
        self.wire.clone_stream()
    }
}
