//! Relays: an application's own TCP connections and UDP datagrams, carried to the peer's side under
//! the pad. Only their payload is hidden: the paper's "header encryption: no".
//!
//! Each TCP connection of the application becomes two sessions, one for either direction, so that one
//! that stands still does not hold up the other. Datagrams become packets with clear headers; what is
//! lost is lost, as the application expects of UDP. The called site connects to nothing that it was not
//! told to permit.

mod datagrams;
mod streams;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::flow::duplex::Switchboard;
use super::flow::{Carrier, offered, refuse};
use super::{Connection, Error, Incoming, Settings};
use crate::base::SiteId;
use crate::key::KeyStore;

pub use datagrams::call as call_datagrams;
pub use streams::call as call_streams;

/// How long a relayed connection may stand still.
pub const IDLE: Duration = Duration::from_secs(24 * 3600);

/// Where a relay ends: something that listens beside the called site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// TCP or UDP.
    pub carrier: Carrier,
    /// `host:port`.
    pub address: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (carrier, address) = match text.split_once(':') {
            Some(("tcp", address)) => (Carrier::Tcp, address),
            Some(("udp", address)) => (Carrier::Udp, address),
            _ => return Err(format!("'{text}' is not tcp:HOST:PORT or udp:HOST:PORT")),
        };
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self { carrier, address: address.into() })
            }
            _ => Err(format!("'{address}' is not HOST:PORT")),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let carrier = if self.carrier == Carrier::Tcp { "tcp" } else { "udp" };
        write!(f, "{carrier}:{}", self.address)
    }
}

/// The called end of relays.
pub struct Relays {
    keys: KeyStore,
    settings: Settings,
    /// Who may reach what.
    permitted: Vec<(SiteId, Target)>,
    datagrams: Switchboard,
    streams: streams::Pairs,
}

impl Relays {
    /// Relays for these peers to these targets and to nothing else.
    pub fn new(keys: KeyStore, settings: Settings, permitted: Vec<(SiteId, Target)>) -> Arc<Self> {
        let (datagrams, streams) = (Switchboard::default(), streams::Pairs::default());
        Arc::new(Self { keys, settings, permitted, datagrams, streams })
    }

    /// Serves one call until its relay ends.
    ///
    /// Errors: whatever ends it other than its own end.
    pub fn attend(&self, incoming: Incoming, local: SocketAddr) -> Result<(), Error> {
        let mut connection = incoming.handshake(&self.keys, &self.settings)?;
        let offer = offered(&mut connection)?;
        let target = self.target(&connection, &offer.purpose, offer.carrier);
        let Some(target) = target.filter(|_| self.settings.permits(offer.shape.cipher)) else {
            return refuse(&mut connection, "this is not permitted here");
        };
        match offer.carrier {
            Carrier::Tcp => self.streams.answer(connection, offer.token, &target.address),
            Carrier::Udp => {
                let ip = local.ip();
                let flow =
                    self.datagrams.answer(connection, &offer, ip, &self.keys, &self.settings)?;
                flow.map_or(Ok(()), |flow| datagrams::answer(flow, &target.address))
            }
        }
    }

    fn target(&self, connection: &Connection, purpose: &str, carrier: Carrier) -> Option<&Target> {
        let wanted = purpose.parse::<Target>().ok().filter(|target| target.carrier == carrier)?;
        self.permitted
            .iter()
            .find(|(peer, target)| peer == connection.peer() && *target == wanted)
            .map(|(_, target)| target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for text in ["tcp:127.0.0.1:80", "udp:[::1]:5004", "tcp:host.example:443"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        for text in ["", "tcp", "tcp:80", "sctp:a:1", "udp:a:99999", "tcp::1"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
