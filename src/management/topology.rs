//! Which nodes and links a key network has: read from TOML, two of them built in.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use super::plan::{Edge, Network};
use crate::base::{BitRate, ByteCount, SiteId};
use crate::key::Source;

/// The topologies that come with the program, by name.
pub const TOPOLOGIES: &[(&str, &str)] = &[
    ("tokyo-2022", include_str!("topologies/tokyo-2022.toml")),
    ("healthcare-2022", include_str!("topologies/healthcare-2022.toml")),
];

/// A key network.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Topology {
    /// What it is called.
    pub name: String,
    /// Its trusted nodes, each with a key management agent.
    #[serde(rename = "node")]
    pub nodes: Vec<Node>,
    /// Its links.
    #[serde(rename = "link")]
    pub links: Vec<Link>,
}

/// A trusted node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Node {
    /// The name of its key management agent.
    pub name: SiteId,
    /// Where it stands.
    #[serde(default)]
    pub place: String,
}

/// What makes the keys of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// A pair of QKD modules.
    Qkd,
    /// Data that was carried there.
    Preshared,
}

impl LinkKind {
    /// The same in a provenance.
    pub fn source(self) -> Source {
        match self {
            LinkKind::Qkd => Source::Qkd,
            LinkKind::Preshared => Source::Preshared,
        }
    }
}

/// A link between two nodes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Link {
    /// The two nodes.
    pub ends: [SiteId; 2],
    /// What makes its keys.
    pub kind: LinkKind,
    /// Who made its modules.
    #[serde(default)]
    pub make: String,
    /// Length of the fibre in kilometres.
    #[serde(default)]
    pub length_km: f64,
    /// Loss of the fibre in decibels.
    #[serde(default)]
    pub loss_db: f64,
    /// How long a block takes from one end to the other, in milliseconds.
    #[serde(default)]
    pub latency_ms: u64,
    /// Key rate, both directions together.
    pub rate: BitRate,
    /// Key there is at first, both directions together.
    pub stock: ByteCount,
}

impl Topology {
    /// The built-in topology `name`, or the one in the file of that name.
    ///
    /// Errors: [`Error::Topology`] when it is not there or makes no sense.
    pub fn load(name: &str) -> Result<Self, Error> {
        if let Some((_, text)) = TOPOLOGIES.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let known = || TOPOLOGIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let text = std::fs::read_to_string(Path::new(name)).map_err(|error| Error::Topology {
            name: name.into(),
            what: format!("{error}; built in are {}", known()),
        })?;
        Self::parse(name, &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let refused = |what: String| Error::Topology { name: name.into(), what };
        let topology: Self = toml::from_str(text).map_err(|error| refused(error.to_string()))?;
        let names: BTreeSet<_> = topology.nodes.iter().map(|node| &node.name).collect();
        if names.len() != topology.nodes.len() {
            return Err(refused("a node is named twice".into()));
        }
        let mut pairs = BTreeSet::new();
        for link in &topology.links {
            let [a, b] = &link.ends;
            if a == b || !names.contains(a) || !names.contains(b) {
                return Err(refused(format!("no two nodes are '{a}' and '{b}'")));
            }
            if !pairs.insert((a.min(b), a.max(b))) {
                return Err(refused(format!("'{a}' and '{b}' have two links")));
            }
        }
        Ok(topology)
    }

    /// The link between two nodes.
    pub fn link(&self, a: &SiteId, b: &SiteId) -> Option<&Link> {
        self.links.iter().find(|link| link.ends.contains(a) && link.ends.contains(b) && a != b)
    }

    /// The nodes that have a link to `node`.
    pub fn neighbours(&self, node: &SiteId) -> Vec<SiteId> {
        let of = |link: &Link| link.ends.iter().find(|end| *end != node).cloned();
        self.links.iter().filter(|link| link.ends.contains(node)).filter_map(of).collect()
    }

    /// The network with the stocks of the file: every link up, half of its key in each direction.
    pub fn network(&self) -> Network {
        let mut network = Network::new(self.nodes.iter().map(|node| node.name.clone()));
        for link in &self.links {
            for (from, to) in [(0, 1), (1, 0)] {
                network.add(Edge {
                    from: link.ends[from].clone(),
                    to: link.ends[to].clone(),
                    remaining: ByteCount(link.stock.0 / 2),
                    capacity: ByteCount(link.stock.0 / 2),
                    rate: BitRate(link.rate.0 / 2),
                    up: true,
                });
            }
        }
        network
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_is_what_the_publications_say() {
        let tokyo = Topology::load("tokyo-2022").unwrap();
        assert_eq!((tokyo.nodes.len(), tokyo.links.len()), (5, 5));
        assert_eq!(tokyo.nodes.iter().filter(|node| node.place.contains("NICT")).count(), 4);
        let makes: BTreeSet<_> = tokyo.links.iter().map(|link| &link.make).collect();
        let rates: BTreeSet<_> = tokyo.links.iter().map(|link| link.rate).collect();
        assert!(makes.len() > 1 && rates.len() > 1, "links of several makes");

        let care = Topology::load("healthcare-2022").unwrap();
        assert_eq!(care.nodes.len(), 6);
        let qkd: Vec<_> = care.links.iter().filter(|link| link.kind == LinkKind::Qkd).collect();
        assert!(qkd.len() == 2 && qkd.iter().all(|link| link.ends[0].as_str() == "tommo"));
        let carried = care.links.iter().filter(|link| link.kind == LinkKind::Preshared);
        let cloud = |end: &SiteId| end.as_str().starts_with("cloud");
        assert!(carried.clone().all(|link| link.ends.iter().any(cloud) && link.rate.0 == 0));
        assert_eq!(carried.count(), 6);
    }

    #[test]
    fn topologies_that_make_no_sense_are_refused() {
        let text = TOPOLOGIES[0].1;
        for (from, to) in [
            ("name = \"nict-2\"", "name = \"nict-1\""),
            ("\"nict-4\", \"otemachi\"", "\"nict-9\", \"otemachi\""),
            ("\"nict-4\", \"otemachi\"", "\"nict-1\", \"otemachi\""),
            ("loss-db", "loss-bd"),
        ] {
            assert!(Topology::parse("x", &text.replacen(from, to, 1)).is_err(), "{to}");
        }
        assert!(matches!(Topology::load("atlantis"), Err(Error::Topology { .. })));
    }
}
