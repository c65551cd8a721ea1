//! Blocks of key for a flow: taken, announced, claimed and acknowledged ahead of their use.

use std::collections::VecDeque;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::{Tally, needs_key};
use crate::base::clock::Stopwatch;
use crate::key::{self, KeyLease, KeyRange, UNIT_BYTES};
use crate::net::{Connection, Error, KeyWait, Settings};
use crate::otp::packet::{Grant, PACKETS_PER_KEY, Shape};
use crate::otp::{self, Cipher, Follow, Spend};

/// Message kinds on the control connection of a flow.
pub mod kind {
    /// A block of key that will be used.
    pub const GRANT: u16 = 0x4601;
    /// It is claimed.
    pub const GRANTED: u16 = 0x4602;
    /// Nothing more is sent; how much was.
    pub const FINISH: u16 = 0x4603;
    /// How much came.
    pub const TALLY: u16 = 0x4604;
}

/// Bytes of a block of a slow flow, and of a fast one.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;
/// Blocks on their way to being acknowledged, when the flow is fast.
const AHEAD_MAX: usize = 3;
/// A block that nobody wanted for so long was too large.
const LEISURE: Duration = Duration::from_secs(1);
/// How often the stock of keys is looked at while waiting for it.
const KEY_POLL: Duration = Duration::from_millis(50);

/// The sending end's keys: a thread that takes and announces blocks.
pub struct Granter {
    blocks: Receiver<Grant>,
    finish: Sender<Tally>,
    thread: JoinHandle<Result<Tally, Error>>,
}

impl Granter {
    /// Takes blocks for packets of `shape` from `keys` and announces them over `connection`.
    pub fn start(
        connection: Connection,
        keys: Box<dyn Spend>,
        shape: Shape,
        settings: Settings,
    ) -> Result<Self, Error> {
        Self::with_blocks_of(*BLOCK_BYTES.end(), connection, keys, shape, settings)
    }

    /// As [`start`](Self::start), with blocks of at most `block_bytes_max`.
    pub fn with_blocks_of(
        block_bytes_max: u64,
        connection: Connection,
        keys: Box<dyn Spend>,
        shape: Shape,
        settings: Settings,
    ) -> Result<Self, Error> {
        let (ready, blocks) = bounded(1);
        let (finish, finishing) = bounded(1);
        let address = connection.address().to_owned();
        // Any packet fits into any block.
        let packet_units = 2 + shape.key_units(shape.unit_bytes.into());
        let block_bytes_min = (packet_units * UNIT_BYTES).max(*BLOCK_BYTES.start());
        let mut granting = Granting {
            connection,
            keys,
            settings,
            shape,
            ready,
            finishing,
            outstanding: VecDeque::new(),
            number: 0,
            block_bytes: block_bytes_min,
            block_bytes_min,
            block_bytes_max: block_bytes_max.clamp(block_bytes_min, *BLOCK_BYTES.end()),
        };
        let thread = thread::Builder::new()
            .name("flow-grants".into())
            .spawn(move || granting.run())
            .map_err(|source| Error::Broken { address, source })?;
        Ok(Self { blocks, finish, thread })
    }

    /// Where acknowledged blocks come from. Several sealers may take from clones of it, each its own.
    pub fn blocks(&self) -> Receiver<Grant> {
        self.blocks.clone()
    }

    /// Ends the flow: says what was `sent` and gives what both ends counted.
    ///
    /// Errors: what ended the granting before, such as keys that did not come in time.
    pub fn finish(self, sent: Tally) -> Result<Tally, Error> {
        let Self { blocks, finish, thread } = self;
        drop(blocks);
        // If it has ended before, its own error is the answer.
        let _ = finish.send(sent);
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Granting {
    connection: Connection,
    keys: Box<dyn Spend>,
    settings: Settings,
    shape: Shape,
    ready: Sender<Grant>,
    finishing: Receiver<Tally>,
    outstanding: VecDeque<Grant>,
    number: u64,
    block_bytes: u64,
    block_bytes_min: u64,
    block_bytes_max: u64,
}

impl Granting {
    fn run(&mut self) -> Result<Tally, Error> {
        let mut ahead = 0;
        let finish = loop {
            if !needs_key(&self.shape) {
                break self.finishing.recv().unwrap_or_default();
            }
            match self.finishing.try_recv() {
                Ok(finish) => break finish,
                Err(TryRecvError::Disconnected) => break Tally::default(),
                Err(TryRecvError::Empty) => {}
            }
            match self.take()? {
                Ok(grant) => self.announce(grant)?,
                Err(finish) => break finish,
            }
            if self.outstanding.len() > ahead {
                self.acknowledged()?;
                let Some(grant) = self.outstanding.pop_front() else { continue };
                let starved = self.ready.is_empty();
                let watch = Stopwatch::start();
                if self.ready.send(grant).is_err() {
                    break self.finishing.recv().unwrap_or_default();
                }
                ahead = (ahead + 1).min(AHEAD_MAX);
                self.adapt(starved, watch.elapsed());
            }
        };
        while !self.outstanding.is_empty() {
            self.acknowledged()?;
            // Wiped at both ends.
            self.outstanding.pop_front();
        }
        self.connection.send(kind::FINISH, &encode_json(&finish))?;
        let answer = expect(&mut self.connection, kind::TALLY)?;
        decode_json(&self.connection, &answer)
    }

    /// The next block, or how the flow was ended meanwhile.
    fn take(&mut self) -> Result<Result<Grant, Tally>, Error> {
        // Whole packets of full size, so that steady traffic leaves nothing over.
        let packet = self.shape.key_units(self.shape.unit_bytes.into()) * UNIT_BYTES;
        let bytes = match self.shape.cipher {
            Cipher::Aes256Gcm => 2 * UNIT_BYTES,
            _ => UNIT_BYTES + (self.block_bytes - UNIT_BYTES) / packet * packet,
        };
        let watch = Stopwatch::start();
        loop {
            let source = match self.keys.take(bytes as usize) {
                Ok(lease) => {
                    make_ready(&lease, &self.shape);
                    let first = match self.shape.cipher {
                        Cipher::Aes256Gcm => self.number * PACKETS_PER_KEY,
                        _ => lease.range().position,
                    };
                    self.number += 1;
                    return Ok(Ok(Grant { lease, first }));
                }
                Err(source) => source,
            };
            let left = self.settings.key_wait.saturating_sub(watch.elapsed());
            let wait = match &source {
                key::Error::Exhausted { peer, needed, available, wait } if !left.is_zero() => {
                    KeyWait {
                        peer: peer.clone(),
                        needed: *needed,
                        available: *available,
                        wait: *wait,
                    }
                }
                _ => return Err(self.in_session(otp::Error::Key(source))),
            };
            if let Some(on_wait) = &self.settings.on_wait {
                on_wait(&wait);
            }
            match self.finishing.recv_timeout(KEY_POLL.min(left)) {
                Ok(finish) => return Ok(Err(finish)),
                Err(RecvTimeoutError::Disconnected) => return Ok(Err(Tally::default())),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn announce(&mut self, grant: Grant) -> Result<(), Error> {
        let announcement = Announcement {
            range: grant.lease.range(),
            first: grant.first,
            reservation: self.keys.reservation(),
        };
        self.connection.send(kind::GRANT, &announcement.encode())?;
        self.outstanding.push_back(grant);
        Ok(())
    }

    fn acknowledged(&mut self) -> Result<(), Error> {
        expect(&mut self.connection, kind::GRANTED).map(drop)
    }

    /// A flow that had to wait for its block gets larger ones; one that let a block wait for long gets
    /// smaller ones, so that it leaves less over at its end.
    fn adapt(&mut self, starved: bool, waited: Duration) {
        if starved {
            self.block_bytes = (2 * self.block_bytes).min(self.block_bytes_max);
        } else if waited > LEISURE {
            self.block_bytes = (self.block_bytes / 2).max(self.block_bytes_min);
        }
    }

    fn in_session(&self, source: otp::Error) -> Error {
        Error::Session { address: self.connection.address().into(), source }
    }
}

/// The receiving end's keys: a thread that claims what is announced.
pub struct Claimer {
    blocks: Receiver<Grant>,
    finished: Receiver<Tally>,
    tally: Sender<Tally>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Claimer {
    /// Claims from `keys` what the peer announces over `connection`, for packets of `shape`.
    pub fn start(
        connection: Connection,
        keys: Box<dyn Follow>,
        shape: Shape,
    ) -> Result<Self, Error> {
        let (ready, blocks) = bounded(2 * AHEAD_MAX + 2);
        let (finishing, finished) = bounded(1);
        let (tally, tallied) = bounded(1);
        let address = connection.address().to_owned();
        let mut claiming = Claiming { connection, keys, shape, ready, finishing, tallied };
        let thread = thread::Builder::new()
            .name("flow-claims".into())
            .spawn(move || claiming.run())
            .map_err(|source| Error::Broken { address, source })?;
        Ok(Self { blocks, finished, tally, thread })
    }

    /// Where claimed blocks come from.
    pub fn blocks(&self) -> Receiver<Grant> {
        self.blocks.clone()
    }

    /// What the sender says that it sent, once it has ended the flow; or that it is gone.
    pub fn finished(&self) -> Option<Result<Tally, Gone>> {
        match self.finished.try_recv() {
            Ok(tally) => Some(Ok(tally)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Gone)),
        }
    }

    /// Tells the sender what came.
    ///
    /// Errors: what ended the control connection before.
    pub fn finish(self, tally: Tally) -> Result<(), Error> {
        drop(self.blocks);
        // If it has ended before, its own error is the answer.
        let _ = self.tally.send(tally);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The control connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

struct Claiming {
    connection: Connection,
    keys: Box<dyn Follow>,
    shape: Shape,
    ready: Sender<Grant>,
    finishing: Sender<Tally>,
    tallied: Receiver<Tally>,
}

impl Claiming {
    fn run(&mut self) -> Result<(), Error> {
        while let Some(message) = self.connection.receive()? {
            match message.kind {
                kind::GRANT => {
                    let grant = self.claim(&message.payload)?;
                    // Who receives nothing any more still acknowledges: the key is claimed.
                    let _ = self.ready.send(grant);
                    self.connection.send(kind::GRANTED, &[])?;
                }
                kind::FINISH => {
                    let sent: Tally = decode_json(&self.connection, &message.payload)?;
                    let _ = self.finishing.send(sent);
                    let mut tally = self.tallied.recv().unwrap_or_default();
                    tally.sent = sent.sent;
                    return self.connection.send(kind::TALLY, &encode_json(&tally));
                }
                _ => return Err(unexpected(&self.connection)),
            }
        }
        Ok(())
    }

    fn claim(&mut self, message: &[u8]) -> Result<Grant, Error> {
        let announced =
            Announcement::decode(message).ok_or_else(|| unexpected(&self.connection))?;
        let Announcement { range, first, reservation } = announced;
        let bounded = match self.shape.cipher {
            Cipher::Otp => range.position == first && range.bytes() <= *BLOCK_BYTES.end(),
            Cipher::Aes256Gcm => range.units == 2,
            Cipher::Plain => false,
        };
        if !bounded {
            return Err(unexpected(&self.connection));
        }
        let claimed = self.keys.fetch(range).and_then(|lease| {
            self.keys.accept(range, reservation)?;
            make_ready(&lease, &self.shape);
            Ok(Grant { lease, first })
        });
        let address = self.connection.address();
        claimed.map_err(|source| Error::Session {
            address: address.into(),
            source: otp::Error::Key(source),
        })
    }
}

/// Works the bytes of a block out ahead, on this thread, where packets are small: for large ones they
/// are worked out faster while they are applied.
fn make_ready(lease: &KeyLease, shape: &Shape) {
    const LARGE_BYTES: u16 = 16 << 10;
    if shape.unit_bytes < LARGE_BYTES {
        lease.bytes();
    }
}

/// A GRANT as it is sent.
#[derive(Debug, PartialEq, Eq)]
struct Announcement {
    range: KeyRange,
    first: u64,
    reservation: KeyRange,
}

impl Announcement {
    fn encode(&self) -> [u8; 40] {
        let mut bytes = [0; 40];
        let Self { range, first, reservation } = self;
        let words = [range.position, range.units, *first, reservation.position, reservation.units];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None` when it has another length or a range is empty or passes the last position.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 40] = bytes.try_into().ok()?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * at..8 * at + 8]);
            u64::from_le_bytes(word)
        };
        let range = KeyRange { position: word(0), units: word(1) };
        let reservation = KeyRange { position: word(3), units: word(4) };
        (range.is_sound() && reservation.is_sound()).then_some(Self {
            range,
            first: word(2),
            reservation,
        })
    }
}

pub(super) fn expect(connection: &mut Connection, kind: u16) -> Result<Vec<u8>, Error> {
    match connection.receive()? {
        Some(message) if message.kind == kind => Ok(message.payload.to_vec()),
        Some(_) => Err(unexpected(connection)),
        None => Err(Error::CutOff { address: connection.address().into() }),
    }
}

pub(super) fn unexpected(connection: &Connection) -> Error {
    Error::Unexpected { address: connection.address().into() }
}

pub(super) fn encode_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("control messages are plain data")
}

pub(super) fn decode_json<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    bytes: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|_| unexpected(connection))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_survive_the_wire_and_nonsense_does_not() {
        let range = |position, units| KeyRange { position, units };
        let sound = Announcement { range: range(5, 7), first: 5, reservation: range(0, 100) };
        assert_eq!(Announcement::decode(&sound.encode()), Some(sound));
        for bad in [range(0, 0), range(u64::MAX, 2), range(0, u64::MAX)] {
            let bad = Announcement { range: bad, first: 0, reservation: range(0, 1) };
            assert_eq!(Announcement::decode(&bad.encode()), None);
        }
        assert_eq!(Announcement::decode(&[0; 39]), None);
    }
}
