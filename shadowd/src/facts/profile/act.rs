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
    /// Have a warm unit read its configuration again.
    Reload {
        /// The unit.
        unit: String,
    },
    /// Start a warm unit anew: its environment or its definition is another.
    Restart {
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
            | Self::Start { .. }
            | Self::Reload { .. }
            | Self::Restart { .. } => ActKind::Units,
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
            | Self::Reload { unit }
            | Self::Restart { unit }
            | Self::Open { unit, .. }
            | Self::Warm { unit, .. } => Some(unit),
            Self::Install { .. }
            | Self::Copy { .. }
            | Self::Own { .. }
            | Self::Mode { .. }
            | Self::Parameter { .. } => None,
        }
    }

    /// The path that it changes.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Copy { path, .. } | Self::Own { path, .. } | Self::Mode { path, .. } => {
                Some(path)
            }
            _ => None,
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
            Self::Start { .. } | Self::Reload { .. } | Self::Restart { .. } => 9,
            Self::Open { .. } => 10,
            Self::Warm { .. } => 11,
        }
    }
}

/// A word of a command as a shell takes it: people paste these, and anybody may name a file.
#[derive(Clone, Copy, Debug)]
pub struct ShellWord<'a>(pub &'a str);

impl fmt::Display for ShellWord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-~".contains(c);
        if !self.0.is_empty() && !self.0.starts_with('~') && self.0.chars().all(plain) {
            return f.write_str(self.0);
        }
        // Within single quotes nothing has a meaning but they themselves (POSIX.1-2024, 2.2.2).
        write!(f, "'{}'", self.0.replace('\'', r"'\''"))
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |text| ShellWord(text);
        match self {
            Self::Install { package, version } => {
                write!(f, "apt-get install {}={}", word(package), word(version))
            }
            Self::Copy { path, fact } => match &fact.kind {
                FileKind::Link { target } => {
                    write!(f, "ln -sfn {} {}", word(target), word(path))
                }
                FileKind::Directory => write!(f, "mkdir -p {}", word(path)),
                _ => write!(f, "copy {} from the active", word(path)),
            },
            Self::Own { path, owner, group } => {
                write!(f, "chown -h {}:{} {}", word(owner), word(group), word(path))
            }
            Self::Mode { path, mode } => write!(f, "chmod {mode:04o} {}", word(path)),
            Self::Parameter { name, value } => {
                write!(f, "sysctl -w {}={}", word(name), word(value))
            }
            Self::Limit { unit, name, value } => {
                let (unit, name, value) = (word(unit), word(name), word(value));
                write!(
                    f,
                    "systemctl edit {unit}, with {name}={value}; then restart it"
                )
            }
            Self::Unmask { unit } => write!(f, "systemctl unmask {}", word(unit)),
            Self::Enable { unit } => write!(f, "systemctl enable {}", word(unit)),
            Self::Disable { unit } => write!(f, "systemctl disable {}", word(unit)),
            Self::Start { unit } => write!(f, "systemctl start {}", word(unit)),
            Self::Reload { unit } => write!(f, "systemctl reload-or-restart {}", word(unit)),
            Self::Restart { unit } => write!(f, "systemctl restart {}", word(unit)),
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
                write!(f, "cat {} >/dev/null", word(first))?;
                match files.len() {
                    0 | 1 => write!(f, " ({mebibytes} MiB for {unit})"),
                    all => write!(f, " and {} more ({mebibytes} MiB for {unit})", all - 1),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_whatever_a_file_is_called() {
        let mode = |path: &str| {
            let act = Act::Mode {
                path: path.into(),
                mode: 0o640,
            };
            act.to_string()
        };
        assert_eq!(mode("/etc/a-b_c.d/x@1"), "chmod 0640 /etc/a-b_c.d/x@1");
        for (path, told) in [
            ("/etc/x; reboot", "chmod 0640 '/etc/x; reboot'"),
            ("/etc/$(id)", "chmod 0640 '/etc/$(id)'"),
            ("/etc/it's", r"chmod 0640 '/etc/it'\''s'"),
            ("/etc/two\nlines", "chmod 0640 '/etc/two\nlines'"),
            ("", "chmod 0640 ''"),
        ] {
            assert_eq!(mode(path), told);
        }
        let parameter = Act::Parameter {
            name: "net.ipv4.ip_local_port_range".into(),
            value: "1024 65535".into(),
        };
        assert_eq!(
            parameter.to_string(),
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535'"
        );
    }
}
