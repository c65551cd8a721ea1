//! Keys from the pool of a link: what a session sees of it.

use std::cell::RefCell;

use crate::base::BitRate;

use super::super::source::Opening;
use super::super::{Class, Error, KeyRange, KeySource, Kind, Provenance, Source, StreamId};
use super::block::{Block, BlockFile, State};
use super::{Pool, folder_in, keeps_to};

/// Files that are kept open: a session reads from one block or from two.
const FILES_OPEN: usize = 4;

/// One end of a link whose keys are in a pool.
pub struct PooledLink {
    pool: Pool,
    provenance: Provenance,
    rate: BitRate,
    /// The blocks that were read from last.
    recent: RefCell<Vec<(Block, BlockFile)>>,
    /// The blocks there were when sweeping began: nobody uses them meanwhile.
    swept: RefCell<Option<Vec<Block>>>,
}

/// Opens the pool that the settings name, or else the one in the folder of the link, for
/// [`SOURCES`](super::super::SOURCES). One that is not there yet is empty.
pub fn open(opening: &Opening<'_>) -> Result<Box<dyn KeySource>, Error> {
    let default = || folder_in(opening.folder);
    let folder = opening.settings.file.clone().unwrap_or_else(default);
    let pool = Pool::at(folder, opening.site.clone(), opening.clock.clone());
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
    let (recent, swept) = (RefCell::default(), RefCell::default());
    Ok(Box::new(PooledLink { pool, provenance, rate, recent, swept }))
}

/// The part of `range` that lies in a block, if it has one that sessions may use.
fn part_of(block: &Block, stream: &StreamId, range: KeyRange) -> Option<KeyRange> {
    let whole = block.range().filter(|_| block.state.is_usable())?;
    let start = whole.position.max(range.position);
    let part = KeyRange::between(start, whole.end().min(range.end()));
    (part.units > 0 && block.description.stream == *stream).then_some(part)
}

impl PooledLink {
    /// Does `act` with every part of `range` that lies in a usable block, from the lowest on: the part,
    /// its block, the block's file. Says how many units there were.
    fn in_parts(
        &self,
        stream: &StreamId,
        range: KeyRange,
        mut act: impl FnMut(KeyRange, &mut Block, &BlockFile) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        self.find(stream, range)?;
        let mut recent = self.recent.borrow_mut();
        let mut units = 0;
        for (block, file) in recent.iter_mut() {
            if let Some(part) = part_of(block, stream, range) {
                units += part.units;
                act(part, block, file)?;
            }
        }
        Ok(units)
    }

    /// Makes the blocks that have a part of `range` the recent ones, in order, unless they are.
    fn find(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        let mut recent = self.recent.borrow_mut();
        for (block, file) in recent.iter_mut() {
            *block = file.block()?;
        }
        let parts = recent.iter().filter_map(|(block, _)| part_of(block, stream, range));
        if parts.map(|part| part.units).sum::<u64>() == range.units {
            return Ok(());
        }
        let blocks = self.pool.blocks()?;
        let found: Vec<_> =
            blocks.into_iter().filter(|block| part_of(block, stream, range).is_some()).collect();
        recent.retain(|(block, _)| !found.contains(block));
        recent.truncate(FILES_OPEN);
        for block in found {
            let file = self.pool.open_block(block.description.id)?;
            recent.push((block, file));
        }
        recent.sort_by_key(|(block, _)| block.position);
        Ok(())
    }

    fn wipe(&self, stream: &StreamId, range: KeyRange, always: bool) -> Result<(), Error> {
        let wipe = |part: KeyRange, block: &mut Block, file: &BlockFile| {
            let first = part.position - block.position.unwrap_or(0);
            if !always && file.is_wiped(first + part.units - 1)? {
                return Ok(());
            }
            file.wipe(first, part.units)?;
            if block.state == State::Ready {
                file.set(State::Active, block.position)?;
                block.state = State::Active;
            }
            Ok(())
        };
        self.in_parts(stream, range, wipe).map(drop)
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
        let all = KeyRange { position: 0, units: u64::MAX };
        let mut ranges: Vec<KeyRange> = Vec::new();
        for block in self.pool.blocks()? {
            // Terms may have become wider since this session was told them.
            let kept = keeps_to(&self.provenance, &block.description);
            let Some(part) = part_of(&block, stream, all).filter(|_| kept) else { continue };
            match ranges.last_mut() {
                Some(last) if last.end() == part.position => last.units += part.units,
                _ => ranges.push(part),
            }
        }
        Ok(ranges)
    }

    fn read(&self, stream: &StreamId, range: KeyRange, out: &mut [u8]) -> Result<(), Error> {
        assert_eq!(out.len() as u64, range.bytes(), "the caller made room for the range");
        let units = self.in_parts(stream, range, |part, block, file| {
            let start = (part.position - range.position) * super::UNIT_BYTES;
            let place = &mut out[start as usize..][..part.bytes() as usize];
            file.read(part.position - block.position.unwrap_or(0), place)
        })?;
        if units == range.units {
            return Ok(());
        }
        out.fill(0);
        let what = "no block of it has the keys that are asked for";
        Err(Error::Pool { path: self.pool.folder().into(), what })
    }

    fn erase(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        self.wipe(stream, range, true)
    }

    fn sweep(&self, stream: &StreamId, range: KeyRange) -> Result<(), Error> {
        let mut swept = self.swept.borrow_mut();
        let blocks = match &mut *swept {
            Some(blocks) => blocks,
            none => none.insert(self.pool.blocks()?),
        };
        if blocks.iter().any(|block| part_of(block, stream, range).is_some()) {
            self.wipe(stream, range, false)?;
        }
        Ok(())
    }

    fn retire(&self, stream: &StreamId, mark: u64, held: &[KeyRange]) -> Result<(), Error> {
        if !self.pool.folder().exists() {
            return Ok(());
        }
        *self.swept.borrow_mut() = None;
        self.recent.borrow_mut().clear();
        self.pool.retire(stream, mark, held)
    }
}
