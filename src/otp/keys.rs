//! What a session needs of the two key streams of its link.

use crate::base::ByteCount;
use crate::key::{Error, Follower, KeyLease, KeyRange, Sender};

/// A session's hold on the stream that this site encrypts with.
pub trait Spend: Send {
    /// The first position that no session has reserved.
    fn mark(&self) -> u64;

    /// Promises never to use a position before `position`, which the peer has as its mark.
    fn skip_to(&mut self, position: u64) -> Result<(), Error>;

    /// The next `bytes` of key, rounded up to whole units. No position is ever handed out twice.
    ///
    /// Errors: [`Error::Exhausted`] when there is not enough yet; nothing was taken then.
    fn take(&mut self, bytes: usize) -> Result<KeyLease, Error>;

    /// The reservation that the last lease was taken from.
    fn reservation(&self) -> KeyRange;

    /// Says how much key will still be needed, so that no more than that is reserved.
    fn expect(&mut self, _bytes: ByteCount) {}
}

/// A session's view of the stream that the peer encrypts with.
pub trait Follow: Send {
    /// The first position that no session has admitted.
    fn mark(&self) -> u64;

    /// Refuses everything before `position`, the sender's mark at the beginning of the session.
    fn skip_to(&mut self, position: u64);

    /// The key at `range`, to check a frame with. Consumes nothing.
    ///
    /// Errors: [`Error::Reused`] when a part of it was admitted before.
    fn fetch(&mut self, range: KeyRange) -> Result<KeyLease, Error>;

    /// Makes it durable that `range` of the peer's `reservation` is used, before its frame is.
    fn accept(&mut self, range: KeyRange, reservation: KeyRange) -> Result<(), Error>;
}

impl Spend for Sender {
    fn mark(&self) -> u64 {
        Sender::mark(self)
    }

    fn skip_to(&mut self, position: u64) -> Result<(), Error> {
        Sender::skip_to(self, position)
    }

    fn take(&mut self, bytes: usize) -> Result<KeyLease, Error> {
        Sender::take(self, bytes)
    }

    fn reservation(&self) -> KeyRange {
        Sender::reservation(self)
    }

    fn expect(&mut self, bytes: ByteCount) {
        Sender::expect(self, bytes);
    }
}

impl Follow for Follower {
    fn mark(&self) -> u64 {
        Follower::mark(self)
    }

    fn skip_to(&mut self, position: u64) {
        Follower::skip_to(self, position);
    }

    fn fetch(&mut self, range: KeyRange) -> Result<KeyLease, Error> {
        Follower::fetch(self, range)
    }

    fn accept(&mut self, range: KeyRange, reservation: KeyRange) -> Result<(), Error> {
        Follower::accept(self, range, reservation)
    }
}
