//! How a flow is agreed on: an offer over a proven connection, and the answer.

use serde::{Deserialize, Serialize};

use super::Carrier;
use super::grant::{decode_json, encode_json, expect, unexpected};
use crate::net::{Connection, Error};
use crate::otp::packet::Shape;

/// Message kinds of the agreement.
pub mod kind {
    /// An offer.
    pub const OFFER: u16 = 0x4401;
    /// The answer.
    pub const ANSWER: u16 = 0x4402;
}

/// What a caller wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Offer {
    /// What for, in the application's terms.
    pub purpose: String,
    /// What carries the packets.
    pub carrier: Carrier,
    /// Their form.
    pub shape: Shape,
    /// How many TCP connections.
    #[serde(default)]
    pub streams: u16,
    /// The flow that this connection is the other direction of, as [`Accepted::token`] named it.
    #[serde(default)]
    pub token: Option<u64>,
}

/// What the called site says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Accepted {
    /// The port that it receives packets at, on the address that was called.
    pub port: u16,
    /// A number that names the flow.
    pub token: u64,
    /// Bytes that the kernel holds there for a receiver that is busy, its bookkeeping included.
    pub buffer_bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Accepted(Accepted),
    Refused(String),
}

/// Asks for a flow.
///
/// Errors: [`Error::Declined`] with the peer's reason.
pub fn request(connection: &mut Connection, offer: &Offer) -> Result<Accepted, Error> {
    connection.send(kind::OFFER, &encode_json(offer))?;
    let answer = expect(connection, kind::ANSWER)?;
    match decode_json(connection, &answer)? {
        Answer::Accepted(accepted) => Ok(accepted),
        Answer::Refused(reason) => {
            Err(Error::Declined { address: connection.address().into(), reason })
        }
    }
}

/// What the caller wants.
///
/// Errors: [`Error::Unexpected`] when it is not an offer, or one of a shape that cannot be.
pub fn offered(connection: &mut Connection) -> Result<Offer, Error> {
    let message = expect(connection, kind::OFFER)?;
    let offer: Offer = decode_json(connection, &message)?;
    if !offer.shape.is_sound() { Err(unexpected(connection)) } else { Ok(offer) }
}

/// Says yes.
pub fn accept(connection: &mut Connection, accepted: Accepted) -> Result<(), Error> {
    connection.send(kind::ANSWER, &encode_json(&Answer::Accepted(accepted)))
}

/// Says no, and why.
pub fn refuse(connection: &mut Connection, reason: &str) -> Result<(), Error> {
    connection.send(kind::ANSWER, &encode_json(&Answer::Refused(reason.into())))
}
