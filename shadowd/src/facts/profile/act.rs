//! What shadowd can do about something that is not ready.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{FileFact, FileKind, FilterChain, HotFile};
use crate::facts::Protocol;

/// One change of this host. Shown as the command that an operator would type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "act")]
pub enum Act {
    /// Install a package in this version.
    Install {
        /// Its name.
        package: String,
        /// As the package manager writes it.
        version: String,
    },
    /// Make a path what it is on the active: a file with its content, a link, a directory.
    Copy {
        /// Absolute.
        path: String,
        /// What is there on the active.
        fact: FileFact,
    },
    /// Give a path to this owner.
    Own {
        /// Absolute.
        path: String,
        /// Name or number.
        owner: String,
        /// Name or number.
        group: String,
    },
    /// Set the permission bits of a path.
    Mode {
        /// Absolute.
        path: String,
        /// 0 to 0o7777.
        mode: u32,
    },
    /// Set a kernel parameter, now and for the next boot.
    Parameter {
        /// As sysctl has it.
        name: String,
        /// Its value.
        value: String,
    },
    /// Set a limit of a unit.
    Limit {
        /// The unit.
        unit: String,
        /// systemd's name of it.
        name: String,
        /// Its value.
        value: String,
    },
    /// Unmask a unit.
    Unmask {
        /// The unit.
        unit: String,
    },
    /// Enable a unit.
    Enable {
        /// The unit.
        unit: String,
    },
    /// Disable a unit.
    Disable {
        /// The unit.
        unit: String,
    },
    /// Start a warm unit.
    Start {
        /// The unit.
        unit: String,
    },
    /// Let connections to a port in, until the rules are loaded again.
    Open {
        /// The unit that listens there.
        unit: String,
        /// TCP or UDP.
        protocol: Protocol,
        /// The port.
        port: u16,
        /// Where the rule goes.
        chain: FilterChain,
    },
    /// Read what a unit keeps in memory on the active.
    Warm {
        /// The unit, whether or not it runs here.
        unit: String,
        /// What of which files, by absolute path.
        files: BTreeMap<String, HotFile>,
    },
}

/// What a policy allows or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// Packages.
    Packages,
    /// Configuration files: content, owner, mode.
    Files,
    /// Kernel parameters.
    Parameters,
    /// Units and their limits.
    Units,
    /// Files that are read into memory.
    Cache,
    /// Rules of the packet filter.
    Firewall,
}

impl Act {
    /// What a policy calls it.
    pub const fn kind(&self) -> ActKind {
        match self {
            Self::Install { .. } => ActKind::Packages,
            Self::Copy { .. } | Self::Own { .. } | Self::Mode { .. } => ActKind::Files,
            Self::Parameter { .. } => ActKind::Parameters,
            Self::Limit { .. }
            | Self::Unmask { .. }
            | Self::Enable { .. }
            | Self::Disable { .. }
            | Self::Start { .. } => ActKind::Units,
            Self::Warm { .. } => ActKind::Cache,
            Self::Open { .. } => ActKind::Firewall,
        }
    }

    /// The unit that it is done for, if it is for one.
    pub fn unit(&self) -> Option<&str> {
        match self {
            Self::Limit { unit, .. }
            | Self::Unmask { unit }
            | Self::Enable { unit }
            | Self::Disable { unit }
            | Self::Start { unit }
            | Self::Open { unit, .. }
            | Self::Warm { unit, .. } => Some(unit),
            Self::Install { .. }
            | Self::Copy { .. }
            | Self::Own { .. }
            | Self::Mode { .. }
            | Self::Parameter { .. } => None,
        }
    }

    /// Acts go in this order: what is installed brings users and units, and what is started reads
    /// what was copied.
    pub const fn order(&self) -> u8 {
        match self {
            Self::Install { .. } => 0,
            Self::Copy { fact, .. } => match fact.kind {
                FileKind::Directory => 1,
                _ => 2,
            },
            Self::Own { .. } => 3,
            Self::Mode { .. } => 4,
            Self::Parameter { .. } => 5,
            Self::Unmask { .. } => 6,
            Self::Limit { .. } => 7,
            Self::Enable { .. } | Self::Disable { .. } => 8,
            Self::Start { .. } => 9,
            Self::Open { .. } => 10,
            Self::Warm { .. } => 11,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Install { package, version } => write!(f, "apt-get install {package}={version}"),
            Self::Copy { path, fact } => match &fact.kind {
                FileKind::Link { target } => write!(f, "ln -sfn {target} {path}"),
                FileKind::Directory => write!(f, "mkdir -p {path}"),
                _ => write!(f, "copy {path} from the active"),
            },
            Self::Own { path, owner, group } => write!(f, "chown -h {owner}:{group} {path}"),
            Self::Mode { path, mode } => write!(f, "chmod {mode:04o} {path}"),
            Self::Parameter { name, value } => write!(f, "sysctl -w {name}='{value}'"),
            Self::Limit { unit, name, value } => {
                write!(
                    f,
                    "systemctl edit {unit}, with {name}={value}; then restart it"
                )
            }
            Self::Unmask { unit } => write!(f, "systemctl unmask {unit}"),
            Self::Enable { unit } => write!(f, "systemctl enable {unit}"),
            Self::Disable { unit } => write!(f, "systemctl disable {unit}"),
            Self::Start { unit } => write!(f, "systemctl start {unit}"),
            Self::Open {
                protocol,
                port,
                chain,
                ..
            } => {
                let FilterChain {
                    family,
                    table,
                    chain,
                } = chain;
                let protocol = protocol.to_string().to_lowercase();
                write!(
                    f,
                    "nft insert rule {family} {table} {chain} {protocol} dport {port} accept"
                )
            }
            Self::Warm { unit, files } => {
                let bytes = files.values().map(HotFile::bytes);
                let bytes = bytes.fold(0_u64, u64::saturating_add);
                let mebibytes = bytes.div_ceil(1 << 20);
                let first = files.keys().next().map_or("", String::as_str);
                write!(f, "cat {first} >/dev/null")?;
                match files.len() {
                    0 | 1 => write!(f, " ({mebibytes} MiB for {unit})"),
                    all => write!(f, " and {} more ({mebibytes} MiB for {unit})", all - 1),
                }
            }
        }
    }
}
