//! Pad files: random bytes that two sites carry home on a medium. Made, imported, read and wiped.
//!
//! A file is a header page and then two halves of key. The first half is for the stream that the
//! first of the two sites sends, the second half for the other. The header says everything about
//! the pad, in JSON between a magic number and a digest, and nothing about the bytes: a digest of
//! them would tell something about the key. A pad that is made for [`expansion`] has the seeds of
//! both halves behind them, as long as it is carried; importing gives them to the keeper. Pad number
//! `n` of a link has the positions from `n << 34` in either stream, so that both ends agree about
//! positions whatever they import and when, and a new pad comes after all older ones.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::base::{ByteCount, Clock, SiteId};

use super::expansion::{self, Body, BodyId, Method, Seeds};
use super::{Class, Error, KeyRange, Provenance, RandomSource, Source, StreamId, UNIT_BYTES};

/// Bytes before the first half.
pub const HEADER_BYTES: usize = 4096;

/// Units that one pad may have in each direction: 256 GiB.
const UNITS_MAX: u64 = 1 << POSITION_BITS;
const POSITION_BITS: u32 = 34;
/// 2025-01-01T00:00:00Z: pads are numbered by the seconds since then.
const NUMBERS_SINCE: u64 = 1_735_689_600;
const NUMBER_MAX: u64 = (1 << 29) - 1;
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"dsgdpad1";
const DIGEST_AT: usize = HEADER_BYTES - 32;
/// Bytes that are copied or wiped at once.
const STEP_BYTES: usize = 1 << 20;

/// What is known about a pad.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PadHeader {
    version: u32,
    /// Drawn for each pad: the same at both ends, and never twice.
    pub id: String,
    /// The two ends.
    pub sites: [SiteId; 2],
    /// The number of the pad among those of this link.
    pub number: u64,
    /// Units in each direction.
    pub units: u64,
    /// How strong the bytes are.
    pub class: Class,
    /// What made them.
    pub source: Source,
    /// Everybody who had them.
    pub known_to: BTreeSet<SiteId>,
    /// How they become the key that is used, if they are not it themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion: Option<Method>,
}

impl PadHeader {
    /// Describes a new pad of `bytes` bytes, rounded up to whole units in both directions, made of
    /// what `origin` says.
    pub fn fresh(
        sites: [SiteId; 2],
        bytes: ByteCount,
        origin: &Provenance,
        clock: &Clock,
    ) -> Result<Self, Error> {
        let refused = |what| Error::Pad { path: format!("{}-{}", sites[0], sites[1]).into(), what };
        let units = bytes.0.div_ceil(2 * UNIT_BYTES);
        if !(1..=UNITS_MAX).contains(&units) {
            return Err(refused("a pad has from 1 byte to 512 GiB"));
        }
        if sites[0] == sites[1] {
            return Err(refused("both ends are the same site"));
        }
        Ok(Self {
            version: VERSION,
            id: fresh_id()?,
            number: clock.since_epoch().as_secs().saturating_sub(NUMBERS_SINCE),
            units,
            class: origin.class,
            source: origin.source,
            known_to: origin.known_to.iter().chain(&sites).cloned().collect(),
            expansion: None,
            sites,
        })
    }

    /// The positions of the pad, in either stream.
    pub fn range(&self) -> KeyRange {
        KeyRange { position: self.number << POSITION_BITS, units: self.units }
    }

    /// Bytes of key, both directions together.
    pub fn key_bytes(&self) -> u64 {
        2 * self.range().bytes()
    }

    fn file_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.key_bytes()
    }

    /// The length as long as the pad is carried.
    fn carried_bytes(&self) -> u64 {
        self.file_bytes() + 2 * self.half_seed_bytes() as u64
    }

    fn half_seed_bytes(&self) -> usize {
        self.expansion.map_or(0, |Method::Fig5| expansion::seed_bytes(self.units) as usize)
    }

    /// The key that the first site sends with, or the other.
    fn body(&self, half: u8) -> Body {
        let id = u128::from_str_radix(&self.id, 16).unwrap_or_default();
        Body { id: BodyId::new(id, half), range: self.range() }
    }

    fn encode(&self) -> Option<Box<[u8; HEADER_BYTES]>> {
        let text = serde_json::to_vec(self).ok()?;
        let mut page = Box::new([0; HEADER_BYTES]);
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
        page[12..DIGEST_AT].get_mut(..text.len())?.copy_from_slice(&text);
        let digest = blake3::hash(&page[..DIGEST_AT]);
        page[DIGEST_AT..].copy_from_slice(digest.as_bytes());
        Some(page)
    }

    fn decode(page: &[u8; HEADER_BYTES]) -> Option<Self> {
        let length = u32::from_le_bytes(page[8..12].try_into().ok()?) as usize;
        let digest = blake3::hash(&page[..DIGEST_AT]);
        if page[..8] != MAGIC || page[DIGEST_AT..] != digest.as_bytes()[..] {
            return None;
        }
        let header: Self = serde_json::from_slice(page[12..DIGEST_AT].get(..length)?).ok()?;
        let sound = header.version == VERSION
            && header.sites[0] != header.sites[1]
            && (1..=UNITS_MAX).contains(&header.units)
            && header.number <= NUMBER_MAX
            && (header.expansion.is_none() || u128::from_str_radix(&header.id, 16).is_ok());
        sound.then_some(header)
    }
}

/// Makes a new pad of `bytes` bytes, rounded up to whole units in both directions: two files in
/// `folder` with the same content, one for each site, that only their owner may read.
///
/// Both files must be destroyed when they have been imported; importing does that to its own.
pub fn generate(
    sites: [SiteId; 2],
    bytes: ByteCount,
    random: &mut dyn RandomSource,
    folder: &Path,
    clock: &Clock,
) -> Result<[PathBuf; 2], Error> {
    generate_for(None, sites, bytes, random, folder, clock)
}

/// As [`generate`]; with a method, the files have what it needs besides, and are longer by that.
pub fn generate_for(
    expansion: Option<Method>,
    sites: [SiteId; 2],
    bytes: ByteCount,
    random: &mut dyn RandomSource,
    folder: &Path,
    clock: &Clock,
) -> Result<[PathBuf; 2], Error> {
    let mut header = PadHeader::fresh(sites, bytes, random.provenance(), clock)?;
    header.expansion = expansion;
    let paths = loop {
        let paths = [0, 1].map(|end| folder.join(file_name(&header, end)));
        if !paths.iter().any(|path| path.exists()) {
            break paths;
        }
        header.number += 1;
    };
    write(&paths, &header, random)?;
    Ok(paths)
}

/// Writes the copy of `site` of a pad whose bytes both sites get from elsewhere: the same ones from
/// `random` at either end. Returns the file, which must not be there yet.
pub fn write_copy(
    header: &PadHeader,
    site: &SiteId,
    random: &mut dyn RandomSource,
    folder: &Path,
) -> Result<PathBuf, Error> {
    let refused = |what| Error::Pad { path: folder.into(), what };
    let end = header.sites.iter().position(|end| end == site);
    let path = folder.join(file_name(header, end.ok_or_else(|| refused("it is for other sites"))?));
    write(std::slice::from_ref(&path), header, random)?;
    Ok(path)
}

fn write(
    paths: &[PathBuf],
    header: &PadHeader,
    random: &mut dyn RandomSource,
) -> Result<(), Error> {
    let refused = |what| Error::Pad { path: paths[0].clone(), what };
    let page = header.encode().ok_or_else(|| refused("too many sites know it"))?;
    if PadHeader::decode(&page).is_none() {
        return Err(refused("its description is wrong, or the clock that numbered it"));
    }
    let mut files = Vec::new();
    for path in paths {
        let mut options = File::options();
        files.push(
            options.write(true).create_new(true).mode(0o600).open(path).map_err(failed(path))?,
        );
    }
    let bytes = header.carried_bytes() - HEADER_BYTES as u64;
    let written = fill(&mut files, paths, &page, bytes, random);
    if written.is_err() {
        paths.iter().for_each(|path| drop(destroy(path)));
    }
    written
}

fn file_name(header: &PadHeader, end: usize) -> String {
    let [first, second] = &header.sites;
    format!("{first}-{second}-{}-for-{}.pad", header.number, header.sites[end])
}

fn fresh_id() -> Result<String, Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|source| Error::Random { name: "os".into(), source: source.into() })?;
    Ok(format!("{:032x}", u128::from_le_bytes(id)))
}

fn fill(
    files: &mut [File],
    paths: &[PathBuf],
    page: &[u8; HEADER_BYTES],
    bytes: u64,
    random: &mut dyn RandomSource,
) -> Result<(), Error> {
    let mut write = |bytes: &[u8]| {
        let mut all = files.iter_mut().zip(paths);
        all.try_for_each(|(file, path)| file.write_all(bytes).map_err(failed(path)))
    };
    write(page)?;
    let mut step = Zeroizing::new(vec![0; STEP_BYTES].into_boxed_slice());
    let mut left = bytes;
    while left > 0 {
        let part = &mut step[..left.min(STEP_BYTES as u64) as usize];
        random.fill(part)?;
        write(part)?;
        left -= part.len() as u64;
    }
    files.iter().zip(paths).try_for_each(|(file, path)| file.sync_all().map_err(failed(path)))
}

/// Moves the pad at `file` into the folder of pads of the link between `site` and `peer`.
///
/// The seeds of a pad that has some go to the keeper, which `seeds` calls, before anything else.
///
/// Errors: [`Error::Pad`] when it is damaged, truncated, for other sites, or there already.
pub(crate) fn import(
    site: &SiteId,
    peer: &SiteId,
    pads: &Path,
    file: &Path,
    seeds: impl FnOnce() -> Result<Box<dyn Seeds>, Error>,
) -> Result<PadHeader, Error> {
    let refused = |what| Error::Pad { path: file.into(), what };
    let pad = Pad::open_carried(file)?;
    let header = pad.header.clone();
    if !header.sites.contains(site) || !header.sites.contains(peer) {
        return Err(refused("it is for other sites"));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(pads).map_err(failed(pads))?;
    let target = pads.join(format!("{}.pad", header.number));
    if target.exists() {
        return Err(refused(match Pad::open(&target)?.header.id == header.id {
            true => "it was imported before",
            false => "another pad with its number was imported",
        }));
    }
    if header.expansion.is_some() {
        pad.give_up_seeds(&*seeds()?)?;
    }
    // A link never replaces what is there, unlike a rename.
    match fs::hard_link(file, &target) {
        Ok(()) => fs::remove_file(file).map_err(failed(file))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(refused("it is being imported"));
        }
        Err(_) => {
            copy(file, &target)?;
            destroy(file)?;
        }
    }
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(&target, private).map_err(failed(&target))?;
    File::open(pads).and_then(|folder| folder.sync_all()).map_err(failed(pads))?;
    Ok(header)
}

/// Copies from another file system; the target appears only when it is whole.
fn copy(file: &Path, target: &Path) -> Result<(), Error> {
    let part = target.with_extension("part");
    let mut from = File::open(file).map_err(failed(file))?;
    let mut options = File::options();
    let mut to = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(failed(&part))?;
    let mut step = Zeroizing::new(vec![0; STEP_BYTES].into_boxed_slice());
    loop {
        let count = from.read(&mut step).map_err(failed(file))?;
        if count == 0 {
            break;
        }
        to.write_all(&step[..count]).map_err(failed(&part))?;
    }
    to.sync_all().map_err(failed(&part))?;
    fs::hard_link(&part, target).map_err(failed(target))?;
    fs::remove_file(&part).map_err(failed(&part))
}

/// Overwrites a file with zeros and removes it.
pub(super) fn destroy(path: &Path) -> Result<(), Error> {
    let file = File::options().write(true).open(path).map_err(failed(path))?;
    let bytes = file.metadata().map_err(failed(path))?.len();
    wipe(&file, 0, bytes).and_then(|()| file.sync_all()).map_err(failed(path))?;
    fs::remove_file(path).map_err(failed(path))
}

pub(super) fn wipe(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; STEP_BYTES] = [0; STEP_BYTES];
    let mut done = 0;
    while done < bytes {
        let count = (bytes - done).min(STEP_BYTES as u64);
        file.write_all_at(&ZEROS[..count as usize], offset + done)?;
        done += count;
    }
    Ok(())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::PadFile { path: path.into(), source }
}

/// One pad file that is open.
pub(crate) struct Pad {
    pub(crate) header: PadHeader,
    path: PathBuf,
    file: File,
}

impl Pad {
    /// Opens a pad and checks its header and its length.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        Self::open_as(path, |header| [header.file_bytes(); 2])
    }

    /// Opens a pad that may still have its seeds with it.
    fn open_carried(path: &Path) -> Result<Self, Error> {
        Self::open_as(path, |header| [header.file_bytes(), header.carried_bytes()])
    }

    fn open_as(path: &Path, lengths: impl FnOnce(&PadHeader) -> [u64; 2]) -> Result<Self, Error> {
        let file = File::options().read(true).write(true).open(path).map_err(failed(path))?;
        let refused = |what| Error::Pad { path: path.into(), what };
        let mut page = Box::new([0; HEADER_BYTES]);
        file.read_exact_at(&mut page[..], 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => refused("it is truncated"),
            _ => failed(path)(error),
        })?;
        let header = PadHeader::decode(&page).ok_or_else(|| refused("its header is damaged"))?;
        let (length, [shortest, longest]) =
            (file.metadata().map_err(failed(path))?.len(), lengths(&header));
        if length < shortest || (length > shortest && length < longest) {
            return Err(refused("it is truncated"));
        }
        if length > longest {
            return Err(refused("it is longer than its header says"));
        }
        Ok(Self { header, path: path.into(), file })
    }

    /// Moves the seeds out of the file: to the keeper first, then they are overwritten and cut off. A
    /// pad without them was being imported before; the keeper has them then.
    fn give_up_seeds(&self, seeds: &dyn Seeds) -> Result<(), Error> {
        let (start, half) = (self.header.file_bytes(), self.header.half_seed_bytes());
        let bodies = [0, 1].map(|half| self.header.body(half));
        if self.file.metadata().map_err(failed(&self.path))?.len() == start {
            let absent = Error::Pad { path: self.path.clone(), what: "it has lost its seeds" };
            let known = bodies.iter().map(|body| Ok(!body.ready(seeds)?.is_empty()));
            let known = known.collect::<Result<Vec<_>, Error>>()?;
            return if known == [true; 2] { Ok(()) } else { Err(absent) };
        }
        let mut bytes = Zeroizing::new(vec![0; 2 * half].into_boxed_slice());
        self.file.read_exact_at(&mut bytes, start).map_err(failed(&self.path))?;
        for (body, bytes) in bodies.iter().zip(bytes.chunks(half)) {
            body.deposit(seeds, bytes)?;
        }
        wipe(&self.file, start, 2 * half as u64)
            .and_then(|()| self.file.sync_data())
            .and_then(|()| self.file.set_len(start))
            .and_then(|()| self.file.sync_all())
            .map_err(failed(&self.path))
    }

    /// The key of one direction, if it is expanded.
    pub(crate) fn body(&self, stream: &StreamId) -> Option<Body> {
        self.header.expansion.map(|Method::Fig5| self.header.body(self.half(stream)))
    }

    fn half(&self, stream: &StreamId) -> u8 {
        u8::from(stream.sender != self.header.sites[0])
    }

    /// Reads keys that the pad has.
    pub(crate) fn read(
        &self,
        stream: &StreamId,
        range: KeyRange,
        out: &mut [u8],
    ) -> Result<(), Error> {
        let offset = self.offset(stream, range);
        self.file.read_exact_at(out, offset).map_err(failed(&self.path))?;
        // A unit of zeros is a wiped one: by chance it comes once in 2^128 units.
        let units = [&out[..16], &out[out.len() - 16..]];
        if units.iter().any(|unit| unit.iter().all(|byte| *byte == 0)) {
            out.fill(0);
            return Err(Error::Pad { path: self.path.clone(), what: "its keys there were wiped" });
        }
        Ok(())
    }

    /// Overwrites keys that the pad has with zeros.
    pub(crate) fn wipe(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        wipe(&self.file, self.offset(stream, range), range.bytes()).map_err(failed(&self.path))
    }

    /// Waits until what was overwritten is on the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_data().map_err(failed(&self.path))
    }

    /// Gives the disk back the place of keys that were overwritten durably, so that it may forget the
    /// copies it kept. Where the file system cannot, the zeros stay.
    pub(crate) fn punch(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        let (start, bytes) = (self.offset(stream, range), range.bytes());
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, start, bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(error) => Err(failed(&self.path)(error.into())),
        }
    }

    /// Whether the last unit of a range that the pad has holds zeros.
    pub(crate) fn is_wiped(&self, stream: &StreamId, range: KeyRange) -> Result<bool, Error> {
        let mut unit = Zeroizing::new([0; UNIT_BYTES as usize]);
        let last = KeyRange { position: range.end() - 1, units: 1 };
        let read = self.file.read_exact_at(unit.as_mut_slice(), self.offset(stream, last));
        read.map_err(failed(&self.path))?;
        Ok(unit.iter().all(|byte| *byte == 0))
    }

    fn offset(&self, stream: &StreamId, range: KeyRange) -> u64 {
        let whole = self.header.range();
        assert!(whole.contains(&range), "the caller chose the pad by the range");
        let half = u64::from(self.half(stream));
        let unit = half * whole.units + (range.position - whole.position);
        HEADER_BYTES as u64 + unit * UNIT_BYTES
    }
}
