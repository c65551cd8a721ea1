//! Why a session ended.

use crate::base::{Fault, Faulty, SiteId};
use crate::key;

use super::hello::VERSION;

/// Why a site does not talk to another: said in clear, so it tells nothing but this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The versions differ.
    #[error("it speaks another version of the protocol")]
    Version,
    /// One end is set to plain frames, the other to the one-time pad.
    #[error("it is configured for another cipher")]
    Cipher,
    /// The caller wanted another site.
    #[error("another site answers at this address")]
    NotAddressed,
    /// There is no key link between the two.
    #[error("it has no key link to this site")]
    UnknownPeer,
    /// One of the two has used more key than its own record says.
    #[error("a record of used keys was set back")]
    SetBack,
    /// The two sites have no key in common that a call could begin with.
    #[error("it does not know the key that this site began with")]
    Greeting,
}

impl Refusal {
    const ALL: [(u8, Refusal); 6] = [
        (1, Refusal::Version),
        (2, Refusal::Cipher),
        (3, Refusal::NotAddressed),
        (4, Refusal::UnknownPeer),
        (5, Refusal::SetBack),
        (6, Refusal::Greeting),
    ];

    /// The byte that stands for it on the wire; never 0.
    pub fn code(self) -> u8 {
        Self::ALL.iter().find(|(_, refusal)| *refusal == self).map_or(u8::MAX, |(code, _)| *code)
    }

    /// The refusal that a byte stands for.
    pub fn from_code(code: u8) -> Option<Refusal> {
        Self::ALL.iter().find(|(known, _)| *known == code).map(|(_, refusal)| *refusal)
    }
}

/// Why a session could not begin or go on. No variant holds key or payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What arrived first is not the greeting of this protocol.
    #[error("the peer does not speak this protocol: {what}")]
    Foreign {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The peer speaks another version.
    #[error("the peer speaks version {theirs} of the protocol, this site {VERSION}")]
    Version {
        /// The peer's version.
        theirs: u16,
    },
    /// The peer says that it will not talk to this site. Not authenticated.
    #[error("the peer refused: {reason}")]
    RefusedByPeer {
        /// Its reason.
        reason: Refusal,
    },
    /// This site will not talk to the peer.
    #[error("refused {peer}, {reason}")]
    Refused {
        /// Who the peer says it is. Not authenticated.
        peer: SiteId,
        /// The reason.
        reason: Refusal,
    },
    /// A frame's header cannot be of this session.
    #[error("frame {sequence}: {what}")]
    Malformed {
        /// The number of the frame that was expected.
        sequence: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A frame was dropped, repeated or out of order.
    #[error("frame {expected} was expected, frame {found} came")]
    OutOfOrder {
        /// The number that was expected.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// A frame's tag is wrong: it was changed on the way, or the two ends' keys differ.
    #[error("the tag of frame {sequence} is wrong")]
    Tag {
        /// Which frame.
        sequence: u64,
    },
    /// More payload than a frame may have.
    #[error("a payload of {bytes} bytes is more than the {max} that a frame may have")]
    TooLong {
        /// What was wanted or announced.
        bytes: u64,
        /// What is allowed.
        max: u64,
    },
    /// A kind of message that the session keeps for itself.
    #[error("messages of kind {kind} are the session's own")]
    Kind {
        /// Which.
        kind: u16,
    },
    /// The session ended before, in order or by an error.
    #[error("the session is closed")]
    Closed,
    /// Keys could not be had.
    #[error(transparent)]
    Key(#[from] key::Error),
}

impl Error {
    /// Whether the same call may succeed later: the session is as it was before.
    pub fn is_exhaustion(&self) -> bool {
        matches!(
            self,
            Error::Key(key::Error::Exhausted { .. }) | Error::Key(key::Error::Unsigned { .. })
        )
    }

    /// Whether the same call may succeed after the peer's next frames.
    pub fn awaits_peer(&self) -> bool {
        matches!(self, Error::Key(key::Error::Unsigned { .. }))
    }
}

impl Faulty for Error {
    fn fault(&self) -> Fault {
        match self {
            Error::Foreign { .. } => Fault::Data,
            Error::RefusedByPeer { reason } | Error::Refused { reason, .. }
                if matches!(reason, Refusal::SetBack | Refusal::Greeting) =>
            {
                Fault::Integrity
            }
            Error::Version { .. } | Error::RefusedByPeer { .. } | Error::Refused { .. } => {
                Fault::Refused
            }
            Error::Malformed { .. } | Error::OutOfOrder { .. } | Error::Tag { .. } => {
                Fault::Integrity
            }
            Error::TooLong { .. } => Fault::Data,
            Error::Kind { .. } => Fault::Bug,
            Error::Closed => Fault::Unavailable,
            Error::Key(error) => error.fault(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Error::Key(error) => error.hint(),
            Error::Tag { .. } => {
                Some("somebody tampers with the link, or the two ends hold different keys".into())
            }
            Error::RefusedByPeer { reason: Refusal::SetBack | Refusal::Greeting }
            | Error::Refused { reason: Refusal::SetBack | Refusal::Greeting, .. } => Some(
                "a state folder was lost or set back; 'dsgd keys level' shows what is in quarantine, \
                 'dsgd keys retire PEER' at both ends gives up the earlier keys"
                    .into(),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_wire() {
        for (code, refusal) in Refusal::ALL {
            assert_eq!((refusal.code(), Refusal::from_code(code)), (code, Some(refusal)));
        }
        assert_eq!((Refusal::from_code(0), Refusal::from_code(77)), (None, None));
    }
}
