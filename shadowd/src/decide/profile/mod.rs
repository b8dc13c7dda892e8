//! The profile of a group: learned from digests, compared with what is there.
//!
//! Pure. [`learn`] turns digests and inventories of the owner into versions and events, [`expected`]
//! says what is to be there at an hour, [`ready`] compares a version with this host, [`changes`] one
//! version with another, [`accuracy`] what was expected with what was, and [`codec`] is how a version
//! is written, and what of foreign bytes is believed. [`lineage`] is how versions follow
//! each other, [`archive`] says which contents are kept to go
//! back to a version, [`restore`] when a host is back, [`hot`] which files should be in
//! memory, [`loaded`] which contents units run with, and [`roots`] which paths are none of a group's.

pub mod accuracy;
pub mod archive;
pub mod changes;
pub mod codec;
pub mod digest;
pub mod expected;
pub mod firewall;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod hot;
pub mod learn;
pub mod lineage;
pub mod loaded;
pub mod provision;
pub mod ready;
pub mod replica;
pub mod repository;
pub mod restore;
pub mod roots;
mod series;
