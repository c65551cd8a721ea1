//! A key manager without its network: who may have which keys.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Error;
use super::held::{Group, HeldKeys, HeldLimits, NotHeld};
use super::identity::SaeId;
use super::message::{KeyRequest, NamedKey, Status};
use super::name::{KeyId, Names, PERMUTATION_KEY_BYTES};
use super::receiver::{Directory, Receiver};
use super::refusal::{Refusal, text};
use super::settings::KmeSettings;
use super::supplier::{Supplier, Want};
use crate::base::{Clock, Secret, SiteId};
use crate::key::{self, KeyStore, RandomSource};
use crate::net::{self, Cipher, Dialer, Traffic};

/// Bytes of all held keys together.
const HELD_BYTES_MAX: usize = 256 << 20;
/// How long the level of a link is taken for true: looking reads its files.
const LEVEL_AGE_MAX: Duration = Duration::from_secs(1);
/// How long another key manager may take to answer.
const PEER_DEADLINE: Duration = Duration::from_secs(10);
/// How long the session of another key manager may lie idle.
const PEER_IDLE: Duration = Duration::from_secs(3600);
/// The most that the numbers of a status say: clients in use have 32 bits for them.
const COUNT_MAX: u64 = i32::MAX as u64;

/// A key manager.
pub struct Kme {
    id: SaeId,
    settings: KmeSettings,
    keys: KeyStore,
    directory: Arc<Directory>,
    held: Arc<HeldKeys>,
    suppliers: BTreeMap<SiteId, Supplier>,
    local: Mutex<Local>,
    levels: Mutex<BTreeMap<SiteId, (Duration, u64, key::Provenance)>>,
    clock: Clock,
}

/// Where keys come from that only applications of this site have.
struct Local {
    random: Box<dyn RandomSource>,
    names: Names,
}

/// Is told what the operator should know.
pub type Note = Arc<dyn Fn(String) + Send + Sync>;

impl Kme {
    /// A key manager called `id` at the site of `keys`. `addresses` says where the key managers of
    /// other sites listen; those without an address get no keys from here.
    pub fn new(
        id: SaeId,
        settings: KmeSettings,
        keys: KeyStore,
        addresses: &BTreeMap<SiteId, String>,
        note: &Note,
    ) -> Result<Self, Error> {
        settings.check()?;
        let clock = Clock::system();
        let home = |site: &Option<SiteId>| site.as_ref().unwrap_or(keys.site()).clone();
        let directory: Directory =
            settings.sae.iter().map(|sae| (sae.id.clone(), home(&sae.site))).collect();
        let mut suppliers = BTreeMap::new();
        for site in keys.peers().into_iter().filter(|site| directory.values().any(|at| at == site))
        {
            let Some(address) = addresses.get(&site) else { continue };
            let (address, net) = (address.clone(), peer_settings(PEER_DEADLINE));
            let dialer = Dialer::new(address, site.clone(), keys.clone(), net, Traffic::default());
            let note = Arc::clone(note);
            let supplier = Supplier::start(dialer, move |text| note(text));
            let failed = |source| Error::Serve { address: settings.listen.clone(), source };
            suppliers.insert(site, supplier.map_err(failed)?);
        }
        let limits = HeldLimits {
            keys: settings.held_keys,
            bytes: HELD_BYTES_MAX,
            lifetime: Duration::from_secs(settings.lifetime_seconds),
        };
        Ok(Self {
            local: Mutex::new(Local::open(&settings, keys.site())?),
            held: Arc::new(HeldKeys::new(limits, clock.clone())),
            directory: Arc::new(directory),
            levels: Mutex::default(),
            id,
            settings,
            keys,
            suppliers,
            clock,
        })
    }

    /// What takes the calls of other key managers for this one.
    pub fn receiver(&self, note: Note) -> Receiver {
        Receiver {
            keys: self.keys.clone(),
            net: peer_settings(PEER_IDLE),
            held: Arc::clone(&self.held),
            directory: Arc::clone(&self.directory),
            note,
        }
    }

    /// Its settings.
    pub fn settings(&self) -> &KmeSettings {
        &self.settings
    }

    /// Its KME ID.
    pub fn id(&self) -> &SaeId {
        &self.id
    }

    /// Keys that wait here to be fetched.
    pub fn held(&self) -> usize {
        self.held.count()
    }

    /// Clause 5.2: what there is for `caller` and `slave`.
    pub fn status(&self, caller: &SaeId, slave: &SaeId) -> Result<Status, Refusal> {
        self.permit(caller)?;
        let site = self.directory.get(slave);
        let site = site.ok_or(Refusal::bad("slave_SAE_ID is not known on KME"))?;
        let settings = &self.settings;
        let (target, bytes, provenance) = if site == self.keys.site() {
            let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
            (self.id.to_string(), u64::MAX, local.random.provenance().clone())
        } else {
            let target = settings.peers.get(site).cloned().unwrap_or_else(|| site.to_string());
            let (bytes, provenance) = self.level(site)?;
            (target, bytes, provenance)
        };
        let max_key_count = (settings.held_keys as u64).min(COUNT_MAX);
        let extension = [
            ("key_source".to_owned(), provenance.source.to_string().into()),
            ("key_class".to_owned(), provenance.class.to_string().into()),
        ];
        Ok(Status {
            source_kme_id: self.id.to_string(),
            target_kme_id: target,
            master_sae_id: caller.to_string(),
            slave_sae_id: slave.to_string(),
            key_size: settings.key_bits,
            stored_key_count: (bytes / (settings.key_bits / 8)).min(max_key_count),
            max_key_count,
            max_key_per_request: settings.keys_per_request,
            max_key_size: settings.key_bits_max,
            min_key_size: settings.key_bits_min,
            max_sae_id_count: settings.additional_slaves,
            status_extension: Some(extension.into()),
        })
    }

    /// Clause 5.3: fresh keys for `caller`, which the slaves can fetch from now on.
    pub async fn enc_keys(
        &self,
        caller: &SaeId,
        slave: &SaeId,
        request: &KeyRequest,
    ) -> Result<Vec<NamedKey>, Refusal> {
        self.permit(caller)?;
        let (number, bytes) = self.amount(request)?;
        let (first, mut by_site) = self.recipients(slave, &request.additional_slaves)?;
        let here = self.keys.site();
        let group = |slaves| Arc::new(Group { master: caller.clone(), slaves });
        // Keys are fresh at one end of one link; whoever is elsewhere gets a copy.
        let origin =
            if first == *here { by_site.keys().find(|site| *site != here) } else { Some(&first) };
        let keys = match origin.cloned() {
            None => self.local_keys(number, bytes)?,
            Some(site) => {
                let slaves = by_site.remove(&site).unwrap_or_default();
                self.supplier(&site)?.grant(Want::Fresh { number, bytes }, group(slaves)).await?
            }
        };
        if by_site.is_empty() {
            return Ok(keys);
        }
        let copies = Arc::new(keys);
        if let Some(slaves) = by_site.remove(here) {
            let full = |_: NotHeld| {
                Refusal::unavailable("the KME holds too many keys that were not fetched")
            };
            self.held.hold(copied(&copies), &group(slaves)).map_err(full)?;
        }
        for (site, slaves) in by_site {
            let want = Want::Copies(Arc::clone(&copies));
            self.supplier(&site)?.grant(want, group(slaves)).await?;
        }
        Ok(Arc::try_unwrap(copies).unwrap_or_else(|shared| copied(&shared)))
    }

    /// Clause 5.4: the keys that `master` shares with `caller`, once.
    pub fn dec_keys(
        &self,
        caller: &SaeId,
        master: &SaeId,
        ids: &[KeyId],
    ) -> Result<Vec<NamedKey>, Refusal> {
        self.permit(caller)?;
        let most = self.settings.keys_per_request;
        if ids.len() as u64 > most {
            let message = format!("key_IDs shall name at most {most} keys").into();
            return Err(Refusal::BadRequest { message, detail: None });
        }
        self.held.fetch(caller, master, ids)
    }

    /// Whether `caller` is an application of this site: nobody else gets an answer.
    ///
    /// Errors: 401.
    pub fn permit(&self, caller: &SaeId) -> Result<(), Refusal> {
        match self.directory.get(caller) {
            Some(site) if site == self.keys.site() => Ok(()),
            _ => Err(Refusal::Unauthorized),
        }
    }

    /// How many keys, of how many bytes.
    fn amount(&self, request: &KeyRequest) -> Result<(usize, usize), Refusal> {
        let settings = &self.settings;
        let within = |what: &str, value: u64, least: u64, most: u64| {
            let message = format!("{what} shall be from {least} to {most}").into();
            let outside = Refusal::BadRequest { message, detail: None };
            if (least..=most).contains(&value) { Ok(value as usize) } else { Err(outside) }
        };
        let number = within("number", request.number.unwrap_or(1), 1, settings.keys_per_request)?;
        let size = request.size.unwrap_or(settings.key_bits);
        if !size.is_multiple_of(8) {
            return Err(Refusal::bad(text::SIZE));
        }
        let bits = within("size", size, settings.key_bits_min, settings.key_bits_max)?;
        Ok((number, bits / 8))
    }

    /// The site of the first slave, and the slaves of each site.
    fn recipients(
        &self,
        slave: &SaeId,
        additional: &[SaeId],
    ) -> Result<(SiteId, BTreeMap<SiteId, Vec<SaeId>>), Refusal> {
        if additional.len() as u64 > self.settings.additional_slaves {
            let most = self.settings.additional_slaves;
            let message =
                format!("additional_slave_SAE_IDs shall have at most {most} SAE IDs").into();
            return Err(Refusal::BadRequest { message, detail: None });
        }
        let first = self.directory.get(slave);
        let first = first.ok_or(Refusal::bad("slave_SAE_ID is not known on KME"))?;
        let mut by_site = BTreeMap::from([(first.clone(), vec![slave.clone()])]);
        for id in additional {
            let unknown = "additional_slave_SAE_IDs has an SAE ID that is not known on KME";
            let site = self.directory.get(id).ok_or(Refusal::bad(unknown))?;
            let slaves: &mut Vec<SaeId> = by_site.entry(site.clone()).or_default();
            if slaves.contains(id) {
                return Err(Refusal::bad("additional_slave_SAE_IDs names an SAE twice"));
            }
            slaves.push(id.clone());
        }
        Ok((first.clone(), by_site))
    }

    fn supplier(&self, site: &SiteId) -> Result<&Supplier, Refusal> {
        let none = "there is no link to the KME of a slave SAE";
        self.suppliers.get(site).ok_or(Refusal::unavailable(none))
    }

    fn local_keys(&self, number: usize, bytes: usize) -> Result<Vec<NamedKey>, Refusal> {
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        let Local { random, names } = &mut *local;
        let mut keys = Vec::with_capacity(number);
        for _ in 0..number {
            let mut key = Secret::new(vec![0; bytes].into_boxed_slice());
            let filled = random.fill(key.expose_mut());
            filled.map_err(|_| Refusal::unavailable("the source of random numbers fails"))?;
            keys.push(NamedKey { id: names.issue(), bytes: key });
        }
        Ok(keys)
    }

    /// What the link to `site` still has, and what its keys are.
    fn level(&self, site: &SiteId) -> Result<(u64, key::Provenance), Refusal> {
        let failed = |_| Refusal::unavailable("the level of the link cannot be read");
        let now = self.clock.since_epoch();
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, bytes, provenance)) = levels.get(site)
            && now.saturating_sub(*then) < LEVEL_AGE_MAX
        {
            return Ok((*bytes, provenance.clone()));
        }
        let level = self.keys.level(site).map_err(failed)?;
        let bytes = level.outgoing.remaining.0;
        levels.insert(site.clone(), (now, bytes, level.provenance.clone()));
        Ok((bytes, level.provenance))
    }
}

impl Local {
    fn open(settings: &KmeSettings, site: &SiteId) -> Result<Self, Error> {
        let none = || Err(key::Error::UnknownRandom { text: "key-stream".into() });
        let random = settings.local_random.open(site, none)?;
        let mut key = Secret::new([0; PERMUTATION_KEY_BYTES]);
        key::random::OperatingSystem::new(site.clone()).fill(key.expose_mut())?;
        Ok(Self { random, names: Names::new(&key) })
    }
}

fn copied(keys: &[NamedKey]) -> Vec<NamedKey> {
    let copy = |key: &NamedKey| Secret::new(key.bytes.expose().clone());
    keys.iter().map(|key| NamedKey { id: key.id, bytes: copy(key) }).collect()
}

/// Between key managers there is no choice of cipher, and nobody waits for key.
fn peer_settings(idle: Duration) -> net::Settings {
    net::Settings {
        cipher: Cipher::Otp,
        key_wait: Duration::ZERO,
        deadline: PEER_DEADLINE,
        idle,
        ..net::Settings::default()
    }
}
