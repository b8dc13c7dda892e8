//! Capture's settings after validation.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::pattern::{Glob, Network};

/// Capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    /// Between two drains of the kernel's tables: 100 ms to 1 min.
    pub tick: Duration,
    /// Whether eBPF may be used; procfs alone otherwise.
    pub ebpf: bool,
    /// When the cost of programs is measured.
    pub cost: CostMeasurement,
    /// Features that are switched off, by name.
    pub probes_off: BTreeSet<String>,
    /// Configuration roots, absolute and normalised.
    pub paths: Vec<PathBuf>,
    /// What is left out.
    pub filter: FilterSettings,
    /// What is made unreadable.
    pub redact: RedactSettings,
    /// How much tables hold.
    pub limits: LimitSettings,
}

impl CaptureSettings {
    /// The configuration roots unless told otherwise.
    pub fn default_paths() -> Vec<PathBuf> {
        ["/etc", "/usr/local/etc", "/opt", "/srv"]
            .map(PathBuf::from)
            .into()
    }
}

impl Default for CaptureSettings {
    fn default() -> Self {
        Self {
            tick: Duration::from_secs(1),
            ebpf: true,
            cost: CostMeasurement::default(),
            probes_off: BTreeSet::new(),
            paths: Self::default_paths(),
            filter: FilterSettings::default(),
            redact: RedactSettings::default(),
            limits: LimitSettings::default(),
        }
    }
}

/// When the kernel's statistics of programs are switched on, for 200 ms at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CostMeasurement {
    /// A few times after the start; CAP_SYS_ADMIN is given up afterwards.
    #[default]
    Start,
    /// And then once a minute; CAP_SYS_ADMIN is kept by the capturing thread.
    Always,
    /// Never.
    Off,
}

/// What is captured, of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// Only these; all when empty.
    pub include: Vec<T>,
    /// Not these.
    pub exclude: Vec<T>,
}

impl<T> Default for Choice<T> {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

impl<T> Choice<T> {
    /// Whether it chooses something that `is` recognises.
    pub fn takes(&self, is: impl Fn(&T) -> bool) -> bool {
        (self.include.is_empty() || self.include.iter().any(&is)) && !self.exclude.iter().any(&is)
    }

    /// Whether it takes everything.
    pub fn takes_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// What is left out before anything is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterSettings {
    /// By the name of the unit, `-` for none.
    pub units: Choice<Glob>,
    /// By the port of either end of a flow.
    pub ports: Choice<u16>,
    /// By the remote end of a flow.
    pub networks: Choice<Network>,
}

/// What is made unreadable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedactSettings {
    /// Short names of processes.
    pub commands: Vec<Glob>,
    /// Paths of files.
    pub paths: Vec<Glob>,
    /// Names from DNS answers.
    pub names: Vec<Glob>,
    /// What is written instead.
    pub with: Redaction,
}

/// What is written instead of a redacted text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redaction {
    /// `[redacted]`.
    #[default]
    Mark,
    /// A keyed hash.
    Hash,
}

/// How much tables hold; none: as much as they hold by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// Records of system calls in the kernel.
    pub syscalls: Option<u32>,
    /// Bytes of the buffer of process events.
    pub events_bytes: Option<u32>,
    /// Flows that the kernel side holds.
    pub kernel_flows: Option<u32>,
    /// Live TCP sockets that are followed.
    pub sockets: Option<u32>,
    /// Listening sockets that are followed.
    pub listeners: Option<u32>,
    /// Flows remembered.
    pub flows: Option<u32>,
    /// Processes remembered.
    pub processes: Option<u32>,
}
