//! The fixed set of chunks made at start; waiting for one is the backpressure.

use crossbeam::channel::{Receiver, Sender, bounded};

use super::chunk::{Chunk, Page, new_pages};

/// A fixed number of chunks of one size. Memory use is `chunks * chunk_bytes`, whatever the input.
#[derive(Clone)]
pub struct Pool {
    free: Receiver<Box<[Page]>>,
    home: Sender<Box<[Page]>>,
    chunk_bytes: usize,
}

impl Pool {
    /// Takes the memory of `chunks` chunks of `chunk_bytes` bytes each.
    pub fn new(chunks: usize, chunk_bytes: usize) -> Self {
        let (home, free) = bounded(chunks.max(1));
        for _ in 0..chunks.max(1) {
            home.send(new_pages(chunk_bytes)).expect("the pool holds the other end");
        }
        Self { free, home, chunk_bytes }
    }

    /// An empty chunk; waits until one is free.
    pub fn take(&self) -> Chunk {
        let pages = self.free.recv().expect("the pool holds the other end");
        Chunk::from_pages(pages, Some(self.home.clone()))
    }

    /// An empty chunk, if one is free now.
    pub fn try_take(&self) -> Option<Chunk> {
        let pages = self.free.try_recv().ok()?;
        Some(Chunk::from_pages(pages, Some(self.home.clone())))
    }

    /// Chunks free now.
    pub fn available(&self) -> usize {
        self.free.len()
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
