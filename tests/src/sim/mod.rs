//! A simulated cluster: the real decision core under a seeded, hostile network and clock.
//!
//! A seed gives the cluster, the network and the faults. Invariants are checked after every step.
//! Nothing here decides anything about ownership: the core under test is `shadowd::decide::cluster`.

mod actions;
mod broken;
mod check;
mod daemon;
mod faults;
mod host;
mod inject;
mod journal;
pub mod many;
mod network;
mod queue;
mod restart;
mod service;
mod world;

pub use broken::Broken;
pub use check::Violation;
pub use faults::{Beyond, Change, Fault, Plan};
pub use world::{Outcome, World};
