//! What sites ask of each other.

use serde::{Deserialize, Serialize};

use super::settings::Permission;
use crate::base::{SampleName, SiteId};
use crate::flow::StageReport;
use crate::pipeline::analyse::AnalyseReport;
use crate::pipeline::deliver::{DeliverReport, Delivery};
use crate::store::remote;

/// A request to a site.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Request {
    /// Of a share holder.
    Store(remote::Request),
    /// Of a trusted server: restore a deposit, call its variants, keep them as a deposit.
    Analyse(AnalyseRequest),
    /// Of a trusted server: filter a run's calls and deliver them.
    Deliver(DeliverRequest),
    /// Of an end user: take what follows.
    Receive(Delivery),
}

/// What is to be analysed, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct AnalyseRequest {
    /// The deposit of reads.
    pub sample: SampleName,
    /// What to call the deposit of calls.
    pub run: SampleName,
    /// Name of the reference.
    pub reference: String,
    /// Engine, if not the trusted server's own choice.
    pub engine: Option<String>,
    /// Copies of each contig.
    pub ploidy: u8,
}

/// What is to be delivered, and to whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeliverRequest {
    /// The deposit of calls.
    pub run: SampleName,
    /// Identifier of the right.
    pub right: String,
    /// The end user's site.
    pub user: SiteId,
}

/// What a trusted server or user answers; messages of the same kinds as the store's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Work goes on: what was done so far. Sent often enough that silence means a dead peer.
    Progress(Vec<StageReport>),
    /// An analysis is done.
    Analysed(Box<AnalyseReport>),
    /// A delivery is done.
    Delivered(Box<DeliverReport>),
    /// Taken; the digest of what arrived.
    Received(String),
    /// It failed.
    Failed(remote::Failure),
}

impl Request {
    /// What the peer must be permitted for this.
    pub fn permission(&self) -> Permission {
        match self {
            Request::Store(_) => Permission::Store,
            Request::Analyse(_) | Request::Deliver(_) => Permission::Analyse,
            Request::Receive(_) => Permission::Deliver,
        }
    }
}
