//! A disk in memory that fails as real ones do, from a seed.
//!
//! Operations in flight take effect in a random order. A write is in the cache until a sync; a
//! crash keeps or loses every 512-byte sector of what was in the cache or in flight, each by
//! itself, so that writes are torn, and later ones may be there while earlier ones are not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::base::Chunk;

use super::{Completion, Disk, Op, Ticket};

/// What is kept or lost whole when the power fails.
pub const SECTOR_BYTES: usize = 512;

/// How often which operation goes wrong, as probabilities, and when the power fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A read fails.
    pub failed_reads: f64,
    /// A read gives one flipped bit.
    pub flipped_reads: f64,
    /// A write fails after part of it was done.
    pub short_writes: f64,
    /// A write fails and did nothing.
    pub failed_writes: f64,
    /// A sync fails, and nothing is durable that was not before.
    pub failed_syncs: f64,
    /// So many writes and syncs take effect; then the power is off and every operation fails.
    pub power_for: Option<u64>,
}

/// The platters: what all the [`SimDisk`]s opened on it share. Cheap to clone.
#[derive(Clone)]
pub struct SimMedium(Arc<Mutex<State>>);

struct State {
    /// What operations see.
    view: Vec<u8>,
    /// What is there after a crash in any case.
    durable: Vec<u8>,
    /// What a crash may lose, in the order of writing.
    cached: Vec<(usize, Vec<u8>)>,
    capacity: usize,
    faults: Faults,
    random: Random,
    /// Writes and syncs that took effect.
    steps: u64,
}

impl SimMedium {
    /// An empty medium that can hold `capacity` bytes.
    pub fn new(capacity: usize, seed: u64) -> Self {
        Self::holding(Vec::new(), capacity, seed)
    }

    fn holding(bytes: Vec<u8>, capacity: usize, seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            durable: bytes.clone(),
            view: bytes,
            cached: Vec::new(),
            capacity,
            faults: Faults::default(),
            random: Random(seed),
            steps: 0,
        })))
    }

    /// From now on these faults happen.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.faults = Faults {
            power_for: faults.power_for.map(|steps| state.steps.saturating_add(steps)),
            ..faults
        };
    }

    /// Writes and syncs that took effect so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Opens it, with at most `depth` operations in flight.
    pub fn open(&self, depth: usize) -> SimDisk {
        let (pending, done) = (VecDeque::new(), VecDeque::new());
        SimDisk { medium: self.clone(), pending, done, depth: depth.max(1), submitted: 0 }
    }

    /// What is there after the power failed at this moment and came back.
    pub fn crash(&self, seed: u64) -> SimMedium {
        let mut random = Random(seed);
        let state = self.state();
        let mut bytes = state.durable.clone();
        for (offset, written) in &state.cached {
            for (number, sector) in written.chunks(SECTOR_BYTES).enumerate() {
                if random.chance(0.5) {
                    put(&mut bytes, offset + number * SECTOR_BYTES, sector);
                }
            }
        }
        SimMedium::holding(bytes, state.capacity, random.next())
    }

    /// Flips one bit on the platters, as age does.
    pub fn flip(&self, offset: usize, bit: u8) {
        let mut state = self.state();
        for bytes in [0, 1] {
            let bytes = if bytes == 0 { &mut state.view } else { &mut state.durable };
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// A copy of what operations see now: for checks of what was or was not written.
    pub fn bytes(&self) -> Vec<u8> {
        self.state().view.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn read(&mut self, chunk: &mut Chunk, offset: u64, len: usize) -> Result<usize, Errno> {
        chunk.set_len(0);
        if self.is_off() || self.random.chance(self.faults.failed_reads) {
            return Err(Errno::IO);
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.view.len());
        let bytes = &self.view[start..self.view.len().min(start.saturating_add(len))];
        chunk.set_len(bytes.len());
        chunk.copy_from_slice(bytes);
        if !bytes.is_empty() && self.random.chance(self.faults.flipped_reads) {
            let bit = self.random.below(8 * chunk.len());
            chunk[bit / 8] ^= 1 << (bit % 8);
        }
        Ok(chunk.len())
    }

    fn write(&mut self, chunk: &Chunk, offset: u64) -> Result<usize, Errno> {
        if self.is_off() || self.random.chance(self.faults.failed_writes) {
            return Err(Errno::IO);
        }
        let start = usize::try_from(offset).map_err(|_| Errno::FBIG)?;
        let room = self.capacity.saturating_sub(start);
        if room < chunk.len() {
            return Err(Errno::NOSPC);
        }
        let short = self.random.chance(self.faults.short_writes);
        let sectors = chunk.len() / SECTOR_BYTES;
        let len =
            if short { self.random.below(sectors.max(1)) * SECTOR_BYTES } else { chunk.len() };
        put(&mut self.view, start, &chunk[..len]);
        self.cached.push((start, chunk[..len].to_vec()));
        self.steps += 1;
        if short { Err(Errno::IO) } else { Ok(len) }
    }

    fn sync(&mut self) -> Result<usize, Errno> {
        if self.is_off() || self.random.chance(self.faults.failed_syncs) {
            return Err(Errno::IO);
        }
        for (offset, bytes) in self.cached.drain(..) {
            put(&mut self.durable, offset, &bytes);
        }
        self.steps += 1;
        Ok(0)
    }

    fn is_off(&self) -> bool {
        self.faults.power_for.is_some_and(|steps| self.steps >= steps)
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, content: &[u8]) {
    let end = offset + content.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(content);
}

/// An open simulated disk. Like direct access, it takes whole sectors only.
pub struct SimDisk {
    medium: SimMedium,
    pending: VecDeque<(Ticket, Op)>,
    done: VecDeque<Completion>,
    depth: usize,
    submitted: u64,
}

impl SimDisk {
    /// Lets one of the operations in flight take effect.
    fn step(&mut self) {
        let mut state = self.medium.state();
        let chosen = state.random.below(self.pending.len());
        let Some((ticket, op)) = self.pending.remove(chosen) else { return };
        let aligned = |offset: u64, len: usize| {
            offset.is_multiple_of(SECTOR_BYTES as u64) && len.is_multiple_of(SECTOR_BYTES)
        };
        let (chunk, result) = match op {
            Op::Read { mut chunk, offset, len } => {
                assert!(len <= chunk.capacity(), "a read fits its chunk");
                let result = match aligned(offset, len) {
                    true => state.read(&mut chunk, offset, len),
                    false => Err(Errno::INVAL),
                };
                (Some(chunk), result)
            }
            Op::Write { chunk, offset } => {
                let result = match aligned(offset, chunk.len()) {
                    true => state.write(&chunk, offset),
                    false => Err(Errno::INVAL),
                };
                (Some(chunk), result)
            }
            Op::Sync => (None, state.sync()),
        };
        let result = result.map_err(std::io::Error::from);
        self.done.push_back(Completion { ticket, chunk, result });
    }
}

impl Disk for SimDisk {
    fn submit(&mut self, op: Op) -> Ticket {
        let ticket = Ticket(self.submitted);
        self.submitted += 1;
        while self.pending.len() >= self.depth {
            self.step();
        }
        self.pending.push_back((ticket, op));
        ticket
    }

    fn wait(&mut self) -> Option<Completion> {
        if self.done.is_empty() && !self.pending.is_empty() {
            self.step();
        }
        self.done.pop_front()
    }

    fn poll(&mut self) -> Option<Completion> {
        self.done.pop_front()
    }

    fn alignment(&self) -> usize {
        SECTOR_BYTES
    }

    fn size(&mut self) -> Result<u64, std::io::Error> {
        Ok(self.medium.state().view.len() as u64)
    }
}

/// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators" (SplitMix64).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `bound`; 0 if the bound is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && (self.next() >> 11) as f64 / ((1u64 << 53) as f64) < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{read_at, sync, write_at};

    fn filled(len: usize, byte: u8) -> Chunk {
        Chunk::from_bytes(0, &vec![byte; len])
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_tears_the_rest_at_sectors() {
        let medium = SimMedium::new(1 << 20, 1);
        let mut disk = medium.open(4);
        write_at(&mut disk, filled(1 << 16, 1), 0).unwrap();
        sync(&mut disk).unwrap();
        write_at(&mut disk, filled(1 << 16, 2), 0).unwrap();
        let after = medium.crash(7).bytes();
        let sectors: Vec<u8> = after
            .chunks(SECTOR_BYTES)
            .map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "a torn sector");
                sector[0]
            })
            .collect();
        assert!(sectors.contains(&1) && sectors.contains(&2));
        assert_eq!(medium.crash(7).bytes(), after, "the same seed, the same loss");
        sync(&mut disk).unwrap();
        assert!(medium.crash(8).bytes().iter().all(|byte| *byte == 2));
    }

    #[test]
    fn every_fault_happens_when_asked_for() {
        let medium = SimMedium::new(1 << 20, 3);
        let mut disk = medium.open(4);
        write_at(&mut disk, filled(4096, 1), 0).unwrap();
        let with = |faults| medium.set_faults(faults);
        with(Faults { failed_reads: 1.0, ..Faults::default() });
        assert!(read_at(&mut disk, 0, 512).is_err());
        with(Faults { flipped_reads: 1.0, ..Faults::default() });
        let read = read_at(&mut disk, 0, 512).unwrap();
        assert_eq!(read.iter().map(|byte| (byte ^ 1).count_ones()).sum::<u32>(), 1);
        with(Faults { failed_writes: 1.0, ..Faults::default() });
        assert!(write_at(&mut disk, filled(4096, 2), 0).is_err());
        assert!(medium.bytes().iter().all(|byte| *byte == 1));
        with(Faults { short_writes: 1.0, ..Faults::default() });
        assert!(write_at(&mut disk, filled(4096, 3), 0).is_err());
        assert_eq!(medium.bytes()[4095], 1);
        with(Faults { failed_syncs: 1.0, ..Faults::default() });
        assert!(sync(&mut disk).is_err());
        with(Faults { power_for: Some(1), ..Faults::default() });
        write_at(&mut disk, filled(512, 4), 0).unwrap();
        assert!(write_at(&mut disk, filled(512, 5), 0).is_err());
        assert!(read_at(&mut disk, 0, 512).is_err());
        with(Faults::default());
        assert!(super::super::is_full(&write_at(&mut disk, filled(512, 6), 1 << 20).unwrap_err()));
    }
}
