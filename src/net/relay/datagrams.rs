//! Relays of UDP datagrams.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::Target;
use crate::key::KeyStore;
use crate::net::flow::duplex::{self, Incoming, Outgoing};
use crate::net::flow::{Queued, Tally};
use crate::net::udp::{Inbox, Udp};
use crate::net::{Dialer, Error, Settings};
use crate::otp::packet::{Kind, Shape};

/// Senders on the application's side that are told apart; further ones take the place of the oldest.
const CHANNELS_MAX: usize = 256;
/// How long to wait for datagrams before looking whether the relay is to end.
const TURN: Duration = Duration::from_millis(100);
/// How often a packet goes out when the application is silent: tells the called site where the caller
/// is, and keeps address translators between them from forgetting it.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a relay of datagrams did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Relayed {
    /// From this site, as both ends counted.
    pub out: Tally,
    /// Datagrams of the application that were too long, or for which there was no key in time.
    pub dropped: u64,
}

/// Carries the datagrams that come to `local` to `target` beside the peer, and the answers back, until
/// `stop` is set.
///
/// Errors: whatever calling can fail with; [`Error::Broken`] and [`Error::Session`] later.
pub fn call(
    local: &Udp,
    dialer: &Dialer,
    (keys, settings): (&KeyStore, &Settings),
    target: &Target,
    shape: Shape,
    stop: &AtomicBool,
) -> Result<Relayed, Error> {
    let (mut outgoing, mut incoming) =
        duplex::call(dialer, keys, settings, &target.to_string(), shape)?;
    let clients = Mutex::new(Clients::default());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let back = scope.spawn(|| {
            let result = answers(local, &mut incoming, &clients, (stop, &over));
            over.store(true, Ordering::SeqCst);
            result.and_then(|()| incoming.finish())
        });
        let (mut inbox, mut dropped, mut silent) = (Inbox::new(), 0, KEEP_ALIVE);
        let sent = loop {
            if stop.load(Ordering::SeqCst) || over.load(Ordering::SeqCst) {
                break Ok(());
            }
            let turn = local.receive(&mut inbox, TURN).and_then(|any| {
                silent = if any { Duration::ZERO } else { silent + TURN };
                forward(&mut inbox, &mut outgoing, &clients, &mut dropped)?;
                if silent >= KEEP_ALIVE {
                    silent = Duration::ZERO;
                    outgoing.sender.put((Kind::Cover, 0), 0, TURN, |_| {})?;
                }
                outgoing.sender.flush()
            });
            if turn.is_err() {
                break turn;
            }
        };
        over.store(true, Ordering::SeqCst);
        let out = outgoing.finish();
        let back = back.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent?;
        back?;
        Ok(Relayed { out: out?, dropped })
    })
}

fn forward(
    inbox: &mut Inbox,
    outgoing: &mut Outgoing,
    clients: &Mutex<Clients>,
    dropped: &mut u64,
) -> Result<(), Error> {
    let mut result = Ok(());
    let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
    inbox.each(|from, datagram| {
        let channel = clients.channel(from);
        let copy = |place: &mut [u8]| place.copy_from_slice(datagram);
        match outgoing.sender.put((Kind::Data, channel), datagram.len(), TURN, copy) {
            Ok(Queued::Yes) => {}
            // As a network does with what does not fit, or what comes too fast.
            Ok(Queued::NoKey) | Err(Error::Session { .. }) => *dropped += 1,
            Err(error) => result = Err(error),
        }
    });
    result
}

fn answers(
    local: &Udp,
    incoming: &mut Incoming,
    clients: &Mutex<Clients>,
    (stop, over): (&AtomicBool, &AtomicBool),
) -> Result<(), Error> {
    loop {
        let mut result = Ok(());
        incoming.receiver.receive(TURN, |head, payload| {
            let clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(to) = clients.address(head.channel) {
                result = local.send(to, payload, payload.len().max(1));
            }
        })?;
        result?;
        let ended = stop.load(Ordering::SeqCst) || over.load(Ordering::SeqCst);
        if ended || incoming.finished().is_some() {
            return Ok(());
        }
    }
}

/// Who sends at the application's side, by number.
#[derive(Default)]
struct Clients {
    addresses: Vec<SocketAddr>,
    channels: HashMap<SocketAddr, u16>,
    next: usize,
}

impl Clients {
    fn channel(&mut self, from: SocketAddr) -> u16 {
        if let Some(channel) = self.channels.get(&from) {
            return *channel;
        }
        let channel = self.next % CHANNELS_MAX;
        self.next += 1;
        match self.addresses.get_mut(channel) {
            Some(place) => {
                self.channels.remove(place);
                *place = from;
            }
            None => self.addresses.push(from),
        }
        self.channels.insert(from, channel as u16);
        channel as u16
    }

    fn address(&self, channel: u16) -> Option<SocketAddr> {
        self.addresses.get(usize::from(channel)).copied()
    }
}

/// Serves a relay at the called site until the caller ends it.
pub(super) fn answer(
    (outgoing, mut incoming): (Outgoing, Incoming),
    target: &str,
) -> Result<(), Error> {
    let unreachable = |source| Error::Unreachable { address: target.into(), source };
    let mut found = target.to_socket_addrs().map_err(unreachable)?;
    let target = found.next().ok_or_else(|| unreachable(std::io::ErrorKind::NotFound.into()))?;
    let outgoing = Mutex::new(outgoing);
    let over = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        let mut sockets: HashMap<u16, Arc<Udp>> = HashMap::new();
        let result = loop {
            let mut result = Ok(());
            let any = incoming.receiver.receive(TURN, |head, payload| {
                let channel = head.channel;
                if !sockets.contains_key(&channel) {
                    // As a network does with whom it has no room for.
                    let Some(socket) = open_towards(target, sockets.len()) else { return };
                    let (back, outgoing, over) = (Arc::clone(&socket), &outgoing, &over);
                    scope.spawn(move || send_back(&back, channel, outgoing, over));
                    sockets.insert(channel, socket);
                }
                if let Some(socket) = sockets.get(&channel) {
                    result = socket.send(target, payload, payload.len().max(1));
                }
            });
            match any.and(result) {
                Ok(()) if incoming.finished().is_none() => {}
                other => break other,
            }
        };
        over.store(true, Ordering::SeqCst);
        result
    });
    let outgoing = outgoing.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ended = outgoing.finish();
    incoming.finish()?;
    result.and(ended.map(drop))
}

/// A socket for one more of the application's senders.
fn open_towards(target: SocketAddr, already: usize) -> Option<Arc<Udp>> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let any = any.parse().expect("a plain address");
    (already < CHANNELS_MAX).then(|| Udp::bind(any).ok().map(Arc::new)).flatten()
}

/// Carries what comes to one of the sockets back to the caller.
fn send_back(socket: &Udp, channel: u16, outgoing: &Mutex<Outgoing>, over: &AtomicBool) {
    let mut inbox = Inbox::new();
    while !over.load(Ordering::SeqCst) {
        let any = socket.receive(&mut inbox, TURN);
        let mut outgoing = outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.each(|_, datagram| {
            let copy = |place: &mut [u8]| place.copy_from_slice(datagram);
            // What does not fit or finds no key is dropped, as by a network.
            let _ = outgoing.sender.put((Kind::Data, channel), datagram.len(), TURN, copy);
        });
        if outgoing.sender.flush().and(any).is_err() {
            return;
        }
    }
}
