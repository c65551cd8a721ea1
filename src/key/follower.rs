//! The reading end of a stream: fetches what a frame names, and claims it before it counts.

use std::sync::Arc;

use crate::base::ByteCount;

use super::chunks::LeaseChunks;
use super::journal::Journal;
use super::{Error, KeyLease, KeyRange, KeySource, LEASE_BYTES_MAX, Provenance, StreamId};

/// One session's view of the stream that a peer spends towards this site.
pub struct Follower {
    journal: Journal,
    source: Box<dyn KeySource>,
    chunks: Arc<LeaseChunks>,
    /// The reservation that this session claimed last.
    reservation: KeyRange,
    /// Where the next frame may begin at the earliest.
    next: u64,
}

impl Follower {
    pub(crate) fn new(
        journal: Journal,
        source: Box<dyn KeySource>,
        chunks: Arc<LeaseChunks>,
    ) -> Result<Self, Error> {
        journal.load()?;
        Ok(Self { journal, source, chunks, reservation: KeyRange::between(0, 0), next: 0 })
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
        let own = self.reservation.contains(&range);
        if range.position < self.next || !(own || self.journal.load()?.is_free(&range)) {
            return Err(self.reused(range));
        }
        self.source.lease(self.journal.stream(), range, &self.chunks)
    }

    /// Admits the frame that used `range`: to be called after its tag was found good and before
    /// its payload is used. Claims `reservation`, as the authenticated header has it, durably
    /// when it is new to this session.
    ///
    /// Errors: [`Error::Reused`] when part of either was admitted before; [`Error::Unsound`] when
    /// the range is not part of the reservation. The frame must be dropped then.
    pub fn accept(&mut self, range: KeyRange, reservation: KeyRange) -> Result<(), Error> {
        self.check_sound(range, reservation)?;
        if range.position < self.next {
            return Err(self.reused(range));
        }
        if reservation != self.reservation {
            let reused = self.reused(reservation);
            self.journal.spend(|mark| {
                if mark.claim(&reservation) { Ok(reservation) } else { Err(reused) }
            })?;
            self.abandon();
            self.reservation = reservation;
            self.next = reservation.position.max(self.next);
        }
        let passed = KeyRange::between(self.next, range.end());
        self.next = range.end();
        self.source.erase(self.journal.stream(), passed)
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
        if rest.units > 0 {
            // It is claimed and never admitted either way.
            let _ = self.source.erase(self.journal.stream(), rest);
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.abandon();
    }
}
