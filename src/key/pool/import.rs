//! Pads that were carried by hand, as blocks of a pool.

use std::fs;
use std::path::Path;

use super::super::pad::{Pad, destroy};
use super::super::source::streams;
use super::block::{BLOCK_BYTES_MAX, BlockFile, BlockId, Description, State, failed};
use super::{Pool, Terms};
use crate::base::{BitRate, Chunk, SiteId};
use crate::key::{Error, KeyRange, Source, StreamId, UNIT_BYTES};

impl Pool {
    /// Takes the pad at `file` in, ready at once: both ends were carried the same. The file is destroyed.
    ///
    /// The blocks lie at the positions that the pad has in both streams, after everything older.
    ///
    /// Errors: [`Error::Pad`] when it is for other sites, damaged, or was taken in before.
    pub fn import_pad(&self, peer: &SiteId, file: &Path) -> Result<(), Error> {
        let pad = Pad::open(file)?;
        let refused = |what| Error::Pad { path: file.into(), what };
        let header = &pad.header;
        if !header.sites.contains(&self.site) || !header.sites.contains(peer) {
            return Err(refused("it is for other sites"));
        }
        if header.expansion.is_some() {
            return Err(refused("a part of it is for a keeper, which pools have none of"));
        }
        let rate = self.terms()?.map_or(BitRate(0), |terms| terms.rate);
        let everybody = header.known_to.iter().chain(&header.sites).cloned().collect();
        self.set_terms(&Terms::new(Source::Preshared, header.class, everybody, rate))?;
        let (own, other) = streams(&self.site, peer);
        let _lock = self.lock()?;
        self.clear_unfinished()?;
        let mut taken = 0;
        for stream in [own, other] {
            // A crash may have left a part of the pad here.
            let begun = self.path(part_id(&pad, &stream, header.range().position)).exists();
            if !begun && self.end_of(&stream)? > header.range().position {
                return Err(refused("it is older than keys that are here"));
            }
            for part in blocks_of(header.range()) {
                taken += usize::from(self.import_part(&pad, &stream, part)?);
            }
        }
        self.sync_folder()?;
        if taken == 0 {
            return Err(refused("it was taken in before"));
        }
        destroy(file)
    }

    fn import_part(&self, pad: &Pad, stream: &StreamId, part: KeyRange) -> Result<bool, Error> {
        let id = part_id(pad, stream, part.position);
        let path = self.path(id);
        if path.exists() {
            return Ok(false);
        }
        let mut bytes = Chunk::with_capacity(part.bytes() as usize);
        bytes.mark_secret();
        bytes.set_len(part.bytes() as usize);
        pad.read(stream, part, &mut bytes)?;
        let (source, class) = (Source::Preshared, pad.header.class);
        let mut block = Description::key(id, stream.clone(), source, class);
        block.known_to.extend(pad.header.known_to.iter().cloned());
        block.units = part.units;
        block.created = self.clock.since_epoch();
        let unfinished = path.with_extension("part");
        BlockFile::create(&unfinished, &block, Some(part.position), &bytes)?;
        BlockFile::open(&unfinished)?.set(State::Ready, Some(part.position))?;
        fs::rename(&unfinished, &path).map_err(failed(&path))?;
        Ok(true)
    }
}

/// The name of the block that begins at `position` of a pad: the same at both ends.
fn part_id(pad: &Pad, stream: &StreamId, position: u64) -> BlockId {
    let name = format!("{} {stream} {position}", pad.header.id);
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
    BlockId(id)
}

/// A range cut into pieces that a block can have.
fn blocks_of(range: KeyRange) -> impl Iterator<Item = KeyRange> {
    const UNITS_MAX: u64 = BLOCK_BYTES_MAX / UNIT_BYTES;
    let starts = (range.position..range.end()).step_by(UNITS_MAX as usize);
    starts.map(move |start| KeyRange::between(start, range.end().min(start + UNITS_MAX)))
}
