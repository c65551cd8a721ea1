//! A flow over UDP in both directions, between two sites of which one called.
//!
//! Each direction has a control connection of its own, led by the end that sends, so that neither ever
//! waits for the other's turn.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};

use super::{
    Accepted, Claimer, DatagramReceiver, DatagramSender, Destination, Gone, Granter, Offer, Tally,
    accept, refuse, request,
};
use crate::base::SiteId;
use crate::key::KeyStore;
use crate::net::udp::Udp;
use crate::net::{Connection, Dialer, Error, Settings};
use crate::otp::packet::Shape;

/// How long the second connection of a caller may take.
const SECOND_WAIT: Duration = Duration::from_secs(20);

/// The direction from this site.
pub struct Outgoing {
    /// Where packets are put.
    pub sender: DatagramSender,
    granter: Granter,
}

/// The direction to this site.
pub struct Incoming {
    /// Where packets come from.
    pub receiver: DatagramReceiver,
    claimer: Claimer,
}

impl Outgoing {
    /// Ends the direction; gives what both ends counted.
    ///
    /// Errors: what ended the granting of keys before.
    pub fn finish(self) -> Result<Tally, Error> {
        let Self { sender, granter } = self;
        let sent = Tally { sent: sender.traffic().into(), ..Tally::default() };
        drop(sender);
        granter.finish(sent)
    }
}

impl Incoming {
    /// What the peer says that it sent, once it has ended the direction; or that it is gone.
    pub fn finished(&self) -> Option<Result<Tally, Gone>> {
        self.claimer.finished()
    }

    /// Tells the peer what came.
    ///
    /// Errors: what ended the control connection before.
    pub fn finish(self) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        tally.add_delivered(self.receiver.opener().traffic(), self.receiver.opener().refusals());
        self.claimer.finish(tally)?;
        Ok(tally)
    }
}

/// Calls a peer for a flow of packets of `shape` in both directions.
///
/// Errors: [`Error::Declined`] with the peer's reason; whatever calling can fail with.
pub fn call(
    dialer: &Dialer,
    keys: &KeyStore,
    settings: &Settings,
    purpose: &str,
    shape: Shape,
) -> Result<(Outgoing, Incoming), Error> {
    let peer = dialer.peer();
    let mut up = dialer.dial()?;
    let offer = Offer {
        purpose: purpose.into(),
        carrier: super::Carrier::Udp,
        shape,
        streams: 0,
        token: None,
    };
    let accepted = request(&mut up, &offer)?;
    let mut down = dialer.dial()?;
    request(&mut down, &Offer { token: Some(accepted.token), ..offer })?;
    let address = resolved(up.address(), accepted.port)?;
    let socket = Udp::bind(SocketAddr::new(unspecified(address), 0))?;
    let known = Destination::known(address);
    both(socket, (known, Destination::default()), (up, down), (keys, peer), shape, settings)
}

fn both(
    socket: Udp,
    (destination, learnt): (Destination, Destination),
    (grants, claims): (Connection, Connection),
    (keys, peer): (&KeyStore, &SiteId),
    shape: Shape,
    settings: &Settings,
) -> Result<(Outgoing, Incoming), Error> {
    let socket = Arc::new(socket);
    let address = grants.address().to_owned();
    let failed = |source| Error::Keys { address: address.clone(), source };
    let spend = Box::new(keys.sender(peer).map_err(failed)?);
    let follow = Box::new(keys.follower(peer).map_err(failed)?);
    let granter = Granter::start(grants, spend, shape, settings.clone())?;
    let claimer = Claimer::start(claims, follow, shape)?;
    let sender = DatagramSender::new(Arc::clone(&socket), destination, shape, granter.blocks());
    let receiver = DatagramReceiver::new(socket, learnt, shape, claimer.blocks());
    Ok((Outgoing { sender, granter }, Incoming { receiver, claimer }))
}

fn resolved(called: &str, port: u16) -> Result<SocketAddr, Error> {
    let unreachable = |source| Error::Unreachable { address: called.into(), source };
    let mut found = called.to_socket_addrs().map_err(unreachable)?;
    let first = found.next().ok_or_else(|| unreachable(std::io::ErrorKind::NotFound.into()))?;
    Ok(SocketAddr::new(first.ip(), port))
}

fn unspecified(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => IpAddr::from([0u8; 4]),
        SocketAddr::V6(_) => IpAddr::from([0u8; 16]),
    }
}

/// The flows whose second connection has not come yet.
#[derive(Default)]
pub struct Switchboard(Mutex<HashMap<u64, (SiteId, Sender<Connection>)>>);

impl Switchboard {
    /// Answers an offer. `None` when the connection is the second of a flow and was handed over.
    ///
    /// Errors: [`Error::Slow`] when the second connection does not come; [`Error::Unexpected`] when
    /// it is of no flow.
    pub fn answer(
        &self,
        mut connection: Connection,
        offer: &Offer,
        local: IpAddr,
        keys: &KeyStore,
        settings: &Settings,
    ) -> Result<Option<(Outgoing, Incoming)>, Error> {
        if let Some(token) = offer.token {
            self.hand_over(connection, token)?;
            return Ok(None);
        }
        let socket = Udp::bind(SocketAddr::new(local, 0))?;
        let address = connection.address().to_owned();
        let token = getrandom::u64()
            .map_err(|error| Error::Random { address: address.clone(), source: error.into() })?;
        let (given, second) = bounded(1);
        let peer = connection.peer().clone();
        self.waiting().insert(token, (peer.clone(), given));
        let port = socket.local_address().port();
        let buffer_bytes = socket.receive_buffer_bytes() as u64;
        let agreed = accept(&mut connection, Accepted { port, token, buffer_bytes });
        let second = agreed.and_then(|()| {
            let slow = |_| Error::Slow { address: address.clone(), waited: SECOND_WAIT };
            second.recv_timeout(SECOND_WAIT).map_err(slow)
        });
        self.waiting().remove(&token);
        let learnt = Destination::default();
        let ends = (learnt.clone(), learnt);
        both(socket, ends, (second?, connection), (keys, &peer), offer.shape, settings).map(Some)
    }

    fn hand_over(&self, mut connection: Connection, token: u64) -> Result<(), Error> {
        let waiting = self.waiting().remove(&token);
        match waiting.filter(|(peer, _)| peer == connection.peer()) {
            Some((_, given)) => {
                accept(&mut connection, Accepted { port: 0, token, buffer_bytes: 0 })?;
                // Whoever waited too long has said so to the other connection.
                let _ = given.send(connection);
                Ok(())
            }
            None => refuse(&mut connection, "there is no such flow"),
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, (SiteId, Sender<Connection>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
