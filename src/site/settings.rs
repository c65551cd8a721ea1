//! What one site is told about itself and its peers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{ByteCount, SiteId};
use crate::device::setting::Setting;
use crate::disclosure::Right;
use crate::engine::external::ExternalSettings;
use crate::etsi014::KmeSettings;
use crate::key::{Class, Floors, LinkSettings, RandomSettings};
use crate::management;
use crate::net::Cipher;
use crate::store::StoreSettings;

/// One site's settings, as in its TOML file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// This site's name.
    pub site: SiteId,
    /// Whose data it works for: its own name, if not given. A trusted server names its owner.
    pub owner: Option<SiteId>,
    /// The trusted server that an owner asks.
    pub trusted: Option<SiteId>,
    /// Folder of everything that must survive a restart: key marks, catalogue, receipts.
    pub state: PathBuf,
    /// Address to listen at.
    pub listen: Option<String>,
    /// The owner's catalogue, if it is not in the state folder.
    pub catalogue: Option<PathBuf>,
    /// Where a user's deliveries are put, if not in the state folder.
    pub inbox: Option<PathBuf>,
    /// The sites it talks to.
    #[serde(default)]
    pub peer: Vec<Peer>,
    /// The links it has keys for.
    #[serde(default)]
    pub key: Vec<LinkSettings>,
    /// The stores it has, each named after the site whose shares are in it.
    #[serde(default)]
    pub store: Vec<StoreSettings>,
    /// How deposits are shared out.
    pub share: ShareSettings,
    /// How files are read.
    pub io: IoSettings,
    /// How peers are reached.
    pub net: NetSettings,
    /// What analyses.
    pub engine: EngineSettings,
    /// What computes.
    #[serde(default)]
    pub device: DeviceSettings,
    /// The references there are.
    #[serde(default)]
    pub reference: Vec<ReferenceSettings>,
    /// What users may see.
    #[serde(default)]
    pub right: Vec<Right>,
    /// The key manager that it is for applications.
    pub kme: Option<KmeSettings>,
    /// What it is told as a node of a key network.
    #[serde(default)]
    pub management: management::Settings,
}

/// A site that this one talks to.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Peer {
    /// Its name.
    pub site: SiteId,
    /// Where it listens, if it is called from here.
    pub address: Option<String>,
    /// What it may ask of this site; nothing, if not given.
    #[serde(default)]
    pub may: Vec<Permission>,
    /// Whose shares it may store and read here; its own, if not given.
    pub tenant: Option<SiteId>,
}

/// What a peer may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// To store and read its shares here.
    Store,
    /// To have deposits analysed, and results delivered.
    Analyse,
    /// To deliver results here.
    Deliver,
}

/// How deposits are shared out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShareSettings {
    /// Where the random numbers come from.
    pub random: RandomSettings,
    /// The weakest random numbers that may be used; any, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_class: Option<Class>,
    /// The site that gets share B.
    pub holder_b: Option<SiteId>,
    /// The site that gets share C.
    pub holder_c: Option<SiteId>,
}

/// How files are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IoSettings {
    /// Bytes of a read.
    pub chunk: ByteCount,
    /// Reads on the way.
    pub read_ahead: usize,
    /// Whether to read past the page cache.
    pub direct: bool,
}

/// How peers are reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetSettings {
    /// How long to wait for keys before giving up, in seconds.
    pub key_wait_seconds: u64,
    /// How long a peer may keep silent, in seconds.
    pub deadline_seconds: u64,
    /// `otp`; or `aes-256-gcm`, whose security is computational; or `plain` for the comparison rows of
    /// benchmarks: both ends must agree.
    pub cipher: Cipher,
    /// Whether peers may ask this site for `aes-256-gcm` where its own cipher is `otp`.
    #[serde(default)]
    pub permit_aes: bool,
    /// How much key of every link is kept for what is more important than bulk.
    #[serde(default)]
    pub floors: Floors,
}

/// What analyses.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EngineSettings {
    /// Name of the engine: `native`, or one of `external`.
    pub name: String,
    /// Worker threads; all cores, if 0.
    pub threads: usize,
    /// Engines that are other programs.
    #[serde(default)]
    pub external: Vec<ExternalSettings>,
}

/// What computes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceSettings {
    /// `auto`, or a device with its cards.
    #[serde(rename = "use")]
    pub setting: Setting,
}

/// A reference genome.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReferenceSettings {
    /// What it is called on the command line.
    pub name: String,
    /// The FASTA file.
    pub fasta: PathBuf,
    /// The index file made by `dsgd index build`; built in memory, if not given.
    pub index: Option<PathBuf>,
}

impl Settings {
    /// Whose data this site works for.
    pub fn owner(&self) -> &SiteId {
        self.owner.as_ref().unwrap_or(&self.site)
    }

    /// The owner's catalogue.
    pub fn catalogue(&self) -> PathBuf {
        self.catalogue.clone().unwrap_or_else(|| self.state.join("catalogue"))
    }

    /// Where deliveries are put.
    pub fn inbox(&self) -> PathBuf {
        self.inbox.clone().unwrap_or_else(|| self.state.join("inbox"))
    }

    /// Makes relative paths relative to `folder`, where the file is that says them.
    pub fn relative_to(&mut self, folder: &Path) {
        let inner = |path: &mut PathBuf| *path = folder.join(&*path);
        inner(&mut self.state);
        self.catalogue.iter_mut().for_each(inner);
        self.inbox.iter_mut().for_each(inner);
        self.reference.iter_mut().for_each(|reference| {
            inner(&mut reference.fasta);
            reference.index.iter_mut().for_each(inner);
        });
        self.key.iter_mut().flat_map(|link| &mut link.file).for_each(inner);
        self.store.iter_mut().for_each(|store| inner(&mut store.path));
        self.right.iter_mut().for_each(|right| right.relative_to(folder));
        self.kme.iter_mut().for_each(|kme| kme.relative_to(folder));
        self.management.relative_to(folder);
    }
}
