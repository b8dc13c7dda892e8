//! The real socket with the real `shadowctl` against it; only the daemon behind the socket is made
//! of fixed facts.

// The lint's exception for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used)]

mod daemon;
mod decisions;
mod drill;
mod history;
mod hooks;
mod map;
mod metrics;
mod policy;
mod profile;
mod scratch;
mod shadowctl;
mod socket;
mod talk;
mod wait;
