//! What is shown of a group's profile all the time.

use serde::{Deserialize, Serialize};

use super::{Item, ProfileAccuracy, RepositoryStatus, VersionId};
use crate::facts::{BootTime, Name};

/// A group's profile on this host, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileStatus {
    /// The group.
    pub group: Name,
    /// Number and identity of the version in use; none before the first.
    pub version: Option<(u64, VersionId)>,
    /// How this host compares with it; none on the owner, and while nothing was compared.
    pub readiness: Option<ReadinessSummary>,
    /// How its versions stand to those in the central repository; none where that is off.
    #[serde(default)]
    pub repository: Option<RepositoryStatus>,
    /// How often what was learned was right.
    #[serde(default)]
    pub accuracy: ProfileAccuracy,
}

/// How a host compares with a profile, in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadinessSummary {
    /// When it was compared.
    pub at: BootTime,
    /// The share of items that are ready, 0 to 1.
    pub score: f64,
    /// Items that are ready.
    pub ready: usize,
    /// Items that are not.
    pub not_ready: usize,
    /// Items of which nobody can tell.
    pub unknown: usize,
    /// The first that are not ready, then those of which nobody can tell; at most
    /// [`Self::WORST`].
    pub worst: Vec<Item>,
}

impl ReadinessSummary {
    /// So many items are named.
    pub const WORST: usize = 3;
}
