//! What the owner of a group says of it to the others: what happened, and what is there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Content, Dependency, Hot, Passage, Port, ResourceKind};

/// What a group's units did in an interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// End of the interval, seconds since the Unix epoch in the host's local time.
    pub local_second: u64,
    /// Its length, seconds.
    pub seconds: u32,
    /// By name.
    pub units: BTreeMap<String, UnitDigest>,
}

/// What one unit did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UnitDigest {
    /// Means over the interval, in the unit of each resource.
    pub uses: BTreeMap<ResourceKind, f64>,
    /// The programs that ran.
    pub programs: BTreeSet<String>,
    /// Where it listens.
    pub ports: BTreeSet<Port>,
    /// What it connected to, and how often each second.
    pub dependencies: BTreeMap<Dependency, f64>,
    /// Files under the configuration roots that it opened to read.
    pub reads: BTreeSet<String>,
}

/// What is so on the owner now and is no part of a version: it comes and goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// What its units keep in memory.
    pub hot: Hot,
    /// Ports of its units that its packet filter lets everybody in to.
    pub open: BTreeSet<Port>,
}

/// What is there on a host, of what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// What a profile can ask for.
    pub content: Content,
    /// What could not be found out, by what it is of, and why.
    pub unknown: BTreeMap<String, String>,
    /// Who listens on a port of the profile that is no unit of the group, by port.
    pub taken: BTreeMap<Port, String>,
    /// Whether what units depend on can be reached from here, by dependency: else why not.
    pub reach: BTreeMap<Dependency, Result<(), String>>,
    /// Seconds until each certificate among the files expires; below 0 when it has.
    pub expiry: BTreeMap<String, i64>,
    /// What the packet filter does with connections to the ports; empty where there is none.
    pub passages: BTreeMap<Port, Passage>,
    /// Pieces of hot files that are in memory, by path, of those that are here.
    pub resident: BTreeMap<String, u64>,
    /// Files of which units that run know an earlier content, by unit.
    pub outdated: BTreeMap<String, BTreeSet<String>>,
    /// The host.
    pub host: HostInventory,
}

impl Inventory {
    /// What [`Self::unknown`] calls all that rests on what capture tells: listeners, memory, processors.
    pub const CAPTURE: &str = "capture";
}

/// What a host has left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostInventory {
    /// Processors; 0 if that is not known.
    pub processors: f64,
    /// Of these, busy; none if that is not known.
    pub busy: Option<f64>,
    /// Memory, bytes; 0 if that is not known.
    pub memory: u64,
    /// Of that, available.
    pub memory_available: u64,
    /// File systems that matter: free bytes and free inodes, as shares (0 to 1), and free bytes.
    pub disks: BTreeMap<String, DiskInventory>,
    /// How far the clock may be off, ns; none when it is not synchronised.
    pub clock_error_ns: Option<u64>,
    /// Units that are active now.
    pub active: BTreeSet<String>,
    /// When systemd saw the state of each change last, µs since 1970: a start or a reload.
    pub changed_at: BTreeMap<String, u64>,
}

/// What a file system has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskInventory {
    /// Bytes for who is not root.
    pub free: u64,
    /// Of so many.
    pub size: u64,
    /// Files that can still be made, as a share; 1 where there is no limit.
    pub files_free: f64,
    /// It is mounted read-only.
    pub read_only: bool,
}
