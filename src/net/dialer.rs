//! How to reach one peer, again and again, and what was carried there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Connection, Error, Settings, dial};
use crate::base::SiteId;
use crate::key::KeyStore;

/// What links carried, by peer. Clones share their counts.
#[derive(Clone, Default)]
pub struct Traffic(Arc<Mutex<BTreeMap<SiteId, Carried>>>);

/// What one link carried, both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Payload bytes.
    pub payload_bytes: u64,
    /// Key bytes.
    pub key_bytes: u64,
    /// Payload bytes that only AES-256-GCM protected.
    pub computational_bytes: u64,
}

impl Traffic {
    /// Adds to what the link to `peer` carried.
    pub fn add(&self, peer: &SiteId, carried: Carried) {
        let mut by_peer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total = by_peer.entry(peer.clone()).or_default();
        total.payload_bytes += carried.payload_bytes;
        total.key_bytes += carried.key_bytes;
        total.computational_bytes += carried.computational_bytes;
    }

    /// What every link carried, for the connections that have ended.
    pub fn by_peer(&self) -> BTreeMap<SiteId, Carried> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How to reach one peer.
#[derive(Clone)]
pub struct Dialer {
    address: String,
    peer: SiteId,
    keys: KeyStore,
    settings: Settings,
    traffic: Traffic,
}

impl Dialer {
    /// Calls of `peer` at `address`, counted in `traffic` when they end.
    pub fn new(
        address: String,
        peer: SiteId,
        keys: KeyStore,
        settings: Settings,
        traffic: Traffic,
    ) -> Self {
        Self { address, peer, keys, settings, traffic }
    }

    /// The peer.
    pub fn peer(&self) -> &SiteId {
        &self.peer
    }

    /// Calls the peer ([`dial`]).
    pub fn dial(&self) -> Result<Connection, Error> {
        let connection = dial(&self.address, &self.peer, &self.keys, &self.settings)?;
        Ok(connection.counted_in(self.traffic.clone()))
    }
}
