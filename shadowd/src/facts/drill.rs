//! What became of a drill.

use serde::{Deserialize, Serialize};

use super::Name;

/// How far a drill is, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillState {
    /// It goes on.
    Running,
    /// Every unit came up, every check passed, nothing is left.
    Passed,
    /// A step failed.
    Failed,
    /// It was given up before its end, because of what happened meanwhile.
    Aborted,
    /// It was due and did not begin.
    Skipped,
}

impl std::fmt::Display for DrillState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Skipped => "skipped",
        })
    }
}

/// One step of a drill that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStep {
    /// What: `namespace`, `unit NAME`, `check NAME`, `teardown`.
    pub what: String,
    /// Whether it ended well.
    pub ok: bool,
    /// How long it took.
    pub took_ms: u64,
    /// How it ended, in words.
    pub said: String,
}

/// The last drill of a group on this host, or the one that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The group.
    pub group: Name,
    /// How far it is.
    pub state: DrillState,
    /// Whether the schedule began it; else an operator did.
    pub scheduled: bool,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// How long it took, or takes by now.
    pub took_ms: u64,
    /// Why it did not pass; empty otherwise.
    pub why: String,
    /// What was done, in order.
    pub steps: Vec<DrillStep>,
    /// When a drill of the group last passed on this host, in milliseconds since the Unix epoch.
    pub last_passed_ms: Option<u64>,
}
