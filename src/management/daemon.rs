//! What runs in an agent's process: two listeners, and the work in the background.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq;

use super::agent::{Agent, Neighbour, Relay};
use super::protocol::{Fold, Folded, HASH_BYTES, Reply, Request, Transaction, kind};
use super::{Error, relay};
use crate::base::clock::Stopwatch;
use crate::base::fault::with_causes;
use crate::base::{Chunk, Clock, SiteId};
use crate::net::{self, Cipher, Connection, Incoming, Listener, dial};

/// Connections served at once; further ones are closed.
const CONNECTIONS_MAX: usize = 256;

/// How often the background looks whether there is something to do.
const PULSE: Duration = Duration::from_millis(20);

/// Pulses between two looks at what is rarely needed.
const PULSES_OF_CARE: usize = 50;

impl Agent {
    /// Serves neighbours and the server at `control`, and ciphertext of relays at `relays`, until both
    /// are closed.
    pub fn serve(self: &Arc<Self>, control: &Listener, relays: &Listener) -> Result<(), Error> {
        std::thread::scope(|scope| {
            for neighbour in self.neighbours.values() {
                scope.spawn(move || self.attend_link(neighbour));
            }
            scope.spawn(move || self.accept(relays, Agent::take_ciphertext));
            let served = self.accept(control, Agent::attend);
            self.stop();
            relays.closer().close();
            served
        })
    }

    fn accept(
        self: &Arc<Self>,
        listener: &Listener,
        serve: fn(&Agent, Incoming) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let incoming = match listener.accept() {
                Ok(incoming) => incoming,
                Err(net::Error::ListenerClosed { .. }) => return Ok(()),
                Err(error) => {
                    (self.notice)(format!("a connection could not be taken: {error}"));
                    Clock::system().sleep(PULSE);
                    continue;
                }
            };
            if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (agent, open) = (Arc::clone(self), Arc::clone(&open));
            // Neighbours keep their sessions open, so these threads end with them or with the process.
            std::thread::spawn(move || {
                if let Err(error) = serve(&agent, incoming)
                    && !agent.is_stopped()
                {
                    (agent.notice)(with_causes(&error));
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// Serves one session of a neighbour or the server.
    fn attend(&self, incoming: Incoming) -> Result<(), Error> {
        let mut connection = incoming.handshake(&self.control, &self.net)?;
        let peer = connection.peer().clone();
        let mut mask: Option<Chunk> = None;
        while let Some(message) = connection.receive()? {
            match message.kind {
                kind::MASK => mask = Some(message.payload),
                kind::REQUEST => {
                    let request = serde_json::from_slice(&message.payload)
                        .map_err(|_| Error::Protocol { peer: peer.clone() })?;
                    let answered = self.answer(&peer, request, mask.take());
                    let reply = answered.unwrap_or_else(|error| {
                        (self.notice)(format!("{peer}: {}", with_causes(&error)));
                        Reply::failed(&error)
                    });
                    send(&mut connection, &reply)?;
                }
                _ => return Err(Error::Protocol { peer }),
            }
        }
        Ok(())
    }

    /// The first node's part of a relay that is prepared on the whole path.
    pub(super) fn commit(&self, transaction: Transaction, direct: bool) -> Result<(), Error> {
        let out = self.relays().get_mut(&transaction).and_then(|relay| relay.out.take());
        let (next, pad) = out.ok_or(Error::NotPrepared)?;
        if direct {
            let key = pad.into_key();
            return self.keep(transaction, key);
        }
        let mut key = Chunk::with_capacity(pad.bytes());
        key.mark_secret();
        key.set_len(pad.bytes());
        self.settings.random.open(&self.node, || Err(no_stream(&next)))?.fill(&mut key)?;
        let (ciphertext, tag) = relay::begin(&key, &pad, transaction);
        self.keep(transaction, key)?;
        self.send_on(&next, transaction, &tag, &ciphertext)
    }

    fn keep(&self, transaction: Transaction, key: Chunk) -> Result<(), Error> {
        let mut relays = self.relays();
        let relay = relays.get_mut(&transaction).ok_or(Error::NotPrepared)?;
        relay.key = Some(key);
        Ok(())
    }

    fn send_on(
        &self,
        next: &SiteId,
        transaction: Transaction,
        tag: &[u8],
        ciphertext: &[u8],
    ) -> Result<(), Error> {
        let what = || format!("where '{next}' takes ciphertext of relays");
        let address = self.neighbour(next)?.relay.as_ref();
        let address = address.ok_or_else(|| Error::NotConfigured { what: what() })?;
        let mut connection = dial(address, next, &self.control, &self.plain())?;
        connection.send(kind::FORWARD, &[&transaction.0, tag, ciphertext].concat())?;
        let protocol = || Error::Protocol { peer: next.clone() };
        let message = connection.receive()?.ok_or_else(protocol)?;
        let reply: Reply = serde_json::from_slice(&message.payload).map_err(|_| protocol())?;
        reply.checked(next).map(drop)
    }

    /// What is encrypted and tagged already goes in plain frames.
    fn plain(&self) -> net::Settings {
        net::Settings { cipher: Cipher::Plain, idle: self.net.deadline, ..self.net.clone() }
    }

    fn take_ciphertext(&self, incoming: Incoming) -> Result<(), Error> {
        let mut connection = incoming.handshake(&self.control, &self.plain())?;
        let Some(message) = connection.receive()? else { return Ok(()) };
        if message.kind != kind::FORWARD || message.payload.len() < 2 * HASH_BYTES {
            return Err(Error::Protocol { peer: connection.peer().clone() });
        }
        let passed = self.pass(&message.payload);
        let reply = match &passed {
            Ok(()) => Reply::Done,
            Err(error) => Reply::failed(error),
        };
        send(&mut connection, &reply)?;
        passed
    }

    /// Checks the ciphertext that came in, and passes it on or keeps the key.
    fn pass(&self, message: &[u8]) -> Result<(), Error> {
        let cut = |at: usize| -> [u8; HASH_BYTES] {
            message[at..at + HASH_BYTES].try_into().expect("the caller has seen that it is there")
        };
        let (transaction, tag) = (crate::key::pool::BlockId(cut(0)), cut(HASH_BYTES));
        let mut ciphertext = message[2 * HASH_BYTES..].to_vec();
        let (into, out) = {
            let mut relays = self.relays();
            let relay = relays.get_mut(&transaction).ok_or(Error::NotPrepared)?;
            let into = relay.into.as_ref().ok_or(Error::NotPrepared)?;
            into.check(transaction, &ciphertext, &tag)?;
            (relay.into.take().ok_or(Error::NotPrepared)?, relay.out.take())
        };
        let Some((next, out)) = out else {
            return self.keep(transaction, relay::end(&ciphertext, into));
        };
        if out.bytes() != into.bytes() {
            return Err(Error::NotPrepared);
        }
        #[cfg(test)]
        if self.corrupt.load(Ordering::SeqCst) {
            ciphertext[0] ^= 1;
        }
        let tag = relay::forward(&mut ciphertext, into, &out, transaction);
        self.relays().remove(&transaction);
        self.send_on(&next, transaction, &tag, &ciphertext)
    }

    /// An end's part: puts its key together, compares it with what the first end found, and supplies
    /// it.
    pub(super) fn fold(&self, fold: &Fold) -> Result<Reply, Error> {
        let parts: Option<Vec<Chunk>> = {
            let mut relays = self.relays();
            let of = |transaction| relays.remove(transaction).and_then(Relay::into_key);
            fold.transactions.iter().map(of).collect()
        };
        let mut parts = parts.ok_or(Error::NotPrepared)?.into_iter();
        let mut key = parts.next().ok_or(Error::NotPrepared)?;
        for part in parts {
            if part.len() != key.len() {
                return Err(Error::NotPrepared);
            }
            crate::device::cpu::otp::xor(&mut key, &part[..]);
        }
        let delivery = &fold.delivery;
        if key.len() as u64 != delivery.relayed_bytes() {
            return Err(Error::NotPrepared);
        }
        let check = relay::masked_hash(&fold.hash_key, &key);
        if let Some(first) = &fold.first
            && !bool::from(check[..].ct_eq(&first.check))
        {
            return Ok(Reply::Differs);
        }
        let position = self.supply.deliver(delivery, &key[..delivery.bytes() as usize])?;
        if let Some(first) = &fold.first {
            self.supply.follow(delivery, first.position)?;
        }
        Ok(Reply::Folded(Folded { check, position }))
    }

    /// The work in the background for one link: blocks come up, are agreed on, and used ones go.
    fn attend_link(&self, neighbour: &Neighbour) {
        let mut pulse = 0;
        while !self.is_stopped() {
            let watch = Stopwatch::start();
            let worked = self.pulse(neighbour, pulse % PULSES_OF_CARE == 0);
            let busy = match worked {
                Ok(busy) => busy,
                Err(error) => {
                    let what = with_causes(&error);
                    (self.notice)(format!("link to {}: {what}", neighbour.name));
                    for _ in 0..PULSES_OF_CARE {
                        if !self.is_stopped() {
                            Clock::system().sleep(PULSE);
                        }
                    }
                    false
                }
            };
            if !busy {
                // A pool of many blocks takes long to look through.
                Clock::system().sleep(PULSE.max(10 * watch.elapsed()));
            }
            pulse += 1;
        }
    }

    fn pulse(&self, neighbour: &Neighbour, care: bool) -> Result<bool, Error> {
        let mut pushed = 0;
        if let Some(module) = &mut *neighbour.module.lock().unwrap_or_else(PoisonError::into_inner)
        {
            pushed = module.push(&neighbour.pool)?;
        }
        let agreed = self.agree(neighbour)?;
        if care {
            if !neighbour.up.load(Ordering::SeqCst) {
                neighbour.ask(&Request::Greet)?;
            }
            self.replenish(neighbour)?;
            self.retire(neighbour)?;
        }
        Ok(pushed + agreed > 0)
    }

    /// Ends the blocks that are used up, when no relay is under way.
    fn retire(&self, neighbour: &Neighbour) -> Result<(), Error> {
        if self.expire() > 0 {
            return Ok(());
        }
        let (_turn, peer) = (neighbour.turn(), &neighbour.name);
        let marks = [self.links.sender(peer)?.mark(), self.links.follower(peer)?.mark()];
        let streams = [self.stream_to(peer), self.stream_from(peer)];
        for (stream, mark) in streams.iter().zip(marks) {
            neighbour.pool.retire(stream, mark, &[])?;
        }
        Ok(())
    }
}

impl Relay {
    /// The key of an end: made there, arrived there, or that of the link itself.
    fn into_key(self) -> Option<Chunk> {
        self.key.or_else(|| self.into.map(relay::Pad::into_key))
    }
}

fn no_stream(peer: &SiteId) -> crate::key::Error {
    crate::key::Error::UnknownPeer { site: peer.clone(), peer: peer.clone() }
}

fn send(connection: &mut Connection, reply: &Reply) -> Result<(), Error> {
    let text = serde_json::to_vec(reply).expect("replies are plain data");
    Ok(connection.send(kind::REPLY, &text)?)
}
