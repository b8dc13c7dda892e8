//! What the host does: kernel probes, procfs, control groups, units, links.
//!
//! Observe reads and never acts: no probe changes what a task or a packet does, and whatever the
//! kernel refuses degrades one probe, not the daemon.

pub mod addresses;
pub mod alarm;
mod block;
mod btf;
pub mod carrier;
mod cgroups;
mod descriptors;
mod fallback;
mod fields;
mod files;
#[cfg(test)]
pub(crate) mod fuzz;
mod groups;
mod host;
pub mod interfaces;
pub mod inventory;
mod lifecycle;
mod limits;
mod names;
pub mod neighbours;
mod opens;
mod own;
pub mod privileges;
mod probes;
mod processes;
mod readings;
mod sampler;
mod scope;
mod seed;
mod sockets;
pub mod sys;
mod syscalls;
mod tally;
pub mod turns;
pub mod units;

pub use fallback::connections;
pub use limits::Limits;
pub use probes::Descriptors;
pub use sampler::Capture;
pub use sys::boot_time;
