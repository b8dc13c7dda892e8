//! What is learned of a group, what of it may leave the host, and what shadowd may do about a shadow
//! that is not ready, after validation.

use std::time::Duration;

use super::pattern::Glob;

/// What shadowd does about something that is not ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Provision {
    /// Tell.
    Observe,
    /// Tell, with the command that would mend it.
    #[default]
    Suggest,
    /// Mend it.
    Apply,
}

/// What shadowd may do, by what is not ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProvisionSettings {
    /// Configuration files: content, owner, mode.
    pub files: Provision,
    /// Packages: install them in the version of the active.
    pub packages: Provision,
    /// Units: enable, unmask and start warm ones, raise limits.
    pub units: Provision,
    /// Kernel parameters.
    pub parameters: Provision,
    /// Files that units keep in memory on the active: read them here.
    pub cache: Provision,
    /// The packet filter: open ports that the active has open.
    pub firewall: Provision,
}

/// Profiles of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileSettings {
    /// Whether anything is learned at all.
    pub learn: bool,
    /// Units that belong to the group beside those it starts and stops: jobs, timers, databases.
    pub units: Vec<Glob>,
    /// How long something has to last before it is believed: 1 s to 24 h.
    pub settle: Duration,
    /// What was not seen for so long is gone: `settle` to 28 days.
    pub forget: Duration,
    /// Files whose content may leave the host.
    pub replicate: Vec<Glob>,
    /// Files whose content may not, whatever `replicate` says.
    pub secret: Vec<Glob>,
    /// Files that differ from host to host: they are not learned.
    pub ignore: Vec<Glob>,
    /// Kernel parameters that are compared.
    pub parameters: Vec<String>,
    /// What shadowd may do about what is not ready.
    pub provision: ProvisionSettings,
}

impl Default for ProfileSettings {
    fn default() -> Self {
        let globs = |all: &[&str]| all.iter().filter_map(|one| one.parse().ok()).collect();
        Self {
            learn: true,
            units: Vec::new(),
            settle: Duration::from_secs(600),
            forget: Duration::from_secs(8 * 24 * 3_600),
            replicate: Vec::new(),
            secret: globs(&SECRET),
            ignore: globs(&IGNORE),
            parameters: PARAMETERS.map(str::to_owned).into(),
            provision: ProvisionSettings::default(),
        }
    }
}

/// What stays on its host unless somebody writes another list.
pub const SECRET: [&str; 8] = [
    "*.key",
    "*.pem",
    "*/private/*",
    "*secret*",
    "*password*",
    "*credential*",
    "/etc/shadow*",
    "/etc/gshadow*",
];

/// What differs from host to host, unless somebody writes another list.
pub const IGNORE: [&str; 15] = [
    "/etc/group*",
    "/etc/gshadow*",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/machine-info",
    "/etc/mtab",
    "/etc/passwd*",
    "/etc/resolv.conf",
    "/etc/shadow*",
    "/etc/shadowd/*",
    "/etc/ssh/ssh_host_*",
    "/etc/ssl/*snakeoil*",
];

/// Kernel parameters that are compared unless somebody writes another list.
pub const PARAMETERS: [&str; 8] = [
    "fs.file-max",
    "kernel.pid_max",
    "net.core.somaxconn",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_max_syn_backlog",
    "vm.max_map_count",
    "vm.overcommit_memory",
];
