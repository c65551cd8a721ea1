//! A site: its settings, keys, stores and peers, and what it does with them.

mod client;
pub mod daemon;
mod devices;
mod holder;
pub mod key_node;
mod owner;
mod rebuild;
mod reference;
pub mod request;
pub mod settings;
mod trusted;
mod user;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use owner::{GetReport, PutFile, PutReport, Repaired};
pub use reference::LoadedReference;
pub use settings::Settings;

use crate::base::{ByteCount, Clock, Fault, Faulty, ShareLetter, SiteId};
use crate::control::{Catalogue, Deposit};
use crate::device::assign::Assignment;
use crate::flow::Meters;
use crate::key::KeyStore;
use crate::net::{self, Dialer, Traffic};
use crate::pipeline::restore::{Holders, Restore};
use crate::pipeline::{LinkUse, Notices};
use crate::store::remote::RemoteStore;
use crate::store::{self, ShareStore};

/// An opened site.
pub struct Site {
    settings: Settings,
    keys: KeyStore,
    clock: Clock,
    notices: Notices,
    traffic: Traffic,
    stores: Arc<Mutex<BTreeMap<SiteId, Arc<dyn ShareStore>>>>,
    references: Arc<Mutex<BTreeMap<String, Arc<LoadedReference>>>>,
    devices: Arc<Mutex<Option<Arc<Assignment>>>>,
    in_use: Mutex<Option<devices::InUse>>,
}

impl Site {
    /// Opens a site: its folders are made if they are not there, its keys are checked.
    pub fn open(settings: Settings, notices: Notices) -> Result<Self, Error> {
        let clock = Clock::system();
        let (site, state) = (settings.site.clone(), &settings.state);
        let keys = KeyStore::open(site, state, &settings.key, clock.clone())?;
        Ok(Self {
            settings,
            keys,
            clock,
            notices,
            traffic: Traffic::default(),
            stores: Arc::default(),
            references: Arc::default(),
            devices: Arc::default(),
            in_use: Mutex::default(),
        })
    }

    /// The same site for one request of a daemon: with notices, traffic and a choice of devices of its own, so
    /// that a report or receipt says what its own work took, and nothing of other people's.
    pub(crate) fn for_one_request(&self) -> Self {
        Self {
            settings: self.settings.clone(),
            keys: self.keys.clone(),
            clock: self.clock.clone(),
            notices: self.notices.begun_anew(),
            traffic: Traffic::default(),
            stores: self.stores.clone(),
            references: self.references.clone(),
            devices: self.devices.clone(),
            in_use: Mutex::default(),
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its keys.
    pub fn keys(&self) -> &KeyStore {
        &self.keys
    }

    /// What the operator should know.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// The owner's catalogue.
    pub fn catalogue(&self) -> Result<Catalogue, Error> {
        Ok(Catalogue::open(&self.settings.catalogue())?)
    }

    /// The store of `tenant`'s shares here.
    pub fn store(&self, tenant: &SiteId) -> Result<Arc<dyn ShareStore>, Error> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(tenant) {
            return Ok(store.clone());
        }
        let place = self.settings.store.iter().find(|place| place.name == tenant.as_str());
        let place = place.ok_or_else(|| Error::NoStore { tenant: tenant.clone() })?;
        let (store, backend) = store::open(place)?;
        if let Some(reason) = backend.reason {
            self.notices.add(format!(
                "{}: {reason}; using '{}'",
                place.path.display(),
                backend.name
            ));
        }
        let store: Arc<dyn ShareStore> = Arc::from(store);
        stores.insert(tenant.clone(), store.clone());
        Ok(store)
    }

    /// How to reach `peer`.
    pub fn dialer(&self, peer: &SiteId) -> Result<Dialer, Error> {
        let entry = self.settings.peer.iter().find(|entry| entry.site == *peer);
        let address = entry.and_then(|entry| entry.address.clone());
        let address = address.ok_or_else(|| Error::NoAddress { peer: peer.clone() })?;
        let settings = self.net_settings();
        Ok(Dialer::new(address, peer.clone(), self.keys.clone(), settings, self.traffic.clone()))
    }

    /// How connections of this site behave.
    pub fn net_settings(&self) -> net::Settings {
        let notices = self.notices.clone();
        net::Settings {
            cipher: self.settings.net.cipher,
            permit_aes: self.settings.net.permit_aes,
            key_wait: Duration::from_secs(self.settings.net.key_wait_seconds),
            deadline: Duration::from_secs(self.settings.net.deadline_seconds),
            floors: self.settings.net.floors,
            on_wait: Some(Arc::new(move |wait: &net::KeyWait| notices.add(wait.to_string()))),
            ..net::Settings::default()
        }
    }

    /// The store at `site`: the owner's own is here, every other behind its holder.
    fn store_at(&self, site: &SiteId) -> Result<Arc<dyn ShareStore>, Error> {
        if site == self.settings.owner() {
            self.store(site)
        } else {
            Ok(Arc::new(RemoteStore::new(self.dialer(site)?)))
        }
    }

    /// Where the shares of a deposit are.
    pub fn holders(&self, deposit: &Deposit) -> Result<Holders, Error> {
        let [a, b, c] = ShareLetter::ALL.map(|letter| self.store_at(deposit.holder(letter)));
        Ok([a?, b?, c?])
    }

    /// How a deposit is restored here, from the shares in `order`.
    fn restore<'a>(
        &'a self,
        deposit: &'a Deposit,
        order: &'a [ShareLetter],
        meters: &'a Meters,
    ) -> Result<Restore<'a>, Error> {
        Ok(Restore {
            deposit,
            holders: self.holders(deposit)?,
            order,
            devices: self.devices_for(deposit.bytes())?,
            meters,
            notices: &self.notices,
        })
    }

    /// What the links carried since the site was opened.
    pub fn link_use(&self) -> Vec<LinkUse> {
        let by_peer = self.traffic.by_peer();
        let describe = |peer: &SiteId| match self.keys.level(peer) {
            Ok(level) => level.protection(),
            Err(_) => String::new(),
        };
        let under_aes = |bytes: u64| match bytes {
            0 => String::new(),
            _ => format!("; {} under AES-256-GCM: computational security", ByteCount(bytes)),
        };
        by_peer
            .into_iter()
            .map(|(peer, carried)| LinkUse {
                keys: describe(&peer) + &under_aes(carried.computational_bytes),
                peer: peer.to_string(),
                payload_bytes: carried.payload_bytes,
                key_bytes: carried.key_bytes,
            })
            .collect()
    }

    fn now(&self) -> String {
        crate::base::clock::rfc3339(self.clock.since_epoch())
    }
}

/// Why a site could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pipeline failed.
    #[error(transparent)]
    Pipeline(#[from] crate::pipeline::Error),
    /// A device that the configuration names cannot be used.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The catalogue failed.
    #[error(transparent)]
    Catalogue(#[from] crate::control::Error),
    /// The keys failed.
    #[error(transparent)]
    Key(#[from] crate::key::Error),
    /// A peer could not be reached, or hung up.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// Filtering failed.
    #[error(transparent)]
    Disclosure(#[from] crate::disclosure::Error),
    /// A file could not be written.
    #[error(transparent)]
    Output(#[from] crate::io::Error),
    /// A peer refused or failed.
    #[error("{peer}")]
    Peer {
        /// Which peer.
        peer: SiteId,
        /// What it said.
        source: store::remote::Failure,
    },
    /// A peer answered something else than the protocol allows.
    #[error("{peer} answered something that the protocol does not allow here")]
    Protocol {
        /// Which peer.
        peer: SiteId,
    },
    /// There is no store for these shares.
    #[error("there is no [[store]] with name = '{tenant}' in this site's configuration")]
    NoStore {
        /// Whose shares.
        tenant: SiteId,
    },
    /// It is not said where a peer listens.
    #[error("there is no [[peer]] '{peer}' with an address in this site's configuration")]
    NoAddress {
        /// Which peer.
        peer: SiteId,
    },
    /// A name in the configuration is not there.
    #[error("there is no {what} '{name}' in this site's configuration")]
    NotConfigured {
        /// What kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A deposit of this name is stored already.
    #[error("'{name}' is deposited already")]
    Exists {
        /// Its name.
        name: String,
    },
    /// A file could not be read or written.
    #[error("{}", path.display())]
    File {
        /// Which file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An index cannot be used.
    #[error("index {}", path.display())]
    Index {
        /// Its file.
        path: std::path::PathBuf,
        /// Whether the disk, the data or something else is at fault.
        fault: Fault,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A reference cannot be used, or its index not made.
    #[error("reference '{name}'")]
    Reference {
        /// Its name.
        name: String,
        /// Whether the disk, the data or something else is at fault.
        fault: Fault,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Random numbers that the holder of a share knows would give it the secret.
    #[error("random numbers known to {known_to} must not be used to share with C at {holder_of_c}")]
    RandomKnown {
        /// Who knows them.
        known_to: String,
        /// Who may.
        holder_of_c: SiteId,
    },
    /// A user's right is for somebody else, or has ended.
    #[error("right '{right}' does not permit this: {why}")]
    Right {
        /// Which right.
        right: String,
        /// Why.
        why: String,
    },
    /// What arrived is not what was sent.
    #[error("{peer} received something else than was sent")]
    Digest {
        /// The receiver.
        peer: SiteId,
    },
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Pipeline(error) => error.fault(),
            Error::Device(error) => error.fault(),
            Error::Store(error) => error.fault(),
            Error::Catalogue(error) => error.fault(),
            Error::Key(error) => error.fault(),
            Error::Net(error) => error.fault(),
            Error::Output(error) => error.fault(),
            Error::Disclosure(error) => error.fault(),
            Error::Peer { source, .. } => Fault::from_exit_code(source.code),
            Error::Protocol { .. } => Fault::Unavailable,
            Error::NoStore { .. } | Error::NoAddress { .. } | Error::NotConfigured { .. } => {
                Fault::Config
            }
            Error::Exists { .. } | Error::RandomKnown { .. } | Error::Right { .. } => {
                Fault::Refused
            }
            Error::File { source, .. } => Fault::of_io(source),
            Error::Reference { fault, .. } | Error::Index { fault, .. } => *fault,
            Error::Digest { .. } => Fault::Integrity,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Pipeline(error) => error.hint(),
            Error::Store(error) => error.hint(),
            Error::Catalogue(error) => error.hint(),
            Error::Key(error) => error.hint(),
            Error::Net(error) => error.hint(),
            Error::Output(error) => error.hint(),
            Error::Disclosure(error) => error.hint(),
            Error::Peer { source, .. } => source.hint.clone(),
            Error::NotConfigured { known, .. } if !known.is_empty() => {
                Some(format!("there are: {}", known.join(", ")))
            }
            Error::Exists { .. } => {
                Some("deposits are never overwritten: choose another name".into())
            }
            _ => None,
        }
    }
}
