//! Keys from the pool of a link: what a session sees of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::BitRate;

use super::super::source::Opening;
use super::super::{Class, Error, KeyRange, KeySource, Kind, Provenance, Source, StreamId};
use super::block::{BlockFile, State};
use super::{BlockId, Pool, block_paths, folder_in, keeps_to};

/// One end of a link whose keys are in a pool.
pub struct PooledLink {
    pool: Pool,
    provenance: Provenance,
    rate: BitRate,
    files: RefCell<BTreeMap<BlockId, BlockFile>>,
}

/// A part of a range that lies in one block.
struct Part {
    id: BlockId,
    state: State,
    /// First unit of the part in the stream, and how many.
    range: KeyRange,
    /// The same, counted from the start of the block.
    first: u64,
    /// Units of the whole block.
    units: u64,
}

impl Part {
    fn ends_its_block(&self) -> bool {
        self.first + self.range.units == self.units
    }
}

/// Opens the pool that the settings name, or else the one in the folder of the link, for
/// [`SOURCES`](super::super::SOURCES). One that is not there yet is empty.
pub fn open(opening: &Opening<'_>) -> Result<Box<dyn KeySource>, Error> {
    let default = || folder_in(opening.folder);
    let folder = opening.settings.file.clone().unwrap_or_else(default);
    let pool = Pool { folder, site: opening.site.clone(), clock: opening.clock.clone() };
    let terms = pool.terms()?;
    let rate = terms.as_ref().map_or(BitRate(0), |terms| terms.rate);
    let provenance = terms.map_or_else(
        || Provenance {
            kind: Kind::Key,
            source: Source::Qkd,
            class: Class::Computational,
            known_to: [opening.site.clone(), opening.settings.peer.clone()].into(),
        },
        |terms| terms.provenance(),
    );
    Ok(Box::new(PooledLink { pool, provenance, rate, files: RefCell::default() }))
}

impl PooledLink {
    /// Opens the files that are new and forgets those that are gone.
    fn refresh(&self) -> Result<(), Error> {
        let mut files = self.files.borrow_mut();
        let paths = block_paths(&self.pool.folder)?;
        let name = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<BlockId>().ok();
        let there: BTreeMap<_, _> =
            paths.into_iter().filter_map(|path| Some((name(&path)?, path))).collect();
        files.retain(|id, _| there.contains_key(id));
        for (id, path) in there {
            if !files.contains_key(&id) {
                // What is damaged or just being removed has no keys for anybody.
                files.extend(BlockFile::open(&path).ok().map(|file| (id, file)));
            }
        }
        Ok(())
    }

    /// The parts of `range` that lie in usable blocks, in order.
    fn parts(&self, stream: &StreamId, range: KeyRange) -> Vec<Part> {
        let files = self.files.borrow();
        let mut parts: Vec<Part> = files
            .values()
            .filter(|file| file.description.stream == *stream)
            .filter_map(|file| {
                let block = file.block().ok().filter(|block| block.state.is_usable())?;
                let whole = block.range()?;
                let start = whole.position.max(range.position);
                let part = KeyRange::between(start, whole.end().min(range.end()));
                let first = start.saturating_sub(whole.position);
                let (id, units) = (file.description.id, whole.units);
                (part.units > 0).then_some(Part {
                    id,
                    state: block.state,
                    range: part,
                    first,
                    units,
                })
            })
            .collect();
        parts.sort_by_key(|part| part.range.position);
        parts
    }

    fn covering(&self, stream: &StreamId, range: KeyRange) -> Option<Vec<Part>> {
        let parts = self.parts(stream, range);
        let units: u64 = parts.iter().map(|part| part.range.units).sum();
        (units == range.units).then_some(parts)
    }

    fn wipe(&self, stream: &StreamId, range: KeyRange, again: bool) -> Result<(), Error> {
        for part in self.parts(stream, range) {
            let files = self.files.borrow();
            let Some(file) = files.get(&part.id) else { continue };
            if !again && file.is_wiped(part.first + part.range.units - 1)? {
                continue;
            }
            file.wipe(part.first, part.range.units)?;
            if part.state == State::Ready {
                file.set(State::Active, Some(part.range.position - part.first))?;
            }
        }
        Ok(())
    }
}

impl KeySource for PooledLink {
    fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    fn rate(&self) -> BitRate {
        self.rate
    }

    fn ready(&self, stream: &StreamId) -> Result<Vec<KeyRange>, Error> {
        self.refresh()?;
        let all = KeyRange { position: 0, units: u64::MAX };
        let files = self.files.borrow();
        // Terms may have become wider since this session was told them.
        let kept = |part: &Part| {
            files.get(&part.id).is_some_and(|file| keeps_to(&self.provenance, &file.description))
        };
        let mut ranges: Vec<KeyRange> = Vec::new();
        for part in self.parts(stream, all).into_iter().filter(kept) {
            match ranges.last_mut() {
                Some(last) if last.end() == part.range.position => last.units += part.range.units,
                _ => ranges.push(part.range),
            }
        }
        Ok(ranges)
    }

    fn read(&self, stream: &StreamId, range: KeyRange, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(out.len() as u64, range.bytes(), "the caller made room for the range");
        let mut parts = self.covering(stream, range);
        if parts.is_none() {
            self.refresh()?;
            parts = self.covering(stream, range);
        }
        let what = "no block of it has the keys that are asked for";
        let parts = parts.ok_or(Error::Pool { path: self.pool.folder.clone(), what })?;
        let files = self.files.borrow();
        let mut rest = out;
        for part in parts {
            let (place, later) = rest.split_at_mut(part.range.bytes() as usize);
            if let Some(file) = files.get(&part.id) {
                file.read(part.first, place)?;
            }
            rest = later;
        }
        Ok(())
    }

    fn erase(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        if self.covering(stream, range).is_none() {
            self.refresh()?;
        }
        self.wipe(stream, range, true)
    }

    /// No session is open: whatever lies before the end of a reservation is never used any more.
    fn sweep(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        if self.files.borrow().is_empty() {
            self.refresh()?;
        }
        let below = KeyRange::between(0, range.end());
        let mut ended = self.parts(stream, below).into_iter().filter(|part| part.ends_its_block());
        if ended.next().is_some() {
            self.pool.retire(stream, range.end())?;
            self.refresh()?;
        }
        self.wipe(stream, range, false)
    }
}
