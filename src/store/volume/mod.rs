//! A store on one preallocated file or raw block device, addressed by its sectors.
//!
//! ```text
//! block 0          superblock: sizes, checksum            blocks of 4096 bytes
//! then             catalogue, even sequence numbers       `slot_bytes`
//! then             catalogue, odd sequence numbers        `slot_bytes`
//! then             stripes and tables of digests, in runs of blocks
//!
//! superblock   "DSGDVOLM" · version 1 (u32) · block bytes (u32) · total bytes (u64)
//!              · slot bytes (u64) · BLAKE3 of these 32 bytes
//! catalogue    "DSGDVCAT" · sequence number (u64) · length (u64)
//!              · BLAKE3 of sequence number and text · text: JSON of that length
//! ```
//!
//! Integers are little-endian. The catalogue lists each share with the extents of its stripes and
//! of its digests (32 bytes of BLAKE3 for each stripe, whose own digest is in the share's
//! description). A stripe fills whole blocks and never lies in two extents.
//!
//! The newest catalogue with a good checksum counts; the next one is written over the other. A share
//! is visible by the catalogue that lists it, which is written after its stripes are durable. Space
//! being written is known to the writing process only, so that a crash frees it. One process at a
//! time changes a volume, by a lock on it; reading needs none. Whoever still reads a share that is
//! removed may be told that its stripes are corrupt.

mod layout;
mod medium;
mod space;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::{Chunk, ShareId};
use crate::io::sim::SimMedium;
use crate::io::{self, Backend, Disk, DiskKind, Mode, Preference};

use super::stripes::{
    DIGEST_BYTES, StripeReader, StripeWriter, check_replacement, check_sizes, digest_of,
    disk_error, pad,
};
use super::{Error, HELD_STRIPES, ShareInfo, ShareReader, ShareStore, ShareWriter, StoreSettings};
use layout::{BLOCK_BYTES, Catalogue, Entry, Layout, blocks_of, read_catalogue};
use medium::{LocalMedium, Lock, Medium};
use space::{Extent, FreeSpace};
use writer::VolumeWriter;

/// A store on one file or block device.
pub struct Volume(Arc<Shared>);

struct Shared {
    medium: Box<dyn Medium>,
    layout: Layout,
    /// There while somebody in this process changes the volume.
    session: Mutex<Option<Session>>,
}

/// What this process, which has the lock, knows of the volume.
struct Session {
    _lock: Lock,
    disk: Box<dyn Disk>,
    catalogue: Catalogue,
    free: FreeSpace,
    users: usize,
    /// A catalogue was written and nobody knows whether it counts.
    in_doubt: bool,
}

/// A part in the session, which ends with the last of them.
struct Part(Arc<Shared>);

/// How often the catalogue is read when another process may be writing it.
const ATTEMPTS: usize = 3;

/// A volume is made only where so many bytes at the beginning are zero or not there: no file system
/// or partition table looks like that.
const BLANK_BYTES: usize = 128 << 10;

/// Space is allocated to a writer in steps of at most this many bytes.
const STEP_BYTES_MAX: u64 = 64 << 20;

/// Opens the volume at `settings.path`, as the registry wants it; makes it if there is none and
/// the settings say how large it is to be.
pub(super) fn open(settings: &StoreSettings) -> Result<(Box<dyn ShareStore>, Backend), Error> {
    let path = &settings.path;
    let volume = match settings.bytes {
        Some(bytes) if is_blank(path)? => Volume::create(path, Some(bytes.0), settings.disk)?,
        _ => Volume::open(path, settings.disk)?,
    };
    let preference = Preference { disk: settings.disk, ..preference() };
    let place = path.display().to_string();
    let (_, backend) = io::open(path, Mode::Read, &preference)
        .map_err(|error| Error::Disk { place, source: std::io::Error::other(error) })?;
    Ok((Box::new(volume), backend))
}

fn preference() -> Preference<'static> {
    Preference { depth: HELD_STRIPES, ..Preference::default() }
}

/// Whether nothing is at `path`, or only zeros.
fn is_blank(path: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Disk { place: path.display().to_string(), source };
    if !path.try_exists().map_err(failed)? {
        return Ok(true);
    }
    let mut beginning = Vec::new();
    let file = File::open(path).map_err(failed)?;
    std::io::Read::read_to_end(&mut std::io::Read::take(file, BLANK_BYTES as u64), &mut beginning)
        .map_err(failed)?;
    Ok(beginning.iter().all(|byte| *byte == 0))
}

impl Volume {
    /// Makes an empty volume of `bytes` bytes in a new file, or on a file or block device that
    /// begins with zeros; without `bytes`, as large as that is.
    ///
    /// Errors: [`Error::Occupied`] when there is something else; [`Error::Full`] when `bytes` are
    /// more than there are, or too few for a volume.
    pub fn create(path: &Path, bytes: Option<u64>, disk: DiskKind) -> Result<Self, Error> {
        let place = || path.display().to_string();
        let failed = |source| Error::Disk { place: place(), source };
        if !is_blank(path)? {
            return Err(Error::Occupied { place: place(), what: "data" });
        }
        let made = !path.exists();
        let mut file =
            File::options().read(true).write(true).create(made).open(path).map_err(failed)?;
        let size = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).map_err(failed)?;
        let total = bytes.unwrap_or(size);
        let outcome = reserve(&file, size, total)
            .map_err(|source| disk_error(&place(), total, io::free_bytes(path), source))
            .and_then(|()| Self::format(Box::new(LocalMedium::new(path, disk)), total));
        if outcome.is_err() && made {
            // The first error says more than one of removing the file would.
            let _ = std::fs::remove_file(path);
        }
        outcome
    }

    /// Opens a volume.
    ///
    /// Errors: [`Error::Catalogue`] with the reason when there is none or it is damaged.
    pub fn open(path: &Path, disk: DiskKind) -> Result<Self, Error> {
        Self::on(Box::new(LocalMedium::new(path, disk)))
    }

    /// Makes an empty volume on a simulated disk.
    pub fn create_simulated(medium: &SimMedium, bytes: u64) -> Result<Self, Error> {
        Self::format(Box::new(medium.clone()), bytes)
    }

    /// Opens the volume on a simulated disk.
    pub fn open_simulated(medium: &SimMedium) -> Result<Self, Error> {
        Self::on(Box::new(medium.clone()))
    }

    fn format(medium: Box<dyn Medium>, bytes: u64) -> Result<Self, Error> {
        let place = medium.place();
        let failed = |source| disk_error(&place, bytes, 0, source);
        let small = || Error::Full { place: place.clone(), needed: 1 << 20, free: bytes };
        let layout = Layout::of(bytes).ok_or_else(small)?;
        let busy = || Error::Busy { place: place.clone() };
        let _lock = medium.lock().map_err(failed)?.ok_or_else(busy)?;
        let mut disk = medium.disk(Mode::Write, &preference()).map_err(failed)?;
        let mut format = || {
            let empty = Catalogue::default().to_chunk()?;
            io::write_at(
                &mut *disk,
                Chunk::from_bytes(0, &[0; BLOCK_BYTES as usize]),
                layout.slot(1),
            )?;
            io::write_at(&mut *disk, empty, layout.slot(0))?;
            // The last block, so that the disk is known to be as large as it says.
            let last = layout.total_bytes - BLOCK_BYTES;
            io::write_at(&mut *disk, Chunk::from_bytes(0, &[0; BLOCK_BYTES as usize]), last)?;
            io::sync(&mut *disk)?;
            io::write_at(&mut *disk, layout.to_block(), 0)?;
            io::sync(&mut *disk)
        };
        format().map_err(failed)?;
        Self::on(medium)
    }

    fn on(medium: Box<dyn Medium>) -> Result<Self, Error> {
        let place = medium.place();
        let failed = |source| Error::Disk { place: place.clone(), source };
        let damaged = |what| Error::Catalogue { place: place.clone(), what };
        let mut disk = medium.disk(Mode::Read, &preference()).map_err(failed)?;
        let block = io::read_at(&mut *disk, 0, BLOCK_BYTES as usize).map_err(failed)?;
        let layout = Layout::from_block(&block).map_err(damaged)?;
        let size = disk.size().map_err(failed)?;
        if size < layout.total_bytes {
            let total = layout.total_bytes;
            return Err(damaged(format!("a volume of {total} bytes, of which {size} are there")));
        }
        let shared = Shared { medium, layout, session: Mutex::new(None) };
        shared.read_catalogue(&mut *disk)?;
        Ok(Self(Arc::new(shared)))
    }

    /// Bytes that are free now.
    pub fn free_bytes(&self) -> Result<u64, Error> {
        let catalogue = self.0.read_catalogue(&mut *self.0.disk(Mode::Read, &preference())?)?;
        let free = catalogue.free(self.0.layout).map_or(0, |free| free.blocks());
        Ok(free * BLOCK_BYTES)
    }
}

fn reserve(file: &File, size: u64, total: u64) -> Result<(), std::io::Error> {
    if !file.metadata()?.is_file() || total <= size {
        return Ok(());
    }
    io::reserve(file, 0, total)?;
    // For file systems that reserve nothing.
    file.set_len(total)
}

impl Shared {
    fn failed(&self, source: std::io::Error) -> Error {
        disk_error(&self.medium.place(), 0, 0, source)
    }

    fn disk(&self, mode: Mode, preference: &Preference<'_>) -> Result<Box<dyn Disk>, Error> {
        self.medium.disk(mode, preference).map_err(|error| self.failed(error))
    }

    /// Reads the catalogue; again where another process was writing it just then.
    fn read_catalogue(&self, disk: &mut dyn Disk) -> Result<Catalogue, Error> {
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            match read_catalogue(disk, self.layout).map_err(|error| self.failed(error))? {
                Ok(catalogue) if catalogue.free(self.layout).is_some() => return Ok(catalogue),
                Ok(_) => reason = "the catalogue contradicts itself".into(),
                Err(what) => reason = what,
            }
        }
        Err(Error::Catalogue { place: self.medium.place(), what: reason })
    }

    fn read_digests(&self, disk: &mut dyn Disk, entry: &Entry) -> Result<Vec<u8>, Error> {
        let mut digests = Vec::new();
        for extent in &entry.digests {
            let bytes = (extent.blocks * BLOCK_BYTES) as usize;
            let table = io::read_at(disk, extent.start * BLOCK_BYTES, bytes)
                .map_err(|error| self.failed(error))?;
            digests.extend_from_slice(&table);
        }
        digests.truncate(entry.share.stripes as usize * DIGEST_BYTES);
        if digest_of(&digests) != entry.share.digest {
            let what = format!("the digests of share {} are damaged", entry.share.id);
            return Err(Error::Catalogue { place: self.medium.place(), what });
        }
        Ok(digests)
    }

    fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> Result<Session, Error> {
        let busy = || Error::Busy { place: self.medium.place() };
        let lock = self.medium.lock().map_err(|error| self.failed(error))?.ok_or_else(busy)?;
        let mut disk = self.disk(Mode::Write, &preference())?;
        // What a process left that was killed must be durable before anything is built on it.
        io::sync(&mut *disk).map_err(|error| self.failed(error))?;
        let catalogue = self.read_catalogue(&mut *disk)?;
        let free = catalogue.free(self.layout).expect("it was checked when it was read");
        Ok(Session { _lock: lock, disk, catalogue, free, users: 0, in_doubt: false })
    }
}

impl Part {
    fn take(shared: &Arc<Shared>) -> Result<Self, Error> {
        let mut session = shared.session();
        if session.is_none() {
            *session = Some(shared.begin()?);
        }
        session.iter_mut().for_each(|session| session.users += 1);
        Ok(Self(shared.clone()))
    }

    /// Works on the session.
    fn with<T>(
        &self,
        work: impl FnOnce(&Shared, &mut Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut session = self.0.session();
        let session = session.as_mut().expect("the session lasts as long as its parts");
        if session.in_doubt {
            let source = std::io::Error::other("an earlier write of the catalogue failed");
            return Err(self.0.failed(source));
        }
        work(&self.0, session)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut session = self.0.session();
        session.iter_mut().for_each(|session| session.users -= 1);
        session.take_if(|session| session.users == 0);
    }
}

impl Session {
    /// Makes `next` the catalogue that counts.
    fn commit(&mut self, shared: &Shared, next: Catalogue) -> Result<(), Error> {
        let chunk = next.to_chunk().map_err(|error| shared.failed(error))?;
        let (needed, free) = (chunk.len() as u64, shared.layout.slot_bytes);
        if needed > free {
            let place = format!("catalogue of {}", shared.medium.place());
            return Err(Error::Full { place, needed, free });
        }
        let offset = shared.layout.slot(next.sequence);
        let outcome =
            io::write_at(&mut *self.disk, chunk, offset).and_then(|()| io::sync(&mut *self.disk));
        self.in_doubt = outcome.is_err();
        outcome.map_err(|error| shared.failed(error))?;
        self.catalogue = next;
        Ok(())
    }

    fn take(
        &mut self,
        shared: &Shared,
        unit: u64,
        wanted: u64,
        after: Option<u64>,
    ) -> Result<Extent, Error> {
        let full = |free: &FreeSpace| Error::Full {
            place: shared.medium.place(),
            needed: unit * BLOCK_BYTES,
            free: free.blocks() * BLOCK_BYTES,
        };
        self.free.take(unit, wanted, after).ok_or_else(|| full(&self.free))
    }
}

impl ShareStore for Volume {
    fn create(
        &self,
        id: &ShareId,
        format: u16,
        stripe_bytes: u32,
    ) -> Result<Box<dyn ShareWriter>, Error> {
        check_sizes(id, stripe_bytes)?;
        let part = Part::take(&self.0)?;
        part.with(|_, session| refuse_existing(session, id))?;
        let disk = self.0.disk(Mode::Write, &preference())?;
        let stripes = StripeWriter::new(id, format, stripe_bytes, disk);
        let unit = blocks_of(u64::from(stripe_bytes));
        let step = (self.0.layout.total_bytes / 64).min(STEP_BYTES_MAX) / BLOCK_BYTES;
        let step = step.max(unit);
        Ok(Box::new(VolumeWriter::new(stripes, unit, step, part)))
    }

    fn open(&self, id: &ShareId) -> Result<Box<dyn ShareReader>, Error> {
        let shared = &self.0;
        let mut disk = shared.disk(Mode::Read, &preference())?;
        let catalogue = shared.read_catalogue(&mut *disk)?;
        let entry = catalogue.find(id).ok_or_else(|| Error::Missing { id: id.clone() })?;
        let digests = shared.read_digests(&mut *disk, entry)?;
        let pool = StripeReader::pool(&entry.share);
        if let Some(pool) = StripeReader::registered(&entry.share, &pool) {
            disk = shared.disk(Mode::Read, &Preference { pool: Some(pool), ..preference() })?;
        }
        let (info, place) = (entry.share.clone(), shared.medium.place());
        let locate = Box::new(locate(entry));
        Ok(Box::new(StripeReader::new(info, digests, disk, place, locate, pool)))
    }

    fn list(&self) -> Result<Vec<ShareInfo>, Error> {
        let catalogue = self.0.read_catalogue(&mut *self.0.disk(Mode::Read, &preference())?)?;
        Ok(catalogue.shares.into_iter().map(|entry| entry.share).collect())
    }

    fn remove(&self, id: &ShareId) -> Result<(), Error> {
        Part::take(&self.0)?.with(|shared, session| {
            let Some(entry) = session.catalogue.find(id).cloned() else { return Ok(()) };
            session.commit(shared, session.catalogue.without(id))?;
            entry.extents().for_each(|extent| session.free.give(extent));
            Ok(())
        })
    }

    fn replace(&self, id: &ShareId, stripe: &Chunk) -> Result<(), Error> {
        Part::take(&self.0)?.with(|shared, session| {
            let missing = || Error::Missing { id: id.clone() };
            let entry = session.catalogue.find(id).ok_or_else(missing)?;
            let digests = shared.read_digests(&mut *session.disk, entry)?;
            check_replacement(&entry.share, &digests, stripe)?;
            let mut copy = Chunk::from_bytes(stripe.seq(), stripe);
            pad(&mut copy, BLOCK_BYTES as usize);
            let offset = locate(entry)(stripe.seq());
            io::write_at(&mut *session.disk, copy, offset)
                .and_then(|()| io::sync(&mut *session.disk))
                .map_err(|error| shared.failed(error))
        })
    }
}

fn refuse_existing(session: &Session, id: &ShareId) -> Result<(), Error> {
    match session.catalogue.find(id) {
        Some(_) => Err(Error::Exists { id: id.clone() }),
        None => Ok(()),
    }
}

/// The byte at which each stripe of a share begins.
fn locate(entry: &Entry) -> impl Fn(u64) -> u64 + Send + use<> {
    let unit = blocks_of(u64::from(entry.share.stripe_bytes));
    let extents = entry.stripes.clone();
    let counted = extents.iter().scan(0, |stripes, extent| {
        *stripes += extent.blocks / unit;
        Some(*stripes)
    });
    let ends: Vec<u64> = counted.collect();
    move |number| {
        let place = ends.partition_point(|end| *end <= number);
        let before = if place > 0 { ends[place - 1] } else { 0 };
        (extents[place].start + (number - before) * unit) * BLOCK_BYTES
    }
}
