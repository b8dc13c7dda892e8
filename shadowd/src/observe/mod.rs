//! What the host does: kernel probes, procfs, control groups, units, links.
//!
//! Observe reads and never acts: no probe changes what a task or a packet does, and whatever the
//! kernel refuses degrades one probe, not the daemon.

mod btf;
pub mod carrier;
mod cgroups;
mod kernel_log;
mod layout;
mod probes;
mod processes;
mod sampler;
mod scope;
mod seed;
pub mod sys;
mod tables;
pub mod units;

pub use sampler::Capture;
pub use sys::boot_time;
pub use tables::Limits;
