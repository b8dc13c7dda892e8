//! Answers of the daemon as people read them. Pure: from data to text, no clock, no terminal.

mod capture;
mod drill;
mod events;
mod hooks;
mod peers;
mod policy;
mod probes;
mod profile;
mod redundancy;
mod replay;
mod repository;
mod status;

pub(super) use capture::{direction, end, flows, protocol, remote_end, syscalls, top, units};
pub(super) use drill::drill_line;
pub(super) use events::events;
pub(super) use hooks::{hooks, tested};
pub(super) use peers::peers;
pub(super) use probes::probes;
pub(super) use profile::{accuracy, acts, diff, made, profile, ready, restored, versions};
pub(super) use replay::replayed;
pub(super) use repository::repository;
pub(super) use status::status;
