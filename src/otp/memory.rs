//! A key stream in memory, for tests and simulations: its bytes are a counter, mixed. Not for use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::{ByteCount, Chunk};
use crate::key::{Error, KeyLease, KeyRange, StreamId, UNIT_BYTES};

use super::keys::{Follow, Spend};

/// Both ends of one stream. Clones share it; it can be made to run dry and its receiver to crash.
#[derive(Clone)]
pub struct MemoryStream(Arc<Mutex<State>>);

struct State {
    id: StreamId,
    seed: u64,
    /// Units that have arrived at both ends.
    arrived: u64,
    reservation_units: u64,
    next: u64,
    reservation: KeyRange,
    taken: Vec<KeyRange>,
    /// First unit that the receiver may still accept.
    floor: u64,
    /// What the receiver would find after a restart.
    durable: u64,
}

impl MemoryStream {
    /// A stream with `units` units of key, reserved `reservation_units` at a time.
    pub fn new(id: StreamId, seed: u64, units: u64, reservation_units: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            id,
            seed,
            arrived: units,
            reservation_units,
            next: 0,
            reservation: KeyRange { position: 0, units: 0 },
            taken: Vec::new(),
            floor: 0,
            durable: 0,
        })))
    }

    /// More key arrives.
    pub fn grow(&self, units: u64) {
        self.state().arrived += units;
    }

    /// Every range that was handed out to seal with, in order.
    pub fn taken(&self) -> Vec<KeyRange> {
        self.state().taken.clone()
    }

    /// The receiver stops and starts again: it remembers whole reservations only.
    pub fn restart_receiver(&self) {
        let mut state = self.state();
        state.floor = state.durable;
    }

    /// The sender's record is set back, as by a restored backup: what must never happen.
    pub fn set_sender_back(&self, position: u64) {
        let mut state = self.state();
        state.next = position;
        state.reservation = KeyRange { position, units: 0 };
    }

    /// The key bytes of `range`, for comparison.
    pub fn bytes(&self, range: KeyRange) -> Vec<u8> {
        self.state().lease(range).bytes().to_vec()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lease(&self, range: KeyRange) -> KeyLease {
        let mut chunk = Chunk::with_capacity((range.units * UNIT_BYTES) as usize);
        chunk.set_len((range.units * UNIT_BYTES) as usize);
        for (word, place) in chunk.chunks_exact_mut(8).enumerate() {
            let counter = (range.position * 2).wrapping_add(word as u64);
            place.copy_from_slice(&mixed(self.seed, counter).to_le_bytes());
        }
        KeyLease::new(range, chunk)
    }

    fn check_stock(&self, from: u64, units: u64) -> Result<(), Error> {
        let available = self.arrived.saturating_sub(from);
        if units <= available {
            return Ok(());
        }
        Err(Error::Exhausted {
            peer: self.id.receiver.clone(),
            needed: ByteCount(units.saturating_mul(UNIT_BYTES)),
            available: ByteCount(available * UNIT_BYTES),
            wait: None,
        })
    }

    fn check_unused(&self, range: KeyRange) -> Result<(), Error> {
        if range.position < self.floor {
            return Err(Error::Reused { stream: self.id.clone(), range });
        }
        Ok(())
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014) of a counter.
fn mixed(seed: u64, counter: u64) -> u64 {
    let mut z = seed ^ counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Spend for MemoryStream {
    fn mark(&self) -> u64 {
        self.state().next
    }

    fn skip_to(&mut self, position: u64) -> Result<(), Error> {
        let mut state = self.state();
        state.next = state.next.max(position);
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<KeyLease, Error> {
        let mut state = self.state();
        let range = KeyRange { position: state.next, units: (bytes as u64).div_ceil(UNIT_BYTES) };
        state.check_stock(range.position, range.units)?;
        if range.end() > state.reservation.end() {
            let units = state.reservation_units.max(range.units);
            state.reservation = KeyRange { position: range.position, units };
        }
        state.next = range.end();
        state.taken.push(range);
        Ok(state.lease(range))
    }

    fn reservation(&self) -> KeyRange {
        self.state().reservation
    }
}

impl Follow for MemoryStream {
    fn mark(&self) -> u64 {
        self.state().floor
    }

    fn skip_to(&mut self, position: u64) {
        let mut state = self.state();
        state.floor = state.floor.max(position);
    }

    fn fetch(&mut self, range: KeyRange) -> Result<KeyLease, Error> {
        let state = self.state();
        state.check_unused(range)?;
        state.check_stock(range.position, range.units)?;
        Ok(state.lease(range))
    }

    fn accept(&mut self, range: KeyRange, reservation: KeyRange) -> Result<(), Error> {
        let mut state = self.state();
        state.check_unused(range)?;
        state.floor = range.end();
        state.durable = state.durable.max(reservation.end());
        Ok(())
    }
}
