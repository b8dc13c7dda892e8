//! The daemon: the only place that wires observe, decide, act, link, store and serve together.
//!
//! Five threads of work, so that nothing slow ever stands before a heartbeat:
//! - **failover** ([`failover`]): one thread, one event loop: datagrams and local facts in, the
//!   cores, addresses and announcements out, and the watchdog fed. It never touches a disk or D-Bus.
//! - **capture** ([`capture`]): one thread that drains the probes.
//! - **history** ([`history`]): one thread that records what capture observed.
//! - **record** ([`record`]): one thread that owns the store and the log of decisions.
//! - **main**: TLS streams, unit jobs, the socket, signals.
//!
//! A sixth only notes that it gets its turns ([`starved`]).

mod addresses;
mod board;
mod capture;
mod check;
mod daemon;
mod decisions;
mod deliver;
mod drain;
mod drill;
mod failover;
mod group;
mod guards;
mod handovers;
mod history;
mod jobs;
mod keep;
mod links;
mod logging;
mod memory;
mod neighbours;
mod notify;
mod parts;
mod peer;
mod policy;
mod profile;
mod provider;
mod readings;
mod record;
mod start;
mod starved;
mod stop;
mod succession;
mod tap;
mod watchdog;
mod witness;

pub use check::StartError;
pub use daemon::{check_configuration, check_file, create_identity, remove_guards, run};
pub use drill::{check_one, hold};
#[cfg(test)]
pub(crate) use profile::fuzz;
pub use profile::{provision, undo};
