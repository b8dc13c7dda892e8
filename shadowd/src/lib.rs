//! shadowd: a host that matters gets a shadow.
//!
//! Data flows one way: [`observe`] -> [`decide`] -> [`act`]. [`run`] is the only place that wires
//! the rooms together; `cargo xtask lint` holds the import edges between them.

pub mod act;
pub mod cli;
pub mod config;
pub mod decide;
pub mod ethernet;
pub mod facts;
#[cfg(test)]
mod fuzz;
pub mod link;
pub mod observe;
pub mod run;
pub mod serve;
pub mod store;
