//! The reading end of a stream: fetches what a frame names, and claims it before it counts.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::ByteCount;

use super::chunks::LeaseChunks;
use super::greeting::{RANGE_UNITS, first_range, key_at, range_at};
use super::journal::Journal;
use super::ledger::Purpose;
use super::{Error, KeyLease, KeyRange, KeySource, LEASE_BYTES_MAX, Provenance, StreamId};

/// One session's view of the stream that a peer spends towards this site.
///
/// In a session the sender asks for each reservation before it uses it, and
/// [`countersign`](Self::countersign) claims it durably, for this session alone. Outside of one, a
/// reservation is claimed with the first frame that was opened with it.
pub struct Follower {
    journal: Journal,
    source: Box<dyn KeySource>,
    chunks: Arc<LeaseChunks>,
    /// The reservation that this session claimed and uses.
    reservation: KeyRange,
    /// Those that it claimed and does not use yet.
    claimed: VecDeque<KeyRange>,
    /// Where the greeting range begins that the session was opened with.
    opened_with: Option<u64>,
    /// Where the next frame may begin at the earliest.
    next: u64,
}

/// Reservations that a sender may be ahead: it asks for one at a time.
const CLAIMED_MAX: usize = 4;

impl Follower {
    pub(crate) fn new(
        journal: Journal,
        source: Box<dyn KeySource>,
        chunks: Arc<LeaseChunks>,
    ) -> Result<Self, Error> {
        journal.load_usable()?;
        Ok(Self {
            journal,
            source,
            chunks,
            reservation: KeyRange::between(0, 0),
            claimed: VecDeque::new(),
            opened_with: None,
            next: 0,
        })
    }

    /// The stream that is followed.
    pub fn stream(&self) -> &StreamId {
        self.journal.stream()
    }

    /// What is known about its keys.
    pub fn provenance(&self) -> &Provenance {
        self.source.provenance()
    }

    /// The first unit of the stream that no session has ever admitted, as the disk has it now.
    pub fn mark(&self) -> u64 {
        self.journal.position()
    }

    /// Refuses everything below `unit` in this session: the sender's mark at its beginning. Keys
    /// of a new session lie above it, so that even a site whose state was set back admits no
    /// repetition.
    pub fn skip_to(&mut self, unit: u64) {
        self.next = self.next.max(unit);
    }

    /// Where the ranges of greeting keys begin that this site holds, as the disk has it now.
    pub fn greetings(&self) -> Vec<u64> {
        let mark = self.journal.load();
        mark.map_or_else(
            |_| Vec::new(),
            |mark| mark.greetings().iter().map(|keys| keys.start).collect(),
        )
    }

    /// The key that the peer's opening message says it was made with. Nothing is consumed.
    ///
    /// Errors: [`Error::NoGreeting`] when it is of no range that this site holds, nor, at a site
    /// that holds none, of the first one: other keys may have encrypted something, and who knows
    /// that knows the key.
    pub fn greeting_key(&mut self, start: u64, slot: u32) -> Result<KeyLease, Error> {
        let mark = self.journal.load_usable()?;
        let held = mark.greetings();
        let known = if held.is_empty() {
            let ready = self.source.ready(self.journal.stream())?;
            first_range(&ready, mark.position()).is_some_and(|range| range.position == start)
        } else {
            held.iter().any(|keys| keys.start == start)
        };
        let range = key_at(start, slot).filter(|_| known);
        let range = range.ok_or_else(|| Error::NoGreeting { stream: self.stream().clone() })?;
        let mut chunk = self.chunks.take(range.bytes() as usize);
        chunk.mark_secret();
        self.source.read(self.journal.stream(), range, &mut chunk)?;
        Ok(KeyLease::new(range, chunk))
    }

    /// Opens the session of a peer that has proved itself with a key of the greeting range at
    /// `start`: claims `reservation` for it.
    ///
    /// Errors: as for [`countersign`](Self::countersign).
    pub fn admit(&mut self, start: u64, reservation: KeyRange) -> Result<(), Error> {
        if self.journal.load_usable()?.greetings().is_empty() {
            let reused = self.reused(range_at(start));
            self.journal.record(Purpose::Greeting, |mark| {
                if !mark.greetings().is_empty() {
                    return Ok(None);
                }
                if !mark.claim(&range_at(start)) {
                    return Err(reused);
                }
                mark.hold_greeting(start, None);
                Ok(Some(range_at(start)))
            })?;
        }
        self.opened_with = Some(start);
        self.countersign(reservation)
    }

    /// Claims `reservation` durably for this session; when this returns, the peer may be told.
    ///
    /// Errors: [`Error::Reused`] when part of it was claimed before: the peer's state was set back,
    /// or this site's was not and the peer lies. [`Error::Unsound`].
    pub fn countersign(&mut self, reservation: KeyRange) -> Result<(), Error> {
        self.check_sound(reservation, reservation)?;
        if self.claimed.len() >= CLAIMED_MAX {
            let range = reservation;
            return Err(Error::Unsound { stream: self.stream().clone(), range, reservation });
        }
        self.claim(reservation)?;
        self.claimed.push_back(reservation);
        Ok(())
    }

    /// Claims a new range of greeting keys durably and holds it, beside the one that this session
    /// was opened with.
    ///
    /// Errors: as for [`countersign`](Self::countersign).
    pub fn countersign_greeting(&mut self, range: KeyRange) -> Result<(), Error> {
        self.check_sound(range, range)?;
        if range.units != RANGE_UNITS {
            let reservation = range;
            return Err(Error::Unsound { stream: self.stream().clone(), range, reservation });
        }
        let reused = self.reused(range);
        let kept = self.opened_with;
        self.journal.record(Purpose::Greeting, |mark| {
            if !mark.claim(&range) {
                return Err(reused);
            }
            mark.hold_greeting(range.position, kept);
            Ok(Some(range))
        })?;
        Ok(())
    }

    fn claim(&self, reservation: KeyRange) -> Result<(), Error> {
        let reused = self.reused(reservation);
        let claimed = self
            .journal
            .spend(|mark| if mark.claim(&reservation) { Ok(reservation) } else { Err(reused) });
        claimed.map(drop)
    }

    /// The keys at `range`, to check a tag and to open a frame with. Nothing is consumed: the
    /// range may come from a forged header, and the true frame must still find its keys.
    ///
    /// Errors: [`Error::Reused`] when an earlier session, another one or this one admitted any
    /// of it.
    pub fn fetch(&mut self, range: KeyRange) -> Result<KeyLease, Error> {
        self.check_sound(range, range)?;
        if range.bytes() > LEASE_BYTES_MAX {
            return Err(Error::TooLong { needed: ByteCount(range.bytes()) });
        }
        let own = self.reservation.contains(&range)
            || self.claimed.iter().any(|claimed| claimed.contains(&range));
        let open = || Ok::<_, Error>(self.opened_with.is_none() && self.is_free(&range)?);
        if range.position < self.next || !(own || open()?) {
            return Err(self.reused(range));
        }
        self.source.lease(self.journal.stream(), range, &self.chunks)
    }

    /// Admits the frame that used `range`: to be called after its tag was found good and before
    /// its payload is used. In a session `reservation`, as the authenticated header has it, must
    /// be countersigned; else it is claimed, durably, when it is new.
    ///
    /// Errors: [`Error::Reused`] when part of either was admitted before; [`Error::Unsound`] when
    /// the range is not part of the reservation. The frame must be dropped then.
    pub fn accept(&mut self, range: KeyRange, reservation: KeyRange) -> Result<(), Error> {
        self.check_sound(range, reservation)?;
        if range.position < self.next {
            return Err(self.reused(range));
        }
        if reservation != self.reservation {
            self.switch_to(reservation)?;
        }
        let passed = KeyRange::between(self.next, range.end());
        self.next = range.end();
        self.source.erase(self.journal.stream(), passed)
    }

    fn switch_to(&mut self, reservation: KeyRange) -> Result<(), Error> {
        match self.claimed.iter().position(|claimed| *claimed == reservation) {
            Some(at) => {
                for unused in self.claimed.drain(..=at).take(at).collect::<Vec<_>>() {
                    self.destroy(unused);
                }
            }
            None if self.opened_with.is_some() => return Err(self.reused(reservation)),
            None => self.claim(reservation)?,
        }
        self.abandon();
        self.reservation = reservation;
        self.next = reservation.position.max(self.next);
        Ok(())
    }

    fn is_free(&self, range: &KeyRange) -> Result<bool, Error> {
        Ok(self.journal.load()?.is_free(range))
    }

    fn check_sound(&self, range: KeyRange, reservation: KeyRange) -> Result<(), Error> {
        if range.is_sound() && reservation.is_sound() && reservation.contains(&range) {
            return Ok(());
        }
        Err(Error::Unsound { stream: self.stream().clone(), range, reservation })
    }

    fn reused(&self, range: KeyRange) -> Error {
        Error::Reused { stream: self.stream().clone(), range }
    }

    /// Destroys what is left of the reservation: the sender never uses it.
    fn abandon(&mut self) {
        let rest =
            KeyRange::between(self.next.max(self.reservation.position), self.reservation.end());
        self.destroy(rest);
    }

    fn destroy(&self, range: KeyRange) {
        if range.units > 0 {
            // It is claimed and never admitted either way.
            let _ = self.source.erase(self.journal.stream(), range);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.abandon();
        self.claimed.iter().for_each(|unused| self.destroy(*unused));
    }
}
