//! What a session needs of the two key streams of its link.

use crate::base::ByteCount;
use crate::key::{Error, Follower, Greeting, KeyLease, KeyRange, Sender, StreamId};

/// A session's hold on the stream that this site encrypts with.
pub trait Spend: Send {
    /// The stream.
    fn stream(&self) -> StreamId;

    /// The first position that no session has reserved.
    fn mark(&self) -> u64;

    /// Promises never to use a position before `position`, which the peer has as its mark.
    fn skip_to(&mut self, position: u64) -> Result<(), Error>;

    /// What to open a session with, to a peer that holds greeting ranges at `held`.
    fn greet(&mut self, held: &[u64]) -> Result<Greeting, Error>;

    /// The next `bytes` of key, rounded up to whole units. No position is ever handed out twice.
    ///
    /// Errors: [`Error::Exhausted`] when there is not enough yet, [`Error::Unsigned`] when the peer
    /// must countersign first; nothing was taken then.
    fn take(&mut self, bytes: usize) -> Result<KeyLease, Error>;

    /// The reservation that the last lease was taken from.
    fn reservation(&self) -> KeyRange;

    /// Makes sure of the key that will still be needed; no more than that is then reserved.
    ///
    /// Errors: [`Error::Exhausted`] when others were promised too much of it.
    fn admit(&mut self, _bytes: ByteCount) -> Result<(), Error> {
        Ok(())
    }

    /// Says whether what is taken from now on is for control frames.
    fn for_control(&mut self, _control: bool) {}

    /// Leaves so much key to others, whenever key for payload is reserved.
    fn leave(&mut self, _bytes: ByteCount) {}

    /// A reservation that the peer is to be asked for now.
    fn ask(&mut self) -> Result<Option<KeyRange>, Error>;

    /// Whether the peer was asked and has not answered.
    fn awaits_signature(&self) -> bool;

    /// The peer has countersigned; false if it was not asked for that.
    fn sign(&mut self, reservation: KeyRange) -> bool;

    /// The peer has countersigned the first reservation.
    fn sign_first(&mut self);

    /// The peer says that it was used before: gives the error that ends the session.
    fn refused(&mut self) -> Error;

    /// New greeting keys that the peer is to be asked to hold now.
    fn ask_greeting(&mut self) -> Option<KeyRange>;

    /// The peer holds them; false if it was not asked for that.
    fn sign_greeting(&mut self, range: KeyRange) -> Result<bool, Error>;
}

/// A session's view of the stream that the peer encrypts with.
pub trait Follow: Send {
    /// The first position that no session has admitted.
    fn mark(&self) -> u64;

    /// Where the ranges of greeting keys begin that this site holds.
    fn greetings(&self) -> Vec<u64>;

    /// The key of the peer's opening message. Consumes nothing.
    fn greeting_key(&mut self, start: u64, slot: u32) -> Result<KeyLease, Error>;

    /// Opens the session of a proven peer, and countersigns its first reservation durably.
    fn admit(&mut self, start: u64, reservation: KeyRange) -> Result<(), Error>;

    /// Countersigns another one.
    fn countersign(&mut self, reservation: KeyRange) -> Result<(), Error>;

    /// Holds new greeting keys, durably.
    fn countersign_greeting(&mut self, range: KeyRange) -> Result<(), Error>;

    /// Refuses everything before `position`, the sender's mark at the beginning of the session.
    fn skip_to(&mut self, position: u64);

    /// The key at `range`, to check a frame with. Consumes nothing.
    ///
    /// Errors: [`Error::Reused`] when a part of it was admitted before.
    fn fetch(&mut self, range: KeyRange) -> Result<KeyLease, Error>;

    /// Admits the frame that used `range` of the peer's `reservation`, before it is used.
    fn accept(&mut self, range: KeyRange, reservation: KeyRange) -> Result<(), Error>;
}

impl Spend for Sender {
    fn stream(&self) -> StreamId {
        Sender::stream(self).clone()
    }

    fn sign_first(&mut self) {
        Sender::sign_first(self);
    }

    fn mark(&self) -> u64 {
        Sender::mark(self)
    }

    fn skip_to(&mut self, position: u64) -> Result<(), Error> {
        Sender::skip_to(self, position)
    }

    fn greet(&mut self, held: &[u64]) -> Result<Greeting, Error> {
        Sender::greet(self, held)
    }

    fn take(&mut self, bytes: usize) -> Result<KeyLease, Error> {
        Sender::take(self, bytes)
    }

    fn reservation(&self) -> KeyRange {
        Sender::reservation(self)
    }

    fn admit(&mut self, bytes: ByteCount) -> Result<(), Error> {
        Sender::admit(self, bytes)
    }

    fn for_control(&mut self, control: bool) {
        Sender::for_control(self, control);
    }

    fn leave(&mut self, bytes: ByteCount) {
        Sender::leave(self, bytes);
    }

    fn ask(&mut self) -> Result<Option<KeyRange>, Error> {
        Sender::ask(self)
    }

    fn awaits_signature(&self) -> bool {
        Sender::awaits_signature(self)
    }

    fn sign(&mut self, reservation: KeyRange) -> bool {
        Sender::sign(self, reservation)
    }

    fn refused(&mut self) -> Error {
        Sender::refused(self)
    }

    fn ask_greeting(&mut self) -> Option<KeyRange> {
        Sender::ask_greeting(self)
    }

    fn sign_greeting(&mut self, range: KeyRange) -> Result<bool, Error> {
        Sender::sign_greeting(self, range)
    }
}

impl Follow for Follower {
    fn mark(&self) -> u64 {
        Follower::mark(self)
    }

    fn greetings(&self) -> Vec<u64> {
        Follower::greetings(self)
    }

    fn greeting_key(&mut self, start: u64, slot: u32) -> Result<KeyLease, Error> {
        Follower::greeting_key(self, start, slot)
    }

    fn admit(&mut self, start: u64, reservation: KeyRange) -> Result<(), Error> {
        Follower::admit(self, start, reservation)
    }

    fn countersign(&mut self, reservation: KeyRange) -> Result<(), Error> {
        Follower::countersign(self, reservation)
    }

    fn countersign_greeting(&mut self, range: KeyRange) -> Result<(), Error> {
        Follower::countersign_greeting(self, range)
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
