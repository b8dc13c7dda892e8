//! What is on this host, of what a profile asks for: files, packages, units, room, reach.
//!
//! Reads and never changes. Everything is bounded in size and time, and what could not be found out
//! says why. Files are hashed again only after they changed.

mod accounts;
pub mod certificates;
mod environment;
pub mod files;
pub mod firewall;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod host;
pub mod hot;
mod packages;
pub mod reach;
pub mod units;

pub use files::{FileReader, HashRules};
pub use packages::{PackageError, Packages};
