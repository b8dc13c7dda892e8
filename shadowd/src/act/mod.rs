//! Actions: what the daemon does to its host, when a decision says so.
//!
//! Every action that changes who owns a group carries an [`Epoch`](crate::facts::Epoch); an older
//! one than the newest seen is refused here, however late it arrives. This room decides nothing.

pub mod announce;
pub mod drill;
pub mod epochs;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod guard;
pub mod hooks;
pub mod own_job;
pub mod provider;
pub mod provision;
mod sys;
pub mod units;
pub mod vip;
pub mod webhook;
