//! What the data owner does: deposit, restore, verify, repair.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use super::rebuild::Rebuild;
use super::{Error, Site};
use crate::base::clock::Stopwatch;
use crate::base::{Chunk, Fault, Faulty, Pool, SampleName, ShareLetter, SiteId};
use crate::control::{Deposit, Member, Role, State};
use crate::device::Kernel;
use crate::device::assign::KernelDevice;
use crate::flow::{Flow, Meters, StageReport, limiting_stage};
use crate::io::StreamWriter;
use crate::key::{self, Provenance, RandomSettings};
use crate::net::Cipher;
use crate::pipeline::LinkUse;
use crate::pipeline::intake::read_file;
use crate::pipeline::restore::Restore;
use crate::pipeline::share_out::{Random, ShareOut, ToShare, pool_chunks};
use crate::share::device::Sharing;
use crate::store;

/// A file to be deposited.
#[derive(Clone, Debug)]
pub struct PutFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is for.
    pub role: Role,
}

/// What came of a deposit.
#[derive(Clone, Debug, Serialize)]
pub struct PutReport {
    /// The catalogue's entry.
    pub deposit: Deposit,
    /// Bytes of the files.
    pub bytes: u64,
    /// Time from the first byte to the last commit.
    pub seconds: f64,
    /// The stage that limits.
    pub limiting_stage: String,
    /// What every stage did.
    pub stages: Vec<StageReport>,
    /// What the links carried.
    pub keys: Vec<LinkUse>,
    /// Which device did the arithmetic, and why.
    pub devices: Vec<KernelDevice>,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// What came of restoring a deposit to files.
#[derive(Clone, Debug, Serialize)]
pub struct GetReport {
    /// The files written.
    pub files: Vec<PathBuf>,
    /// Their bytes.
    pub bytes: u64,
    /// Time from the first byte to the last.
    pub seconds: f64,
    /// The stage that limits.
    pub limiting_stage: String,
    /// What every stage did.
    pub stages: Vec<StageReport>,
    /// What the links carried.
    pub keys: Vec<LinkUse>,
    /// Which device did the arithmetic, and why.
    pub devices: Vec<KernelDevice>,
    /// What the operator should know.
    pub notices: Vec<String>,
}

/// A share's member, letter, and damaged stripes; `None` where the whole share is not there.
pub type Condition = (usize, ShareLetter, Option<Vec<u64>>);

/// A share that was found damaged and mended.
#[derive(Clone, Debug, Serialize)]
pub struct Repaired {
    /// Which share.
    pub share: String,
    /// At which site.
    pub site: String,
    /// Stripes that were damaged; all of them, if the whole share was lost.
    pub stripes: Vec<u64>,
    /// Whether the whole share was missing.
    pub lost: bool,
}

/// How many of the three shares must be stored for a deposit to count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holding {
    /// All three: what is deposited survives the loss of a site from then on.
    All,
    /// Two, if need be: what took hours to compute is not thrown away because a holder is down.
    Two,
}

/// Who gets which share.
pub(super) struct Placement {
    sites: [SiteId; 3],
    /// Whether share B is left out for now.
    missing_b: bool,
}

impl Site {
    /// Deposits files under a name: shares A, B and C to the owner's site and the two holders.
    ///
    /// Errors: [`Error::Exists`] when the name is taken. What an earlier attempt left behind is
    /// removed first.
    pub fn put(
        &self,
        name: &SampleName,
        files: &[PutFile],
        meters: &Meters,
    ) -> Result<PutReport, Error> {
        let opened = files.iter().map(|file| self.open_file(&file.path, meters));
        let opened = opened.collect::<Result<Vec<_>, _>>()?;
        let watch = Stopwatch::start();
        let sources = files.iter().zip(opened).map(|(file, bytes)| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let metadata = std::fs::metadata(&file.path).ok().filter(std::fs::Metadata::is_file);
            let length = metadata.map(|metadata| metadata.len());
            ToShare { file: name, role: file.role, bytes, length }
        });
        let placement = self.placement(Holding::All)?;
        let sources: Vec<_> = sources.collect();
        let planned = planned_bytes(&sources);
        let deposit = self.share_out(name, sources, placement, meters, |_| {})?;
        let stages = meters.snapshot();
        let devices = self.devices_for(planned)?;
        Ok(PutReport {
            bytes: deposit.bytes(),
            deposit,
            seconds: watch.elapsed().as_secs_f64(),
            limiting_stage: limit(&stages),
            stages,
            keys: self.link_use(),
            devices: devices.described(&[Kernel::Split]),
            notices: self.notices_with_devices(),
        })
    }

    /// A file's bytes, read ahead.
    pub(super) fn open_file(
        &self,
        path: &Path,
        meters: &Meters,
    ) -> Result<Flow<'static, Chunk>, Error> {
        let settings = &self.settings.io;
        let chunk_bytes = usize::try_from(settings.chunk.0).unwrap_or(1 << 20);
        Ok(read_file(path, chunk_bytes, settings.read_ahead, settings.direct, meters)?)
    }

    /// Shares out bytes as a new deposit; `complete` adds to its entry before it counts as stored.
    pub(super) fn share_out(
        &self,
        name: &SampleName,
        sources: Vec<ToShare<'_>>,
        placement: Placement,
        meters: &Meters,
        complete: impl FnOnce(&mut Deposit),
    ) -> Result<Deposit, Error> {
        let catalogue = self.catalogue()?;
        let _lock = catalogue.lock(name)?;
        match catalogue.find(name)? {
            Some(deposit) if deposit.state == State::Stored => {
                return Err(Error::Exists { name: name.to_string() });
            }
            Some(left_behind) => self.clear(&left_behind)?,
            None => {}
        }
        let Placement { sites, missing_b } = placement;
        let (random, provenance) = self.random(&sites[2])?;
        let label = provenance.to_string();
        let mut deposit = Deposit::begin(name.clone(), sites, self.now(), label)?;
        deposit.members = sources.iter().map(planned).collect();
        catalogue.record(&deposit)?;
        let holders = self.holders(&deposit)?;
        let devices = self.devices_for(planned_bytes(&sources))?;
        let pool = Pool::new(pool_chunks(&devices), deposit.stripe_bytes as usize);
        let mut members = Vec::with_capacity(sources.len());
        let [a, b, c] = &holders;
        for (member, source) in sources.into_iter().enumerate() {
            let job = ShareOut {
                deposit: &deposit,
                member,
                stores: [Some(&**a), (!missing_b).then_some(&**b), Some(&**c)],
                random: random.clone(),
                pool: &pool,
                devices: &devices,
                meters,
            };
            members.push(job.run(source)?);
        }
        deposit.members = members;
        complete(&mut deposit);
        deposit.state = State::Stored;
        catalogue.record(&deposit)?;
        Ok(deposit)
    }

    /// Removes the shares that an interrupted deposit left behind.
    fn clear(&self, deposit: &Deposit) -> Result<(), Error> {
        let name = &deposit.name;
        self.notices.add(format!("an earlier deposit of '{name}' was interrupted: starting over"));
        let holders = self.holders(deposit)?;
        for member in 0..deposit.members.len() {
            for letter in ShareLetter::ALL {
                let share = deposit.share(member, letter);
                holders[letter as usize].remove(&share)?;
            }
        }
        Ok(self.catalogue()?.forget(name)?)
    }

    /// Who gets which share. With [`Holding::Two`], when one of the two holders cannot be reached,
    /// the other gets share C, and share B is left to be rebuilt later.
    pub(super) fn placement(&self, holding: Holding) -> Result<Placement, Error> {
        let missing = |letter: &str| Error::NotConfigured {
            what: "setting",
            name: format!("share.holder-{letter}"),
            known: Vec::new(),
        };
        let b = self.settings.share.holder_b.clone().ok_or_else(|| missing("b"))?;
        let c = self.settings.share.holder_c.clone().ok_or_else(|| missing("c"))?;
        let owner = self.settings.owner().clone();
        let reach =
            |site: &SiteId| -> Result<(), Error> { Ok(self.dialer(site)?.dial()?.close()?) };
        let gone = |error: &Error| error.fault() == Fault::Unavailable;
        let degraded = |lost: SiteId, other: SiteId, error: &Error| {
            self.notices.add(format!(
                "holder {lost} cannot be reached ({error}): its share is left out; \
                 'dsgd store repair' rebuilds it"
            ));
            Placement { sites: [owner.clone(), lost, other], missing_b: true }
        };
        match (reach(&b), reach(&c)) {
            (Ok(()), Ok(())) => Ok(Placement { sites: [owner, b, c], missing_b: false }),
            (Err(error), Ok(())) if holding == Holding::Two && gone(&error) => {
                Ok(degraded(b, c, &error))
            }
            (Ok(()), Err(error)) if holding == Holding::Two && gone(&error) => {
                Ok(degraded(c, b, &error))
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn random(&self, holder_of_c: &SiteId) -> Result<(Random, Provenance), Error> {
        let source = |settings: &RandomSettings| {
            let opened = settings.open(self.settings.owner(), || self.keys.sender(holder_of_c))?;
            let provenance = opened.provenance().clone();
            Ok::<_, Error>((Random::Source(Arc::new(Mutex::new(opened))), provenance))
        };
        let (random, provenance) = match &self.settings.share.random {
            // Without pads there are no keys to draw from: the benchmark's plain rows.
            RandomSettings::KeyStream if self.settings.net.cipher == Cipher::Plain => {
                source(&RandomSettings::OperatingSystem)?
            }
            RandomSettings::KeyStream => {
                let provenance = self.keys.level(holder_of_c)?.provenance;
                if !provenance.may_share_with(&self.settings.site, holder_of_c) {
                    let known = provenance.known_to.iter().map(ToString::to_string);
                    let known_to = known.collect::<Vec<_>>().join(", ");
                    let holder_of_c = holder_of_c.clone();
                    return Err(Error::RandomKnown { known_to, holder_of_c });
                }
                (Random::LinkToHolderOfC, provenance)
            }
            other => source(other)?,
        };
        match self.settings.share.random_class {
            Some(least) if provenance.class < least => {
                Err(key::Error::TooWeak { origin: provenance.to_string(), least }.into())
            }
            _ => Ok((random, provenance)),
        }
    }

    /// Restores the files of a deposit into `folder`, from the shares in `order`.
    ///
    /// A file appears under its name only when it is whole.
    pub fn get(
        &self,
        name: &SampleName,
        folder: &Path,
        order: &[ShareLetter],
        meters: &Meters,
    ) -> Result<GetReport, Error> {
        let deposit = self.catalogue()?.stored(name)?;
        let restore = self.restore(&deposit, order, meters)?;
        std::fs::create_dir_all(folder)
            .map_err(|source| Error::File { path: folder.into(), source })?;
        let watch = Stopwatch::start();
        let mut files = Vec::new();
        for (member, entry) in deposit.members.iter().enumerate() {
            let path = folder.join(file_name(&entry.file, member));
            restore_to(&restore, member, &path)?;
            files.push(path);
        }
        let stages = meters.snapshot();
        Ok(GetReport {
            files,
            bytes: deposit.bytes(),
            seconds: watch.elapsed().as_secs_f64(),
            limiting_stage: limit(&stages),
            stages,
            keys: self.link_use(),
            devices: restore.devices.described(&[Kernel::Restore]),
            notices: self.notices_with_devices(),
        })
    }

    /// Lets every holder read its shares of a deposit; names the damaged stripes.
    pub fn verify(&self, name: &SampleName) -> Result<Vec<Condition>, Error> {
        let deposit = self.catalogue()?.stored(name)?;
        let mut found = Vec::new();
        for member in 0..deposit.members.len() {
            for letter in ShareLetter::ALL {
                let id = deposit.share(member, letter);
                let site = deposit.holder(letter);
                let corrupt = if site == self.settings.owner() {
                    store::verify(&*self.store(site)?, &id)
                } else {
                    store::remote::RemoteStore::new(self.dialer(site)?).verify(&id)
                };
                match corrupt {
                    Ok(stripes) => found.push((member, letter, Some(stripes))),
                    Err(store::Error::Missing { .. }) => found.push((member, letter, None)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(found)
    }

    /// Mends what [`verify`](Site::verify) finds, each share from the other two; the secret itself
    /// does not appear.
    pub fn repair(&self, name: &SampleName) -> Result<Vec<Repaired>, Error> {
        let deposit = self.catalogue()?.stored(name)?;
        let holders = self.holders(&deposit)?;
        let devices = self.devices_for(deposit.bytes())?;
        let mut repaired = Vec::new();
        for (member, letter, stripes) in self.verify(name)? {
            let lost = stripes.is_none();
            if stripes.as_ref().is_some_and(Vec::is_empty) {
                continue;
            }
            let all = 0..deposit.members[member].stripes;
            let numbers = stripes.unwrap_or_else(|| all.collect());
            let job = Rebuild { deposit: &deposit, member, letter, holders: &holders };
            job.run(&numbers, lost, &mut Sharing::new(Arc::clone(&devices)))?;
            repaired.push(Repaired {
                share: deposit.share(member, letter).to_string(),
                site: deposit.holder(letter).to_string(),
                stripes: numbers,
                lost,
            });
        }
        Ok(repaired)
    }
}

fn planned(source: &ToShare<'_>) -> Member {
    Member { file: source.file.clone(), role: source.role, bytes: 0, stripes: 0 }
}

/// Bytes to be shared out, as far as they are known.
fn planned_bytes(sources: &[ToShare<'_>]) -> u64 {
    sources.iter().filter_map(|source| source.length).sum()
}

fn limit(stages: &[StageReport]) -> String {
    limiting_stage(stages).map_or_else(String::new, |stage| stage.stage.clone())
}

/// A deposited file's name, if it is one that stays in its folder.
fn file_name(file: &str, member: usize) -> PathBuf {
    match Path::new(file).file_name() {
        Some(name) if Path::new(name) == Path::new(file) => name.into(),
        _ => format!("file-{member}").into(),
    }
}

fn restore_to(restore: &Restore<'_>, member: usize, path: &Path) -> Result<(), Error> {
    let bytes = restore.deposit.members[member].bytes;
    let mut writer = StreamWriter::create(path, Some(bytes))?;
    let meter = restore.meters.add("write", 1);
    std::thread::scope(|scope| -> Result<(), Error> {
        for chunk in restore.start(scope, member)?.starving(&meter) {
            let chunk = chunk.map_err(crate::pipeline::Error::Stage)?;
            let working = Stopwatch::start();
            let weight = chunk.len() as u64;
            writer.add(&chunk)?;
            meter.busy(working.elapsed());
            meter.came_out(weight);
        }
        Ok(())
    })?;
    writer.finish()?;
    Ok(())
}
