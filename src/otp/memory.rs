//! A key stream in memory, for tests and simulations: its bytes are a counter, mixed. Not for use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::{ByteCount, Chunk};
use crate::key::greeting::key_at;
use crate::key::{Error, Greeting, KeyLease, KeyRange, StreamId, UNIT_BYTES};

use super::keys::{Follow, Spend};

/// Where the greeting keys lie: above everything else.
const GREETINGS: u64 = 1 << 60;

/// Both ends of one stream. Clones share it; it can be made to run dry and its receiver to crash.
///
/// The receiver countersigns by itself, unless [`asking`](MemoryStream::asking).
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
    greeted: u32,
    asks: bool,
    asked: Option<KeyRange>,
    signed: Option<KeyRange>,
    needed: Option<u64>,
    cursor: u64,
    countersigned: u64,
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
            greeted: 0,
            asks: false,
            asked: None,
            signed: None,
            needed: None,
            cursor: 0,
            countersigned: 0,
            floor: 0,
            durable: 0,
        })))
    }

    /// The same, whose sender has to ask for every reservation.
    #[must_use]
    pub fn asking(self) -> Self {
        self.state().asks = true;
        self
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
        if !state.asks {
            state.reservation = KeyRange { position, units: 0 };
        }
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

    fn take_signed(&mut self, units: u64) -> Result<KeyLease, Error> {
        let left = |state: &Self| KeyRange::between(state.cursor, state.reservation.end()).units;
        if left(self) < units
            && let Some(signed) = self.signed.take_if(|signed| signed.units >= units)
        {
            (self.reservation, self.cursor) = (signed, signed.position);
        }
        if left(self) < units {
            self.needed = Some(units);
            return Err(Error::Unsigned { stream: self.id.clone() });
        }
        self.needed = None;
        let range = KeyRange { position: self.cursor, units };
        self.cursor = range.end();
        self.taken.push(range);
        Ok(self.lease(range))
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
    fn stream(&self) -> StreamId {
        self.state().id.clone()
    }

    fn greet(&mut self, _held: &[u64]) -> Result<Greeting, Error> {
        let mut state = self.state();
        let units = state.reservation_units.min(state.arrived.saturating_sub(state.next));
        state.check_stock(state.next, 1)?;
        let (slot, position) = (state.greeted, state.next);
        state.greeted += 1;
        let range = key_at(GREETINGS, slot).expect("fewer sessions than keys");
        if state.asks {
            state.asked = Some(KeyRange { position, units });
            state.next += units;
        } else {
            state.reservation = KeyRange { position, units: 0 };
        }
        let reservation = KeyRange { position, units };
        Ok(Greeting { start: GREETINGS, slot, key: state.lease(range), reservation })
    }

    fn ask(&mut self) -> Result<Option<KeyRange>, Error> {
        let mut state = self.state();
        let Some(units) = state.needed else { return Ok(None) };
        if state.asked.is_some() || state.signed.is_some() {
            return Ok(None);
        }
        let (position, units) = (state.next, units.max(state.reservation_units));
        state.check_stock(position, units)?;
        state.next += units;
        state.asked = Some(KeyRange { position, units });
        Ok(state.asked)
    }

    fn awaits_signature(&self) -> bool {
        self.state().asked.is_some()
    }

    fn sign(&mut self, reservation: KeyRange) -> bool {
        let mut state = self.state();
        let expected = !state.asks || state.asked == Some(reservation);
        state.signed = state.asked.take();
        expected
    }

    fn sign_first(&mut self) {
        let mut state = self.state();
        state.signed = state.asked.take();
    }

    fn refused(&mut self) -> Error {
        let reason = "its sender was set back";
        Error::Quarantined { stream: self.state().id.clone(), reason }
    }

    fn ask_greeting(&mut self) -> Option<KeyRange> {
        None
    }

    fn sign_greeting(&mut self, _range: KeyRange) -> Result<bool, Error> {
        Ok(false)
    }

    fn mark(&self) -> u64 {
        self.state().next
    }

    fn skip_to(&mut self, position: u64) -> Result<(), Error> {
        if position > self.state().next {
            return Err(Spend::refused(self));
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Result<KeyLease, Error> {
        let mut state = self.state();
        if state.asks {
            return state.take_signed((bytes as u64).div_ceil(UNIT_BYTES));
        }
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
    fn greetings(&self) -> Vec<u64> {
        vec![GREETINGS]
    }

    fn greeting_key(&mut self, start: u64, slot: u32) -> Result<KeyLease, Error> {
        let range = key_at(start, slot).filter(|_| start == GREETINGS);
        let range = range.ok_or_else(|| Error::NoGreeting { stream: self.state().id.clone() })?;
        Ok(self.state().lease(range))
    }

    fn admit(&mut self, _start: u64, reservation: KeyRange) -> Result<(), Error> {
        if self.state().asks {
            return self.countersign(reservation);
        }
        self.state().check_unused(reservation)
    }

    fn countersign(&mut self, reservation: KeyRange) -> Result<(), Error> {
        let mut state = self.state();
        if reservation.position < state.countersigned {
            return Err(Error::Reused { stream: state.id.clone(), range: reservation });
        }
        state.countersigned = reservation.end();
        Ok(())
    }

    fn countersign_greeting(&mut self, _range: KeyRange) -> Result<(), Error> {
        Ok(())
    }

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
