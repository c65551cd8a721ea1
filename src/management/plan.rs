//! Which way key is relayed: node-disjoint paths that leave the most on their tightest link.
//!
//! A path is as wide as the least of its links, and a link is as wide as what it has left after the
//! relay, measured by its stock. The widest set of `k` disjoint paths is found by trying which
//! links may be left out: the links at least as wide as a threshold carry `k` paths if a flow of `k`
//! fits through them with every node used once (Menger 1927). Of all such sets the one with the
//! fewest hops is taken (Suurballe 1974, "Disjoint paths in a network").

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::base::{BitRate, ByteCount, SiteId};

/// One direction of a link, as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Edge {
    /// The node that spends the key.
    pub from: SiteId,
    /// The node that follows.
    pub to: SiteId,
    /// Key that is there and not reserved.
    pub remaining: ByteCount,
    /// What `remaining` is measured by: the stock the link is meant to have.
    pub capacity: ByteCount,
    /// What arrives.
    pub rate: BitRate,
    /// Whether both ends can be reached.
    pub up: bool,
}

/// A path, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Path {
    /// The nodes, both ends among them.
    pub nodes: Vec<SiteId>,
    /// What its tightest link has left after the relay.
    pub left: ByteCount,
}

impl Path {
    /// The nodes in between: each has the relayed key in its hands.
    pub fn relays(&self) -> &[SiteId] {
        &self.nodes[1..self.nodes.len() - 1]
    }
}

/// What a relay needs of every link of its path.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Key that each link gives.
    pub bytes: ByteCount,
    /// Key that each link keeps whatever happens.
    pub floor: ByteCount,
    /// How many paths that share no node but the ends.
    pub disjoint: usize,
}

/// A key network with its levels.
#[derive(Clone, Debug, Default)]
pub struct Network {
    nodes: Vec<SiteId>,
    edges: Vec<Edge>,
}

/// How good a link is: `left / capacity`, compared without rounding.
#[derive(Clone, Copy, Debug)]
struct Width {
    left: u64,
    capacity: u64,
}

impl Width {
    fn at_least(self, other: Width) -> bool {
        let (own, its) = (u128::from(self.left), u128::from(other.left));
        own * u128::from(other.capacity) >= its * u128::from(self.capacity)
    }
}

impl Network {
    /// A network without links.
    pub fn new(nodes: impl IntoIterator<Item = SiteId>) -> Self {
        Self { nodes: nodes.into_iter().collect(), edges: Vec::new() }
    }

    /// Adds one direction of a link.
    pub fn add(&mut self, edge: Edge) {
        self.edges.push(edge);
    }

    /// Its links, each direction by itself.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Counts a direction as down, after it has failed.
    pub fn exclude(&mut self, from: &SiteId, to: &SiteId) {
        let of = |edge: &&mut Edge| edge.from == *from && edge.to == *to;
        self.edges.iter_mut().filter(of).for_each(|edge| edge.up = false);
    }

    /// The widest set of `demand.disjoint` paths from `from` to `to`; of equal ones, that with the
    /// fewest hops.
    ///
    /// Errors: [`Error::NoPath`] when there are not as many paths at all; [`Error::Short`] when the
    /// links that there are have too little, with the time until they have enough.
    pub fn plan(&self, from: &SiteId, to: &SiteId, demand: Demand) -> Result<Vec<Path>, Error> {
        let ends = [self.index(from)?, self.index(to)?];
        let no_path =
            || Error::NoPath { from: from.clone(), to: to.clone(), disjoint: demand.disjoint };
        if ends[0] == ends[1] || demand.disjoint == 0 {
            return Err(no_path());
        }
        let search = Search { network: self, ends, paths: demand.disjoint };
        let up: Vec<usize> = (0..self.edges.len()).filter(|at| self.edges[*at].up).collect();
        let need = demand.bytes.0.saturating_add(demand.floor.0);
        let mut wide: Vec<(usize, Width)> = Vec::new();
        for at in &up {
            let edge = &self.edges[*at];
            let left = edge.remaining.0.checked_sub(need);
            wide.extend(left.map(|left| (*at, Width { left, capacity: edge.capacity.0.max(1) })));
        }
        // The narrower a link, the later it is let in.
        wide.sort_by(|(_, one), (_, two)| match (one.at_least(*two), two.at_least(*one)) {
            (true, true) => std::cmp::Ordering::Equal,
            (true, false) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        });
        let same = |one: &(usize, Width), two: &(usize, Width)| two.1.at_least(one.1);
        let order: Vec<usize> = wide.iter().map(|(at, _)| *at).collect();
        let classes: Vec<usize> = wide.chunk_by(same).map(<[_]>::len).collect();
        if let Some(found) = search.first_that_fits(&order, &classes) {
            return Ok(found.into_iter().map(|nodes| self.describe(&nodes, demand)).collect());
        }
        match self.wait(&search, &up, need) {
            Some(wait) => {
                Err(Error::Short { from: from.clone(), to: to.clone(), bytes: demand.bytes, wait })
            }
            None => Err(no_path()),
        }
    }

    /// How long until there is enough on some set of paths: the inner value is `None` when what is
    /// short never arrives; the outer one when there are no such paths.
    fn wait(&self, search: &Search<'_>, up: &[usize], need: u64) -> Option<Option<Duration>> {
        let until = |at: &usize| {
            let Edge { remaining, rate, .. } = &self.edges[*at];
            let bits = u128::from(need.saturating_sub(remaining.0)) * 8_000_000_000;
            if bits == 0 { Some(0) } else { bits.checked_div(u128::from(rate.0)) }
        };
        let mut order = up.to_vec();
        order.sort_by_key(|at| until(at).map_or((1, 0), |wait| (0, wait)));
        let classes = vec![1; order.len()];
        let found = search.first_that_fits(&order, &classes)?;
        let pairs = found.iter().flat_map(|nodes| nodes.windows(2));
        let waits: Option<Vec<u128>> =
            pairs.map(|pair| until(&self.edge_between(pair[0], pair[1])?)).collect();
        let longest = waits.map(|waits| waits.into_iter().max().unwrap_or(0));
        Some(longest.map(|ns| Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))))
    }

    fn describe(&self, nodes: &[usize], demand: Demand) -> Path {
        let edges = nodes.windows(2).filter_map(|pair| self.edge_between(pair[0], pair[1]));
        let left = edges.map(|at| self.edges[at].remaining.0 - demand.bytes.0).min();
        Path {
            nodes: nodes.iter().map(|node| self.nodes[*node].clone()).collect(),
            left: ByteCount(left.unwrap_or(0)),
        }
    }

    fn edge_between(&self, from: usize, to: usize) -> Option<usize> {
        let fits = |edge: &Edge| edge.from == self.nodes[from] && edge.to == self.nodes[to];
        self.edges.iter().position(|edge| edge.up && fits(edge))
    }

    fn index(&self, node: &SiteId) -> Result<usize, Error> {
        let found = self.nodes.iter().position(|known| known == node);
        found.ok_or_else(|| Error::UnknownNode { node: node.clone() })
    }
}

/// The search for disjoint paths between two nodes.
struct Search<'a> {
    network: &'a Network,
    ends: [usize; 2],
    paths: usize,
}

/// An arc of the flow network: every node is two, joined by an arc that only one path may take.
struct Arc {
    from: usize,
    to: usize,
    cost: i64,
    open: bool,
}

impl Search<'_> {
    /// The paths through the shortest beginning of `order` that has as many; beginnings end with a
    /// class of equally good links.
    fn first_that_fits(&self, order: &[usize], classes: &[usize]) -> Option<Vec<Vec<usize>>> {
        let ends: Vec<usize> = classes
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end)
            })
            .collect();
        let fits = |end: &usize| self.disjoint(&order[..*end]).is_some();
        let first = ends.partition_point(|end| !fits(end));
        self.disjoint(&order[..*ends.get(first)?])
    }

    /// As many paths as wanted over these edges, with the fewest hops in all: successive shortest
    /// paths in the residual network.
    fn disjoint(&self, edges: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut arcs = self.arcs(edges);
        for _ in 0..self.paths {
            for at in shortest(&arcs, 2 * self.network.nodes.len(), self.source(), self.target())? {
                // Arcs stand in pairs, each the way back of the other.
                arcs[at].open = false;
                arcs[at ^ 1].open = true;
            }
        }
        Some((0..self.paths).map(|_| self.trace(&mut arcs)).collect())
    }

    fn source(&self) -> usize {
        2 * self.ends[0] + 1
    }

    fn target(&self) -> usize {
        2 * self.ends[1]
    }

    /// Node `n` is entered at `2n` and left at `2n + 1`.
    fn arcs(&self, edges: &[usize]) -> Vec<Arc> {
        let mut arcs = Vec::new();
        let mut both = |from, to, cost| {
            arcs.push(Arc { from, to, cost, open: true });
            arcs.push(Arc { from: to, to: from, cost: -cost, open: false });
        };
        (0..self.network.nodes.len()).for_each(|node| both(2 * node, 2 * node + 1, 0));
        let mut sorted = edges.to_vec();
        sorted.sort_unstable();
        for at in sorted {
            let Edge { from, to, .. } = &self.network.edges[at];
            if let (Ok(from), Ok(to)) = (self.network.index(from), self.network.index(to)) {
                both(2 * from + 1, 2 * to, 1);
            }
        }
        arcs
    }

    /// Takes one path out of the flow.
    fn trace(&self, arcs: &mut [Arc]) -> Vec<usize> {
        let (mut at, mut nodes) = (self.source(), vec![self.ends[0]]);
        while at != self.target() {
            let used = |arc: &usize| arcs[*arc].from == at && !arcs[*arc].open;
            let Some(arc) = (0..arcs.len()).step_by(2).find(used) else { break };
            arcs[arc].open = true;
            at = arcs[arc].to;
            if at % 2 == 0 {
                nodes.push(at / 2);
            }
        }
        nodes
    }
}

/// The cheapest way over open arcs (Bellman and Ford, since ways back cost less than nothing).
fn shortest(arcs: &[Arc], nodes: usize, source: usize, target: usize) -> Option<Vec<usize>> {
    let mut best: BTreeMap<usize, (i64, usize)> = BTreeMap::new();
    let cost = |best: &BTreeMap<usize, (i64, usize)>, node| {
        if node == source { Some(0) } else { best.get(&node).map(|(cost, _)| *cost) }
    };
    for _ in 0..nodes {
        let mut changed = false;
        for (at, arc) in arcs.iter().enumerate().filter(|(_, arc)| arc.open) {
            let Some(start) = cost(&best, arc.from) else { continue };
            let reached = start + arc.cost;
            if cost(&best, arc.to).is_none_or(|known| reached < known) {
                best.insert(arc.to, (reached, at));
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let (mut node, mut way) = (target, Vec::new());
    while node != source {
        let (_, at) = best.get(&node)?;
        way.push(*at);
        node = arcs[*at].from;
    }
    way.reverse();
    Some(way)
}

/// Orders edges for a table: by name of their ends.
pub fn by_name(edges: &[Edge]) -> Vec<&Edge> {
    let mut edges: Vec<_> = edges.iter().collect();
    edges.sort_by_key(|edge| (edge.from.clone(), edge.to.clone(), Reverse(edge.remaining)));
    edges
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
