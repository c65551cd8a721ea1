//! A numbered, page-aligned run of bytes: what the dataflow carries.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::pool::Shelf;

/// Alignment of every chunk in bytes: enough for `O_DIRECT` on any common disk.
pub const PAGE_BYTES: usize = 4096;

/// One page of memory, aligned to its size.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(4096))]
pub(crate) struct Page([u8; PAGE_BYTES]);

/// A page-aligned buffer with a sequence number.
///
/// `len()` bytes of its `capacity()` are valid. A chunk from a [`Pool`](super::Pool) goes back to
/// it when dropped; a chunk marked [`secret`](Chunk::mark_secret) is wiped first.
pub struct Chunk {
    pages: Box<[Page]>,
    len: usize,
    seq: u64,
    secret: bool,
    home: Option<Arc<Shelf>>,
}

impl Chunk {
    /// An empty chunk of its own memory, with room for at least `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self::from_pages(new_pages(capacity), None)
    }

    /// A chunk of its own memory that holds a copy of `bytes`.
    pub fn from_bytes(seq: u64, bytes: &[u8]) -> Self {
        let mut chunk = Self::with_capacity(bytes.len());
        chunk.set_seq(seq);
        chunk.set_len(bytes.len());
        chunk.copy_from_slice(bytes);
        chunk
    }

    pub(crate) fn from_pages(pages: Box<[Page]>, home: Option<Arc<Shelf>>) -> Self {
        Self { pages, len: 0, seq: 0, secret: false, home }
    }

    /// Bytes there is room for, a multiple of [`PAGE_BYTES`].
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_BYTES
    }

    /// The number given by whoever filled the chunk, counting from 0.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Numbers the chunk.
    pub fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }

    /// Declares the first `len` bytes valid. Bytes never written hold zeros or older content.
    ///
    /// # Panics
    /// When `len` is more than the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a chunk never grows past its capacity");
        self.len = len;
    }

    /// All the memory, valid or not: what a disk reads into.
    pub fn spare(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.pages)
    }

    /// Makes the chunk's memory be wiped before anybody else sees it.
    pub fn mark_secret(&mut self) {
        self.secret = true;
    }

    /// Whether the memory is wiped on drop.
    pub fn is_secret(&self) -> bool {
        self.secret
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.pages)[..self.len]
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.spare()[..len]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.secret {
            wipe(self.spare());
        }
        if let Some(home) = self.home.take() {
            home.put(std::mem::take(&mut self.pages));
        }
    }
}

/// Overwrites with zeros, at the speed of memory: `zeroize` stores one byte at a time, which costs
/// more than making the bytes did.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    // Nobody may conclude that what is never read need not be written.
    zeroize::optimization_barrier(bytes);
}

pub(crate) fn new_pages(capacity: usize) -> Box<[Page]> {
    vec![Page::zeroed(); capacity.div_ceil(PAGE_BYTES).max(1)].into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_rounded_up_to_pages() {
        let mut chunk = Chunk::with_capacity(5000);
        assert_eq!(chunk.capacity(), 8192);
        assert_eq!(chunk.spare().as_ptr() as usize % PAGE_BYTES, 0);
        assert!(chunk.is_empty());
    }

    #[test]
    fn holds_the_bytes_it_was_made_from() {
        let chunk = Chunk::from_bytes(7, b"ACGT");
        assert_eq!((&chunk[..], chunk.seq()), (&b"ACGT"[..], 7));
    }
}
