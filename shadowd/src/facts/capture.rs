//! What capture saw: raw samples, and the observations made of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::BootTime;

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// This host connected to the remote.
    Outbound,
    /// The remote connected to this host.
    Inbound,
}

/// One drain of the kernel side and of procfs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// When it was taken.
    pub at: BootTime,
    /// Since the drain before.
    pub interval: Duration,
    /// System calls since the drain before.
    pub syscalls: Vec<SyscallCount>,
    /// Connections opened and closed since the drain before.
    pub flows: Vec<FlowDelta>,
    /// Every process that runs now.
    pub processes: Vec<ProcessReading>,
    /// Processes that began a program or ended since the drain before.
    pub lifecycle: Vec<Lifecycle>,
    /// Names of control groups seen for the first time: cgroup id -> path from the visible root.
    pub cgroups: Vec<(u64, String)>,
    /// What was seen and what was lost since the daemon started.
    pub losses: Losses,
}

/// System calls of one number by one process in one control group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallCount {
    /// Process id, in the daemon's pid namespace.
    pub pid: u32,
    /// Id of the control group (its inode number in cgroup2), 0 if unknown.
    pub cgroup: u64,
    /// System call number of this architecture.
    pub number: u32,
    /// Calls that returned.
    pub calls: u64,
    /// Of these, calls that returned an error.
    pub errors: u64,
}

/// What happened on one flow between two drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowDelta {
    /// Process that owns the flow; 0 if unknown.
    pub pid: u32,
    /// Its control group; 0 if unknown.
    pub cgroup: u64,
    /// Who opened it.
    pub direction: Direction,
    /// This host's end; port 0 stands for any ephemeral port (outbound).
    pub local: SocketAddr,
    /// The other end; port 0 stands for any ephemeral port (inbound).
    pub remote: SocketAddr,
    /// Connections that became established.
    pub opened: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Connects that never became established.
    pub failed: u64,
    /// Payload bytes received on the connections that ended.
    pub rx_bytes: u64,
    /// Payload bytes sent, retransmissions not counted, on the connections that ended.
    pub tx_bytes: u64,
}

/// One process as procfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// The kinds of [`Lifecycle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifecycleKind {
    /// execve succeeded.
    Exec,
    /// The process ended.
    Exit {
        /// The status as wait(2) gives it.
        status: i32,
    },
}

/// Loss is counted: seen = attributed + unattributed, and dropped comes on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Records that reached the daemon.
    pub seen: u64,
    /// Records that a full map or a full buffer refused.
    pub dropped: u64,
    /// Records that reached the daemon but could not be given to a process or unit.
    pub unattributed: u64,
}

/// A probe and how it is fed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeStatus {
    /// Name of the feature, such as `tcp`.
    pub name: String,
    /// What it feeds, in words.
    pub feeds: String,
    /// The kernel hook in use, such as `raw_tp inet_sock_set_state`; none when off.
    pub hook: Option<String>,
    /// Why it is off or reduced.
    pub degraded: Option<String>,
}

/// One interval, aggregated: what `top`, `units` and `flows` show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// End of the interval.
    pub at: BootTime,
    /// Its length.
    pub interval_ns: u64,
    /// By unit, by name.
    pub units: Vec<UnitUse>,
    /// By process, by pid.
    pub processes: Vec<ProcessUse>,
    /// Flows seen since the daemon started (bounded; the oldest idle ones go first).
    pub flows: Vec<Flow>,
    /// Totals of loss.
    pub losses: Losses,
}

/// What one unit used in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitUse {
    /// Name of the unit, `-` for what belongs to none.
    pub unit: String,
    /// Processes now.
    pub processes: u32,
    /// Processor time, as a share of one processor (1.0 = one busy core).
    pub cpu: f64,
    /// Resident memory of its processes.
    pub rss_bytes: u64,
    /// System calls in the interval.
    pub syscalls: u64,
    /// Failed system calls in the interval.
    pub syscall_errors: u64,
    /// Programs begun in the interval.
    pub execs: u64,
    /// Processes ended in the interval.
    pub exits: u64,
    /// Connections opened in the interval, both directions.
    pub connections: u64,
    /// Payload bytes received on connections that ended in the interval.
    pub rx_bytes: u64,
    /// Payload bytes sent on connections that ended in the interval.
    pub tx_bytes: u64,
}

/// What one process used in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessUse {
    /// Process id.
    pub pid: u32,
    /// Short name.
    pub command: String,
    /// Name of its unit, `-` for none.
    pub unit: String,
    /// Processor time, as a share of one processor.
    pub cpu: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// System calls in the interval.
    pub syscalls: u64,
    /// Failed system calls in the interval.
    pub syscall_errors: u64,
    /// Whether it has ended.
    pub ended: bool,
}

/// Connections between one process and one remote service or client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Name of the unit, `-` for none.
    pub unit: String,
    /// Process id; 0 if unknown.
    pub pid: u32,
    /// Short name of the process.
    pub command: String,
    /// Who opened it.
    pub direction: Direction,
    /// This host's end.
    pub local: IpAddr,
    /// This host's port, if it names a service.
    pub local_port: u16,
    /// The other end.
    pub remote: IpAddr,
    /// The other end's port, if it names a service.
    pub remote_port: u16,
    /// Connections that became established.
    pub opened: u64,
    /// Connections that ended.
    pub closed: u64,
    /// Connects that never became established.
    pub failed: u64,
    /// Payload bytes received on the connections that ended.
    pub rx_bytes: u64,
    /// Payload bytes sent on the connections that ended.
    pub tx_bytes: u64,
    /// First and last activity.
    pub first_seen: BootTime,
    /// Last activity.
    pub last_seen: BootTime,
}
