//! KMS: the server of a key network. It knows every link's level, plans the way of a relay, and orders
//! it from the agents in two phases; it never has a key.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::plan::{Demand, Edge, Network, Path};
use super::protocol::{
    DELIVERY_BYTES_MAX, Delivery, Fold, Folded, Hash, MASK_BYTES, Reply, Report, Request,
    TAG_KEY_BYTES, Transaction,
};
use super::topology::Topology;
use super::{Error, OnNotice};
use crate::base::{BitRate, ByteCount, SiteId};
use crate::key::UNIT_BYTES;
use crate::key::pool::BlockId;
use crate::key::{Class, Source};
use crate::net::Dialer;

/// How often another way is looked for when a hop fails.
const ATTEMPTS: usize = 4;

/// The server of one network.
pub struct Server {
    topology: Topology,
    agents: BTreeMap<SiteId, Caller>,
    floor: ByteCount,
    notice: OnNotice,
}

/// What is wanted of the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Order {
    /// The node whose site sends with the key.
    pub from: SiteId,
    /// The node whose site receives with it.
    pub to: SiteId,
    /// Bytes in that direction.
    pub bytes: ByteCount,
    /// Bytes in the other direction.
    pub back: ByteCount,
    /// Paths that share no node: the key is the sum of what goes over each.
    pub disjoint: usize,
}

impl Order {
    /// What every link of a path has to give; each part of the order has a mask and a tag of its own.
    ///
    /// Errors: [`Error::Amount`] for nothing, or more than 1 TiB.
    pub fn demand(&self, floor: ByteCount) -> Result<Demand, Error> {
        let round = |bytes: ByteCount| bytes.0.min(1 << 62).next_multiple_of(UNIT_BYTES);
        let bytes = round(self.bytes) + round(self.back);
        if bytes == 0 || bytes > 1 << 40 {
            return Err(Error::Amount { bytes: ByteCount(bytes) });
        }
        let bytes = bytes + bytes.div_ceil(DELIVERY_BYTES_MAX) * link_bytes(0);
        Ok(Demand { bytes: ByteCount(bytes), floor, disjoint: self.disjoint })
    }
}

/// What the network gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Supplied {
    /// The site that sends.
    pub from: SiteId,
    /// The site that receives.
    pub to: SiteId,
    /// Bytes that `from` can send with.
    pub bytes: ByteCount,
    /// Bytes that `to` can send with.
    pub back: ByteCount,
    /// Key that the links gave, all together.
    pub spent: ByteCount,
    /// The nodes of every path; those of the last part, if parts went different ways.
    pub paths: Vec<Vec<SiteId>>,
    /// The blocks.
    pub blocks: Vec<BlockId>,
    /// The weakest of what they are made of.
    pub class: Class,
}

/// One direction of a link, as the agent that spends it reports it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Level {
    /// The node that spends.
    pub from: SiteId,
    /// The node that follows.
    pub to: SiteId,
    /// What can still be spent.
    pub remaining: ByteCount,
    /// The stock that the topology names for this direction.
    pub stock: ByteCount,
    /// What arrives.
    pub rate: BitRate,
    /// `up`, or why nothing is relayed over it.
    pub state: String,
    /// How long until the stock is there; `None` when it never is.
    pub full_in: Option<Duration>,
    /// What makes the keys.
    pub source: Source,
}

impl Level {
    /// The level of a planner's edge.
    pub fn of(edge: &Edge, state: &str, source: Source) -> Self {
        let missing = edge.capacity.0.saturating_sub(edge.remaining.0);
        let seconds = (u128::from(missing) * 8).div_ceil(u128::from(edge.rate.0.max(1)));
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        let arrives = missing == 0 || edge.rate.0 > 0;
        Self {
            from: edge.from.clone(),
            to: edge.to.clone(),
            remaining: edge.remaining,
            stock: edge.capacity,
            rate: edge.rate,
            state: state.into(),
            full_in: arrives.then(|| Duration::from_secs(seconds)),
            source,
        }
    }
}

/// What all agents reported.
struct Survey {
    network: Network,
    levels: Vec<Level>,
    reports: BTreeMap<SiteId, Report>,
}

/// Key that every link of a path gives for a delivery of `bytes`.
pub fn link_bytes(bytes: u64) -> u64 {
    bytes + (MASK_BYTES + TAG_KEY_BYTES) as u64
}

impl Server {
    /// A server that reaches its agents by these dialers.
    ///
    /// Errors: [`Error::NotConfigured`] when it has none for a node of the topology.
    pub fn new(
        topology: Topology,
        dialers: impl IntoIterator<Item = Dialer>,
        floor: ByteCount,
        notice: OnNotice,
    ) -> Result<Self, Error> {
        let agents: BTreeMap<_, _> = dialers
            .into_iter()
            .map(|dialer| (dialer.peer().clone(), Caller::new(dialer)))
            .collect();
        match topology.nodes.iter().find(|node| !agents.contains_key(&node.name)) {
            Some(node) => {
                let what = format!("a [[peer]] with the address of '{}'", node.name);
                Err(Error::NotConfigured { what })
            }
            None => Ok(Self { topology, agents, floor, notice }),
        }
    }

    /// Every direction of every link, as it is now.
    pub fn levels(&self) -> Vec<Level> {
        self.survey().levels
    }

    /// The way that key would go now.
    pub fn plan(&self, order: &Order) -> Result<Vec<Path>, Error> {
        self.survey().network.plan(&order.from, &order.to, order.demand(self.floor)?)
    }

    /// Gets key for two sites, in parts of at most [`DELIVERY_BYTES_MAX`] bytes.
    ///
    /// Errors: when a part fails, what was delivered before stays delivered.
    pub fn supply(&self, order: &Order) -> Result<Supplied, Error> {
        order.demand(self.floor)?;
        let round = |bytes: ByteCount| bytes.0.next_multiple_of(UNIT_BYTES);
        let (mut forward, mut back) = (round(order.bytes), round(order.back));
        let mut total: Option<Supplied> = None;
        while forward + back > 0 {
            let part_forward = forward.min(DELIVERY_BYTES_MAX);
            let part_back = back.min(DELIVERY_BYTES_MAX - part_forward);
            let part = self.supply_part(order, part_forward, part_back)?;
            (forward, back) = (forward - part_forward, back - part_back);
            total = Some(match total {
                None => part,
                Some(mut sum) => {
                    sum.bytes.0 += part.bytes.0;
                    sum.back.0 += part.back.0;
                    sum.spent.0 += part.spent.0;
                    sum.class = sum.class.min(part.class);
                    sum.blocks.extend(part.blocks);
                    Supplied { paths: part.paths, ..sum }
                }
            });
        }
        total.ok_or(Error::Amount { bytes: order.bytes })
    }

    /// Asks every agent what it has.
    fn survey(&self) -> Survey {
        let mut reports = BTreeMap::new();
        let asked: Vec<_> = std::thread::scope(|scope| {
            let ask = |(node, caller)| {
                let caller: &Caller = caller;
                (node, scope.spawn(move || caller.ask(&Request::Report)))
            };
            let threads: Vec<(&SiteId, _)> = self.agents.iter().map(ask).collect();
            threads.into_iter().map(|(node, thread)| (node.clone(), thread.join())).collect()
        });
        for (node, answer) in asked {
            match answer {
                Ok(Ok(Reply::Report(report))) => drop(reports.insert(node, *report)),
                Ok(Err(error)) => (self.notice)(format!("{node}: {error}")),
                _ => (self.notice)(format!("{node} did not report")),
            }
        }
        let mut network = Network::new(self.topology.nodes.iter().map(|node| node.name.clone()));
        let mut levels = Vec::new();
        for link in &self.topology.links {
            for (from, to) in [(0, 1), (1, 0)] {
                let (from, to) = (&link.ends[from], &link.ends[to]);
                let of = |node, peer: &SiteId| {
                    let report: Option<&Report> = reports.get(node);
                    report.and_then(|r| r.links.iter().find(|link| link.peer == *peer))
                };
                let (own, other) = (of(from, to), of(to, from));
                let state = match (own, other) {
                    (Some(own), Some(other)) if own.up && other.up => "up",
                    (None, _) | (_, None) => "no answer",
                    _ => "neighbours apart",
                };
                let edge = Edge {
                    from: from.clone(),
                    to: to.clone(),
                    remaining: own.map_or(ByteCount(0), |link| link.outgoing),
                    capacity: ByteCount(link.stock.0 / 2),
                    rate: own.map_or(BitRate(link.rate.0 / 2), |link| link.rate),
                    up: state == "up",
                };
                let source = own.map_or(link.kind.source(), |link| link.source);
                levels.push(Level::of(&edge, state, source));
                network.add(edge);
            }
        }
        Survey { network, levels, reports }
    }

    fn ask_node(&self, node: &SiteId, request: &Request) -> Result<Reply, Error> {
        let caller = self.agents.get(node);
        caller.ok_or_else(|| Error::UnknownNode { node: node.clone() })?.ask(request)
    }

    fn supply_part(&self, order: &Order, forward: u64, back: u64) -> Result<Supplied, Error> {
        let mut survey = self.survey();
        let bytes = ByteCount(link_bytes(forward + back));
        let demand = Demand { bytes, floor: self.floor, disjoint: order.disjoint };
        for attempt in 1.. {
            let paths = survey.network.plan(&order.from, &order.to, demand)?;
            let paths: Vec<_> = paths.into_iter().map(|path| path.nodes).collect();
            let job = Job::new(&survey, paths, (forward, back))?;
            match self.run(&job) {
                Ok(()) => return Ok(job.supplied()),
                Err(failure) => {
                    let (failed, error) = *failure;
                    self.release(&job);
                    let Some((from, to)) = failed.filter(|_| attempt < ATTEMPTS) else {
                        return Err(error);
                    };
                    (self.notice)(format!("{from} to {to}: {error}; looking for another way"));
                    survey.network.exclude(&from, &to);
                }
            }
        }
        Err(Error::NotPrepared)
    }

    /// Both phases of a relay, and the ends' comparison. An error comes with the hop that failed, where
    /// another way may do.
    fn run(&self, job: &Job) -> Result<(), Box<Failure>> {
        for (path, transaction) in job.paths.iter().zip(&job.transactions) {
            for hop in path.windows(2) {
                let (next, bytes) = (hop[1].clone(), job.delivery.relayed_bytes());
                let request = Request::Prepare { transaction: *transaction, next, bytes };
                self.ask_node(&hop[0], &request)
                    .map_err(|error| Box::new((Some((hop[0].clone(), hop[1].clone())), error)))?;
            }
        }
        self.transfer(job).map_err(|error| Box::new((None, error)))
    }

    fn transfer(&self, job: &Job) -> Result<(), Error> {
        let (first, last) = job.ends();
        for (path, transaction) in job.paths.iter().zip(&job.transactions) {
            let direct = path.len() == 2;
            self.ask_node(first, &Request::Commit { transaction: *transaction, direct })?;
        }
        // Drawn now, so that no relay could choose a change that it hides.
        let mut hash_key: Hash = [0; 16];
        getrandom::fill(&mut hash_key).map_err(|source| crate::key::Error::Random {
            name: "os".into(),
            source: source.into(),
        })?;
        let of_first = self.fold(job, first, hash_key, None)?;
        let of_last = self.fold(job, last, hash_key, Some(of_first))?;
        // Whoever sends with a block makes it ready after the one who reads.
        for node in [first, last] {
            let delivery = Box::new(job.delivery.clone());
            self.ask_node(node, &Request::Finish { delivery, back_position: of_last.position })?;
        }
        Ok(())
    }

    fn fold(
        &self,
        job: &Job,
        node: &SiteId,
        hash_key: Hash,
        first: Option<Folded>,
    ) -> Result<Folded, Error> {
        let (delivery, transactions) = (job.delivery.clone(), job.transactions.clone());
        let fold = Box::new(Fold { delivery, transactions, hash_key, first });
        match self.ask_node(node, &Request::Fold(fold))? {
            Reply::Folded(folded) => Ok(folded),
            Reply::Differs => {
                let (from, to) = job.ends();
                Err(Error::Differs { from: from.clone(), to: to.clone() })
            }
            _ => Err(Error::Protocol { peer: node.clone() }),
        }
    }

    /// Tells every node of a relay that failed to forget it. Whoever cannot be told forgets by itself.
    fn release(&self, job: &Job) {
        let (first, last) = job.ends();
        for node in job.nodes() {
            let ends = node == first || node == last;
            let delivery = ends.then(|| Box::new(job.delivery.clone()));
            let transactions = job.transactions.clone();
            if let Err(error) = self.ask_node(node, &Request::Release { transactions, delivery }) {
                (self.notice)(format!("{node} may hold a relay until it forgets: {error}"));
            }
        }
    }
}

/// Why a relay failed, and the hop that did, where another way may do.
type Failure = (Option<(SiteId, SiteId)>, Error);

/// One delivery over some paths.
struct Job {
    paths: Vec<Vec<SiteId>>,
    transactions: Vec<Transaction>,
    delivery: Delivery,
}

impl Job {
    fn new(
        survey: &Survey,
        paths: Vec<Vec<SiteId>>,
        (forward_bytes, back_bytes): (u64, u64),
    ) -> Result<Self, Error> {
        let report = |node: &SiteId| {
            survey.reports.get(node).ok_or_else(|| Error::UnknownNode { node: node.clone() })
        };
        let (first, last) = (&paths[0][0], &paths[0][paths[0].len() - 1]);
        let mut class = Class::InformationTheoretic;
        for hop in paths.iter().flat_map(|path| path.windows(2)) {
            let links = &report(&hop[0])?.links;
            let link = links.iter().find(|link| link.peer == hop[1]);
            class = class.min(link.map_or(Class::Computational, |link| link.class));
        }
        let direct = paths.iter().all(|path| path.len() == 2);
        if !direct {
            class = class.min(report(first)?.random);
        }
        let link = report(first)?.links.iter().find(|link| link.peer == *last);
        let of_link = link.map_or(Source::Relayed, |link| link.source);
        let transactions = paths.iter().map(|_| BlockId::fresh()).collect::<Result<_, _>>()?;
        let delivery = Delivery {
            from: report(first)?.site.clone(),
            to: report(last)?.site.clone(),
            forward: BlockId::fresh()?,
            forward_bytes,
            back: BlockId::fresh()?,
            back_bytes,
            source: if direct { of_link } else { Source::Relayed },
            class,
            paths: paths.iter().map(|path| path[1..path.len() - 1].to_vec()).collect(),
        };
        Ok(Self { paths, transactions, delivery })
    }

    fn ends(&self) -> (&SiteId, &SiteId) {
        let path = &self.paths[0];
        (&path[0], &path[path.len() - 1])
    }

    fn nodes(&self) -> std::collections::BTreeSet<&SiteId> {
        self.paths.iter().flatten().collect()
    }

    fn supplied(self) -> Supplied {
        let hops: usize = self.paths.iter().map(|path| path.len() - 1).sum();
        let Delivery { from, to, forward, forward_bytes, back, back_bytes, class, .. } =
            self.delivery;
        let spent = hops as u64 * link_bytes(forward_bytes + back_bytes);
        let blocks = [(forward, forward_bytes), (back, back_bytes)];
        Supplied {
            from,
            to,
            bytes: ByteCount(forward_bytes),
            back: ByteCount(back_bytes),
            spent: ByteCount(spent),
            paths: self.paths,
            blocks: blocks.into_iter().filter(|(_, n)| *n > 0).map(|(id, _)| id).collect(),
            class,
        }
    }
}
