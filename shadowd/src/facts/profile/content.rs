//! The learned content: what must be there for a group, and how it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Digest256, Habit};
use crate::facts::Protocol;

/// A BLAKE3 hash: of a content that may leave the host, or, under the group's own key, of one that
/// may not.
pub type ValueHash = Digest256;

/// Whether a program that is told `text` as an argument takes it as what it says: one word, no option,
/// no path, no pattern. What is called otherwise is in no profile.
pub fn is_word(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "@:._+~^\\-".contains(c);
    let begins = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(begins) && text.chars().all(legal)
}

/// What should be running for a group, with what, when, and what it needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// What has to be the same on a host that takes over.
    pub content: Content,
    /// Hours in which was looked: what was not there in another hour was not seen to be missing.
    pub observed: Habit,
    /// When each unit ran, by name.
    pub unit_hours: BTreeMap<String, Habit>,
    /// When each unit used each of its dependencies.
    pub dependency_hours: BTreeMap<(String, Dependency), Habit>,
    /// What each unit needs of each resource.
    pub needs: BTreeMap<(String, ResourceKind), Need>,
}

/// What a unit needs of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Need {
    /// The median of what was read lately.
    pub median: f64,
    /// The most that is expected of the next day: the upper end of the 95 % interval.
    pub peak: f64,
    /// The expectation rests on less than two days.
    pub cold: bool,
}

/// What has to be the same on a host that takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// By name.
    pub units: BTreeMap<String, UnitProfile>,
    /// Packages that own what the units run, by name.
    pub packages: BTreeMap<String, PackageFact>,
    /// Configuration that was really read, by absolute path.
    pub files: BTreeMap<String, FileFact>,
    /// Kernel parameters, by name (`net.core.somaxconn`).
    pub parameters: BTreeMap<String, String>,
}

/// One unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitProfile {
    /// As `systemctl is-enabled` has it: `enabled`, `static`, `disabled`, `masked`, ...
    pub enabled: String,
    /// The programs that ran, by absolute path, each with the package that owns it, if one does.
    pub programs: BTreeMap<String, Option<String>>,
    /// The environment that systemd gives it: names, and values hashed under the group's key.
    pub environment: BTreeMap<String, ValueHash>,
    /// Where it listens.
    pub ports: BTreeSet<Port>,
    /// What it connects to.
    pub dependencies: BTreeSet<Dependency>,
    /// Its limits, by systemd's name (`LimitNOFILE`, `MemoryMax`).
    pub limits: BTreeMap<String, String>,
    /// Files under the configuration roots that it opened.
    pub reads: BTreeSet<String>,
    /// Files that systemd reads for it: unit files, drop-ins, environment files.
    pub defined_by: BTreeSet<String>,
}

/// A package as it is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageFact {
    /// Its version, as the package manager writes it.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    /// What it is.
    pub kind: FileKind,
    /// Name of the owner, or the number of one without a name.
    pub owner: String,
    /// The same of the group.
    pub group: String,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
}

/// What is at a path, and its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    Regular {
        /// Hash of its content.
        hash: ValueHash,
        /// Its length, bytes.
        size: u64,
        /// Its content may leave the host: the hash is a plain one.
        replicated: bool,
    },
    /// A symbolic link.
    Link {
        /// To where.
        target: String,
    },
    /// A directory.
    Directory,
    /// It could not be read whole: why.
    Unreadable {
        /// Why.
        why: String,
    },
}

impl UnitProfile {
    /// Limits that are compared, by systemd's names (systemd.exec(5), systemd.resource-control(5)).
    /// What is unlimited is `infinity`, all else is a number.
    pub const LIMITS: [&str; 8] = [
        "LimitNOFILE",
        "LimitNPROC",
        "LimitMEMLOCK",
        "LimitCORE",
        "MemoryMax",
        "MemoryHigh",
        "TasksMax",
        "CPUQuotaPerSecUSec",
    ];
    /// The drop-in by which shadowd sets them, on hosts where it did: the last one counts, and this one
    /// is named to be that. It is part of no unit's profile.
    pub const LIMITS_FILE: &str = "zz-shadowd-limits.conf";
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regular { hash, size, .. } => write!(f, "{size} bytes, {}", hash.short()),
            Self::Link { target } => write!(f, "a link to {target}"),
            Self::Directory => f.write_str("a directory"),
            Self::Unreadable { why } => write!(f, "unreadable: {why}"),
        }
    }
}

/// Where a unit listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
    /// On which addresses.
    pub scope: Scope,
}

/// On which addresses a unit listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All of the host.
    All,
    /// Loopback alone.
    Loopback,
    /// One that is the host's own.
    Own,
    /// A virtual IP of the group.
    Virtual,
}

/// What a unit connects to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dependency {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The name that DNS gave, else the address.
    pub remote: String,
    /// The port of the service.
    pub port: u16,
}

/// What is measured of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// Processors: 1 is one busy core.
    Cpu,
    /// Memory, bytes.
    Memory,
    /// Network, bytes received per second.
    NetworkIn,
    /// Network, bytes sent per second.
    NetworkOut,
    /// Block I/O, bytes read per second.
    DiskRead,
    /// Block I/O, bytes written per second.
    DiskWrite,
}

impl ResourceKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cpu,
        Self::Memory,
        Self::NetworkIn,
        Self::NetworkOut,
        Self::DiskRead,
        Self::DiskWrite,
    ];

    /// Its name for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::NetworkIn => "network_in",
            Self::NetworkOut => "network_out",
            Self::DiskRead => "disk_read",
            Self::DiskWrite => "disk_write",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::NetworkIn => "network in",
            Self::NetworkOut => "network out",
            Self::DiskRead => "disk read",
            Self::DiskWrite => "disk write",
        })
    }
}
