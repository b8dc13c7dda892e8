//! What the socket says of decisions, and of the core that takes them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::group_path;
use crate::facts::{BootTime, Decision, Name};

/// `GET`: [`Decisions`].
pub const DECISIONS: &str = "/v1/groups/{group}/decisions";
/// `GET`: a [`RecordedDecision`].
pub const DECISION: &str = "/v1/groups/{group}/decisions/{number}";
/// `GET`: a [`CoreNow`].
pub const CORE: &str = "/v1/groups/{group}/core";

/// How long the daemon waits for its failover loop before it answers `timed_out`.
pub const CORE_TIMEOUT: Duration = Duration::from_secs(3);

/// The path of the decision `number` of `group`.
pub fn decision_path(group: &Name, number: u64) -> String {
    group_path(DECISION, group).replace("{number}", &number.to_string())
}

/// The decisions of a group that are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    /// The decisions, oldest first.
    pub decisions: Vec<Decision>,
    /// Decisions of any group that were not kept since the daemon started.
    #[serde(default)]
    pub dropped: u64,
}

/// A decision with all that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedDecision {
    /// What was decided.
    pub decision: Decision,
    /// The core before, and all that reached it since: base64 of bytes that only a program of the
    /// daemon's own version understands.
    pub window: String,
}

/// The core of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreNow {
    /// When.
    pub now: BootTime,
    /// The core, as a [`RecordedDecision::window`] in which nothing has happened yet.
    pub core: String,
}
