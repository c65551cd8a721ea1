//! Sites talk over TCP: [`crate::otp`]'s sessions given a socket, blocking, with deadlines. What is too
//! fast or too late for one ordered channel goes beside a session, in [`flow`]s of packets over UDP or
//! several TCP connections; [`relay`]s and [`tunnel`]s carry the traffic of other programs so.
//!
//! No payload leaves in clear: without key, sending waits and then fails. Plain frames exist for the
//! benchmark's comparison rows, and AES-256-GCM for whoever asks for it: both ends must be set to them,
//! nothing negotiates them and nothing falls back to them.

pub mod connection;
mod dialer;
pub mod error;
pub mod flow;
mod greeting;
mod readiness;
pub mod relay;
pub mod sim;
pub mod tcp;
pub mod tun;
pub mod tunnel;
pub mod udp;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::{ByteCount, SiteId};
use crate::key::{Floors, Priority};
use crate::otp::Limits;

pub use crate::otp::{Cipher, Security};
pub use connection::{Connection, Message, Outcome};
pub use dialer::{Carried, Dialer, Traffic};
pub use error::Error;
pub use tcp::{Closer, Incoming, Listener, dial};

/// What a sender is waiting for.
#[derive(Clone, Debug)]
pub struct KeyWait {
    /// The other end of the link that is short of key.
    pub peer: SiteId,
    /// What the next frame needs.
    pub needed: ByteCount,
    /// What is there.
    pub available: ByteCount,
    /// How long until it is enough; `None` when nothing arrives by itself.
    pub wait: Option<Duration>,
}

/// What is told about waiting for keys.
pub type OnWait = Arc<dyn Fn(&KeyWait) + Send + Sync>;

impl fmt::Display for KeyWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (peer, needed, available) = (&self.peer, self.needed, self.available);
        write!(f, "waiting for keys of the link to {peer}: {available} of {needed} are there")?;
        match self.wait {
            Some(wait) => write!(f, "; the rest in {:.0} s", wait.as_secs_f64().ceil()),
            None => write!(f, "; no more arrive by themselves"),
        }
    }
}

/// How connections behave.
#[derive(Clone)]
pub struct Settings {
    /// How payload is protected.
    pub cipher: Cipher,
    /// Whether a caller may ask for AES-256-GCM where this site's own cipher is another.
    pub permit_aes: bool,
    /// How long to wait for keys in total, each time they run out.
    pub key_wait: Duration,
    /// How long connecting, writing without progress, and reading the rest of a frame may take.
    pub deadline: Duration,
    /// How long the peer may be silent between frames.
    pub idle: Duration,
    /// Called about once a second while waiting for keys.
    pub on_wait: Option<OnWait>,
    /// What both ends must agree on.
    pub limits: Limits,
    /// What the connection is for.
    pub priority: Priority,
    /// How much key is kept for which priority.
    pub floors: Floors,
    /// Received payloads of full size for which memory is kept.
    pub chunks: usize,
}

impl Settings {
    /// Whether a peer may use `cipher` towards this site. Nothing is ever chosen for it: a peer asks
    /// for what it was told to, and is refused what this site was not told to permit.
    pub fn permits(&self, cipher: Cipher) -> bool {
        match cipher {
            Cipher::Otp => self.cipher != Cipher::Plain,
            Cipher::Aes256Gcm => {
                self.cipher == cipher || self.permit_aes && self.cipher != Cipher::Plain
            }
            Cipher::Plain => self.cipher == cipher,
        }
    }

    /// The same, for a connection to a peer that asks for `cipher`, where that is permitted.
    pub(crate) fn under(&self, cipher: Cipher) -> Self {
        let cipher = if self.permits(cipher) { cipher } else { self.cipher };
        Self { cipher, ..self.clone() }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cipher: Cipher::Otp,
            permit_aes: false,
            key_wait: Duration::from_secs(600),
            deadline: Duration::from_secs(60),
            idle: Duration::from_secs(3600),
            on_wait: None,
            limits: Limits::default(),
            priority: Priority::default(),
            floors: Floors::default(),
            chunks: 4,
        }
    }
}
