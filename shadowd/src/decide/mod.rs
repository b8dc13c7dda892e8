//! Decisions: pure cores that turn facts into observations and actions.
//!
//! Nothing here does I/O, reads a clock, draws a random number, logs or spawns. `now` is passed in
//! and output is data; `run` drives the cores and reports back what came of their actions.

pub mod aggregate;
pub mod anomaly;
pub mod cluster;
pub mod drill;
pub mod filter;
pub mod forecast;
pub mod map;
pub mod notify;
pub mod paths;
pub mod profile;
pub mod serving;
pub mod starvation;
pub(crate) mod unit_names;
pub mod window;
