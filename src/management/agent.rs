//! KMA: the agent of one node. It alone opens the pools of the node's links; it agrees on blocks with
//! its neighbours, and relays and supplies key on the server's order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::caller::Caller;
use super::protocol::{LinkReport, Reply, Report, Request, TAG_KEY_BYTES, Transaction};
use super::qkd::Module;
use super::relay::Pad;
use super::settings::Settings;
use super::supply::Supply;
use super::{Error, OnNotice};
use crate::base::clock::Stopwatch;
use crate::base::{ByteCount, Chunk, Clock, SiteId};
use crate::key::ledger::{Record, Role};
use crate::key::pool;
use crate::key::{
    Class, Follower, KeyLease, KeyRange, KeyStore, LinkSettings, Pool, Provenance, RandomSettings,
    Sender, StreamId,
};
use crate::net;

/// How long a relay that was prepared is kept.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Relays that are prepared at once.
const TRANSACTIONS_MAX: usize = 1024;

/// How to reach peers, and what the node is.
pub struct Opening {
    /// The node.
    pub node: SiteId,
    /// Its state folder.
    pub state: PathBuf,
    /// Its part of the settings.
    pub settings: Settings,
    /// The keys of its own sessions.
    pub control: KeyStore,
    /// How to call each neighbour.
    pub neighbours: BTreeMap<SiteId, net::Dialer>,
    /// How connections behave.
    pub net: net::Settings,
    /// What the operator should know.
    pub notice: OnNotice,
    /// The time.
    pub clock: Clock,
}

/// The agent of one node.
pub struct Agent {
    pub(super) node: SiteId,
    pub(super) settings: Settings,
    pub(super) control: KeyStore,
    /// The keys that it manages.
    pub(super) links: KeyStore,
    pub(super) neighbours: BTreeMap<SiteId, Neighbour>,
    pub(super) net: net::Settings,
    pub(super) supply: Supply,
    pub(super) clock: Clock,
    pub(super) notice: OnNotice,
    transactions: Mutex<BTreeMap<Transaction, Relay>>,
    stopped: AtomicBool,
    /// Makes this node change what it relays.
    #[cfg(test)]
    pub(super) corrupt: AtomicBool,
}

/// A node at the other end of a link.
pub(super) struct Neighbour {
    pub(super) name: SiteId,
    pub(super) caller: Caller,
    pub(super) relay: Option<String>,
    pub(super) pool: Pool,
    pub(super) up: AtomicBool,
    pub(super) module: Mutex<Option<Module>>,
    /// Held while keys are taken from the pool, or blocks are ended.
    turn: Mutex<()>,
    /// Held so that nobody takes the streams for abandoned.
    _held: Mutex<(Sender, Follower)>,
}

/// What a node holds of one relay. Dropped, all of it is wiped.
#[derive(Default)]
pub(super) struct Relay {
    pub(super) into: Option<Pad>,
    pub(super) out: Option<(SiteId, Pad)>,
    pub(super) key: Option<Chunk>,
    age: Option<Stopwatch>,
}

impl Agent {
    /// Opens the pools of all links.
    pub fn open(opening: Opening) -> Result<Arc<Self>, Error> {
        let Opening { node, state, settings, control, mut neighbours, net, notice, clock } =
            opening;
        let state_of_links = super::links_state(&state);
        let links: Vec<_> =
            settings.links.iter().map(|link| LinkSettings::pooled(link.peer.clone())).collect();
        let links = KeyStore::open(node.clone(), &state_of_links, &links, clock.clone())?;
        let mut known = BTreeMap::new();
        for link in &settings.links {
            let peer = &link.peer;
            let folder = pool::folder(&state_of_links, peer);
            let pool = Pool::open(&folder, node.clone(), clock.clone())?;
            let module = Module::open(&node, link, &pool, clock.clone())?;
            if let Some(module) = &module {
                pool.set_terms(&module.terms())?;
            }
            let what = || format!("a [[peer]] with the address of '{peer}'");
            let dialer =
                neighbours.remove(peer).ok_or_else(|| Error::NotConfigured { what: what() })?;
            known.insert(
                peer.clone(),
                Neighbour {
                    name: peer.clone(),
                    caller: Caller::new(dialer),
                    relay: link.relay.clone(),
                    pool,
                    up: AtomicBool::new(true),
                    module: Mutex::new(module),
                    turn: Mutex::default(),
                    _held: Mutex::new((links.sender(peer)?, links.follower(peer)?)),
                },
            );
        }
        let site = settings.site.clone().unwrap_or_else(|| node.clone());
        let folder = settings.supply.clone().unwrap_or_else(|| state.join("supply"));
        Ok(Arc::new(Self {
            supply: Supply::new(site, folder, clock.clone()),
            node,
            settings,
            control,
            links,
            neighbours: known,
            net,
            clock,
            notice,
            transactions: Mutex::default(),
            stopped: AtomicBool::new(false),
            #[cfg(test)]
            corrupt: AtomicBool::new(false),
        }))
    }

    /// The keys that it manages, for its ledgers.
    pub fn links(&self) -> &KeyStore {
        &self.links
    }

    /// The pool of the link to `peer`.
    pub fn pool(&self, peer: &SiteId) -> Result<&Pool, Error> {
        Ok(&self.neighbour(peer)?.pool)
    }

    /// Ends all that goes on in the background.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(super) fn neighbour(&self, peer: &SiteId) -> Result<&Neighbour, Error> {
        self.neighbours.get(peer).ok_or_else(|| Error::UnknownNode { node: peer.clone() })
    }

    pub(super) fn relays(&self) -> MutexGuard<'_, BTreeMap<Transaction, Relay>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes a relay that is prepared, or begins one.
    fn relay(
        &self,
        transaction: Transaction,
        change: impl FnOnce(&mut Relay),
    ) -> Result<(), Error> {
        let mut relays = self.relays();
        relays.retain(|_, relay| relay.age.is_some_and(|age| age.elapsed() < PATIENCE));
        if relays.len() >= TRANSACTIONS_MAX {
            return Err(Error::NotPrepared);
        }
        let relay = relays.entry(transaction).or_default();
        relay.age.get_or_insert_with(Stopwatch::start);
        change(relay);
        Ok(())
    }

    /// Forgets relays that nobody finished. Their keys are spent and wiped.
    pub(super) fn expire(&self) -> usize {
        let mut relays = self.relays();
        relays.retain(|_, relay| relay.age.is_some_and(|age| age.elapsed() < PATIENCE));
        relays.len()
    }

    /// Answers one request of `peer`, which has proved who it is. `mask` is the key that came before.
    pub(super) fn answer(
        &self,
        peer: &SiteId,
        request: Request,
        mask: Option<Chunk>,
    ) -> Result<Reply, Error> {
        let is_server = self.settings.server.as_ref() == Some(peer);
        let from_neighbour = matches!(
            request,
            Request::Greet
                | Request::Agree { .. }
                | Request::Reserve { .. }
                | Request::Replenish { .. }
        );
        let permitted = if from_neighbour { self.neighbours.contains_key(peer) } else { is_server };
        if !permitted {
            return Err(Error::NotPermitted { peer: peer.clone() });
        }
        match request {
            Request::Greet => Ok(Reply::Done),
            Request::Agree { block, position, units, check } => {
                let mask = mask.ok_or_else(|| Error::Protocol { peer: peer.clone() })?;
                self.compare(peer, block, (position, units), &check, &mask)
            }
            Request::Reserve { transaction, range, reservation } => {
                let (lease, _) = self.follow(peer, range, reservation)?;
                let pad = Pad::new(lease);
                self.relay(transaction, |relay| relay.into = Some(pad)).map(|()| Reply::Done)
            }
            Request::Replenish { block, position, range, reservation } => {
                self.take_replenishment(peer, (block, position), range, reservation)
            }
            Request::Report => Ok(Reply::Report(Box::new(self.report()?))),
            Request::Prepare { transaction, next, bytes } => {
                self.prepare(transaction, &next, bytes).map(|()| Reply::Done)
            }
            Request::Commit { transaction, direct } => {
                self.commit(transaction, direct).map(|()| Reply::Done)
            }
            Request::Fold(fold) => self.fold(&fold),
            Request::Finish { delivery, back_position } => {
                self.supply.finish(&delivery, back_position).map(|()| Reply::Done)
            }
            Request::Release { transactions, delivery } => {
                let mut relays = self.relays();
                transactions.iter().for_each(|transaction| drop(relays.remove(transaction)));
                if let Some(delivery) = delivery {
                    self.supply.give_up(&delivery)?;
                }
                Ok(Reply::Done)
            }
        }
    }

    /// Takes key out of the link to `next`, at both ends, and sets it aside.
    fn prepare(&self, transaction: Transaction, next: &SiteId, bytes: u64) -> Result<(), Error> {
        let neighbour = self.neighbour(next)?;
        let needed = ByteCount(bytes.saturating_add(TAG_KEY_BYTES as u64));
        let level = self.links.level(next)?.outgoing;
        if level.remaining.0 < needed.0.saturating_add(self.settings.floor.0) {
            let (from, to) = (self.node.clone(), next.clone());
            return Err(Error::Short { from, to, bytes: needed, wait: None });
        }
        let (lease, reservation, _) = self.spend(neighbour, needed)?;
        let range = lease.range();
        neighbour.ask(&Request::Reserve { transaction, range, reservation })?;
        let out = Some((next.clone(), Pad::new(lease)));
        self.relay(transaction, |relay| relay.out = out)
    }

    /// Takes key of the link to a neighbour that nobody had before, with its reservation and what it is
    /// worth.
    pub(super) fn spend(
        &self,
        neighbour: &Neighbour,
        bytes: ByteCount,
    ) -> Result<(KeyLease, KeyRange, Provenance), Error> {
        let _turn = neighbour.turn();
        let mut sender = self.links.sender(&neighbour.name)?;
        sender.expect(bytes);
        let lease = sender.take(bytes.0 as usize)?;
        Ok((lease, sender.reservation(), sender.provenance().clone()))
    }

    /// Takes the key that a neighbour has taken.
    pub(super) fn follow(
        &self,
        peer: &SiteId,
        range: KeyRange,
        reservation: KeyRange,
    ) -> Result<(KeyLease, Provenance), Error> {
        let _turn = self.neighbour(peer)?.turn();
        let mut follower = self.links.follower(peer)?;
        let lease = follower.fetch(range)?;
        follower.accept(range, reservation)?;
        Ok((lease, follower.provenance().clone()))
    }

    /// What the server is told.
    pub fn report(&self) -> Result<Report, Error> {
        let random = match &self.settings.random {
            RandomSettings::Device(_) => Class::InformationTheoretic,
            _ => Class::Computational,
        };
        let links = self.neighbours.values().map(|neighbour| self.report_link(neighbour));
        let links = links.collect::<Result<_, _>>()?;
        Ok(Report { site: self.supply.site().clone(), random, links })
    }

    fn report_link(&self, neighbour: &Neighbour) -> Result<LinkReport, Error> {
        let peer = &neighbour.name;
        let level = self.links.level(peer)?;
        let (mut pending, mut lost) = (0, 0);
        for stream in [self.stream_to(peer), self.stream_from(peer)] {
            let stock = neighbour.pool.stock(&stream, u64::MAX)?;
            pending += stock.pending.0;
            lost += stock.lost.0;
        }
        Ok(LinkReport {
            peer: peer.clone(),
            outgoing: level.outgoing.remaining,
            incoming: level.incoming.remaining,
            rate: level.outgoing.rate,
            pending: ByteCount(pending),
            lost: ByteCount(lost),
            control: self.control.level(peer)?.outgoing.remaining,
            up: neighbour.up.load(Ordering::SeqCst),
            source: level.provenance.source,
            class: level.provenance.class,
        })
    }

    pub(super) fn stream_to(&self, peer: &SiteId) -> StreamId {
        StreamId { sender: self.node.clone(), receiver: peer.clone() }
    }

    pub(super) fn stream_from(&self, peer: &SiteId) -> StreamId {
        StreamId { sender: peer.clone(), receiver: self.node.clone() }
    }

    /// What this node reserved or claimed of the link to `peer`.
    pub fn ledger(&self, peer: &SiteId, role: Role) -> Result<Vec<Record>, Error> {
        Ok(self.links.ledger(peer, role)?)
    }
}

impl Neighbour {
    /// Asks, and remembers whether there was an answer.
    pub(super) fn ask(&self, request: &Request) -> Result<Reply, Error> {
        self.remember(self.caller.ask(request))
    }

    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remember(&self, answer: Result<Reply, Error>) -> Result<Reply, Error> {
        self.up.store(!matches!(answer, Err(Error::Net(_))), Ordering::SeqCst);
        answer
    }
}
