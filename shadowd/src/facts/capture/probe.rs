//! Capture itself: what feeds the probes, what they cost and lost, what is remembered and recorded.

use serde::{Deserialize, Serialize};

/// Every feature that can be switched off, by the name it has everywhere.
pub const FEATURES: &[&str] = &[
    "syscalls",
    "tcp",
    "udp",
    "udp-remotes",
    "listeners",
    "before",
    "dns",
    "block",
    "files",
    "opens",
    "processes",
    "oom",
    "cgroups",
];

/// A feature of capture and how it is fed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeStatus {
    /// Name of the feature, such as `tcp`.
    pub name: String,
    /// What it feeds, in words.
    pub feeds: String,
    /// The hook in use, such as `tp_btf inet_sock_set_state`; none when off.
    pub hook: Option<String>,
    /// The better hooks that are not in use, and why.
    pub refused: Vec<String>,
    /// Why it is off or reduced.
    pub degraded: Option<String>,
    /// What it told of since capture began: seen, dropped, unattributed and filtered.
    pub events: Option<u64>,
    /// Runs of its programs per second: counted by the kernel while cost is measured, and
    /// followed since by what it tells.
    pub events_per_second: Option<f64>,
    /// What was lost.
    pub losses: ProbeLosses,
    /// Mean time of one run of its programs as the kernel measured it, ns, the two clock readings
    /// around it included; none before the first measurement.
    pub cost_ns: Option<f64>,
    /// What that is of one processor at that rate: 0.01 is one percent.
    pub cpu_share: Option<f64>,
}

/// What one feature saw and lost since capture began. Everything that happened is in exactly one
/// of the first four, but for what the kernel left out; totals never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeLosses {
    /// Reached the daemon and was given to a process or unit.
    pub seen: u64,
    /// Was refused by a full map or buffer, or by a bound of the daemon.
    pub dropped: u64,
    /// Reached the daemon and could not be given to a process or unit.
    pub unattributed: u64,
    /// Reached the daemon and was left out because the configuration says so.
    pub filtered: u64,
    /// Runs of its programs that the kernel left out because the program was at work on that
    /// processor already, interrupted in its middle. Each is at most one thing that is in none of
    /// the other four. Unknown before Linux 5.12, then 0.
    pub missed: u64,
}

impl ProbeLosses {
    /// All that happened, but for what the kernel left out.
    pub fn total(&self) -> u64 {
        [self.dropped, self.unattributed, self.filtered]
            .iter()
            .fold(self.seen, |sum, count| sum.saturating_add(*count))
    }
}

/// What capture itself costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureCost {
    /// Processor time of the whole daemon in the last interval, as a share of one processor.
    pub cpu_share: Option<f64>,
    /// Of that, the thread that captures.
    pub capture_cpu_share: Option<f64>,
    /// Resident memory of the daemon, bytes.
    pub rss_bytes: Option<u64>,
    /// When the programs' cost is measured, or why it is not.
    pub measured: String,
}

/// The sum of all features' [`ProbeLosses`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Records that reached the daemon.
    pub seen: u64,
    /// Records that a full map or a full buffer refused.
    pub dropped: u64,
    /// Records that reached the daemon but could not be given to a process or unit.
    pub unattributed: u64,
}

/// A bounded table of the daemon. What was evicted stays counted in the totals of its unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableStatus {
    /// What it holds, such as `flows`.
    pub name: String,
    /// Entries now.
    pub entries: u64,
    /// Entries at most.
    pub limit: u64,
    /// Entries that made room for others since the daemon started.
    pub evicted: u64,
}

/// The recorded observations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HistoryStatus {
    /// Whether observations are recorded.
    pub recording: bool,
    /// Records that can be read.
    pub records: u64,
    /// Records that were found damaged, and places where one may have been.
    pub corrupt: u64,
    /// Observations that were not recorded since the daemon started: the queue was full or the
    /// disk refused.
    pub dropped: u64,
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes on the disk at most.
    pub max_bytes: u64,
    /// End of the oldest record, ms since 1970; none when there is none.
    pub oldest_ms: Option<i64>,
    /// End of the newest record.
    pub newest_ms: Option<i64>,
    /// Why the last write failed; none after one that did not.
    pub failure: Option<String>,
}
