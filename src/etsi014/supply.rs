//! Key of a link that both key managers have and that is nobody's yet.

use std::collections::VecDeque;

use super::message::NamedKey;
use super::name::Names;
use crate::base::chunk::wipe;
use crate::base::{Chunk, Secret};

/// Bytes that become keys from the front on, each once. What was taken is wiped.
#[derive(Default)]
pub struct Supply {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that were taken.
    taken: usize,
    bytes: usize,
}

impl Supply {
    /// Bytes that are left.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes at the end.
    pub fn add(&mut self, mut chunk: Chunk) {
        chunk.mark_secret();
        self.bytes += chunk.len();
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next `number` keys of `bytes` bytes; `None`, and nothing is taken, when there is not
    /// enough.
    pub fn take(
        &mut self,
        number: usize,
        bytes: usize,
        names: &mut Names,
    ) -> Option<Vec<NamedKey>> {
        if number.checked_mul(bytes)? > self.bytes {
            return None;
        }
        let mut keys = Vec::with_capacity(number);
        for _ in 0..number {
            let mut key = Secret::new(vec![0; bytes].into_boxed_slice());
            self.fill(key.expose_mut());
            keys.push(NamedKey { id: names.issue(), bytes: key });
        }
        Some(keys)
    }

    fn fill(&mut self, out: &mut [u8]) {
        self.bytes -= out.len();
        let mut out = out;
        while !out.is_empty() {
            let chunk = self.chunks.front_mut().expect("the callers looked how much there is");
            let rest = &mut chunk[self.taken..];
            let count = rest.len().min(out.len());
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&rest[..count]);
            wipe(&mut rest[..count]);
            out = later;
            self.taken += count;
            if self.taken == chunk.len() {
                self.chunks.pop_front();
                self.taken = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_taken_once_and_in_order() {
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let mut supply = Supply::default();
        for (number, part) in bytes.chunks(700).enumerate() {
            supply.add(Chunk::from_bytes(number as u64, part));
        }
        let mut names = Names::new(&Secret::new([1; 32]));
        let mut taken = Vec::new();
        for bytes in [1, 16, 900, 3, 1500].into_iter().cycle() {
            let Some(keys) = supply.take(2, bytes, &mut names) else { break };
            keys.iter().for_each(|key| taken.extend_from_slice(key.bytes.expose()));
        }
        assert_eq!(taken, bytes[..taken.len()]);
        assert_eq!(supply.bytes(), 5000 - taken.len());
        assert!(supply.take(usize::MAX, 2, &mut names).is_none());
        let first = supply.chunks.front().unwrap();
        assert!(first[..supply.taken].iter().all(|byte| *byte == 0), "wiped behind the mark");
    }
}
