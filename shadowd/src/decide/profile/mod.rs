//! The profile of a group: learned from digests, compared with what is there.
//!
//! Pure. [`learn`] turns digests and inventories of the owner into versions and events, [`expected`]
//! says what is to be there at an hour, [`ready`] compares a version with this host, [`changes`] one
//! version with another, [`accuracy`] what was expected with what was, [`hot`] is which
//! files should be in memory, and [`codec`] is how a version is written, and what of foreign bytes is
//! believed.

pub mod accuracy;
pub mod changes;
pub mod codec;
pub mod digest;
pub mod expected;
pub mod firewall;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod hot;
pub mod learn;
pub mod provision;
pub mod ready;
pub mod replica;
mod series;
