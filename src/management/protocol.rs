//! What agents and the server say to each other, inside sessions that are encrypted and authenticated
//! by one-time pad. Only the ciphertext of a relay goes outside of them.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::base::fault::with_causes;
use crate::base::{BitRate, ByteCount, Faulty, SiteId};
use crate::key::pool::BlockId;
use crate::key::{Class, KeyRange, Source, UNIT_BYTES};

/// Bytes of a hash value, a hash key, and a mask.
pub const HASH_BYTES: usize = UNIT_BYTES as usize;

/// Key that each link gives beyond what is relayed over it: hash key and mask of the tag.
pub const TAG_KEY_BYTES: usize = 2 * HASH_BYTES;

/// Key that is relayed beyond what is delivered: the mask of the ends' comparison.
pub const MASK_BYTES: usize = HASH_BYTES;

/// Most bytes that one relay delivers, both directions together.
pub const DELIVERY_BYTES_MAX: u64 = 1 << 20;

/// Kinds of messages.
pub(crate) mod kind {
    /// A request.
    pub const REQUEST: u16 = 40;
    /// Its answer.
    pub const REPLY: u16 = 41;
    /// Fresh key at both ends, no payload: to hash a block with.
    pub const MASK: u16 = 42;
    /// Ciphertext of a relay, in a plain frame: transaction, tag, ciphertext.
    pub const FORWARD: u16 = 43;
}

/// One relay along one path.
pub type Transaction = BlockId;

/// A hash value or key.
pub type Hash = [u8; HASH_BYTES];

/// What is asked of an agent.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// By a neighbour: whether the block that both got from their modules is the same. A mask of 32
    /// bytes came before.
    Agree {
        /// The block.
        block: BlockId,
        /// Where the neighbour has put it.
        position: u64,
        /// Its length.
        units: u64,
        /// Its hash under the first half of the mask, and masked by the second.
        check: Hash,
    },
    /// By a neighbour: to take key out of the link for a relay.
    Reserve {
        /// Which relay.
        transaction: Transaction,
        /// The key.
        range: KeyRange,
        /// What the neighbour reserved it in.
        reservation: KeyRange,
    },
    /// By a neighbour: to move key from the link to the keys of the agents' own sessions.
    Replenish {
        /// The block it becomes.
        block: BlockId,
        /// Where the neighbour has put it there.
        position: u64,
        /// The key.
        range: KeyRange,
        /// What the neighbour reserved it in.
        reservation: KeyRange,
    },
    /// By a neighbour that had no answer for a while: nothing but an answer.
    Greet,
    /// By the server: what is there.
    Report,
    /// By the server: to reserve `bytes` of the link to `next` at both its ends.
    Prepare {
        /// Which relay.
        transaction: Transaction,
        /// The next node of the path.
        next: SiteId,
        /// What is relayed.
        bytes: u64,
    },
    /// By the server to the first node: to make a key and send it on its way.
    Commit {
        /// Which relay.
        transaction: Transaction,
        /// Whether the next node is the last: then the key of the link itself is the key.
        direct: bool,
    },
    /// By the server to the ends: to put the parts together.
    Fold(Box<Fold>),
    /// By the server to the ends: the other one has the same. Says where the other one has put the
    /// block that it will send with.
    Finish {
        /// The blocks.
        delivery: Box<Delivery>,
        /// Position of the block from the second end to the first.
        back_position: Option<u64>,
    },
    /// By the server: to forget relays and what was delivered by them.
    Release {
        /// Which relays.
        transactions: Vec<Transaction>,
        /// The blocks, if they were made.
        delivery: Option<Box<Delivery>>,
    },
}

/// Key for two sites.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Delivery {
    /// The site at the first node.
    pub from: SiteId,
    /// The site at the last node.
    pub to: SiteId,
    /// The block that `from` sends with.
    pub forward: BlockId,
    /// Its bytes; none, if 0.
    pub forward_bytes: u64,
    /// The block that `to` sends with.
    pub back: BlockId,
    /// Its bytes; none, if 0.
    pub back_bytes: u64,
    /// What made it.
    pub source: Source,
    /// The weakest of what made it.
    pub class: Class,
    /// The relays of every path.
    pub paths: Vec<Vec<SiteId>>,
}

impl Delivery {
    /// What is delivered.
    pub fn bytes(&self) -> u64 {
        self.forward_bytes.saturating_add(self.back_bytes)
    }

    /// What is relayed over each path: the blocks, and the mask of the comparison.
    pub fn relayed_bytes(&self) -> u64 {
        self.bytes().saturating_add(MASK_BYTES as u64)
    }
}

/// How an end puts its key together.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fold {
    /// What it becomes.
    pub delivery: Delivery,
    /// The relays whose keys are its parts.
    pub transactions: Vec<Transaction>,
    /// The hash key of the comparison, drawn after everything has arrived.
    pub hash_key: Hash,
    /// What the first end found, to the second.
    pub first: Option<Folded>,
}

/// What an end found.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Folded {
    /// The masked hash.
    pub check: Hash,
    /// Where it has put the block that it sends with.
    pub position: Option<u64>,
}

/// What an agent answers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Done.
    Done,
    /// Whether a block is the same here.
    Agreed(bool),
    /// There is no such block here.
    Unknown,
    /// What is there.
    Report(Box<Report>),
    /// The key is put together.
    Folded(Folded),
    /// The key is not what the other end has.
    Differs,
    /// It failed.
    Failed {
        /// Why.
        message: String,
        /// The exit code that stands for it.
        code: u8,
    },
}

impl Reply {
    pub(crate) fn failed(error: &Error) -> Self {
        Reply::Failed { message: with_causes(error), code: error.fault().exit_code() }
    }

    /// The answer, or the peer's error.
    pub(crate) fn checked(self, peer: &SiteId) -> Result<Self, Error> {
        match self {
            Reply::Failed { message, code } => {
                Err(Error::Peer { peer: peer.clone(), message, code })
            }
            reply => Ok(reply),
        }
    }
}

/// What an agent has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// The site it supplies.
    pub site: SiteId,
    /// How strong the random numbers are that it makes keys of.
    pub random: Class,
    /// Its links.
    pub links: Vec<LinkReport>,
}

/// One end of a link.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkReport {
    /// The neighbour.
    pub peer: SiteId,
    /// What this node can still spend.
    pub outgoing: ByteCount,
    /// What the neighbour can still spend, as far as this node has heard.
    pub incoming: ByteCount,
    /// What arrives in each direction.
    pub rate: BitRate,
    /// Not yet agreed on, both directions.
    pub pending: ByteCount,
    /// Given up, both directions.
    pub lost: ByteCount,
    /// Key of the agents' own sessions, to this neighbour.
    pub control: ByteCount,
    /// Whether the neighbour answered last time.
    pub up: bool,
    /// What makes the keys.
    pub source: Source,
    /// How strong they are.
    pub class: Class,
}
