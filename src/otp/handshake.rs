//! The mutual handshake: each site proves that it holds the link's keys, to the other's fresh nonce,
//! and gets its first keys countersigned.
//!
//! Both greetings cross in clear. Then the caller sends its [`Opening`], and the listener, when it
//! has found that good and recorded what it asks for, its own. The listener's opening so says that
//! the caller's keys may be used; the caller's first frame says the same to the listener. A stranger
//! who only calls costs no key, and one who only answers costs the caller one greeting key and its
//! first reservation: there are [`crate::key::greeting::KEYS`] calls that nobody answers well, and
//! after these the stream calls no more until an operator has looked at it.
//!
//! The greetings also carry the marks. They are compared once they are proven: a site whose peer
//! has seen more used than its own record has, was set back, and quarantines itself.

use crate::base::SiteId;
use crate::key;

use super::error::{Error, Refusal};
use super::frame::TAG_BYTES;
use super::hello::{HELLO_BYTES, Hello};
use super::keys::{Follow, Spend};
use super::opening::{self, OPENING_BYTES, Opening};
use super::session::{Envelope, Limits, Session};

/// A session's hold on the two streams of its link: the one it spends, the one it follows.
pub type Keys = (Box<dyn Spend>, Box<dyn Follow>);

/// Which end of the connection this site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It called.
    Dialer,
    /// It was called.
    Listener,
}

/// The openings under way, after both greetings.
///
/// The order is: [`prove`](Self::prove) then [`verify`](Self::verify) for the dialer, the other way
/// round for the listener.
pub struct Handshake {
    role: Role,
    peer: SiteId,
    keys: Keys,
    limits: Limits,
    /// Both greetings, then the openings: what tags are over.
    transcript: Vec<u8>,
    /// The peer's marks: of the stream it spends, of the one it follows.
    marks: (u64, u64),
    /// The greeting keys that the peer holds.
    held: Vec<u64>,
    /// What this site asked for.
    reservation: key::KeyRange,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    ToProve,
    ToVerify,
    /// The peer asked for keys that were used before; it has to hear that.
    ToRefuse,
    Refused,
    Done,
    Failed,
}

impl Handshake {
    /// Compares the greetings.
    ///
    /// Errors: [`Error::Refused`]; the peer is to be told by [`super::hello::refuse`].
    pub fn new(
        role: Role,
        ours: &Hello,
        theirs: &Hello,
        keys: Keys,
        limits: Limits,
    ) -> Result<Self, Error> {
        check(ours, theirs)?;
        let (dialer, listener, state) = match role {
            Role::Dialer => (ours, theirs, State::ToProve),
            Role::Listener => (theirs, ours, State::ToVerify),
        };
        let mut transcript = Vec::with_capacity(2 * (HELLO_BYTES + OPENING_BYTES + TAG_BYTES));
        transcript.extend(dialer.encode());
        transcript.extend(listener.encode());
        Ok(Self {
            role,
            peer: theirs.from.clone(),
            keys,
            limits,
            transcript,
            marks: (theirs.sender_mark, theirs.follower_mark),
            held: theirs.greetings.clone(),
            reservation: key::KeyRange::default(),
            state,
        })
    }

    /// This site's opening: header and tag are to be sent.
    ///
    /// Errors: exhaustion changes nothing; [`Error::Closed`] out of turn.
    pub fn prove(&mut self) -> Result<Envelope, Error> {
        let next = match (self.state, self.role) {
            (State::ToProve, Role::Dialer) => State::ToVerify,
            (State::ToProve, Role::Listener) => State::Done,
            (State::ToRefuse, _) => State::Refused,
            _ => return Err(Error::Closed),
        };
        let greeting = match self.keys.0.greet(&self.held) {
            Ok(greeting) => greeting,
            Err(error @ key::Error::Exhausted { .. }) => return Err(error.into()),
            Err(error) => return Err(self.fail(error.into())),
        };
        self.reservation = greeting.reservation;
        let opening = Opening {
            countersigned: self.role == Role::Listener && next == State::Done,
            start: greeting.start,
            slot: greeting.slot,
            reservation: greeting.reservation,
        };
        let header = opening.encode();
        self.transcript.extend(header);
        let tag = opening::tag(greeting.key.bytes(), &self.transcript);
        self.transcript.extend(tag);
        self.state = next;
        Ok(Envelope { header, tag })
    }

    /// Checks the peer's opening and countersigns what it asks for.
    ///
    /// Errors: [`Error::Tag`] when the peer does not hold the keys or a greeting was changed;
    /// [`key::Error::Quarantined`] when it turns out that this site was set back.
    pub fn verify(
        &mut self,
        header: &[u8; OPENING_BYTES],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Error> {
        if self.state != State::ToVerify {
            return Err(Error::Closed);
        }
        self.state = State::Failed;
        let opening = Opening::decode(header)?;
        let key = self.keys.1.greeting_key(opening.start, opening.slot)?;
        self.transcript.extend(header);
        if !opening::is_right(key.bytes(), &self.transcript, tag) {
            return Err(Error::Tag { sequence: 0 });
        }
        self.transcript.extend(tag);
        // Proven, and fresh: what the greeting says of marks is true.
        self.keys.0.skip_to(self.marks.1)?;
        match self.role {
            Role::Dialer if !opening.countersigned || !self.keys.0.sign(self.reservation) => {
                Err(self.keys.0.refused().into())
            }
            Role::Dialer => {
                self.keys.1.admit(opening.start, opening.reservation)?;
                self.state = State::Done;
                Ok(())
            }
            Role::Listener => {
                self.state = match self.keys.1.admit(opening.start, opening.reservation) {
                    Ok(()) => State::ToProve,
                    Err(key::Error::Reused { .. }) => State::ToRefuse,
                    Err(error) => return Err(error.into()),
                };
                Ok(())
            }
        }
    }

    /// The session, once both are proven.
    ///
    /// Errors: [`Error::Refused`] when the peer asked for keys that were used before.
    pub fn finish(self) -> Result<Session, Error> {
        match self.state {
            State::Done => {
                let (spend, follow) = self.keys;
                let follow = (follow, self.marks.0);
                Ok(Session::new(
                    self.peer,
                    spend,
                    follow,
                    self.limits,
                    (self.role, self.transcript),
                ))
            }
            State::Refused => Err(refused(&self.peer, Refusal::SetBack)),
            _ => Err(Error::Closed),
        }
    }

    fn fail(&mut self, error: Error) -> Error {
        self.state = State::Failed;
        error
    }
}

/// Whether the peer's greeting answers ours, in names and cipher.
///
/// Errors: [`Error::Refused`].
pub fn check(ours: &Hello, theirs: &Hello) -> Result<(), Error> {
    if theirs.to != ours.from || theirs.from != ours.to {
        return Err(refused(&theirs.from, Refusal::NotAddressed));
    }
    if theirs.cipher != ours.cipher {
        return Err(refused(&theirs.from, Refusal::Cipher));
    }
    Ok(())
}

fn refused(peer: &SiteId, reason: Refusal) -> Error {
    Error::Refused { peer: peer.clone(), reason }
}
