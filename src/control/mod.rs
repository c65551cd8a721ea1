//! The share control system: which data set is which deposit, and where its shares are.

pub mod catalogue;

pub use catalogue::{Catalogue, Deposit, Error, Member, Role, State};
