//! The slave's end of the link between two key managers: holds what the other end grants.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::grant::{self, Entry, Verdict};
use super::held::{Group, HeldKeys};
use super::identity::SaeId;
use super::message::NamedKey;
use super::name::{Names, PERMUTATION_KEY_BYTES};
use super::supply::Supply;
use crate::base::fault::with_causes;
use crate::base::{Chunk, Clock, Secret, SiteId};
use crate::key::KeyStore;
use crate::net::{self, Connection, Incoming, Listener};

/// Other key managers that are served at once; further ones are closed.
const CONNECTIONS_MAX: usize = 64;
/// Bytes of key that may lie unused in one session.
const SUPPLY_BYTES_MAX: usize = 8 << 20;

/// Where every application is: the site of its key manager.
pub type Directory = BTreeMap<SaeId, SiteId>;

/// Takes the calls of other key managers.
#[derive(Clone)]
pub struct Receiver {
    /// The links of this site.
    pub keys: KeyStore,
    /// How connections behave.
    pub net: net::Settings,
    /// Where the keys go.
    pub held: Arc<HeldKeys>,
    /// Who is where.
    pub directory: Arc<Directory>,
    /// Is told what goes wrong.
    pub note: Arc<dyn Fn(String) + Send + Sync>,
}

impl Receiver {
    /// Serves until the listener is closed. Sessions that are open then end with the process.
    pub fn serve(self, listener: &Listener) {
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let incoming = match listener.accept() {
                Ok(incoming) => incoming,
                Err(net::Error::ListenerClosed { .. }) => return,
                Err(error) => {
                    (self.note)(with_causes(&error));
                    Clock::system().sleep(Duration::from_millis(100));
                    continue;
                }
            };
            if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (receiver, open) = (self.clone(), Arc::clone(&open));
            std::thread::spawn(move || {
                if let Err(error) = receiver.attend(incoming) {
                    (receiver.note)(with_causes(&error));
                }
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    fn attend(&self, incoming: Incoming) -> Result<(), net::Error> {
        let mut connection = incoming.handshake(&self.keys, &self.net)?;
        let mut session = Session::new(self, connection.peer().clone());
        while let Some(message) = connection.receive()? {
            let answer = match message.kind {
                grant::GRANT => session.grant(&message.payload).map(Some),
                kind => session.supply(kind, message.payload).map(|()| None),
            };
            match answer {
                Some(Some(answer)) => connection.send(grant::GRANTED, &answer)?,
                Some(None) => {}
                None => return Err(broken(&connection)),
            }
        }
        Ok(())
    }
}

/// A peer that was authenticated and does not keep to the protocol is cut off.
fn broken(connection: &Connection) -> net::Error {
    net::Error::CutOff { address: connection.address().into() }
}

/// What one session has brought so far.
struct Session<'a> {
    receiver: &'a Receiver,
    peer: SiteId,
    names: Option<Names>,
    supply: Supply,
    /// With whether the group may have keys from this peer.
    groups: Vec<(Arc<Group>, bool)>,
}

impl<'a> Session<'a> {
    fn new(receiver: &'a Receiver, peer: SiteId) -> Self {
        Self { receiver, peer, names: None, supply: Supply::default(), groups: Vec::new() }
    }

    /// Takes in key. `None` for what the protocol does not have.
    fn supply(&mut self, kind: u16, mut payload: Chunk) -> Option<()> {
        payload.mark_secret();
        match kind {
            grant::NAMES if self.names.is_none() => {
                let mut key = Secret::new([0; PERMUTATION_KEY_BYTES]);
                key.expose_mut().copy_from_slice(payload.get(..PERMUTATION_KEY_BYTES)?);
                self.names = Some(Names::new(&key));
            }
            grant::SUPPLY if self.supply.bytes() + payload.len() <= SUPPLY_BYTES_MAX => {
                self.supply.add(payload);
            }
            _ => return None,
        }
        Some(())
    }

    /// Holds what is granted; the answer to it. `None` for what the protocol does not have.
    fn grant(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let (sequence, entries) = grant::parse_grant(payload)?;
        let mut verdicts = Vec::new();
        for entry in entries {
            match entry {
                Entry::Group(group) => {
                    let good = self.is_known(&group);
                    self.groups.push((Arc::new(group), good));
                }
                Entry::Fresh { group, number, bytes } => {
                    let names = self.names.as_mut()?;
                    let keys = self.supply.take(number.into(), bytes as usize, names)?;
                    verdicts.push(self.hold(group, keys)?);
                }
                Entry::Copies { group, keys } => verdicts.push(self.hold(group, keys)?),
            }
        }
        Some(grant::write_granted(sequence, &verdicts))
    }

    fn hold(&self, group: u16, keys: Vec<NamedKey>) -> Option<Verdict> {
        let (group, known) = self.groups.get(usize::from(group))?;
        if !known {
            return Some(Verdict::Unknown);
        }
        let held = self.receiver.held.hold(keys, group);
        Some(if held.is_ok() { Verdict::Held } else { Verdict::Full })
    }

    /// Whether the master is at the peer, and the slaves are here.
    fn is_known(&self, group: &Group) -> bool {
        let site = |id: &SaeId| self.receiver.directory.get(id);
        site(&group.master) == Some(&self.peer)
            && group.slaves.iter().all(|slave| site(slave) == Some(self.receiver.keys.site()))
    }
}
