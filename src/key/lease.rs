//! Key bytes handed out for one use.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::KeyRange;
use super::chunks::LeaseChunks;
use crate::base::Chunk;
use crate::device::cpu::otp;
use crate::kernel::otp::{Expansion, Pad};

/// Key bytes handed out for one use. Neither `Clone` nor `Copy`: sealing consumes it by value, and
/// its memory is wiped on drop.
///
/// What a source has to work out and not to fetch is worked out when the pad is applied, in
/// registers: such bytes are in memory only if somebody asks for [`bytes`](Self::bytes).
pub struct KeyLease {
    range: KeyRange,
    stored: Option<Chunk>,
    expansions: Vec<Expansion>,
    /// Everything worked out, once it was asked for.
    whole: OnceLock<Chunk>,
    chunks: Option<Arc<LeaseChunks>>,
}

impl KeyLease {
    /// Takes charge of the bytes at `range`; marks them secret.
    pub(crate) fn new(range: KeyRange, mut bytes: Chunk) -> Self {
        bytes.mark_secret();
        let (expansions, whole) = (Vec::new(), OnceLock::new());
        Self { range, stored: Some(bytes), expansions, whole, chunks: None }
    }

    /// Takes charge of keys that are the key stream of `expansions`, XOR `stored` if there is any;
    /// `chunks` gives memory should the bytes be asked for.
    ///
    /// # Panics
    /// When the first expansion does not start at 0.
    pub(crate) fn expanded(
        range: KeyRange,
        mut stored: Option<Chunk>,
        expansions: Vec<Expansion>,
        chunks: &Arc<LeaseChunks>,
    ) -> Self {
        stored.iter_mut().for_each(Chunk::mark_secret);
        let chunks = Some(Arc::clone(chunks));
        let lease = Self { range, stored, expansions, whole: OnceLock::new(), chunks };
        assert!(lease.range.units == 0 || lease.pad().streams().next().is_some());
        lease
    }

    /// Where the bytes lie in their stream.
    pub fn range(&self) -> KeyRange {
        self.range
    }

    /// The bytes, `16 * range().units` of them, to be applied without their being in memory.
    pub fn pad(&self) -> Pad<'_> {
        match (self.whole.get(), &self.stored) {
            (Some(whole), _) => Pad::from(&whole[..]),
            (None, stored) => {
                Pad::new(stored.as_deref(), &self.expansions, self.range.bytes() as usize)
            }
        }
    }

    /// The bytes, `16 * range().units` of them, in memory.
    pub fn bytes(&self) -> &[u8] {
        match &self.stored {
            Some(stored) if self.expansions.is_empty() => stored,
            _ => self.whole.get_or_init(|| self.part(0, self.range.bytes() as usize)),
        }
    }

    /// Wipes a part that was used and is in memory. What is only worked out goes with the lease.
    ///
    /// # Panics
    /// When the lease has no such bytes.
    pub fn wipe(&mut self, part: Range<usize>) {
        for chunk in self.stored.iter_mut().chain(self.whole.get_mut()) {
            crate::base::chunk::wipe(&mut chunk[part.clone()]);
        }
    }

    /// Gives up the lease for its bytes: for key that becomes a share (S = pad of an all-zero text).
    pub fn into_chunk(self) -> Chunk {
        let bytes = self.range.bytes() as usize;
        self.into_part(0, bytes)
    }

    /// Gives up the lease for `len` of its bytes, from `start` on; the others are destroyed.
    ///
    /// # Panics
    /// When the lease has no such bytes.
    pub fn into_part(mut self, start: usize, len: usize) -> Chunk {
        let whole = self.whole.take().or_else(|| {
            let plain = self.expansions.is_empty();
            plain.then(|| self.stored.take()).flatten()
        });
        let Some(mut chunk) = whole else { return self.part(start, len) };
        chunk.copy_within(start..start + len, 0);
        chunk[len..].fill(0);
        chunk.set_len(len);
        chunk
    }

    /// Works out a part.
    fn part(&self, start: usize, len: usize) -> Chunk {
        let mut chunk = match &self.chunks {
            Some(chunks) => chunks.take(len),
            None => Chunk::with_capacity(len),
        };
        chunk.set_len(len);
        chunk.mark_secret();
        otp::write(&self.pad().slice(0..start + len).slice(start..start + len), &mut chunk);
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(stored: Option<&[u8]>) -> KeyLease {
        let expansion = |start, key| Expansion::new(start, &[key; 32], 5);
        let expansions = vec![expansion(0, 1), expansion(48, 2)];
        let stored = stored.map(|stored| Chunk::from_bytes(0, stored));
        KeyLease::expanded(KeyRange { position: 3, units: 6 }, stored, expansions, &Arc::default())
    }

    #[test]
    fn bytes_and_parts_are_those_of_the_pad() {
        let stored: Vec<u8> = (0..96).collect();
        for stored in [None, Some(&stored[..])] {
            let mut expected = [0; 96];
            otp::write(&lease(stored).pad(), &mut expected);
            let asked = lease(stored);
            assert!(asked.bytes() == expected && asked.bytes() == &expected[..]);
            assert!(asked.pad().stored() == Some(&expected[..]), "worked out once");
            let (fresh, chunk) = (lease(stored), asked.into_part(16, 50));
            assert!(chunk[..] == expected[16..66] && chunk.is_secret());
            assert!(fresh.into_part(16, 50)[..] == expected[16..66]);
            assert!(lease(stored).into_chunk()[..] == expected);
        }
        let plain =
            KeyLease::new(KeyRange { position: 0, units: 6 }, Chunk::from_bytes(0, &stored));
        assert!(plain.bytes() == stored && plain.into_part(32, 64)[..] == stored[32..]);
    }
}
