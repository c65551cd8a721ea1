//! Transport by one-time pad: frames, the mutual handshake, the session. No socket, clock or thread.
//!
//! Every frame is encrypted with key as long as itself and carries a tag of Wegman and Carter, so
//! secrecy and authenticity hold against any computing power. [`crate::net`] gives a session a
//! socket, [`crate::key`] gives it keys; in tests it gets neither.
//!
//! A connection is: a clear [`hello::Hello`] each way, an opening each way ([`handshake`]), then frames
//! ([`frame`]) in either direction until an END frame, the first of them a PROOF over all that. Among
//! the frames are control frames, by which each end asks the other to countersign the keys that it
//! will use ([`session`]). Any failure closes the session for good. Beside a session, flows of
//! [`packet`]s may run, which stand alone and may be lost.

pub mod cipher;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod hello;
pub mod keys;
pub mod memory;
mod open;
pub mod opening;
pub mod packet;
mod rotation;
mod seal;
pub mod session;

pub use cipher::{Cipher, Security};
pub use error::{Error, Refusal};
pub use frame::{HEADER_BYTES, Header, PAYLOAD_BYTES_MAX, TAG_BYTES};
pub use handshake::Handshake;
pub use hello::{HELLO_BYTES, Hello};
pub use keys::{Follow, Spend};
pub use session::{ControlFrame, Envelope, Limits, Received, Session, Statistics, Traffic};

#[cfg(test)]
mod explore_tests;
#[cfg(test)]
mod tests;
