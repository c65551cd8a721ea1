//! What a node of the key network is told about itself.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{ByteCount, SiteId};
use crate::key::RandomSettings;

/// The table `[management]` of a node's settings.
///
/// A node is a site of its own: `[[key]]` and `[[peer]]` say how it talks to its neighbours and to the
/// key management server; `[[management.link]]` says which links give it key to manage.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The topology, by its name or file: for the server.
    pub topology: Option<String>,
    /// The server: for an agent, the only one that may order relays.
    pub server: Option<SiteId>,
    /// Where ciphertext of relays arrives: for an agent.
    pub relay_listen: Option<String>,
    /// What relayed keys are made of: for an agent.
    pub random: RandomSettings,
    /// Key that every direction of a link keeps whatever is asked for.
    pub floor: ByteCount,
    /// The site that the agent supplies with keys, if it has not the node's name.
    pub site: Option<SiteId>,
    /// The state folder of that site; one in the node's own, if not given.
    pub supply: Option<PathBuf>,
    /// The links: for an agent.
    #[serde(rename = "link")]
    pub links: Vec<LinkSettings>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topology: None,
            server: None,
            relay_listen: None,
            random: RandomSettings::OperatingSystem,
            floor: ByteCount(64 << 10),
            site: None,
            supply: None,
            links: Vec::new(),
        }
    }
}

/// A link to a neighbour.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LinkSettings {
    /// The neighbour.
    pub peer: SiteId,
    /// Where its ciphertext of relays is sent.
    pub relay: Option<String>,
    /// The simulated pair of QKD modules; without one, blocks come from elsewhere.
    pub qkd: Option<PathBuf>,
    /// What the modules push up at once.
    #[serde(default = "block_bytes")]
    pub block: ByteCount,
    /// How long a block takes, in milliseconds.
    #[serde(default)]
    pub latency_ms: u64,
    /// Which part of the blocks never arrives at this end, from 0 to 1.
    #[serde(default)]
    pub loss: f64,
}

fn block_bytes() -> ByteCount {
    ByteCount(1 << 20)
}

impl Settings {
    /// Makes relative paths relative to `folder`.
    pub fn relative_to(&mut self, folder: &Path) {
        let inner = |path: &mut PathBuf| *path = folder.join(&*path);
        self.supply.iter_mut().for_each(inner);
        self.links.iter_mut().flat_map(|link| &mut link.qkd).for_each(inner);
        if let Some(topology) = &mut self.topology
            && topology.ends_with(".toml")
        {
            *topology = folder.join(&*topology).display().to_string();
        }
    }
}
