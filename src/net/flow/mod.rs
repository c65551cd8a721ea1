//! Flows: packets beside a session, for what is too fast or too late for a single ordered channel.
//!
//! A flow is agreed over a [`Connection`], whose two ends have proved themselves. From then on the
//! connection carries control only: the sender takes blocks of key and announces each as a GRANT, with
//! the reservation that it is from; the receiver claims it durably and acknowledges; only then is it
//! used. This goes on ahead of the data ([`grant`]), on a thread of its own at either end, so that the
//! data path does not wait for disks. Keys that a source works out are worked out while they are applied. The data are [`packet`]s over UDP
//! ([`datagrams`]) or over one or several TCP connections ([`records`]).
//!
//! At the end the sender says how many packets it sent, and the receiver how many came. A flow over
//! UDP repeats nothing.
//!
//! [`packet`]: crate::otp::packet
//! [`Connection`]: super::Connection

pub mod datagrams;
pub mod duplex;
pub mod grant;
pub mod open;
pub mod records;

use serde::{Deserialize, Serialize};

use crate::otp::packet::{Refusals, Shape};
use crate::otp::{Cipher, Traffic};

pub use datagrams::{DatagramReceiver, DatagramSender, Destination, Queued};
pub use grant::{Claimer, Gone, Granter};
pub use open::{Accepted, Offer, accept, offered, refuse, request};
pub use records::{RecordReceiver, RecordSender};

/// What carries packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// One or several TCP connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What came of a flow, as its two ends counted it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Tally {
    /// Packets and payload that were sent, with the key they took.
    pub sent: Count,
    /// Packets and payload that were delivered.
    pub delivered: Count,
    /// Came out of order, but were delivered.
    pub reordered: u64,
    /// Came with a wrong tag, a second time, too late or misshapen, and were dropped.
    pub refused: u64,
}

/// A number of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their payload.
    pub payload_bytes: u64,
    /// The key they took.
    pub key_bytes: u64,
}

impl From<Traffic> for Count {
    fn from(traffic: Traffic) -> Self {
        let Traffic { frames, payload_bytes, key_bytes } = traffic;
        Self { packets: frames, payload_bytes, key_bytes }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.payload_bytes += other.payload_bytes;
        self.key_bytes += other.key_bytes;
    }
}

impl Tally {
    /// Adds what a receiving end counted.
    pub fn add_delivered(&mut self, traffic: Traffic, refusals: Refusals) {
        self.delivered += traffic.into();
        self.reordered += refusals.reordered;
        self.refused += refusals.malformed + refusals.no_key + refusals.repeated + refusals.tag;
    }

    /// Share of the packets that did not arrive.
    pub fn loss(&self) -> f64 {
        let lost = self.sent.packets.saturating_sub(self.delivered.packets);
        if self.sent.packets == 0 { 0.0 } else { lost as f64 / self.sent.packets as f64 }
    }
}

/// How far back a receiver keeps key for late packets: 64 MiB of pad, or so many packets.
pub const WINDOW: u64 = (64 << 20) / crate::key::UNIT_BYTES;

/// Whether packets of this shape need blocks of key.
fn needs_key(shape: &Shape) -> bool {
    shape.cipher != Cipher::Plain
}
