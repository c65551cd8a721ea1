//! A flow over UDP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::{WINDOW, needs_key};
use crate::net::Error;
use crate::net::udp::{Inbox, SEND_BYTES_MAX, Udp};
use crate::otp::packet::{Grant, HEAD_BYTES, Head, Kind, PacketOpener, PacketSealer, Shape};

/// Where the peer receives: given, or learnt from the first packet that is proven to be its own.
#[derive(Clone, Default)]
pub struct Destination(Arc<Mutex<Option<SocketAddr>>>);

impl Destination {
    /// A place that is known.
    pub fn known(address: SocketAddr) -> Self {
        Self(Arc::new(Mutex::new(Some(address))))
    }

    /// Where it is, if that is known by now.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    }
}

/// What became of a packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is on its way, or in the next batch.
    Yes,
    /// There was no key for it: it is dropped, as nothing is sent that is not protected.
    NoKey,
}

/// The sending end.
pub struct DatagramSender {
    socket: Arc<Udp>,
    destination: Destination,
    sealer: PacketSealer,
    blocks: Receiver<Grant>,
    /// Sealed packets of one length each, but the last, which may be shorter.
    batch: Box<[u8]>,
    filled: usize,
    stride: usize,
    number: u64,
}

impl DatagramSender {
    /// Sends packets of `shape` from `socket`, under what comes from `blocks`.
    pub fn new(
        socket: Arc<Udp>,
        destination: Destination,
        shape: Shape,
        blocks: Receiver<Grant>,
    ) -> Self {
        let sealer = PacketSealer::new(shape);
        let batch = vec![0; SEND_BYTES_MAX].into_boxed_slice();
        Self { socket, destination, sealer, blocks, batch, filled: 0, stride: 0, number: 0 }
    }

    /// What was sealed so far.
    pub fn traffic(&self) -> crate::otp::Traffic {
        self.sealer.traffic()
    }

    /// Puts a packet into the batch, which is sent when it is full. `fill` writes the payload, of
    /// `payload_bytes` bytes at most the unit, and `patience` is how long key may be waited for.
    ///
    /// Errors: [`crate::otp::Error::TooLong`]; what the system says to sending.
    pub fn put(
        &mut self,
        (kind, channel): (Kind, u16),
        payload_bytes: usize,
        patience: Duration,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Queued, Error> {
        let bytes = self.sealer.shape().packet_bytes(payload_bytes);
        if self.filled > 0 && (bytes > self.stride || self.filled + bytes > self.room()) {
            self.flush()?;
        }
        let head = Head { kind, channel, payload_bytes: payload_bytes as u16, offset: self.number };
        let packet = &mut self.batch[self.filled..self.filled + bytes];
        if payload_bytes > usize::from(u16::MAX) || bytes > SEND_BYTES_MAX {
            return Err(self.too_long(payload_bytes));
        }
        fill(&mut packet[HEAD_BYTES..][..payload_bytes]);
        loop {
            let sealed = self.sealer.seal(&head, packet);
            if sealed.map_err(|source| Error::Session { address: String::new(), source })? {
                break;
            }
            match self.blocks.recv_timeout(patience) {
                Ok(grant) => self.sealer.add(grant),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    crate::base::chunk::wipe(packet);
                    return Ok(Queued::NoKey);
                }
            }
        }
        self.number += 1;
        if self.filled == 0 {
            self.stride = bytes;
        }
        self.filled += bytes;
        // A shorter one can only be the last.
        if bytes < self.stride || self.filled + bytes > self.room() {
            self.flush()?;
        }
        Ok(Queued::Yes)
    }

    /// Sends what is in the batch; drops it as long as nobody knows where to.
    pub fn flush(&mut self) -> Result<(), Error> {
        let filled = std::mem::take(&mut self.filled);
        match self.destination.address() {
            Some(to) if filled > 0 => self.socket.send(to, &self.batch[..filled], self.stride),
            _ => Ok(()),
        }
    }

    fn room(&self) -> usize {
        self.socket.batch(self.stride) * self.stride
    }

    fn too_long(&self, payload_bytes: usize) -> Error {
        let max = u64::from(self.sealer.shape().unit_bytes);
        let source = crate::otp::Error::TooLong { bytes: payload_bytes as u64, max };
        Error::Session { address: self.socket.local_address().to_string(), source }
    }
}

/// The receiving end.
pub struct DatagramReceiver {
    socket: Arc<Udp>,
    destination: Destination,
    opener: PacketOpener,
    blocks: Receiver<Grant>,
    inbox: Inbox,
    /// Datagrams that came, whatever became of them.
    arrived: u64,
}

impl DatagramReceiver {
    /// Receives packets of `shape` at `socket`, under what comes from `blocks`, and tells
    /// `destination` where they come from.
    pub fn new(
        socket: Arc<Udp>,
        destination: Destination,
        shape: Shape,
        blocks: Receiver<Grant>,
    ) -> Self {
        let (opener, inbox) = (PacketOpener::new(shape, WINDOW), Inbox::new());
        Self { socket, destination, opener, blocks, inbox, arrived: 0 }
    }

    /// What was opened, and what was refused.
    pub fn opener(&self) -> &PacketOpener {
        &self.opener
    }

    /// Datagrams that came, whatever became of them.
    pub fn arrived(&self) -> u64 {
        self.arrived
    }

    /// Waits up to `patience` and gives each payload that has come; says whether any datagram has.
    /// COVER packets give nothing.
    pub fn receive(
        &mut self,
        patience: Duration,
        mut give: impl FnMut(&Head, &[u8]),
    ) -> Result<bool, Error> {
        let any = self.socket.receive(&mut self.inbox, patience)?;
        self.take_blocks();
        let Self { opener, inbox, arrived, destination, .. } = self;
        let mut last = None;
        inbox.each(|from, datagram| {
            *arrived += 1;
            if let Ok((head, payload)) = opener.open(datagram) {
                last = Some(from);
                if head.kind == Kind::Data {
                    give(&head, payload);
                }
            }
        });
        if let Some(from) = last.filter(|from| destination.address() != Some(*from)) {
            destination.learn(from);
        }
        Ok(any)
    }

    /// Blocks are claimed before the sender may use them, so they are here before its packets.
    fn take_blocks(&mut self) {
        if !needs_key(self.opener.shape()) {
            return;
        }
        loop {
            match self.blocks.try_recv() {
                Ok(grant) => self.opener.add(grant),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }
}
