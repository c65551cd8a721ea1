//! What was delivered, to whom, from which inputs, by which version.

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::filter::FilterReport;
use super::right::Permit;
use crate::base::{JobId, SiteId};

/// The receipt of one delivery. It names no position of any record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Receipt {
    /// The delivery.
    pub job: JobId,
    /// What the owner calls the data set.
    pub data_set: String,
    /// Identifier of the right.
    pub right: String,
    /// Digest of what the right permits, as in the header of what was delivered.
    pub right_digest: String,
    /// What for.
    pub purpose: String,
    /// Who has the records now.
    pub user: SiteId,
    /// Records delivered.
    pub kept: u64,
    /// Records held back.
    pub removed: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// BLAKE3 of what was delivered, in hexadecimal digits.
    pub digest: String,
    /// What it was made from.
    pub inputs: Vec<InputDigest>,
    /// Programs and their versions.
    pub versions: Vec<Version>,
    /// Keys used.
    pub keys: Vec<KeyUse>,
    /// When it was delivered.
    pub delivered: Timestamp,
}

/// One input and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InputDigest {
    /// What it is, such as `calls` or `reference`.
    pub name: String,
    /// Its digest, with the name of the hash.
    pub digest: String,
}

/// A program and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Version {
    /// The program.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Key bytes used on one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct KeyUse {
    /// The link.
    pub link: String,
    /// Bytes.
    pub bytes: u64,
    /// Where the key came from, as the key layer says it.
    pub provenance: String,
}

impl Receipt {
    /// A receipt for what the filter let leave; inputs, versions and keys are added by the caller.
    pub fn new(
        job: JobId,
        data_set: impl Into<String>,
        permit: &Permit,
        report: &FilterReport,
        delivered: Timestamp,
    ) -> Self {
        Self {
            job,
            data_set: data_set.into(),
            right: permit.right.clone(),
            right_digest: permit.digest(),
            purpose: permit.purpose.clone(),
            user: permit.user.clone(),
            kept: report.kept,
            removed: report.removed,
            bytes: report.compressed_bytes_out,
            digest: report.digest.clone(),
            inputs: Vec::new(),
            versions: vec![Version {
                name: env!("CARGO_PKG_NAME").into(),
                version: env!("CARGO_PKG_VERSION").into(),
            }],
            keys: Vec::new(),
            delivered,
        }
    }

    /// The receipt as indented JSON with a line end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a receipt is plain data");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disclosure::Right;

    #[test]
    fn it_says_what_the_filter_did_and_reads_back() {
        let permit = Right::everything(Some(3)).resolve().unwrap();
        let report = FilterReport { kept: 3, removed: 4, ..FilterReport::default() };
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        let mut receipt = Receipt::new("j1".parse().unwrap(), "HG002", &permit, &report, now);
        let (link, provenance) = ("owner-hospital".into(), "qkd".into());
        receipt.keys.push(KeyUse { link, bytes: 57, provenance });
        let json = receipt.to_json();
        assert!(json.contains("\"delivered\": \"2026-11-20T10:00:00Z\"") && json.ends_with("}\n"));
        assert_eq!(serde_json::from_str::<Receipt>(&json).unwrap(), receipt);
        assert_eq!((receipt.kept, receipt.right_digest), (3, permit.digest()));
    }
}
