//! Packets: frames that stand alone, in any order, over anything that carries bytes.
//!
//! ```text
//! offset  bytes  integers little-endian
//!      0      1  form: 0x11 headers in clear, 0x12 headers hidden
//!      1      1  zero
//!      2      6  position: of the packet's key, in units of 16 bytes; else the packet's number
//!      8      1  kind: 1 DATA, 2 COVER
//!      9      1  zero
//!     10      2  channel
//!     12      2  payload length n in bytes
//!     14      2  flow
//!     16      8  offset of the payload in its channel, or its number
//!     24      n  payload; with hidden headers, zeros up to the unit
//!  24 + n     16  tag; absent from plain packets
//! ```
//!
//! With clear headers the bytes from 24 on are encrypted and the length tells itself. With hidden ones
//! those from 8 on are, and all packets of a flow are of one size: an observer sees the position and
//! the pace, not who talks to whom inside, nor how much; COVER packets hide the pace, too.
//!
//! Both ends have set aside blocks of key ([`crate::key`]) before. One-time pad: the first unit of a
//! block is the hash key of its packets; a packet's key is, from its position on,
//! `[16 tag pad][16 header pad, if hidden][payload, rounded up to 16]`, and its tag is
//! `POLYVAL_r(clear bytes . encrypted bytes . bit counts of both) ^ tag pad`, each part filled with
//! zeros to whole blocks. AES-256-GCM: the block is one key, the position a counter and the nonce, the
//! clear bytes are associated data.
//!
//! A packet's key is wiped on use at either end, so a repetition finds no key; a packet that fails
//! consumes none. Nothing is sent again: what is lost is lost.

mod block;
mod open;
mod seal;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::Cipher;
use super::frame::TAG_BYTES;
use crate::key::UNIT_BYTES;

pub use block::{Grant, PACKETS_PER_KEY};
pub use open::{Dropped, PacketOpener, Refusals};
pub use seal::PacketSealer;

/// Bytes before the payload.
pub const HEAD_BYTES: usize = 24;
/// Bytes of these that are never hidden.
const OPEN_BYTES: usize = 8;
/// Largest unit: the length field counts to it.
pub const UNIT_BYTES_MAX: usize = 65_520;
/// One past the highest position.
pub const POSITION_MAX: u64 = 1 << 48;

/// Whether a packet's inner headers and length can be seen on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Headers {
    /// They can: the paper's "header encryption: no".
    Clear,
    /// They cannot: "yes".
    Hidden,
}

impl Headers {
    fn form(self) -> u8 {
        match self {
            Headers::Clear => 0x11,
            Headers::Hidden => 0x12,
        }
    }

    /// Bytes of the head that can be read on the way.
    fn clear_bytes(self) -> usize {
        match self {
            Headers::Clear => HEAD_BYTES,
            Headers::Hidden => OPEN_BYTES,
        }
    }
}

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Payload.
    Data,
    /// Nothing: it is sent so that something is.
    Cover,
}

/// What a packet says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is for.
    pub kind: Kind,
    /// Whose payload it is, in the application's terms.
    pub channel: u16,
    /// Bytes of payload.
    pub payload_bytes: u16,
    /// Where the payload belongs, in the application's terms.
    pub offset: u64,
}

/// The form of all packets of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shape {
    /// Whether headers are hidden.
    pub headers: Headers,
    /// What protects payload.
    pub cipher: Cipher,
    /// Most bytes of payload, a multiple of 16; with hidden headers, the size that all have.
    pub unit_bytes: u16,
    /// A number that both ends gave the flow.
    pub flow: u16,
}

impl Shape {
    /// The shape whose packets have at most `mtu` bytes.
    ///
    /// `None` when there is no room for a unit of payload.
    pub fn within(mtu: usize, headers: Headers, cipher: Cipher, flow: u16) -> Option<Self> {
        let tag = if cipher == Cipher::Plain { 0 } else { TAG_BYTES };
        let room = mtu.checked_sub(HEAD_BYTES + tag)?.min(UNIT_BYTES_MAX);
        let unit_bytes = (room - room % UNIT_BYTES as usize) as u16;
        (unit_bytes > 0).then_some(Self { headers, cipher, unit_bytes, flow })
    }

    /// Whether a shape that came from outside can be used.
    pub fn is_sound(&self) -> bool {
        self.unit_bytes > 0 && u64::from(self.unit_bytes).is_multiple_of(UNIT_BYTES)
    }

    /// Bytes of a tag.
    pub fn tag_bytes(&self) -> usize {
        if self.cipher == Cipher::Plain { 0 } else { TAG_BYTES }
    }

    /// Bytes of a packet with `payload_bytes` of payload.
    pub fn packet_bytes(&self, payload_bytes: usize) -> usize {
        HEAD_BYTES + self.body_bytes(payload_bytes) + self.tag_bytes()
    }

    /// Bytes of the largest packet.
    pub fn packet_bytes_max(&self) -> usize {
        self.packet_bytes(self.unit_bytes.into())
    }

    /// Bytes between head and tag.
    fn body_bytes(&self, payload_bytes: usize) -> usize {
        match self.headers {
            Headers::Clear => payload_bytes,
            Headers::Hidden => self.unit_bytes.into(),
        }
    }

    /// Units of one-time pad that a packet with `payload_bytes` uses.
    pub fn key_units(&self, payload_bytes: usize) -> u64 {
        let hidden = (HEAD_BYTES - self.headers.clear_bytes()) as u64;
        1 + (hidden + self.body_bytes(payload_bytes) as u64).div_ceil(UNIT_BYTES)
    }

    fn encode(&self, head: &Head, position: u64) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0] = self.headers.form();
        bytes[2..8].copy_from_slice(&position.to_le_bytes()[..6]);
        bytes[8] = match head.kind {
            Kind::Data => 1,
            Kind::Cover => 2,
        };
        bytes[10..12].copy_from_slice(&head.channel.to_le_bytes());
        bytes[12..14].copy_from_slice(&head.payload_bytes.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.flow.to_le_bytes());
        bytes[16..].copy_from_slice(&head.offset.to_le_bytes());
        bytes
    }

    /// The position of a packet, from the part that is never hidden; `None` when it is not of this
    /// shape.
    pub fn position(&self, packet: &[u8]) -> Option<u64> {
        let open: &[u8; OPEN_BYTES] = packet.first_chunk()?;
        let fits = packet.len() >= self.packet_bytes(0) && packet.len() <= self.packet_bytes_max();
        if !fits || open[0] != self.headers.form() || open[1] != 0 {
            return None;
        }
        Some(u64::from_le_bytes(*open) >> 16)
    }

    /// Reads the head of a packet whose bytes are no longer hidden.
    fn decode(&self, packet: &[u8]) -> Option<Head> {
        let bytes: &[u8; HEAD_BYTES] = packet.first_chunk()?;
        let kind = match bytes[8] {
            1 => Kind::Data,
            2 => Kind::Cover,
            _ => return None,
        };
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let offset = bytes[16..].try_into().map(u64::from_le_bytes).ok()?;
        let head = Head { kind, channel: short(10), payload_bytes: short(12), offset };
        let fits = head.payload_bytes <= self.unit_bytes
            && packet.len() == self.packet_bytes(head.payload_bytes.into());
        (fits && bytes[9] == 0 && short(14) == self.flow).then_some(head)
    }

    /// Bytes of the record that `packet` begins, for carriers that keep no boundaries; `None` when no
    /// packet of this shape begins so.
    pub fn record_bytes(&self, packet: &[u8; HEAD_BYTES]) -> Option<usize> {
        if packet[0] != self.headers.form() {
            return None;
        }
        match self.headers {
            Headers::Hidden => Some(self.packet_bytes_max()),
            Headers::Clear => {
                let payload = u16::from_le_bytes([packet[12], packet[13]]);
                (payload <= self.unit_bytes).then(|| self.packet_bytes(payload.into()))
            }
        }
    }
}
