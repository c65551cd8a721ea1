//! ETSI GS QKD 014 V1.1.1: keys for applications that others wrote, out of key managers that others
//! wrote.
//!
//! A key manager (KME) supplies the applications (SAE) of its site over HTTPS with certificates at both
//! ends. An application, the master, asks for keys that it will share with slaves ([`kme`]); its key
//! manager makes key of the link to the slaves' key manager the same at both ends and says there whose it
//! is ([`grant`], [`supplier`], [`receiver`]); a slave fetches it by its name ([`name`], [`held`]).
//! Both ends have it in memory alone until then: a crash loses keys that nobody used, and never gives
//! one twice, because a restarted key manager takes other key of the link. The other way round, the
//! [`client`] asks any key manager, and [`draw`] makes pads of what it gives.
//!
//! What is kept to: the resources, fields, status codes and fixed texts of the standard. Where it
//! contradicts itself: `keys`, not `Keys`, is written, both are read; `dec_keys` has the master's
//! identifier in its path. `openapi.json` describes what the server does.

pub mod certificates;
pub mod client;
pub mod draw;
pub mod error;
pub mod grant;
pub mod held;
pub mod identity;
pub mod kme;
pub mod message;
pub mod name;
pub mod receiver;
pub mod refusal;
pub mod seen;
pub mod server;
pub mod settings;
pub mod supplier;
pub mod supply;
pub mod tls;

pub use client::Client;
pub use error::Error;
pub use identity::SaeId;
pub use kme::Kme;
pub use name::KeyId;
pub use refusal::Refusal;
pub use server::Server;
pub use settings::KmeSettings;

/// What the server does, as an OpenAPI 3.1 document.
pub const OPENAPI: &str = include_str!("openapi.json");
