//! What the socket says of a restore of this host to the golden version.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::{Item, Name, VersionId};

/// `POST` a [`RestoreRequest`]: a [`GoldenRestore`] that has begun. `GET`: the one that was begun last.
pub const PROFILE_RESTORE: &str = "/v1/groups/{group}/profile/restore";
/// A restore ends after so long unless a request names another time.
pub const DEFAULT_RESTORE: Duration = Duration::from_secs(600);
/// The longest and the shortest time that a request may name.
pub const MAX_RESTORE: Duration = Duration::from_secs(24 * 3_600);
/// The shortest: one look and one batch of acts.
pub const MIN_RESTORE: Duration = Duration::from_secs(10);

/// This host is to be brought back to the golden version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// After so many seconds it ends, whatever is still lacking; [`DEFAULT_RESTORE`] if left out.
    #[serde(default)]
    pub within_s: Option<u64>,
}

/// How a restore stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenRestore {
    /// The group.
    pub group: Name,
    /// Number of the golden version.
    pub number: u64,
    /// Its identity.
    pub id: VersionId,
    /// When it was begun, ms since 1970.
    pub began_ms: i64,
    /// How it stands.
    pub state: RestoreState,
    /// Why it ended so; empty while it runs.
    pub why: String,
    /// What was done, a sentence for each act, oldest first: the first [`Self::DONE_MAX`].
    pub done: Vec<String>,
    /// Items of the version that are as it has them.
    pub ready: usize,
    /// All items; 0 before the first comparison.
    pub items: usize,
    /// What is lacking or not known: what is not ready first.
    pub left: Vec<Item>,
    /// By itself shadowd does nothing more on this host until `resume`: it would go on to the version in
    /// use, which has another content.
    pub held: bool,
}

impl GoldenRestore {
    /// So many sentences are kept.
    pub const DONE_MAX: usize = 1_024;
}

/// How a restore stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreState {
    /// It is under way.
    Running,
    /// This host was compared with the golden version after the last act, and is like it.
    Restored,
    /// Something is still lacking.
    Incomplete,
    /// This host owns the group now.
    Abandoned,
}
