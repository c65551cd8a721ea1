//! A site as a node of a key network: its settings become an agent or the server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Settings;
use crate::base::{Clock, SiteId};
use crate::key::KeyStore;
use crate::management::{Agent, Error, OnNotice, Opening, Server, Topology};
use crate::net::{self, Dialer, Traffic};

/// Opens the key management agent of a node.
///
/// Errors: [`Error::NotConfigured`] when a neighbour has no address.
pub fn open_agent(settings: &Settings, notice: OnNotice) -> Result<Arc<Agent>, Error> {
    let control = control_keys(settings)?;
    let peers = settings.management.links.iter().map(|link| &link.peer);
    let dialers = peers.filter_map(|peer| Some((peer.clone(), dialer(settings, &control, peer)?)));
    Agent::open(Opening {
        node: settings.site.clone(),
        state: settings.state.clone(),
        settings: settings.management.clone(),
        neighbours: dialers.collect(),
        control,
        net: net_settings(settings),
        notice,
        clock: Clock::system(),
    })
}

/// Opens the key management server of a network.
///
/// Errors: [`Error::NotConfigured`] when there is no topology, or a node has no address.
pub fn open_server(settings: &Settings, notice: OnNotice) -> Result<Server, Error> {
    let what = "the topology ('[management] topology = NAME or FILE')".into();
    let name = settings.management.topology.as_ref().ok_or(Error::NotConfigured { what })?;
    let (topology, control) = (Topology::load(name)?, control_keys(settings)?);
    let peers = topology.nodes.iter().map(|node| &node.name);
    let dialers: Vec<_> = peers.filter_map(|peer| dialer(settings, &control, peer)).collect();
    Server::new(topology, dialers, settings.management.floor, notice)
}

/// The keys that a node's agent manages, for its operator.
pub fn managed_keys(settings: &Settings) -> Result<KeyStore, Error> {
    let links = settings.management.links.iter().map(|link| link.peer.clone());
    let links: Vec<_> = links.map(crate::key::LinkSettings::pooled).collect();
    Ok(KeyStore::open(settings.site.clone(), &managed_state(settings), &links, Clock::system())?)
}

fn managed_state(settings: &Settings) -> PathBuf {
    crate::management::links_state(&settings.state)
}

fn control_keys(settings: &Settings) -> Result<KeyStore, Error> {
    Ok(KeyStore::open(settings.site.clone(), &settings.state, &settings.key, Clock::system())?)
}

fn dialer(settings: &Settings, keys: &KeyStore, peer: &SiteId) -> Option<Dialer> {
    let entry = settings.peer.iter().find(|entry| entry.site == *peer)?;
    let (address, peer) = (entry.address.clone()?, peer.clone());
    let net = net_settings(settings);
    // Whoever is asked answers at once; callers may be silent for longer.
    let net = net::Settings { idle: net.deadline, ..net };
    Some(Dialer::new(address, peer, keys.clone(), net, Traffic::default()))
}

fn net_settings(settings: &Settings) -> net::Settings {
    net::Settings {
        // An agent that has no key for its sessions says so, instead of keeping everybody waiting.
        key_wait: Duration::from_secs(settings.net.key_wait_seconds.min(10)),
        deadline: Duration::from_secs(settings.net.deadline_seconds),
        ..net::Settings::default()
    }
}
