//! The mutual handshake: each site proves that it holds the link's keys, to the other's fresh nonce.
//!
//! Both greetings cross in clear. Then each site sends a PROOF: a frame whose tag, made with key that
//! was never used, is over both greetings, and which brings the hash key of its direction. A recorded
//! proof fits neither the other's new nonce nor any key that is left.
//!
//! A site whose own record lags behind what its peer has seen used, as after the peer's restart, must
//! skip ahead. It does so only on the word of a proven peer, or a forged greeting could waste a
//! stream; so the other one proves first. The caller proves first otherwise: a stranger who only calls
//! costs no key. Two sites that both lag have lost their records; they stay apart.

use crate::base::SiteId;

use super::error::{Error, Refusal};
use super::frame::{HEADER_BYTES, TAG_BYTES, Type};
use super::hello::{HELLO_BYTES, Hello};
use super::keys::{Follow, Spend};
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

/// The proofs under way, after both greetings.
///
/// The order is: [`prove`](Self::prove) then [`verify`](Self::verify) for whom
/// [`proves_first`](Self::proves_first), the other way round for the other.
pub struct Handshake {
    session: Session,
    greetings: [u8; 2 * HELLO_BYTES],
    proves_first: bool,
    peer_follower_mark: u64,
    proved: bool,
    verified: bool,
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
        let (dialer, listener) = match role {
            Role::Dialer => (ours, theirs),
            Role::Listener => (theirs, ours),
        };
        let first = if dialer.sender_mark >= listener.follower_mark {
            Role::Dialer
        } else if listener.sender_mark >= dialer.follower_mark {
            Role::Listener
        } else {
            return Err(refused(&theirs.from, Refusal::BothBehind));
        };
        let peer = theirs.from.clone();
        let mut greetings = [0; 2 * HELLO_BYTES];
        greetings[..HELLO_BYTES].copy_from_slice(&dialer.encode());
        greetings[HELLO_BYTES..].copy_from_slice(&listener.encode());
        Ok(Self {
            session: Session::new(peer, keys.0, (keys.1, theirs.sender_mark), limits),
            greetings,
            proves_first: first == role,
            peer_follower_mark: theirs.follower_mark,
            proved: false,
            verified: false,
        })
    }

    /// Whether this site is the one to prove first.
    pub fn proves_first(&self) -> bool {
        self.proves_first
    }

    /// This site's proof: header and tag are to be sent.
    ///
    /// Errors: exhaustion changes nothing; [`Error::Closed`] when the peer was to prove first and
    /// has not.
    pub fn prove(&mut self) -> Result<Envelope, Error> {
        if self.proved || !(self.proves_first || self.verified) {
            return Err(Error::Closed);
        }
        let (mark, bound) = (self.peer_follower_mark, &self.greetings);
        let envelope = self.session.sending(|sealer| {
            // Whoever proves first had this mark behind it already.
            sealer.skip_to(mark)?;
            sealer.seal_bound(Type::Proof, bound)
        })?;
        self.proved = true;
        Ok(envelope)
    }

    /// Checks the peer's proof.
    ///
    /// Errors: [`Error::Tag`] when the peer does not hold the keys or the greetings were changed.
    pub fn verify(
        &mut self,
        header: &[u8; HEADER_BYTES],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), Error> {
        if self.verified || self.proved != self.proves_first {
            return Err(Error::Closed);
        }
        let bound = &self.greetings;
        self.session.receiving(|opener| {
            let header = opener.expect(header)?;
            opener.open_bound(&header, tag, bound)
        })?;
        self.verified = true;
        Ok(())
    }

    /// The session, once both have proved.
    pub fn finish(self) -> Result<Session, Error> {
        if self.proved && self.verified { Ok(self.session) } else { Err(Error::Closed) }
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
