//! Writing a share into space taken for it, and its commit.

use crate::base::Chunk;
use crate::store::stripes::{StripeWriter, pad};
use crate::store::{Error, ShareInfo, ShareWriter};

use super::layout::{BLOCK_BYTES, Entry, blocks_of};
use super::space::{Extent, push, trim};
use super::{Part, refuse_existing};

pub(super) struct VolumeWriter {
    stripes: StripeWriter,
    /// Space for the stripes, taken and not committed.
    extents: Vec<Extent>,
    /// Space for the digests, taken and not committed.
    digests: Vec<Extent>,
    /// Blocks of a stripe.
    unit: u64,
    /// Blocks to take at a time.
    step: u64,
    /// Stripes that fit into `extents`.
    room: u64,
    part: Part,
}

impl VolumeWriter {
    /// Writes stripes of `unit` blocks and takes `step` blocks at a time.
    pub(super) fn new(stripes: StripeWriter, unit: u64, step: u64, part: Part) -> Self {
        let (extents, digests) = (Vec::new(), Vec::new());
        Self { stripes, extents, digests, unit, step: step.max(unit), room: 0, part }
    }

    /// The byte at which the next stripe begins; takes more space where needed.
    fn place(&mut self) -> Result<u64, Error> {
        if self.room == self.stripes.stripes() {
            let after = self.extents.last().map(|extent| extent.end());
            let extent = self
                .part
                .with(|shared, session| session.take(shared, self.unit, self.step, after))?;
            push(&mut self.extents, extent);
            self.room += extent.blocks / self.unit;
        }
        let left = (self.room - self.stripes.stripes()) * self.unit;
        let last = self.extents.last().expect("there is room for a stripe in it");
        Ok((last.end() - left) * BLOCK_BYTES)
    }

    /// Writes the table of digests into space of its own.
    fn write_digests(&mut self) -> Result<(), Error> {
        let table = std::mem::take(&mut self.stripes.digests);
        let mut rest = &table[..];
        while !rest.is_empty() {
            let blocks = blocks_of(rest.len() as u64);
            let extent = self.part.with(|shared, session| session.take(shared, 1, blocks, None))?;
            push(&mut self.digests, extent);
            let bytes = rest.len().min((extent.blocks * BLOCK_BYTES) as usize);
            let mut chunk = Chunk::from_bytes(0, &rest[..bytes]);
            pad(&mut chunk, BLOCK_BYTES as usize);
            self.stripes
                .disk
                .write(chunk, extent.start * BLOCK_BYTES)
                .map_err(|error| self.part.0.failed(error))?;
            rest = &rest[bytes..];
        }
        Ok(())
    }

    fn give_back(&mut self, extents: Vec<Extent>) {
        let mut session = self.part.0.session();
        let session = session.as_mut().expect("the session lasts as long as its parts");
        extents.into_iter().for_each(|extent| session.free.give(extent));
    }
}

impl ShareWriter for VolumeWriter {
    fn append(&mut self, stripe: Chunk) -> Result<(), Error> {
        self.stripes.check(&stripe)?;
        let offset = self.place()?;
        self.stripes.write(stripe, offset).map_err(|error| self.part.0.failed(error))
    }

    fn commit(mut self: Box<Self>) -> Result<ShareInfo, Error> {
        let info = self.stripes.info();
        let unused = trim(&mut self.extents, info.stripes * self.unit);
        self.give_back(unused);
        self.write_digests()?;
        self.stripes.disk.sync().map_err(|error| self.part.0.failed(error))?;
        let (stripes, digests) = (self.extents.clone(), self.digests.clone());
        let entry = Entry { share: info.clone(), stripes, digests };
        self.part.with(|shared, session| {
            refuse_existing(session, &info.id)?;
            session.commit(shared, session.catalogue.with(entry))
        })?;
        // They are the share's now.
        self.extents.clear();
        self.digests.clear();
        Ok(info)
    }
}

impl Drop for VolumeWriter {
    fn drop(&mut self) {
        // Whoever gets the space next must not have it written over; how these writes end is of
        // no interest any more.
        let _ = self.stripes.disk.drain();
        let mut extents = std::mem::take(&mut self.extents);
        extents.append(&mut self.digests);
        self.give_back(extents);
    }
}
