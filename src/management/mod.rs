//! The key management layer: between the links that make keys and the sites that use them.
//!
//! Its parts have the names of ITU-T Y.3802 and Y.3803, as in Fujiwara et al. 2022, "Quantum secure
//! cloud system":
//!
//! | part | where | what it does |
//! |---|---|---|
//! | KMA, key management agent | [`Agent`], one a node | owns the pools of the node's links, agrees on blocks with its neighbours, relays |
//! | KSA, key supply agent | `supply`, in the agent | puts key into the pool of the site that the node supplies; the network keeps nothing of it |
//! | KMS, key management server | [`Server`], one a network | gathers what every link has, plans the way, orders the relay |
//! | quantum layer, simulated | [`qkd`] | pushes blocks up to the agents at both ends of a link |
//!
//! Agents talk to each other and to the server over sessions of [`crate::otp`] with keys of their own
//! (`[[key]]` in a node's settings), so that control is never short because data is. The data keys of
//! each link are in a pool ([`crate::key::pool`]) that only the agent opens.

mod agent;
mod agreement;
mod caller;
pub mod console;
mod daemon;
mod error;
pub mod plan;
pub mod protocol;
pub mod qkd;
pub mod relay;
mod server;
pub mod settings;
mod supply;
pub mod topology;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use agent::{Agent, Opening};
pub use error::Error;
pub use server::{Level, Order, Server, Supplied};
pub use settings::Settings;
pub use topology::Topology;

/// What is told to the operator.
pub type OnNotice = Arc<dyn Fn(String) + Send + Sync>;

/// Where an agent keeps what it manages, in the state folder of its node.
pub fn links_state(state: &std::path::Path) -> std::path::PathBuf {
    state.join("links")
}
