//! The spending end of a stream: reserves durably, has it countersigned, then hands out.
//!
//! # What is promised
//!
//! In a session a unit of key encrypts only if two records have it, each durable, each in a
//! reservation that overlaps no other of that record: this site's ([`Sender`]) and the peer's
//! ([`super::Follower`]), which claims a reservation for one session and then says so. From this:
//!
//! | what happens | what follows |
//! |---|---|
//! | either end crashes, at any point | no unit is used twice; at most two reservations are given up |
//! | this site's state is set back, to any earlier one | no unit is used twice: the peer has claimed every unit that ever was, refuses it, and the stream is quarantined |
//! | the peer's state is set back, to any earlier one | no unit is used twice: this site's record never goes back. The peer accepts nothing twice: frames count only in a session that was opened over its fresh number |
//! | a copy of this site's folder is put back while its programs run | the same: what they hold in memory was reserved at both ends |
//! | frames are lost, repeated, delayed, exchanged | a session ends; no unit is used twice |
//! | a virtual machine is restored with the memory of a running program | **not promised** for the reservation that the program had in use: it goes on where it was. Stop the programs before a snapshot |
//! | both ends are set back | **not promised**: neither has a memory of what was used. Nothing but a third memory could tell. An operator who restores both must give up the keys at both (`dsgd keys retire`) |
//!
//! The first message of a call comes before the peer has said anything: [`super::greeting`] says
//! why it is safe. Used outside of a session ([`Sender::take`] without [`Sender::greet`]), only this
//! site's record guards, and a state folder must never be set back.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::base::{BitRate, ByteCount, SiteId};

use super::admission::Promise;
use super::allowance::{Allowance, CONTROL_UNITS};
use super::chunks::LeaseChunks;
use super::greet::Greetings;
use super::journal::Journal;
use super::mark::{Mark, Suspicion};
use super::source::from_position;
use super::{
    Error, KeyLease, KeyRange, KeySource, LEASE_BYTES_MAX, Provenance, StreamId, UNIT_BYTES,
};

/// Bytes of the first reservation of a session.
pub const RESERVATION_BYTES_MIN: u64 = 4 << 10;
/// Bytes beyond which reservations do not grow, unless one lease needs more.
pub const RESERVATION_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a reservation from which on the next one is made ready at half.
const AHEAD_BYTES: u64 = 64 << 10;

/// One session's hold on the stream that this site spends towards a peer.
///
/// Sessions in one or many processes may spend the same stream at once: each has reservations of
/// its own. What is left of a reservation when a session ends is never used.
pub struct Sender {
    pub(super) journal: Arc<Journal>,
    pub(super) source: Box<dyn KeySource>,
    pub(super) chunks: Arc<LeaseChunks>,
    pub(super) allowance: Allowance,
    pub(super) greetings: Greetings,
    /// Whether the peer has to countersign.
    pub(super) countersigned: bool,
    /// Whether what is taken now is for control frames.
    control: bool,
    /// Units that could not be taken.
    needed: Option<u64>,
    /// Units of the last lease.
    lease: u64,
    /// Units that are left to others when reserving for payload.
    floor: u64,
    /// What this session was promised, and has not reserved.
    promise: Option<Promise>,
    /// Units to reserve next time.
    step: u64,
    /// Units that the session still expects to need, if it said so.
    expected: Option<u64>,
    /// The next reservation, on its way to the disk while this one is used.
    ahead: Option<JoinHandle<Result<Reserved, Error>>>,
    /// Whether there was no key for it: then it is reserved when it is needed.
    ahead_failed: bool,
}

/// What one reservation took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    pub range: KeyRange,
    /// Units before it that no lease can have.
    pub skipped: KeyRange,
}

/// What to reserve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// In one piece at least.
    pub units: u64,
    /// At most.
    pub wanted: u64,
    /// Left over for others.
    pub floor: u64,
}

impl Sender {
    pub(crate) fn new(
        journal: Journal,
        source: Box<dyn KeySource>,
        chunks: Arc<LeaseChunks>,
    ) -> Result<Self, Error> {
        journal.load_usable()?;
        Ok(Self {
            journal: Arc::new(journal),
            source,
            chunks,
            allowance: Allowance::default(),
            greetings: Greetings::default(),
            countersigned: false,
            control: false,
            needed: None,
            lease: 1,
            floor: 0,
            promise: None,
            step: RESERVATION_BYTES_MIN / UNIT_BYTES,
            expected: None,
            ahead: None,
            ahead_failed: false,
        })
    }

    /// The stream that is spent.
    pub fn stream(&self) -> &StreamId {
        self.journal.stream()
    }

    /// What is known about its keys.
    pub fn provenance(&self) -> &Provenance {
        self.source.provenance()
    }

    /// The first unit of the stream that no session has ever reserved, as the disk has it now.
    pub fn mark(&self) -> u64 {
        self.journal.position()
    }

    /// The reservation that the last lease came from.
    pub fn reservation(&self) -> KeyRange {
        self.allowance.current()
    }

    /// Promises never to use a unit below `unit`, the mark that the peer has of this stream.
    ///
    /// Errors: [`Error::Quarantined`], now and always, when the peer has claimed what was never
    /// reserved here: this site's state was lost or set back, and nothing says which keys it used.
    pub fn skip_to(&mut self, unit: u64) -> Result<(), Error> {
        if unit > self.journal.load_usable()?.position() {
            self.journal.suspect(Suspicion::Behind)?;
            return Err(self.journal.quarantined(Suspicion::Behind));
        }
        let skipped = self.allowance.skip_to(unit);
        self.abandon(skipped);
        Ok(())
    }

    /// Says how much key the session will still need, so that no more than that is reserved.
    pub fn expect(&mut self, bytes: ByteCount) {
        self.expected = Some(bytes.0.div_ceil(UNIT_BYTES));
    }

    /// Makes sure that the session gets the key that it will still need, `bytes` of it, whatever
    /// others begin meanwhile, and that no more than that is reserved.
    ///
    /// Errors: [`Error::Exhausted`] when there is not that much beside what others were promised
    /// and what must be left; nothing is promised then.
    pub fn admit(&mut self, bytes: ByteCount) -> Result<(), Error> {
        self.promise = None;
        if let Some(promises) = self.journal.promises() {
            let failed = |source| self.journal.failed(source);
            let units = bytes.0.div_ceil(UNIT_BYTES) + self.kept();
            let turn = promises.turn().map_err(failed)?;
            // In this order: what others reserve meanwhile is then counted twice, not never.
            let others = promises.outstanding().map_err(failed)?;
            let ready = self.source.ready(self.journal.stream())?;
            let left = from_position(&ready, self.journal.load_usable()?.position());
            let left: u64 = left.iter().map(|range| range.units).sum();
            let free = left.saturating_sub(others).saturating_sub(self.floor);
            if units > free {
                return Err(exhausted(&self.stream().receiver, units, free, self.source.rate()));
            }
            let made = promises.promise(&turn, self.journal.session(), units);
            self.promise = Some(made.map_err(failed)?);
        }
        self.expect(bytes);
        Ok(())
    }

    /// Leaves so much key of the stream to others, whenever key for payload is reserved.
    pub fn leave(&mut self, bytes: ByteCount) {
        self.floor = bytes.0.div_ceil(UNIT_BYTES);
    }

    /// Says whether what is taken from now on is for control frames, which may use what is kept for
    /// them.
    pub fn for_control(&mut self, control: bool) {
        self.control = control;
    }

    /// The next fresh keys, contiguous: `bytes` rounded up to whole units, at least one.
    ///
    /// Errors: [`Error::Exhausted`] when the link has not that much; [`Error::Unsigned`] when the
    /// peer must first countersign, see [`ask`](Self::ask). Nothing is spent then.
    pub fn take(&mut self, bytes: usize) -> Result<KeyLease, Error> {
        if bytes as u64 > LEASE_BYTES_MAX {
            return Err(Error::TooLong { needed: ByteCount(bytes as u64) });
        }
        let units = (bytes as u64).div_ceil(UNIT_BYTES).max(1);
        let kept = if self.control { 0 } else { self.kept() };
        let mut taken = self.allowance.take(units, kept);
        if taken.is_none() && !self.countersigned {
            let reserved = self.reserve(units)?;
            self.put_in_force(reserved);
            // Nobody has to be asked.
            let _ = self.allowance.sign(reserved.range);
            taken = self.allowance.take(units, kept);
        }
        let Some(taken) = taken else { return Err(self.unsigned(units)) };
        // Spent from here on, whatever happens to the reading.
        self.needed = None;
        if !self.control {
            self.lease = units;
        }
        self.abandon(taken.left_over);
        self.expected = self.expected.map(|expected| expected.saturating_sub(units));
        let lease = self.source.lease(self.journal.stream(), taken.range, &self.chunks)?;
        self.source.erase(self.journal.stream(), taken.range)?;
        if !self.countersigned {
            self.reserve_ahead(units);
        }
        Ok(lease)
    }

    /// A reservation, durable here, that the peer is to countersign now; none if there is enough, or
    /// if it was asked already. What could not be taken is made room for; otherwise the next
    /// reservation is made ready when this one is half used, so that the traffic does not wait.
    ///
    /// Errors: [`Error::Exhausted`] when the link has not what could not be taken.
    pub fn ask(&mut self) -> Result<Option<KeyRange>, Error> {
        let (rest, signed) = (self.allowance.rest(), self.allowance.signed());
        if !self.countersigned || self.allowance.asked().is_some() {
            return Ok(None);
        }
        let reserved = match self.needed {
            Some(units) if signed.is_some_and(|signed| signed.units >= units + CONTROL_UNITS) => {
                return Ok(None);
            }
            Some(units) => self.reserve(units)?,
            None if signed.is_some() => return Ok(None),
            None if rest.units <= CONTROL_UNITS / 2 => match self.reserve_little() {
                Some(reserved) => reserved,
                None => return Ok(None),
            },
            None => {
                self.reserve_ahead(self.lease);
                let done = self.ahead.as_ref().is_some_and(JoinHandle::is_finished);
                match done.then(|| self.finish_ahead()).flatten() {
                    Some(reserved) => reserved,
                    None => {
                        self.ahead_failed |= done;
                        return Ok(None);
                    }
                }
            }
        };
        self.needed = None;
        self.put_in_force(reserved);
        Ok(Some(reserved.range))
    }

    /// Whether the peer was asked and has not answered.
    pub fn awaits_signature(&self) -> bool {
        self.allowance.asked().is_some()
    }

    /// The peer has countersigned; false if it is not what it was asked for.
    #[must_use]
    pub fn sign(&mut self, reservation: KeyRange) -> bool {
        self.allowance.sign(reservation)
    }

    /// The peer has countersigned the first reservation of the session.
    pub fn sign_first(&mut self) {
        if let Some(asked) = self.allowance.asked() {
            // It is the one that was asked for.
            let _ = self.allowance.sign(asked);
        }
    }

    /// The peer has, as used, what was reserved here: the stream is quarantined, now and always.
    pub fn refused(&mut self) -> Error {
        match self.journal.suspect(Suspicion::Refused) {
            Ok(()) => self.journal.quarantined(Suspicion::Refused),
            Err(error) => error,
        }
    }

    fn unsigned(&mut self, units: u64) -> Error {
        if self.control {
            // Even to ask takes key.
            return exhausted(&self.stream().receiver, units, 0, self.source.rate());
        }
        self.needed = Some(units);
        Error::Unsigned { stream: self.stream().clone() }
    }

    /// What to reserve for leases of `units`: all that is still `expected`, or else whole leases,
    /// so that steady traffic leaves nothing over.
    fn wanted(&self, units: u64, expected: Option<u64>) -> u64 {
        const MAX: u64 = RESERVATION_BYTES_MAX / UNIT_BYTES;
        let payload = match expected {
            Some(expected) if expected <= MAX => expected.max(units),
            Some(_) => (MAX / units).max(1) * units,
            None => (self.step / units).max(1) * units,
        };
        payload + self.kept()
    }

    /// What must be left when reserving for payload: the floors above, and what other jobs were
    /// promised.
    fn left_to_others(&self) -> u64 {
        let promised = self.journal.promises().and_then(|promises| promises.outstanding().ok());
        let own = self.promise.as_ref().map_or(0, Promise::units);
        self.floor.saturating_add(promised.unwrap_or(0).saturating_sub(own))
    }

    /// What stays in a reservation for control frames.
    fn kept(&self) -> u64 {
        if self.countersigned { CONTROL_UNITS } else { 0 }
    }

    fn reserve(&mut self, units: u64) -> Result<Reserved, Error> {
        match self.finish_ahead() {
            Some(reserved) if reserved.range.units >= units + self.kept() => return Ok(reserved),
            useless => useless.into_iter().for_each(|reserved| self.abandon(reserved.range)),
        }
        let wanted = self.wanted(units, self.expected);
        self.reserve_now(Wish { units: units + self.kept(), wanted, floor: self.left_to_others() })
    }

    /// For control frames alone: what else is needed will be asked for. Without key, what is left
    /// has to do.
    fn reserve_little(&mut self) -> Option<Reserved> {
        let units = RESERVATION_BYTES_MIN / UNIT_BYTES;
        self.reserve_now(Wish { units, wanted: units, floor: 0 }).ok()
    }

    pub(super) fn reserve_now(&self, wish: Wish) -> Result<Reserved, Error> {
        let ready = self.source.ready(self.journal.stream())?;
        spend(&self.journal, &ready, self.source.rate(), wish)
    }

    fn put_in_force(&mut self, reserved: Reserved) {
        self.ahead_failed = false;
        self.abandon(reserved.skipped);
        if let Some(promise) = &mut self.promise {
            promise.reserved(reserved.range.units);
        }
        if let Some(unused) = self.allowance.ask(reserved.range) {
            self.abandon(unused);
        }
        self.step =
            (self.step.max(reserved.range.units) * 2).min(RESERVATION_BYTES_MAX / UNIT_BYTES);
    }

    /// When traffic is past the middle of a reservation, begins to make the next one durable, so
    /// that the traffic does not wait for the disk.
    fn reserve_ahead(&mut self, units: u64) {
        let (current, left) = (self.allowance.current(), self.allowance.rest().units);
        let least = if self.countersigned { AHEAD_BYTES } else { RESERVATION_BYTES_MAX / 2 };
        let bulk = current.bytes() >= least;
        let expected = self.expected.map(|expected| expected.saturating_sub(left));
        if self.ahead.is_some()
            || self.ahead_failed
            || !bulk
            || left > current.units / 2
            || expected == Some(0)
        {
            return;
        }
        // What fails here is tried again, and reported, when the keys are needed.
        let Ok(ready) = self.source.ready(self.journal.stream()) else { return };
        let wanted = self.wanted(units, expected);
        let wish = Wish { units: units + self.kept(), wanted, floor: self.left_to_others() };
        let (journal, rate) = (Arc::clone(&self.journal), self.source.rate());
        self.ahead = thread::Builder::new()
            .name("key-reservation".into())
            .spawn(move || spend(&journal, &ready, rate, wish))
            .ok();
    }

    fn finish_ahead(&mut self) -> Option<Reserved> {
        self.ahead.take()?.join().ok()?.ok()
    }

    /// Destroys keys that nobody will use.
    pub(super) fn abandon(&self, range: KeyRange) {
        if range.units > 0 {
            // They are behind the mark and never used either way; the next opening tries again.
            let _ = self.source.erase(self.journal.stream(), range);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        for unused in self.allowance.give_up() {
            self.abandon(unused);
        }
        if let Some(reserved) = self.finish_ahead() {
            self.abandon(reserved.range);
        }
    }
}

fn spend(
    journal: &Journal,
    ready: &[KeyRange],
    rate: BitRate,
    wish: Wish,
) -> Result<Reserved, Error> {
    let mut reserved = None;
    journal.spend(|mark| {
        let picked = pick(mark, ready, wish);
        let picked = picked.map_err(|available| {
            exhausted(&journal.stream().receiver, wish.units, available, rate)
        })?;
        reserved = Some(picked);
        Ok(picked.range)
    })?;
    Ok(reserved.expect("what was spent was picked"))
}

/// Reserves, out of those that are `ready`, what is wished for, in one piece.
///
/// Errors: how many units there are.
pub(super) fn pick(mark: &mut Mark, ready: &[KeyRange], wish: Wish) -> Result<Reserved, u64> {
    let left = from_position(ready, mark.position());
    let all: u64 = left.iter().map(|range| range.units).sum();
    let free = all.saturating_sub(wish.floor);
    let open = left.iter().find(|range| range.units >= wish.units && free >= wish.units);
    let open =
        open.ok_or_else(|| left.iter().map(|range| range.units).max().unwrap_or(0).min(free))?;
    let skipped = KeyRange::between(mark.position(), open.position);
    let units = wish.wanted.min(open.units).min(free).max(wish.units);
    let range = KeyRange { position: open.position, units };
    mark.raise(range.end());
    Ok(Reserved { range, skipped })
}

pub(super) fn exhausted(peer: &SiteId, needed: u64, available: u64, rate: BitRate) -> Error {
    let bits = u128::from(needed.saturating_sub(available)) * u128::from(UNIT_BYTES) * 8;
    let wait = (bits * 1_000_000_000).checked_div(u128::from(rate.0));
    Error::Exhausted {
        peer: peer.clone(),
        needed: ByteCount(needed * UNIT_BYTES),
        available: ByteCount(available * UNIT_BYTES),
        wait: wait.map(|time| Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))),
    }
}
