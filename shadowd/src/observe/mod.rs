//! What the host does: kernel probes, procfs, control groups.
//!
//! Observe reads and never acts: no probe changes what a task or a packet does, and whatever the
//! kernel refuses degrades one probe, not the daemon.

mod btf;
mod cgroups;
mod layout;
mod probes;
mod processes;
mod sampler;
mod scope;
mod seed;
pub mod sys;
mod tables;

pub use sampler::Capture;
pub use sys::boot_time;
