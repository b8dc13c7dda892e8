//! A simulated cluster: the real decision core under a seeded, hostile network and clock.
//!
//! A seed gives the cluster, the network and the faults. Invariants are checked after every step.
//! Nothing here decides anything about ownership: the core under test is `shadowd::decide::cluster`.

mod check;
mod faults;
mod host;
mod inject;
mod journal;
pub mod many;
mod network;
mod restart;
mod world;

pub use check::Violation;
pub use faults::{Fault, Plan};
pub use world::{Outcome, World};
