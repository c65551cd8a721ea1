//! A pool: the blocks of one link at one end, in a folder, all in one format.
//!
//! Whoever has bytes for a link (a QKD module, a relay, a key manager) [appends](Pool::append)
//! them as a pending block at both ends under one [`BlockId`]. The sender of the stream gives the
//! block its position; when the ends have found out that they have the same bytes, both
//! [promote](Pool::promote) it, and sessions take keys from it. A block that differs is
//! [given up](Pool::lose). What is below a stream's mark is [retired](Pool::retire).
//!
//! Positions of a stream only grow: the block with the highest one stays as a bare header after its
//! bytes are gone. Producers and sessions of many processes may use a pool at once; one that changes
//! what blocks there are holds the lock.

mod block;
mod import;
mod source;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::base::{BitRate, ByteCount, Clock, SiteId};
use crate::io::replace_file;

use super::journal::link_folder;
use super::source::from_position;
use super::{Class, Error, KeyRange, Kind, Provenance, Source, StreamId, UNIT_BYTES};

pub use block::{BLOCK_BYTES_MAX, Block, BlockId, Description, HEADER_BYTES, IdError, State};
pub use source::{PooledLink, open};

use block::{BlockFile, failed};

/// The name of this kind of link in the configuration.
pub const KIND: &str = "pool";

/// Headers of blocks that were given up, of one stream, that are kept to be looked at.
const LOST_KEPT: usize = 64;

const VERSION: u32 = 1;
const TERMS: &str = "pool.json";
const EXTENSION: &str = "block";

/// What all blocks of a pool keep to: who may know them at most, and how weak they may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Terms {
    version: u32,
    /// What makes most of them.
    pub source: Source,
    /// The weakest there may be.
    pub class: Class,
    /// Everybody who may know one.
    pub known_to: BTreeSet<SiteId>,
    /// What arrives in each direction.
    pub rate: BitRate,
}

impl Terms {
    /// Terms of a pool that gets its blocks from `source`.
    pub fn new(source: Source, class: Class, known_to: BTreeSet<SiteId>, rate: BitRate) -> Self {
        Self { version: VERSION, source, class, known_to, rate }
    }

    /// The same as sessions are told it.
    pub fn provenance(&self) -> Provenance {
        Provenance {
            kind: Kind::Key,
            source: self.source,
            class: self.class,
            known_to: self.known_to.clone(),
        }
    }
}

/// Whether a block is worth at least what `provenance` says.
fn keeps_to(provenance: &Provenance, description: &Description) -> bool {
    description.class >= provenance.class && description.everybody().is_subset(&provenance.known_to)
}

/// How many bytes of a stream are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stock {
    /// Not yet agreed on.
    pub pending: ByteCount,
    /// In usable blocks at or after the mark.
    pub remaining: ByteCount,
    /// Given up.
    pub lost: ByteCount,
}

/// One end's pool of one link. Cheap to open; everything is on the disk.
#[derive(Clone)]
pub struct Pool {
    folder: PathBuf,
    site: SiteId,
    clock: Clock,
    /// Headers that were read: they never change.
    known: Arc<Mutex<BTreeMap<BlockId, Description>>>,
}

/// The folder of the pool of the link to `peer`, in a site's state folder.
pub fn folder(state: &Path, peer: &SiteId) -> PathBuf {
    folder_in(&link_folder(state, peer))
}

fn folder_in(link: &Path) -> PathBuf {
    link.join("pool")
}

impl Pool {
    /// Opens the pool of `site` in `folder`, which is made if it is not there.
    pub fn open(folder: &Path, site: SiteId, clock: Clock) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        Ok(Self::at(folder.into(), site, clock))
    }

    /// The pool in a folder that may not be there yet.
    fn at(folder: PathBuf, site: SiteId, clock: Clock) -> Self {
        Self { folder, site, clock, known: Arc::default() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sets the terms. Those that were there may become wider, never narrower: sessions that are
    /// open go by them. The rate is replaced.
    pub fn set_terms(&self, terms: &Terms) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut terms = terms.clone();
        if let Some(before) = self.terms()? {
            terms.class = terms.class.min(before.class);
            terms.known_to.extend(before.known_to);
        }
        let path = self.folder.join(TERMS);
        let text = serde_json::to_vec_pretty(&terms).map_err(|e| failed(&path)(e.into()))?;
        replace_file(&path, &text).map_err(failed(&path))
    }

    /// The terms, if they were set.
    pub fn terms(&self) -> Result<Option<Terms>, Error> {
        let path = self.folder.join(TERMS);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(failed(&path))?,
        };
        let terms: Option<Terms> = serde_json::from_slice(&text).ok();
        let terms = terms.filter(|terms| terms.version == VERSION);
        terms.map(Some).ok_or(Error::Pool { path, what: "its terms are not understood" })
    }

    /// Puts a new block here, pending and durable. The block gets a position when this site is the
    /// sender of its stream.
    ///
    /// `bytes`: whole units of 16, from one unit to [`BLOCK_BYTES_MAX`]; the caller wipes them.
    ///
    /// Errors: [`Error::Pool`] when there is a block of that name, the stream is none of this site,
    /// or the block does not keep to the terms.
    pub fn append(&self, description: Description, bytes: &[u8]) -> Result<Block, Error> {
        let refused = |what| Error::Pool { path: self.folder.clone(), what };
        let length = bytes.len() as u64;
        if !(1..=BLOCK_BYTES_MAX).contains(&length) || !length.is_multiple_of(UNIT_BYTES) {
            return Err(refused("a block has from 16 bytes to 64 MiB, in units of 16"));
        }
        let stream = &description.stream;
        if ![&stream.sender, &stream.receiver].contains(&&self.site) {
            return Err(refused("the stream of the block is none of this site"));
        }
        let local = stream.sender == stream.receiver;
        if local != (description.kind == Kind::Random) {
            return Err(refused("key has two ends, and random numbers have one"));
        }
        let _lock = self.lock()?;
        let terms = self.terms()?.map(|terms| terms.provenance());
        if terms.is_some_and(|terms| !keeps_to(&terms, &description)) {
            return Err(refused("more sites know the block than may, or it is too weak"));
        }
        self.clear_unfinished()?;
        let path = self.path(description.id);
        if path.exists() {
            return Err(refused("there is a block of that name already"));
        }
        let position = if stream.sender == self.site { Some(self.end_of(stream)?) } else { None };
        let units = length / UNIT_BYTES;
        let whole = KeyRange { position: position.unwrap_or(0), units };
        if !whole.is_sound() {
            return Err(refused("the stream has no positions left"));
        }
        let description = Description { units, created: self.clock.since_epoch(), ..description };
        let part = path.with_extension("part");
        BlockFile::create(&part, &description, position, bytes)?;
        fs::rename(&part, &path).map_err(failed(&path))?;
        self.sync_folder()?;
        Ok(Block { description, state: State::Pending, position })
    }

    /// Makes a pending block usable, durably. `position` is the one that the sender of the stream
    /// gave it; the sender itself may leave it out.
    ///
    /// Promoting a block again at its position changes nothing.
    ///
    /// Errors: [`Error::Pool`] when the block is not pending, has another position, or another
    /// block lies there; nothing is changed then.
    pub fn promote(&self, id: BlockId, position: Option<u64>) -> Result<Block, Error> {
        let _lock = self.lock()?;
        let file = BlockFile::open(&self.path(id))?;
        let block = file.block()?;
        let refused = |what| Err(Error::Pool { path: self.path(id), what });
        let Some(position) = position.or(block.position) else {
            return refused("the sender of its stream has not said its position");
        };
        if block.position.is_some_and(|own| own != position) {
            return refused("the other end has it at another position");
        }
        if block.state.is_usable() {
            return Ok(block);
        }
        if block.state != State::Pending {
            return refused("it was given up");
        }
        let range = KeyRange { position, units: block.description.units };
        let stream = &block.description.stream;
        let others = self.of_stream(stream)?;
        let mut others = others.iter().filter(|other| other.description.id != id);
        if !range.is_sound()
            || others.any(|other| other.range().is_some_and(|o| o.overlaps(&range)))
        {
            return refused("another block lies at its position");
        }
        file.set(State::Ready, Some(position))?;
        file.block()
    }

    /// Gives a block up: its bytes are wiped, and it is never used. One that is lost or spent stays
    /// as it is.
    pub fn lose(&self, id: BlockId) -> Result<(), Error> {
        let _lock = self.lock()?;
        let file = BlockFile::open(&self.path(id))?;
        match file.block()?.state {
            State::Lost | State::Spent => Ok(()),
            _ => file.end(State::Lost),
        }
    }

    /// Ends every block of `stream` that lies wholly below `mark` and has no part in a range that is
    /// `held`: no session may use it any more. Forgets the headers that are not needed.
    pub fn retire(&self, stream: &StreamId, mark: u64, held: &[KeyRange]) -> Result<(), Error> {
        let _lock = self.lock()?;
        let blocks = self.of_stream(stream)?;
        let end = |block: &Block| block.range().map(|range| range.end());
        let last = blocks.iter().filter_map(end).max();
        let mut lost = blocks.iter().filter(|block| block.state == State::Lost).count();
        let mut forgotten = false;
        for block in &blocks {
            let path = self.path(block.description.id);
            let forget = match block.state {
                State::Pending => false,
                State::Spent => true,
                State::Lost => {
                    lost -= 1;
                    lost >= LOST_KEPT
                }
                State::Ready | State::Active => {
                    let passed = block.range().is_some_and(|range| {
                        range.end() <= mark && !held.iter().any(|held| held.overlaps(&range))
                    });
                    if passed {
                        BlockFile::open(&path)?.end(State::Spent)?;
                    }
                    passed
                }
            };
            if forget && end(block) != last {
                fs::remove_file(&path).map_err(failed(&path))?;
                forgotten = true;
            }
        }
        if forgotten { self.sync_folder() } else { Ok(()) }
    }

    /// One block.
    pub fn block(&self, id: BlockId) -> Result<Block, Error> {
        BlockFile::open(&self.path(id))?.block()
    }

    /// The bytes of a block that is not yet in use, to be compared with those of the other end.
    /// `out` is as long as the block.
    pub fn read_pending(&self, id: BlockId, out: &mut [u8]) -> Result<(), Error> {
        let file = BlockFile::open(&self.path(id))?;
        let block = file.block()?;
        if block.state != State::Pending || block.bytes().0 != out.len() as u64 {
            return Err(Error::Pool { path: self.path(id), what: "it is not pending" });
        }
        file.read(0, out)
    }

    /// Every block that is whole, by stream, position and age. A damaged one is left out: its keys
    /// are not used.
    pub fn blocks(&self) -> Result<Vec<Block>, Error> {
        let mut blocks: Vec<Block> =
            self.read_blocks()?.into_iter().filter_map(Result::ok).collect();
        blocks.sort_by_key(|block| {
            let Description { stream, created, id, .. } = &block.description;
            (stream.clone(), block.position.unwrap_or(u64::MAX), *created, *id)
        });
        Ok(blocks)
    }

    fn read_blocks(&self) -> Result<Vec<Result<Block, Error>>, Error> {
        let ids = block_ids(&self.folder)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|id, _| ids.contains(id));
        let read = |id: &BlockId| -> Result<Block, Error> {
            let path = self.path(*id);
            let file = match known.get(id) {
                Some(description) => BlockFile::reopen(&path, description.clone())?,
                None => BlockFile::open(&path)?,
            };
            let block = file.block()?;
            known.entry(*id).or_insert(file.description);
            Ok(block)
        };
        Ok(ids.iter().map(read).collect())
    }

    fn open_block(&self, id: BlockId) -> Result<BlockFile, Error> {
        BlockFile::open(&self.path(id))
    }

    /// How much of `stream` there is; `mark` is the first position that was never reserved.
    pub fn stock(&self, stream: &StreamId, mark: u64) -> Result<Stock, Error> {
        let mut stock = Stock::default();
        for block in self.of_stream(stream)? {
            match block.state {
                State::Pending => stock.pending.0 += block.bytes().0,
                State::Lost => stock.lost.0 += block.bytes().0,
                State::Spent => {}
                State::Ready | State::Active => {
                    let range = block.range();
                    let left = from_position(range.as_slice(), mark);
                    stock.remaining.0 += left.iter().map(KeyRange::bytes).sum::<u64>();
                }
            }
        }
        Ok(stock)
    }

    /// Bytes of `stream` in usable blocks, from `mark` on: the first position never reserved.
    pub fn remaining(&self, stream: &StreamId, mark: u64) -> Result<ByteCount, Error> {
        Ok(self.stock(stream, mark)?.remaining)
    }

    fn of_stream(&self, stream: &StreamId) -> Result<Vec<Block>, Error> {
        let mut blocks = self.blocks()?;
        blocks.retain(|block| block.description.stream == *stream);
        Ok(blocks)
    }

    /// The first position after every block of the stream.
    ///
    /// Errors: when a block cannot be read, since it may have had any position.
    fn end_of(&self, stream: &StreamId) -> Result<u64, Error> {
        let mut end = 0;
        for block in self.read_blocks()? {
            let block = block?;
            if block.description.stream == *stream {
                end = end.max(block.range().map_or(0, |range| range.end()));
            }
        }
        Ok(end)
    }

    fn path(&self, id: BlockId) -> PathBuf {
        self.folder.join(format!("{id}.{EXTENSION}"))
    }

    /// Destroys what a producer that crashed was writing.
    fn clear_unfinished(&self) -> Result<(), Error> {
        for entry in fs::read_dir(&self.folder).map_err(failed(&self.folder))? {
            let path = entry.map_err(failed(&self.folder))?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                super::pad::destroy(&path)?;
            }
        }
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), Error> {
        let folder = File::open(&self.folder);
        folder.and_then(|folder| folder.sync_all()).map_err(failed(&self.folder))
    }

    /// Until the file is closed, nobody else changes what blocks there are.
    fn lock(&self) -> Result<File, Error> {
        let path = self.folder.join("lock");
        let opened = File::options().create(true).append(true).open(&path);
        opened.and_then(|file| file.lock().map(|()| file)).map_err(failed(&path))
    }
}

/// The names of all blocks in a folder; none if the folder is not there.
fn block_ids(folder: &Path) -> Result<BTreeSet<BlockId>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(failed(folder))?,
    };
    let mut ids = BTreeSet::new();
    for entry in entries {
        let path = entry.map_err(failed(folder))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            ids.extend(stem.and_then(|stem| stem.parse::<BlockId>().ok()));
        }
    }
    Ok(ids)
}
