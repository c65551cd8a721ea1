//! Memory for leases, so that steady traffic allocates nothing.

use std::sync::OnceLock;

use crate::base::{Chunk, Pool};
use crate::device::cpu::secret_pages::protect;

/// Room for a payload of a round size and its tags, and how many of that size are kept.
const CLASSES: [(usize, usize); 5] = [
    (4 << 10, 64),
    ((64 << 10) + 4096, 16),
    ((256 << 10) + 4096, 16),
    ((1 << 20) + 4096, 16),
    ((4 << 20) + 4096, 8),
];

/// Chunks in a few sizes; each size takes its memory when it is first asked for. It is left out of core
/// dumps and, as far as the limit on locked memory goes, never swapped out.
#[derive(Default)]
pub struct LeaseChunks {
    pools: [OnceLock<Pool>; CLASSES.len()],
}

impl LeaseChunks {
    /// A chunk of `bytes` valid bytes. Never waits: when no chunk is free, one of its own memory,
    /// because a stage that holds many leases must not stop the one that would free them.
    pub fn take(&self, bytes: usize) -> Chunk {
        let class = CLASSES.iter().position(|(room, _)| *room >= bytes);
        let pooled = class.and_then(|class| {
            let (room, chunks) = CLASSES[class];
            self.pools[class]
                .get_or_init(|| {
                    Pool::prepared(chunks, room, |memory| {
                        protect(memory);
                    })
                })
                .try_take()
        });
        let mut chunk = pooled.unwrap_or_else(|| Chunk::with_capacity(bytes));
        chunk.set_len(bytes);
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_leases_than_chunks_do_not_wait() {
        let chunks = LeaseChunks::default();
        let held: Vec<_> = (0..40).map(|_| chunks.take(1 << 20)).collect();
        assert!(held.iter().all(|chunk| chunk.len() == 1 << 20));
        assert_eq!(chunks.take(9 << 20).len(), 9 << 20);
    }
}
