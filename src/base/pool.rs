//! The fixed set of chunks made at start; waiting for one is the backpressure.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::chunk::{Chunk, Page, new_pages};

/// A fixed number of chunks of one size. Memory use is `chunks * chunk_bytes`, whatever the input.
///
/// The chunk that came back last goes out first: its memory is still in the cache.
#[derive(Clone)]
pub struct Pool {
    shelf: Arc<Shelf>,
    chunk_bytes: usize,
}

/// Where the free memory lies.
#[derive(Default)]
pub(crate) struct Shelf {
    free: Mutex<Vec<Box<[Page]>>>,
    returned: Condvar,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Vec<Box<[Page]>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put(&self, pages: Box<[Page]>) {
        self.lock().push(pages);
        self.returned.notify_one();
    }
}

impl Pool {
    /// Takes the memory of `chunks` chunks of `chunk_bytes` bytes each.
    pub fn new(chunks: usize, chunk_bytes: usize) -> Self {
        Self::prepared(chunks, chunk_bytes, |_| ())
    }

    /// The same; what must be arranged for memory that will hold secrets is done to each piece first.
    pub fn prepared(chunks: usize, chunk_bytes: usize, prepare: impl Fn(&mut [u8])) -> Self {
        let shelf = Arc::new(Shelf::default());
        shelf.lock().extend((0..chunks.max(1)).map(|_| {
            let mut pages = new_pages(chunk_bytes);
            prepare(bytemuck::cast_slice_mut(&mut pages));
            pages
        }));
        Self { shelf, chunk_bytes }
    }

    /// An empty chunk; waits until one is free.
    pub fn take(&self) -> Chunk {
        let mut free = self.shelf.lock();
        loop {
            if let Some(pages) = free.pop() {
                return Chunk::from_pages(pages, Some(self.shelf.clone()));
            }
            free = self.shelf.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An empty chunk, if one is free now.
    pub fn try_take(&self) -> Option<Chunk> {
        let pages = self.shelf.lock().pop()?;
        Some(Chunk::from_pages(pages, Some(self.shelf.clone())))
    }

    /// Chunks free now.
    pub fn available(&self) -> usize {
        self.shelf.lock().len()
    }

    /// Room in each chunk, in bytes.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_and_secrets_come_back_wiped() {
        let pool = Pool::new(1, 100);
        let mut chunk = pool.take();
        chunk.set_len(3);
        chunk.copy_from_slice(b"key");
        chunk.mark_secret();
        assert!(pool.try_take().is_none());
        drop(chunk);
        let mut again = pool.take();
        assert!(again.spare().iter().all(|byte| *byte == 0));
        assert!(!again.is_secret());
    }
}
