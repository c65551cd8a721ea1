//! A flow over TCP: packets of fixed size one after another, on one or several connections.
//!
//! The first packet on each connection is a COVER under the flow's first block, which proves that the
//! connection is the peer's: only then may it take blocks. Whoever calls without the key is hung up on.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, bounded};

use super::{WINDOW, needs_key};
use crate::base::clock::Stopwatch;
use crate::net::Error;
use crate::otp::packet::{Grant, HEAD_BYTES, Head, Kind, PacketOpener, PacketSealer, Shape};
use crate::otp::{self, Traffic};

/// How long a caller may take to prove itself.
const PROOF_WAIT: Duration = Duration::from_secs(10);
/// Callers that are looked at; more are an attack.
const CALLERS_MAX: usize = 256;

/// The sending end of one connection.
pub struct RecordSender {
    stream: TcpStream,
    address: String,
    sealer: PacketSealer,
    blocks: Receiver<Grant>,
    record: Box<[u8]>,
    number: u64,
}

impl RecordSender {
    /// Calls `address` `streams` times for packets of `shape`.
    ///
    /// Errors: [`Error::Unreachable`]; [`Error::Broken`] when no key comes for the beginning.
    pub fn connect(
        address: SocketAddr,
        streams: u16,
        shape: Shape,
        blocks: &Receiver<Grant>,
    ) -> Result<Vec<Self>, Error> {
        let mut welcome = PacketSealer::new(shape);
        let mut senders = Vec::new();
        for number in 0..streams {
            let mut sender = Self::call(address, shape, blocks.clone())?;
            std::mem::swap(&mut sender.sealer, &mut welcome);
            sender.put((Kind::Cover, number), 0, PROOF_WAIT, |_| {})?;
            std::mem::swap(&mut sender.sealer, &mut welcome);
            senders.push(sender);
        }
        Ok(senders)
    }

    fn call(address: SocketAddr, shape: Shape, blocks: Receiver<Grant>) -> Result<Self, Error> {
        let text = address.to_string();
        let failed = |source| Error::Unreachable { address: text.clone(), source };
        let stream = TcpStream::connect_timeout(&address, PROOF_WAIT).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_write_timeout(Some(Duration::from_secs(60))).map_err(failed)?;
        let record = vec![0; shape.packet_bytes_max()].into_boxed_slice();
        let sealer = PacketSealer::new(shape);
        Ok(Self { stream, address: text, sealer, blocks, record, number: 0 })
    }

    /// What was sealed on this connection.
    pub fn traffic(&self) -> Traffic {
        self.sealer.traffic()
    }

    /// Sends a packet. `fill` writes the payload, of at most a unit; `patience` is how long key may be
    /// waited for.
    ///
    /// Errors: [`Error::Session`] with exhaustion when no key comes; [`Error::Broken`].
    pub fn put(
        &mut self,
        (kind, channel): (Kind, u16),
        payload_bytes: usize,
        patience: Duration,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), Error> {
        let shape = *self.sealer.shape();
        if payload_bytes > usize::from(shape.unit_bytes) {
            let max = u64::from(shape.unit_bytes);
            let source = otp::Error::TooLong { bytes: payload_bytes as u64, max };
            return Err(Error::Session { address: self.address.clone(), source });
        }
        let record = &mut self.record[..shape.packet_bytes(payload_bytes)];
        fill(&mut record[HEAD_BYTES..][..payload_bytes]);
        let head = Head { kind, channel, payload_bytes: payload_bytes as u16, offset: self.number };
        loop {
            let sealed = self.sealer.seal(&head, record);
            let in_session = |source| Error::Session { address: self.address.clone(), source };
            if sealed.map_err(in_session)? {
                break;
            }
            match self.blocks.recv_timeout(patience) {
                Ok(grant) => self.sealer.add(grant),
                Err(_) => {
                    crate::base::chunk::wipe(record);
                    let source = ErrorKind::TimedOut.into();
                    return Err(Error::Broken { address: self.address.clone(), source });
                }
            }
        }
        self.number += 1;
        self.stream
            .write_all(record)
            .map_err(|source| Error::Broken { address: self.address.clone(), source })
    }

    /// Tells the peer that nothing more comes on this connection.
    pub fn finish(self) -> Traffic {
        // Whoever is gone already needs not be told.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.sealer.traffic()
    }
}

/// Blocks that are claimed and that no connection has asked for yet.
#[derive(Clone)]
struct Shelf {
    blocks: Receiver<Grant>,
    waiting: Arc<Mutex<Vec<Grant>>>,
}

impl Shelf {
    /// The block that serves `position`.
    fn take(&self, shape: &Shape, position: u64) -> Option<Grant> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(grant) = self.blocks.try_recv() {
            waiting.push(grant);
        }
        let at = waiting.iter().position(|grant| grant.serves(shape.cipher, position))?;
        Some(waiting.swap_remove(at))
    }
}

/// The receiving end of one connection.
pub struct RecordReceiver {
    stream: TcpStream,
    address: String,
    opener: PacketOpener,
    shelf: Shelf,
    record: Box<[u8]>,
    filled: usize,
    start: usize,
}

impl RecordReceiver {
    /// Waits at `listener` until `streams` connections have proved to be the peer's, for `patience`.
    ///
    /// Errors: [`Error::Slow`].
    pub fn accept(
        listener: &TcpListener,
        streams: u16,
        shape: Shape,
        blocks: Receiver<Grant>,
        patience: Duration,
    ) -> Result<Vec<Self>, Error> {
        let address = listener.local_addr().map_or_else(|_| String::new(), |at| at.to_string());
        let failed = |source| Error::Listen { address: address.clone(), source };
        listener.set_nonblocking(true).map_err(failed)?;
        let shelf = Shelf { blocks, waiting: Arc::default() };
        let welcome = Arc::new(Mutex::new(PacketOpener::new(shape, WINDOW)));
        let (proved, proven) = bounded(streams.into());
        let (watch, mut callers, mut accepted) = (Stopwatch::start(), 0, Vec::new());
        while accepted.len() < usize::from(streams) {
            if watch.elapsed() > patience || callers == CALLERS_MAX {
                return Err(Error::Slow { address, waited: watch.elapsed() });
            }
            match listener.accept() {
                Ok((stream, from)) => {
                    callers += 1;
                    let (proved, welcome, shelf) = (proved.clone(), welcome.clone(), shelf.clone());
                    thread::spawn(move || {
                        let caller = Self::new(stream, from, shape, shelf);
                        if let Ok(caller) = caller.and_then(|caller| caller.prove(&welcome)) {
                            // More than were agreed on find no place and are hung up on.
                            let _ = proved.try_send(caller);
                        }
                    });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    accepted.extend(proven.recv_timeout(Duration::from_millis(5)));
                }
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(accepted)
    }

    fn new(stream: TcpStream, from: SocketAddr, shape: Shape, shelf: Shelf) -> Result<Self, Error> {
        let address = from.to_string();
        let failed = |source| Error::Broken { address: address.clone(), source };
        stream.set_nonblocking(false).map_err(failed)?;
        stream.set_read_timeout(Some(PROOF_WAIT)).map_err(failed)?;
        let record = vec![0; 4 * shape.packet_bytes_max()].into_boxed_slice();
        let opener = PacketOpener::new(shape, WINDOW);
        Ok(Self { stream, address, opener, shelf, record, filled: 0, start: 0 })
    }

    /// Checks the first packet with the opener that all callers share.
    fn prove(mut self, welcome: &Mutex<PacketOpener>) -> Result<Self, Error> {
        let Some(record) = self.next_record()? else { return Err(self.cut_off()) };
        let mut welcome = welcome.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = *self.opener.shape();
        let record = &mut self.record[record];
        if let Some(position) = shape.position(record).filter(|_| needs_key(&shape))
            && let Some(grant) = self.shelf.take(&shape, position)
        {
            welcome.add(grant);
        }
        match welcome.open(record) {
            Ok((Head { kind: Kind::Cover, .. }, _)) => Ok(self),
            _ => Err(self.refused()),
        }
    }

    /// What was opened on this connection, and what was refused.
    pub fn opener(&self) -> &PacketOpener {
        &self.opener
    }

    /// The next payload, given to `give`; `false` when the peer has ended the connection.
    ///
    /// Errors: [`Error::Session`] with a bad tag and everything else that is not the peer's packet:
    /// the connection is of no more use then.
    pub fn receive(&mut self, give: impl FnOnce(&Head, &[u8])) -> Result<bool, Error> {
        let Some(record) = self.next_record()? else { return Ok(false) };
        let shape = *self.opener.shape();
        let position = shape.position(&self.record[record.clone()]).unwrap_or(u64::MAX);
        if needs_key(&shape)
            && !self.opener.serves(position)
            && let Some(grant) = self.shelf.take(&shape, position)
        {
            self.opener.add(grant);
        }
        match self.opener.open(&mut self.record[record]) {
            Ok((head, payload)) => {
                if head.kind == Kind::Data {
                    give(&head, payload);
                }
                Ok(true)
            }
            Err(_) => Err(self.refused()),
        }
    }

    /// Reads until a whole record is there; `None` at the end between two records.
    fn next_record(&mut self) -> Result<Option<std::ops::Range<usize>>, Error> {
        loop {
            let there = &self.record[self.start..self.filled];
            if let Some(head) = there.first_chunk::<HEAD_BYTES>() {
                let bytes = self.opener.shape().record_bytes(head).ok_or_else(|| self.refused())?;
                if there.len() >= bytes {
                    let record = self.start..self.start + bytes;
                    self.start = record.end;
                    return Ok(Some(record));
                }
            }
            let max = self.opener.shape().packet_bytes_max();
            if self.start == self.filled {
                (self.start, self.filled) = (0, 0);
            } else if self.record.len() - self.start < max {
                self.record.copy_within(self.start..self.filled, 0);
                (self.start, self.filled) = (0, self.filled - self.start);
            }
            match self.stream.read(&mut self.record[self.filled..]) {
                Ok(0) if self.start == self.filled => return Ok(None),
                Ok(0) => return Err(self.cut_off()),
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Broken { address: self.address.clone(), source }),
            }
        }
    }

    /// How long the peer may be silent, once it has proved itself.
    pub fn set_patience(&self, patience: Duration) -> Result<(), Error> {
        self.stream
            .set_read_timeout(Some(patience.max(Duration::from_millis(1))))
            .map_err(|source| Error::Broken { address: self.address.clone(), source })
    }

    fn cut_off(&self) -> Error {
        Error::CutOff { address: self.address.clone() }
    }

    fn refused(&self) -> Error {
        let sequence = self.opener.traffic().frames;
        Error::Session { address: self.address.clone(), source: otp::Error::Tag { sequence } }
    }
}
