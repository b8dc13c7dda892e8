//! One interval, aggregated: what is shown, recorded and measured.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    BlockCounts, Direction, FileCounts, FlowCounts, Losses, Protocol, Resources, SyscallCounts,
};
use crate::facts::BootTime;

/// One interval, aggregated: what `top`, `units` and `flows` show.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observation {
    /// End of the interval.
    pub at: BootTime,
    /// The same on the wall clock, ms since 1970; only for people and for history.
    pub wall_ms: i64,
    /// Its length.
    pub interval_ns: u64,
    /// The host.
    pub host: HostUse,
    /// By unit, by name.
    pub units: Vec<UnitUse>,
    /// By process, by pid.
    pub processes: Vec<ProcessUse>,
    /// Flows seen since capture began, the ones active last first; only so many, see
    /// [`Observation::flows_left_out`].
    pub flows: Vec<Flow>,
    /// Flows that are known and were left out of [`Observation::flows`] because they were idle for
    /// longer than those in it. Their counts are in the units.
    pub flows_left_out: u64,
    /// Listening sockets now.
    pub listeners: Vec<Listener>,
    /// By disk.
    pub devices: Vec<DeviceUse>,
    /// Files under the configuration roots that units opened in the interval.
    pub files: Vec<FileUse>,
    /// Totals of loss.
    pub losses: Losses,
}

/// What the host used in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostUse {
    /// Processors.
    pub processors: u32,
    /// Processor time in the interval, as processors (2.0 = two busy cores); none if unknown.
    pub cpu: Option<f64>,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Of that, available.
    pub memory_available_bytes: u64,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// Share of the interval in which some task waited for a processor; none without PSI.
    pub cpu_pressure: Option<f64>,
    /// The same for memory.
    pub memory_pressure: Option<f64>,
    /// The same for I/O.
    pub io_pressure: Option<f64>,
    /// TCP connections refused in the interval because an accept queue was full.
    pub listen_overflows: u64,
    /// Processes killed for want of memory in the interval.
    pub oom_kills: u64,
    /// Totals since boot.
    pub total: Resources,
}

/// What one unit used in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitUse {
    /// Name of the unit, `-` for what belongs to none.
    pub unit: String,
    /// Processes now.
    pub processes: u32,
    /// Processor time, as a share of one processor (1.0 = one busy core).
    pub cpu: f64,
    /// Resident memory of its processes.
    pub rss_bytes: u64,
    /// Memory charged to its control group; none without the controller.
    pub memory_bytes: Option<u64>,
    /// System calls in the interval.
    pub syscalls: SyscallCounts,
    /// Programs begun in the interval.
    pub execs: u64,
    /// Processes ended in the interval.
    pub exits: u64,
    /// Of these, with another status than 0.
    pub failed_exits: u64,
    /// Processes killed for want of memory in the interval.
    pub oom_kills: u64,
    /// Context switches in the interval.
    pub context_switches: u64,
    /// Network, all its flows, in the interval.
    pub network: FlowCounts,
    /// Block I/O read in the interval.
    pub block_read: BlockCounts,
    /// Block I/O written in the interval.
    pub block_write: BlockCounts,
    /// File I/O in the interval.
    pub files: FileCounts,
    /// Share of the interval in which some task waited for a processor; none without PSI.
    pub cpu_pressure: Option<f64>,
    /// The same for memory.
    pub memory_pressure: Option<f64>,
    /// The same for I/O.
    pub io_pressure: Option<f64>,
    /// Totals since capture began, which never go back; they outlast a restart of the daemon.
    pub total: UnitTotals,
}

impl UnitUse {
    /// Whether it has processes or did anything in the interval.
    pub fn is_active(&self) -> bool {
        self.processes > 0
            || self.cpu > 0.0
            || self.syscalls.calls > 0
            || self.execs + self.exits + self.oom_kills + self.context_switches > 0
            || self.network != FlowCounts::default()
            || self.block_read != BlockCounts::default()
            || self.block_write != BlockCounts::default()
            || self.files != FileCounts::default()
    }
}

/// What one unit did since capture began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitTotals {
    /// Processor time, ns.
    pub cpu_ns: u64,
    /// System calls.
    pub syscalls: SyscallCounts,
    /// Programs begun.
    pub execs: u64,
    /// Processes ended.
    pub exits: u64,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
    /// Context switches.
    pub context_switches: u64,
    /// Network.
    pub network: FlowCounts,
    /// Block I/O read.
    pub block_read: BlockCounts,
    /// Block I/O written.
    pub block_write: BlockCounts,
    /// File I/O.
    pub files: FileCounts,
}

impl UnitTotals {
    /// Adds what happened in an interval, `cpu_ns` of processor time included.
    pub fn add_interval(&mut self, cpu_ns: u64, interval: &UnitUse) {
        let plus = |mine: &mut u64, more: u64| *mine = mine.saturating_add(more);
        plus(&mut self.cpu_ns, cpu_ns);
        self.syscalls.add(&interval.syscalls);
        plus(&mut self.execs, interval.execs);
        plus(&mut self.exits, interval.exits);
        plus(&mut self.oom_kills, interval.oom_kills);
        plus(&mut self.context_switches, interval.context_switches);
        self.network.add(&interval.network);
        self.block_read.add(&interval.block_read);
        self.block_write.add(&interval.block_write);
        self.files.add(&interval.files);
    }

    /// Adds all of `more`.
    pub fn add(&mut self, more: &Self) {
        let plus = |mine: &mut u64, more: u64| *mine = mine.saturating_add(more);
        plus(&mut self.cpu_ns, more.cpu_ns);
        self.syscalls.add(&more.syscalls);
        plus(&mut self.execs, more.execs);
        plus(&mut self.exits, more.exits);
        plus(&mut self.oom_kills, more.oom_kills);
        plus(&mut self.context_switches, more.context_switches);
        self.network.add(&more.network);
        self.block_read.add(&more.block_read);
        self.block_write.add(&more.block_write);
        self.files.add(&more.files);
    }
}

/// What one process used in the interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    pub syscalls: SyscallCounts,
    /// Context switches in the interval.
    pub context_switches: u64,
    /// Network in the interval.
    pub network: FlowCounts,
    /// Block I/O read in the interval.
    pub block_read: BlockCounts,
    /// Block I/O written in the interval.
    pub block_write: BlockCounts,
    /// File I/O in the interval.
    pub files: FileCounts,
    /// Whether it has ended.
    pub ended: bool,
}

impl ProcessUse {
    /// Whether it did anything in the interval, or ended.
    pub fn is_active(&self) -> bool {
        self.ended
            || self.cpu > 0.0
            || self.syscalls.calls > 0
            || self.context_switches > 0
            || self.network != FlowCounts::default()
            || self.block_read != BlockCounts::default()
            || self.block_write != BlockCounts::default()
            || self.files != FileCounts::default()
    }
}

/// What passed between one process and one remote service or client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Name of the unit, `-` for none.
    pub unit: String,
    /// Process id; 0 if unknown.
    #[serde(default)]
    pub pid: u32,
    /// Short name of the process.
    #[serde(default)]
    pub command: String,
    /// TCP or UDP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who opened it.
    pub direction: Direction,
    /// This host's end.
    pub local: IpAddr,
    /// This host's port, if it names a service, else 0.
    #[serde(default)]
    pub local_port: u16,
    /// The other end.
    pub remote: IpAddr,
    /// The other end's port, if it names a service, else 0.
    #[serde(default)]
    pub remote_port: u16,
    /// The name under which a DNS answer gave the remote address, if one did.
    #[serde(default)]
    pub remote_name: Option<String>,
    /// TCP connections open now.
    #[serde(default)]
    pub open: u64,
    /// What happened since capture began.
    #[serde(default)]
    pub total: FlowCounts,
    /// Of that, in the interval.
    #[serde(default)]
    pub interval: FlowCounts,
    /// First activity.
    #[serde(default)]
    pub first_seen: BootTime,
    /// Last activity.
    #[serde(default)]
    pub last_seen: BootTime,
}

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Name of the unit, `-` for none.
    pub unit: String,
    /// Process id; 0 if unknown.
    #[serde(default)]
    pub pid: u32,
    /// Short name of the process.
    #[serde(default)]
    pub command: String,
    /// Where it listens.
    pub local: IpAddr,
    /// On which port.
    #[serde(default)]
    pub local_port: u16,
    /// Connections that are established and not accepted yet.
    #[serde(default)]
    pub backlog: u32,
    /// How many may wait.
    #[serde(default)]
    pub backlog_max: u32,
    /// Connections refused because the queue was full, in the interval.
    #[serde(default)]
    pub overflows: u64,
    /// The same since the socket was made.
    #[serde(default)]
    pub overflows_total: u64,
}

/// What one disk did in the interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceUse {
    /// Its name, such as `sda`, or `MAJOR:MINOR`.
    pub device: String,
    /// Read in the interval.
    pub read: BlockCounts,
    /// Written in the interval.
    pub write: BlockCounts,
    /// Flushed and discarded in the interval.
    pub other: BlockCounts,
}

/// A file under a configuration root that a unit opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileUse {
    /// Name of the unit, `-` for none.
    pub unit: String,
    /// Process id; 0 if unknown.
    pub pid: u32,
    /// Short name of the process.
    pub command: String,
    /// Absolute path.
    pub path: String,
    /// Whether it was opened for writing.
    pub write: bool,
    /// When it was opened last.
    pub at: BootTime,
}

/// What has to outlast a restart of the daemon, so that totals never go back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AggregateState {
    /// Totals by unit.
    pub units: BTreeMap<String, UnitTotals>,
    /// The flows active last, the newest first, with their totals.
    pub flows: Vec<Flow>,
}
