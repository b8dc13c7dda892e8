//! One drain of the kernel side and of procfs. All counts are what came since the drain before.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BlockCounts, FileCounts, FlowCounts, IoDirection, Losses, ProbeLosses, Resources, SyscallCounts,
};
use crate::facts::BootTime;

/// Who opened a connection; for UDP, who sent the first datagram that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// This host connected to the remote.
    Outbound,
    /// The remote connected to this host.
    Inbound,
}

/// Transport protocol.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP and UDP-Lite.
    Udp,
}

impl Protocol {
    /// Its name, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// One drain of the kernel side and of procfs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When it was taken.
    pub at: BootTime,
    /// The same on the wall clock, ms since 1970; only for people and for history.
    pub wall_ms: i64,
    /// Since the drain before.
    pub interval: Duration,
    /// System calls since the drain before.
    pub syscalls: Vec<SyscallDelta>,
    /// What happened on flows since the drain before.
    pub flows: Vec<FlowDelta>,
    /// Every listening socket now.
    pub listeners: Vec<ListenerReading>,
    /// Block I/O that completed since the drain before.
    pub block: Vec<BlockDelta>,
    /// File I/O since the drain before.
    pub files: Vec<FileDelta>,
    /// Files opened under the configuration roots since the drain before, each once per group.
    pub opens: Vec<FileOpen>,
    /// Names that DNS answers gave to addresses since the drain before.
    pub names: Vec<NameAnswer>,
    /// DNS answers that were read since the drain before, with or without an address.
    pub dns_answers: u64,
    /// Every process that runs now.
    pub processes: Vec<ProcessReading>,
    /// Every control group that holds a unit, now.
    pub groups: Vec<GroupReading>,
    /// The host now.
    pub host: HostReading,
    /// Processes that began a program or ended since the drain before.
    pub lifecycle: Vec<Lifecycle>,
    /// Names of control groups seen for the first time: cgroup id -> path from the visible root.
    pub cgroups: Vec<(u64, String)>,
    /// What was seen and what was lost since capture began: the sums of `probe_losses`.
    pub losses: Losses,
    /// The same by feature; `seen` holds what is attributed and what is not.
    pub probe_losses: BTreeMap<String, ProbeLosses>,
    /// Payload bytes of flows and connections that full tables refused, since capture began.
    pub flow_bytes_dropped: u64,
}

/// System calls of one number by one process in one control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyscallDelta {
    /// Process id, in the daemon's pid namespace; 0 in a namespace nested in it.
    pub pid: u32,
    /// Id of the control group (its inode number in cgroup2), 0 if unknown.
    pub cgroup: u64,
    /// System call number of this architecture.
    pub number: u32,
    /// What they did.
    pub counts: SyscallCounts,
}

/// What happened on one flow between two drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowDelta {
    /// Process that owns the flow; 0 if unknown.
    pub pid: u32,
    /// Its control group; 0 if unknown.
    pub cgroup: u64,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who opened it.
    pub direction: Direction,
    /// This host's end; port 0 stands for any ephemeral port (outbound).
    pub local: SocketAddr,
    /// The other end; port 0 stands for any ephemeral port (inbound).
    pub remote: SocketAddr,
    /// What happened.
    pub counts: FlowCounts,
    /// TCP connections that are open now.
    pub open: u64,
}

impl FlowDelta {
    /// How many happenings it stands for: changes of TCP connections, datagrams of UDP.
    pub fn happenings(&self) -> u64 {
        let counts = &self.counts;
        let parts = match self.protocol {
            Protocol::Tcp => [counts.opened, counts.adopted, counts.closed, counts.failed],
            Protocol::Udp => [counts.rx_packets, counts.tx_packets, 0, 0],
        };
        parts.iter().fold(0, |sum, part| sum.saturating_add(*part))
    }
}

/// One listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerReading {
    /// Process that listens; 0 if unknown.
    pub pid: u32,
    /// Its control group; 0 if unknown.
    pub cgroup: u64,
    /// Where it listens.
    pub local: SocketAddr,
    /// Connections that are established and not accepted yet.
    pub backlog: u32,
    /// How many may wait.
    pub backlog_max: u32,
    /// Connections refused because the queue was full, since the socket was made.
    pub overflows: u64,
}

/// Block I/O of one process on one device, one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDelta {
    /// Process that issued it; 0 if unknown. Write-back is the kernel's, not the writer's.
    pub pid: u32,
    /// Its control group; 0 if unknown.
    pub cgroup: u64,
    /// Major and minor number of the whole disk.
    pub device: (u32, u32),
    /// Which way.
    pub direction: IoDirection,
    /// What completed.
    pub counts: BlockCounts,
}

/// File I/O of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileDelta {
    /// Process; 0 if unknown.
    pub pid: u32,
    /// Its control group; 0 if unknown.
    pub cgroup: u64,
    /// What it did.
    pub counts: FileCounts,
}

impl FileDelta {
    /// How many happenings it stands for.
    pub fn happenings(&self) -> u64 {
        let counts = &self.counts;
        (counts.reads.saturating_add(counts.writes)).saturating_add(counts.opens)
    }
}

/// A file opened under a configuration root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOpen {
    /// Process; 0 if unknown.
    pub pid: u32,
    /// Its control group; 0 if unknown.
    pub cgroup: u64,
    /// When.
    pub at: BootTime,
    /// Absolute path, as the process sees it.
    pub path: String,
    /// Whether it was opened for writing.
    pub write: bool,
}

/// A DNS answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAnswer {
    /// The address that was answered.
    pub address: IpAddr,
    /// The name that was asked for, without the dot at the end, lower case.
    pub name: String,
}

/// One process as procfs shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessReading {
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent: u32,
    /// Short name, at most 15 bytes (comm).
    pub command: String,
    /// Path of its cgroup2 control group, from the visible root.
    pub cgroup: String,
    /// Processor time used since it started.
    pub cpu: Duration,
    /// Resident memory.
    pub rss_bytes: u64,
    /// When it started, after boot.
    pub started: Duration,
    /// Context switches since it started; none where they were not read.
    pub context_switches: Option<u64>,
}

/// One control group as its files show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupReading {
    /// Path from the visible root.
    pub path: String,
    /// Its id.
    pub cgroup: u64,
    /// What it used since it was made.
    pub resources: Resources,
}

/// The host as procfs shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostReading {
    /// What it used since boot.
    pub resources: Resources,
    /// Processors.
    pub processors: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Of that, available.
    pub memory_available_bytes: u64,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// TCP connections that listening sockets refused because a queue was full, since boot.
    pub listen_overflows: u64,
    /// Disks: major and minor number and name.
    pub disks: Vec<((u32, u32), String)>,
}

/// A process that began a program or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Process id.
    pub pid: u32,
    /// Control group.
    pub cgroup: u64,
    /// Short name.
    pub command: String,
    /// When.
    pub at: BootTime,
    /// Which.
    pub kind: LifecycleKind,
    /// Processor time it used in its whole life, where it ended and the kernel tells: up to the
    /// last timer tick of each of its threads.
    pub cpu_ns: Option<u64>,
}

/// The kinds of [`Lifecycle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifecycleKind {
    /// execve succeeded.
    Exec,
    /// The process ended.
    Exit {
        /// The status as wait(2) gives it: code, signal, and bit 7 for a core dump.
        status: i32,
    },
    /// The process was chosen to be killed for want of memory; told when it dies of it.
    OomKill,
}
