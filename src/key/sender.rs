//! The spending end of a stream: reserves durably, then hands out.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::base::{BitRate, ByteCount, SiteId};

use super::chunks::LeaseChunks;
use super::journal::Journal;
use super::source::from_position;
use super::{
    Error, KeyLease, KeyRange, KeySource, LEASE_BYTES_MAX, Provenance, StreamId, UNIT_BYTES,
};

/// Bytes of the first reservation of a session.
pub const RESERVATION_BYTES_MIN: u64 = 4 << 10;
/// Bytes beyond which reservations do not grow, unless one lease needs more.
pub const RESERVATION_BYTES_MAX: u64 = 64 << 20;

/// One session's hold on the stream that this site spends towards a peer.
///
/// Sessions in one or many processes may spend the same stream at once: each has reservations of
/// its own. What is left of a reservation when a session ends is never used.
pub struct Sender {
    journal: Arc<Journal>,
    source: Box<dyn KeySource>,
    chunks: Arc<LeaseChunks>,
    reservation: KeyRange,
    next: u64,
    /// Units to reserve next time.
    step: u64,
    /// Units that the session still expects to need, if it said so.
    expected: Option<u64>,
    /// The next reservation, on its way to the disk while this one is used.
    ahead: Option<JoinHandle<Result<Reserved, Error>>>,
}

/// What one reservation took.
struct Reserved {
    range: KeyRange,
    /// Units before it that no lease can have.
    skipped: KeyRange,
}

impl Sender {
    pub(crate) fn new(
        journal: Journal,
        source: Box<dyn KeySource>,
        chunks: Arc<LeaseChunks>,
    ) -> Result<Self, Error> {
        let next = journal.load()?.position();
        let step = RESERVATION_BYTES_MIN / UNIT_BYTES;
        let reservation = KeyRange { position: next, units: 0 };
        let journal = Arc::new(journal);
        Ok(Self { journal, source, chunks, reservation, next, step, expected: None, ahead: None })
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
        self.reservation
    }

    /// Promises never to use a unit below `unit`, the mark that the peer has of this stream.
    ///
    /// Errors: [`Error::Quarantined`] when the peer has claimed what was never reserved here: this
    /// site's state was lost or set back, and nothing says which keys it used.
    pub fn skip_to(&mut self, unit: u64) -> Result<(), Error> {
        if unit > self.journal.load()?.position() {
            let reason = "the peer has a higher mark than this site, whose state was set back";
            return Err(Error::Quarantined { stream: self.stream().clone(), reason });
        }
        self.abandon(KeyRange::between(self.next, unit.min(self.reservation.end())));
        self.next = self.next.max(unit);
        Ok(())
    }

    /// Says how much key the session will still need, so that no more than that is reserved.
    pub fn expect(&mut self, bytes: ByteCount) {
        self.expected = Some(bytes.0.div_ceil(UNIT_BYTES));
    }

    /// The next fresh keys, contiguous: `bytes` rounded up to whole units, at least one.
    ///
    /// Errors: [`Error::Exhausted`] when the link has not that much; nothing is spent then.
    pub fn take(&mut self, bytes: usize) -> Result<KeyLease, Error> {
        if bytes as u64 > LEASE_BYTES_MAX {
            return Err(Error::TooLong { needed: ByteCount(bytes as u64) });
        }
        let units = (bytes as u64).div_ceil(UNIT_BYTES).max(1);
        if KeyRange::between(self.next, self.reservation.end()).units < units {
            self.reserve(units)?;
        }
        let range = KeyRange { position: self.next, units };
        // Spent from here on, whatever happens to the reading.
        self.next = range.end();
        self.expected = self.expected.map(|expected| expected.saturating_sub(units));
        let lease = self.source.lease(self.journal.stream(), range, &self.chunks)?;
        self.source.erase(self.journal.stream(), range)?;
        self.reserve_ahead(units);
        Ok(lease)
    }

    /// What to reserve for leases of `units`: all that is still `expected`, or else whole leases,
    /// so that steady traffic leaves nothing over.
    fn wanted(&self, units: u64, expected: Option<u64>) -> u64 {
        const MAX: u64 = RESERVATION_BYTES_MAX / UNIT_BYTES;
        match expected {
            Some(expected) if expected <= MAX => expected.max(units),
            Some(_) => (MAX / units).max(1) * units,
            None => (self.step / units).max(1) * units,
        }
    }

    fn reserve(&mut self, units: u64) -> Result<(), Error> {
        let reserved = match self.finish_ahead() {
            Some(reserved)
                if reserved.range.units >= units && reserved.range.position >= self.next =>
            {
                reserved
            }
            useless => {
                useless.into_iter().for_each(|reserved| self.abandon(reserved.range));
                let ready = self.source.ready(self.journal.stream())?;
                let wanted = self.wanted(units, self.expected);
                spend(&self.journal, &ready, self.source.rate(), units, wanted)?
            }
        };
        self.abandon(KeyRange::between(self.next, self.reservation.end()));
        self.abandon(reserved.skipped);
        self.reservation = reserved.range;
        self.next = reserved.range.position;
        self.step = (self.step.max(units) * 2).min(RESERVATION_BYTES_MAX / UNIT_BYTES);
        Ok(())
    }

    /// When bulk traffic is past the middle of a reservation, begins to make the next one durable,
    /// so that the traffic does not wait for the disk.
    fn reserve_ahead(&mut self, units: u64) {
        let left = self.reservation.end() - self.next;
        let bulk = self.reservation.bytes() >= RESERVATION_BYTES_MAX / 2;
        let expected = self.expected.map(|expected| expected.saturating_sub(left));
        if self.ahead.is_some() || !bulk || left > self.reservation.units / 2 || expected == Some(0)
        {
            return;
        }
        // What fails here is tried again, and reported, when the keys are needed.
        let Ok(ready) = self.source.ready(self.journal.stream()) else { return };
        let (rate, wanted) = (self.source.rate(), self.wanted(units, expected));
        let journal = Arc::clone(&self.journal);
        self.ahead = thread::Builder::new()
            .name("key-reservation".into())
            .spawn(move || spend(&journal, &ready, rate, units, wanted))
            .ok();
    }

    fn finish_ahead(&mut self) -> Option<Reserved> {
        self.ahead.take()?.join().ok()?.ok()
    }

    /// Destroys keys that nobody will use.
    fn abandon(&mut self, range: KeyRange) {
        if range.units > 0 {
            // They are behind the mark and never used either way; the next opening tries again.
            let _ = self.source.erase(self.journal.stream(), range);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.abandon(KeyRange::between(self.next, self.reservation.end()));
        if let Some(reserved) = self.finish_ahead() {
            self.abandon(reserved.range);
        }
    }
}

/// Reserves up to `wanted` units, at least `units` and in one piece, out of those that are `ready`.
fn spend(
    journal: &Journal,
    ready: &[KeyRange],
    rate: BitRate,
    units: u64,
    wanted: u64,
) -> Result<Reserved, Error> {
    let mut skipped = KeyRange::between(0, 0);
    let range = journal.spend(|mark| {
        let left = from_position(ready, mark.position());
        let open = left.iter().find(|range| range.units >= units).ok_or_else(|| {
            let most = left.iter().map(|range| range.units).max().unwrap_or(0);
            exhausted(&journal.stream().receiver, units, most, rate)
        })?;
        skipped = KeyRange::between(mark.position(), open.position);
        let range = KeyRange { position: open.position, units: wanted.min(open.units) };
        mark.raise(range.end());
        Ok(range)
    })?;
    Ok(Reserved { range, skipped })
}

fn exhausted(peer: &SiteId, needed: u64, available: u64, rate: BitRate) -> Error {
    let bits = u128::from(needed.saturating_sub(available)) * u128::from(UNIT_BYTES) * 8;
    let wait = (bits * 1_000_000_000).checked_div(u128::from(rate.0));
    Error::Exhausted {
        peer: peer.clone(),
        needed: ByteCount(needed * UNIT_BYTES),
        available: ByteCount(available * UNIT_BYTES),
        wait: wait.map(|time| Duration::from_nanos(u64::try_from(time).unwrap_or(u64::MAX))),
    }
}
