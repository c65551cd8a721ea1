//! Table 3 of the paper: throughput of TCP and UDP, by one-time pad and plain, with and without header
//! encryption. This module knows the table; [`ends`] are the two processes, [`paths`] what lies between.

pub mod ends;
pub mod paths;
mod report;

use serde::{Deserialize, Serialize};

use crate::net::flow::{Carrier, Tally};
use crate::otp::Cipher;
use crate::otp::packet::{Headers, Shape};

pub use report::{Bar, Mean, Report, describe};

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cell {
    /// TCP or UDP.
    pub carrier: Carrier,
    /// What protects payload. "Plain, headers hidden" is the tunnel's form without encryption.
    pub cipher: Cipher,
    /// Header encryption: no or yes.
    pub headers: Headers,
}

/// The largest datagram with headers in clear, as in the paper.
pub const MTU_CLEAR: usize = 1470;
/// The largest datagram with hidden headers.
pub const MTU_HIDDEN: usize = 1454;

impl Cell {
    /// The cells in the order of one run: plain and protected by turns, so that their ratio is not
    /// that of two minutes of a machine.
    pub fn in_order(ciphers: &[Cipher]) -> Vec<Cell> {
        let mut cells = Vec::new();
        for carrier in [Carrier::Tcp, Carrier::Udp] {
            for headers in [Headers::Clear, Headers::Hidden] {
                cells.extend(ciphers.iter().map(|cipher| Cell {
                    carrier,
                    cipher: *cipher,
                    headers,
                }));
            }
        }
        cells
    }

    /// The form of its packets.
    pub fn shape(&self) -> Shape {
        let mtu = match (self.carrier, self.headers) {
            (Carrier::Tcp, _) => usize::MAX,
            (Carrier::Udp, Headers::Clear) => MTU_CLEAR,
            (Carrier::Udp, Headers::Hidden) => MTU_HIDDEN,
        };
        Shape::within(mtu, self.headers, self.cipher, 3).expect("there is room in these")
    }

    /// What the paper has, in Gbit/s, as the mean of five trials.
    pub fn paper(&self) -> Option<f64> {
        let row = match (self.carrier, self.cipher) {
            (Carrier::Tcp, Cipher::Otp) => [2.89, 1.61],
            (Carrier::Tcp, Cipher::Plain) => [2.71, 2.83],
            (Carrier::Udp, Cipher::Otp) => [3.35, 3.26],
            (Carrier::Udp, Cipher::Plain) => [3.46, 3.39],
            _ => return None,
        };
        Some(row[usize::from(self.headers == Headers::Hidden)])
    }
}

/// One run of one cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Run {
    /// The cell.
    #[serde(flatten)]
    pub cell: Cell,
    /// What the cell's security rests on.
    pub security: crate::otp::Security,
    /// Which path lay between.
    pub path: String,
    /// Which repetition, from 1.
    pub run: u32,
    /// Seconds from the first packet to the last, at the receiver.
    pub seconds: f64,
    /// Payload delivered a second, as the receiver counted it.
    pub gbit_per_second: f64,
    /// As both ends counted.
    pub tally: Tally,
    /// Key bytes that the sender used for a byte of payload.
    pub key_bytes_per_payload_byte: f64,
    /// CPU seconds of the sender and of the receiver.
    pub cpu_seconds: [f64; 2],
}

impl Run {
    /// Puts together what the two ends found.
    pub fn new(
        cell: Cell,
        path: &str,
        run: u32,
        (sender, receiver): (ends::Found, ends::Found),
    ) -> Self {
        // The sender's has both ends' counts.
        let tally = sender.tally;
        let bits = tally.delivered.payload_bytes as f64 * 8.0;
        let sent = tally.sent.payload_bytes.max(1) as f64;
        Self {
            cell,
            security: cell.cipher.security(),
            path: path.into(),
            run,
            seconds: receiver.seconds,
            gbit_per_second: if receiver.seconds > 0.0 {
                bits / receiver.seconds * 1e-9
            } else {
                0.0
            },
            tally,
            key_bytes_per_payload_byte: tally.sent.key_bytes as f64 / sent,
            cpu_seconds: [sender.cpu_seconds, receiver.cpu_seconds],
        }
    }
}
