//! How much the kernel side holds at most.

use shadowd_common::block::{BLOCK_MAX, REQUESTS_MAX};
use shadowd_common::files::FILES_MAX;
use shadowd_common::lifecycle::EVENTS_BYTES;
use shadowd_common::opens::OPENS_BYTES;
use shadowd_common::syscalls::SLOTS_MAX;

use super::sockets;
use crate::config::settings::LimitSettings;

/// How much the tables hold that a test wants to see full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most slots for system calls (a process's calls of one number), at least 1.
    pub syscalls: u32,
    /// Count only what one control group and those below it do: its id, and its level below the
    /// real root.
    pub only: Option<(u64, u32)>,
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub events_bytes: u32,
    /// Most records of block I/O, at least 1.
    pub block: u32,
    /// Most block requests under way, at least 1.
    pub requests: u32,
    /// Most records of file I/O, at least 1.
    pub files: u32,
    /// Bytes of the ring buffer of opened files: a power of two, at least a page.
    pub opens_bytes: u32,
    /// Most flows the kernel side holds, at least 1.
    pub flows: u32,
    /// Most live TCP sockets that are followed, at least 1.
    pub sockets: u32,
    /// Most listening sockets that are followed, at least 1.
    pub listeners: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let (flows, sockets, listeners) = sockets::limits();
        Self {
            syscalls: SLOTS_MAX,
            only: None,
            events_bytes: EVENTS_BYTES,
            block: BLOCK_MAX,
            requests: REQUESTS_MAX,
            files: FILES_MAX,
            opens_bytes: OPENS_BYTES,
            flows,
            sockets,
            listeners,
        }
    }
}

impl Limits {
    /// The defaults, but for what the configuration says.
    pub fn of(settings: &LimitSettings) -> Self {
        let default = Self::default();
        Self {
            syscalls: settings.syscalls.unwrap_or(default.syscalls),
            events_bytes: settings.events_bytes.unwrap_or(default.events_bytes),
            flows: settings
                .kernel_flows
                .map_or(default.flows, |flows| flows.max(sockets::ENTRIES_MIN)),
            sockets: settings.sockets.unwrap_or(default.sockets),
            listeners: settings.listeners.unwrap_or(default.listeners),
            ..default
        }
    }
}
