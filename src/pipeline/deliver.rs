//! What is delivered to an end user, and the record of it.

use serde::{Deserialize, Serialize};

use super::LinkUse;
use crate::base::JobId;
use crate::control::Deposit;
use crate::disclosure::{FilterReport, Right};

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
    /// When it was made, RFC 3339.
    pub time: String,
}

/// What was delivered, to whom, from what: kept by the trusted server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Receipt {
    /// What the end user was sent.
    pub delivery: Delivery,
    /// The end user.
    pub user: String,
    /// The deposit of calls.
    pub run: String,
    /// Engine and reference that made the calls.
    pub engine: String,
    /// Digest of the reference.
    pub reference: String,
    /// Records that the right does not permit.
    pub removed: u64,
    /// Where the random numbers of sharing came from, and what that means.
    pub random: String,
    /// Key bytes on each link, and where the keys came from.
    pub keys: Vec<LinkUse>,
    /// Version of this program.
    pub version: String,
}

/// What came of a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeliverReport {
    /// The record that is kept.
    pub receipt: Receipt,
    /// What filtering did.
    pub filter: FilterReport,
    /// Seconds of restoring and filtering.
    pub filter_seconds: f64,
    /// Seconds of the transfer to the user.
    pub transfer_seconds: f64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What the operator should know.
    pub notices: Vec<String>,
}

impl Delivery {
    /// Describes a filtered file.
    pub fn new(job: JobId, right: &Right, filtered: &FilterReport, vcf: &[u8], time: String) -> Self {
        Self {
            job,
            right: right.id.clone(),
            right_digest: right.digest(),
            bytes: vcf.len() as u64,
            digest: blake3::hash(vcf).to_hex().to_string(),
            records: filtered.kept,
            time,
        }
    }

    /// The record that the trusted server keeps of it.
    pub fn receipt(
        &self,
        right: &Right,
        run: &Deposit,
        filtered: &FilterReport,
        keys: Vec<LinkUse>,
    ) -> Receipt {
        let origin = run.origin.as_ref();
        Receipt {
            delivery: self.clone(),
            user: right.user.to_string(),
            run: run.name.to_string(),
            engine: origin.map_or_else(String::new, |origin| origin.engine.clone()),
            reference: origin.map_or_else(String::new, |origin| origin.reference.clone()),
            removed: filtered.removed,
            random: run.random.clone(),
            keys,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}
