//! The planner against brute force over all sets of paths.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::management::Topology;

fn site(number: usize) -> SiteId {
    format!("n{number}").parse().unwrap()
}

/// Every simple path from the last of `path` to `to`.
fn simple_paths(edges: &[Edge], path: &mut Vec<SiteId>, to: &SiteId, found: &mut Vec<Vec<SiteId>>) {
    let last = path.last().unwrap().clone();
    if last == *to {
        found.push(path.clone());
        return;
    }
    for edge in edges.iter().filter(|edge| edge.up && edge.from == last) {
        if !path.contains(&edge.to) {
            path.push(edge.to.clone());
            simple_paths(edges, path, to, found);
            path.pop();
        }
    }
}

/// The least width of the edges of some paths, as a fraction.
fn width(edges: &[Edge], paths: &[&Vec<SiteId>], need: u64) -> Option<(u128, u128)> {
    let pairs = paths.iter().flat_map(|path| path.windows(2));
    let widths: Option<Vec<(u128, u128)>> = pairs
        .map(|pair| {
            let edge = edges.iter().find(|e| e.up && e.from == pair[0] && e.to == pair[1])?;
            let left = edge.remaining.0.checked_sub(need)?;
            Some((u128::from(left), u128::from(edge.capacity.0.max(1))))
        })
        .collect();
    widths?.into_iter().min_by(|(a, b), (c, d)| (a * d).cmp(&(c * b)))
}

/// All sets of `k` of `paths` that share no node but their ends.
fn disjoint_sets(paths: &[Vec<SiteId>], k: usize) -> Vec<Vec<&Vec<SiteId>>> {
    if k == 0 {
        return vec![Vec::new()];
    }
    let mut sets = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        for mut set in disjoint_sets(&paths[at + 1..], k - 1) {
            let inner: BTreeSet<_> = path[1..path.len() - 1].iter().collect();
            let apart = set.iter().all(|other: &&Vec<SiteId>| {
                other[1..other.len() - 1].iter().all(|node| !inner.contains(node))
            });
            if apart {
                set.push(path);
                sets.push(set);
            }
        }
    }
    sets
}

fn network(nodes: usize, links: &[(usize, usize, u64, u64, bool)]) -> Network {
    let mut network = Network::new((0..nodes).map(site));
    let mut seen = BTreeSet::new();
    for (from, to, remaining, capacity, up) in links {
        let (from, to) = (from % nodes, to % nodes);
        if from != to && seen.insert((from, to)) {
            network.add(Edge {
                from: site(from),
                to: site(to),
                remaining: ByteCount(*remaining),
                capacity: ByteCount(*capacity),
                rate: BitRate(8),
                up: *up,
            });
        }
    }
    network
}

fn demand(bytes: u64, disjoint: usize) -> Demand {
    Demand { bytes: ByteCount(bytes), floor: ByteCount(0), disjoint }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_set_of_paths_is_wider_or_as_wide_and_shorter(
        nodes in 2usize..6,
        links in proptest::collection::vec(
            (0usize..6, 0usize..6, 0u64..12, 1u64..5, proptest::bool::weighted(0.9)), 0..22),
        need in 0u64..5,
        k in 1usize..4,
    ) {
        let network = network(nodes, &links);
        let (from, to) = (site(0), site(1));
        let mut all = Vec::new();
        simple_paths(network.edges(), &mut vec![from.clone()], &to, &mut all);
        let sets = disjoint_sets(&all, k);
        // Two direct paths would be the same link twice.
        let best = sets
            .iter()
            .filter_map(|set| {
                let (left, capacity) = width(network.edges(), set, need)?;
                Some((left, capacity, set.iter().map(|path| path.len() - 1).sum::<usize>()))
            })
            .max_by(|(a, b, hops), (c, d, others)| (a * d).cmp(&(c * b)).then(others.cmp(hops)));
        match (network.plan(&from, &to, demand(need, k)), best) {
            (Ok(paths), Some((left, capacity, hops))) => {
                let nodes: Vec<_> = paths.iter().map(|path| path.nodes.clone()).collect();
                let refs: Vec<_> = nodes.iter().collect();
                prop_assert!(sets.iter().any(|set| set.iter().all(|path| nodes.contains(path))));
                let (own, its) = width(network.edges(), &refs, need).unwrap();
                prop_assert_eq!(own * capacity, left * its);
                prop_assert_eq!(nodes.iter().map(|path| path.len() - 1).sum::<usize>(), hops);
            }
            (Err(Error::Short { wait, .. }), None) => {
                prop_assert!(!sets.is_empty());
                // A byte a second arrives everywhere.
                let short = |path: &&Vec<SiteId>| {
                    let edges = path.windows(2).map(|pair| {
                        let is = |e: &&Edge| e.up && e.from == pair[0] && e.to == pair[1];
                        need.saturating_sub(network.edges().iter().find(is).unwrap().remaining.0)
                    });
                    edges.max().unwrap()
                };
                let soonest = sets.iter().map(|set| set.iter().map(short).max().unwrap()).min();
                prop_assert_eq!(wait, soonest.map(Duration::from_secs));
            }
            (Err(Error::NoPath { .. }), None) => prop_assert!(sets.is_empty()),
            (planned, best) => prop_assert!(false, "{planned:?} but {best:?}"),
        }
    }
}

#[test]
fn the_way_round_the_ring_is_the_one_that_leaves_more() {
    let tokyo = Topology::load("tokyo-2022").unwrap().network();
    let name = |text: &str| text.parse::<SiteId>().unwrap();
    let plan = |bytes, k| tokyo.plan(&name("nict-2"), &name("otemachi"), demand(bytes, k));
    let paths = plan(1 << 20, 1).unwrap();
    assert_eq!(paths[0].nodes, ["nict-2", "nict-1", "otemachi"].map(name));
    let both = plan(1 << 20, 2).unwrap();
    assert_eq!(both.len(), 2);
    assert_eq!(both.iter().map(|path| path.relays().len()).sum::<usize>(), 3);
    assert!(matches!(plan(1, 3), Err(Error::NoPath { .. })));
    // 150 kbit/s bring the 100 MB that are short in 5333 s.
    let Err(Error::Short { wait: Some(wait), .. }) = plan(400_000_000, 1) else { panic!() };
    assert_eq!(wait.as_secs(), 5333);
    assert!(matches!(
        tokyo.plan(&name("nict-2"), &name("mars"), demand(1, 1)),
        Err(Error::UnknownNode { .. })
    ));
}

#[test]
fn a_detour_over_a_full_link_is_taken_when_the_short_way_is_low() {
    let mut links = vec![(0, 1, 10, 100, true), (0, 2, 90, 100, true), (2, 1, 90, 100, true)];
    let direct = |links: &[_]| network(3, links).plan(&site(0), &site(1), demand(1, 1)).unwrap();
    assert_eq!(direct(&links)[0].nodes.len(), 3);
    links[0].2 = 90;
    assert_eq!(direct(&links)[0].nodes.len(), 2, "as wide, and shorter");
}
