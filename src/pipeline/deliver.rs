//! What is delivered to an end user, and the record of it.

use serde::{Deserialize, Serialize};

use super::LinkUse;
use crate::base::JobId;
use crate::control::Deposit;
use crate::disclosure::receipt::{InputDigest, KeyUse, Version};
use crate::disclosure::{FilterReport, Receipt, Timestamp};

/// What goes to the end user ahead of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Delivery {
    /// Names the delivery.
    pub job: JobId,
    /// The right it was made under.
    pub right: String,
    /// Digest of the right.
    pub right_digest: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 digest of the file.
    pub digest: String,
    /// Records in it.
    pub records: u64,
    /// When it was made.
    pub delivered: Timestamp,
}

/// What came of a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeliverReport {
    /// The record that is kept.
    pub receipt: Receipt,
    /// What filtering did.
    pub filter: FilterReport,
    /// Seconds of the transfer to the user.
    pub transfer_seconds: f64,
    /// What the links carried.
    pub links: Vec<LinkUse>,
    /// What the operator should know.
    pub notices: Vec<String>,
}

impl Delivery {
    /// What the end user is told of a delivery: of the receipt, what concerns the user.
    pub fn of(receipt: &Receipt) -> Self {
        Self {
            job: receipt.job.clone(),
            right: receipt.right.clone(),
            right_digest: receipt.right_digest.clone(),
            bytes: receipt.bytes,
            digest: receipt.digest.clone(),
            records: receipt.kept,
            delivered: receipt.delivered,
        }
    }
}

/// Adds to a receipt where the calls came from.
pub fn add_origin(receipt: &mut Receipt, run: &Deposit) {
    let Some(origin) = &run.origin else { return };
    let input = |name: &str, digest: &str| InputDigest { name: name.into(), digest: digest.into() };
    receipt.inputs.push(input("reference", &origin.reference));
    let (name, version) = origin.engine.split_once(' ').unwrap_or((&origin.engine, ""));
    receipt.versions.push(Version { name: format!("engine {name}"), version: version.into() });
}

/// Adds to a receipt what the links carried, and where its random numbers came from.
pub fn add_keys(receipt: &mut Receipt, run: &Deposit, links: &[LinkUse]) {
    receipt.keys.extend(links.iter().map(|link| KeyUse {
        link: link.peer.clone(),
        bytes: link.key_bytes,
        provenance: link.keys.clone(),
    }));
    let link = "random numbers of the shares".to_owned();
    receipt.keys.push(KeyUse { link, bytes: 0, provenance: run.random.clone() });
}
