//! All key links of a site: where sessions get their sender and their follower from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::base::{BitRate, ByteCount, Clock, SiteId};

use super::chunks::LeaseChunks;
use super::journal::{Journal, link_folder, record_path};
use super::ledger::{self, Record, Role};
use super::pool::{self, Pool};
use super::preshared;
use super::source::{self, Opening, from_position, streams};
use super::{
    AtRest, Error, Follower, KeyRange, KeySource, LinkSettings, Provenance, Sender, StreamId,
};

/// The key links of one site. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct KeyStore(Arc<Inner>);

struct Inner {
    site: SiteId,
    state: PathBuf,
    links: BTreeMap<SiteId, LinkSettings>,
    clock: Clock,
    chunks: Arc<LeaseChunks>,
}

/// How much key a link has, at this site and now.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkLevel {
    /// The other end.
    pub peer: SiteId,
    /// What this site can still spend.
    pub outgoing: StreamLevel,
    /// What the peer can still spend, as far as this site has heard.
    pub incoming: StreamLevel,
    /// What is known about the keys.
    pub provenance: Provenance,
    /// Why the link is not to be used, if it is not.
    pub quarantine: Option<&'static str>,
    /// What they are to somebody who takes this site's disk.
    pub at_rest: AtRest,
}

impl LinkLevel {
    /// What the keys protect against whom, in a line: for receipts.
    pub fn protection(&self) -> String {
        format!("{}; {} on a stolen disk", self.provenance, self.at_rest)
    }
}

/// How much key one direction of a link has.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StreamLevel {
    /// Neither reserved nor claimed.
    pub remaining: ByteCount,
    /// Reserved or claimed since the beginning, used or not.
    pub spent: ByteCount,
    /// What arrives.
    pub rate: BitRate,
}

impl KeyStore {
    /// Opens the links of `site`, whose records are kept in the folder `state`.
    pub fn open(
        site: SiteId,
        state: &Path,
        links: &[LinkSettings],
        clock: Clock,
    ) -> Result<Self, Error> {
        let links = links.iter().map(|link| (link.peer.clone(), link.clone())).collect();
        let chunks = Arc::default();
        let store = Self(Arc::new(Inner { site, state: state.into(), links, clock, chunks }));
        for peer in store.peers() {
            store.source(&peer)?;
        }
        Ok(store)
    }

    /// The site whose links these are.
    pub fn site(&self) -> &SiteId {
        &self.0.site
    }

    /// Every site there is a link to.
    pub fn peers(&self) -> Vec<SiteId> {
        self.0.links.keys().cloned().collect()
    }

    /// A new session's hold on the stream towards `peer`.
    pub fn sender(&self, peer: &SiteId) -> Result<Sender, Error> {
        let source = self.source(peer)?;
        Sender::new(self.journal(peer, Role::Sender, &*source)?, source, Arc::clone(&self.0.chunks))
    }

    /// A new session's view of the stream from `peer`.
    pub fn follower(&self, peer: &SiteId) -> Result<Follower, Error> {
        let source = self.source(peer)?;
        Follower::new(
            self.journal(peer, Role::Follower, &*source)?,
            source,
            Arc::clone(&self.0.chunks),
        )
    }

    /// How much key the link to `peer` has.
    pub fn level(&self, peer: &SiteId) -> Result<LinkLevel, Error> {
        let source = self.source(peer)?;
        let (outgoing, incoming) = streams(self.site(), peer);
        let level = |role, stream: &StreamId| {
            // A record that is damaged has nothing left.
            let mark = match self.journal(peer, role, &*source)?.load() {
                Err(Error::Quarantined { .. }) => u64::MAX,
                mark => mark?.position(),
            };
            let remaining = from_position(&source.ready(stream)?, mark);
            let spent = match self.ledger(peer, role) {
                Err(Error::LedgerDamaged { .. }) => 0,
                ledger => ledger?.iter().map(|record| record.range.bytes()).sum(),
            };
            Ok::<_, Error>(StreamLevel {
                remaining: ByteCount(remaining.iter().map(KeyRange::bytes).sum()),
                spent: ByteCount(spent),
                rate: source.rate(),
            })
        };
        Ok(LinkLevel {
            peer: peer.clone(),
            outgoing: level(Role::Sender, &outgoing)?,
            incoming: level(Role::Follower, &incoming)?,
            provenance: source.provenance().clone(),
            quarantine: self.quarantine(peer)?,
            at_rest: source.at_rest(),
        })
    }

    /// Why one direction of the link to `peer` must not be used, if it is so: a state folder was
    /// lost or set back. [`declare_lost`](Self::declare_lost) ends it.
    pub fn quarantine(&self, peer: &SiteId) -> Result<Option<&'static str>, Error> {
        let source = self.source(peer)?;
        for role in [Role::Sender, Role::Follower] {
            match self.journal(peer, role, &*source)?.load_usable() {
                Ok(_) => {}
                Err(Error::Quarantined { reason, .. }) => return Ok(Some(reason)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What this site reserved or claimed on one direction of the link to `peer`, for the oracle
    /// [`ledger::check`]. Empty where nothing was.
    pub fn ledger(&self, peer: &SiteId, role: Role) -> Result<Vec<Record>, Error> {
        let path = record_path(&link_folder(&self.0.state, peer), role);
        if !path.exists() {
            return Ok(Vec::new());
        }
        ledger::read(&path)
    }

    /// Gives up all keys of one direction of the link to `peer` below `unit` and below anything
    /// that the records of this site name, and so ends a quarantine. Returns the new mark.
    ///
    /// This is the operator's answer to a lost or restored state folder: `unit` is the mark that
    /// the other end has, or the end of the supply when that is lost too.
    pub fn declare_lost(&self, peer: &SiteId, role: Role, unit: u64) -> Result<u64, Error> {
        let source = self.source(peer)?;
        self.journal(peer, role, &*source)?.declare_lost(unit)
    }

    /// Moves the pad at `file` into the state folder, as key for the link to `peer`: into its pool, if
    /// it has one. Sessions that are running do not see other pads.
    pub fn import_pad(&self, peer: &SiteId, file: &Path) -> Result<(), Error> {
        match self.pool_folder(peer) {
            Some(folder) => Pool::open(&folder, self.site().clone(), self.0.clock.clone())?
                .import_pad(peer, file),
            None => preshared::import(self.site(), &self.0.state, peer, file).map(drop),
        }
    }

    /// Where the pool of the link to `peer` is, if its keys come from one.
    pub fn pool_folder(&self, peer: &SiteId) -> Option<PathBuf> {
        let settings = self.0.links.get(peer).filter(|link| link.kind == pool::KIND)?;
        Some(settings.file.clone().unwrap_or_else(|| pool::folder(&self.0.state, peer)))
    }

    /// Destroys all key of the link to `peer` that is left at this site, in both directions, and gives
    /// up its positions. Returns how much could have been sent and received.
    ///
    /// The other end has to do the same: what it sends with keys that are gone cannot be read.
    pub fn erase(&self, peer: &SiteId) -> Result<[ByteCount; 2], Error> {
        let source = self.source(peer)?;
        let (outgoing, incoming) = streams(self.site(), peer);
        let mut gone = [ByteCount(0); 2];
        let ends = [(Role::Sender, outgoing), (Role::Follower, incoming)];
        for ((role, stream), gone) in ends.into_iter().zip(&mut gone) {
            let journal = self.journal(peer, role, &*source)?;
            let left = from_position(&source.ready(&stream)?, journal.load()?.position());
            let Some(end) = left.iter().map(KeyRange::end).max() else { continue };
            journal.declare_lost(end)?;
            left.iter().try_for_each(|range| source.erase(&stream, *range))?;
            gone.0 = left.iter().map(KeyRange::bytes).sum();
        }
        Ok(gone)
    }

    fn source(&self, peer: &SiteId) -> Result<Box<dyn KeySource>, Error> {
        let unknown = || Error::UnknownPeer { site: self.site().clone(), peer: peer.clone() };
        let settings = self.0.links.get(peer).ok_or_else(unknown)?;
        let folder = link_folder(&self.0.state, peer);
        let clock = &self.0.clock;
        source::open(&Opening { site: self.site(), folder: &folder, settings, clock })
    }

    fn journal(&self, peer: &SiteId, role: Role, source: &dyn KeySource) -> Result<Journal, Error> {
        let (outgoing, incoming) = streams(self.site(), peer);
        let stream = if role == Role::Sender { outgoing } else { incoming };
        Journal::open(&link_folder(&self.0.state, peer), stream, role, self.0.clock.clone(), source)
    }
}
