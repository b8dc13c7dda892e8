//! What the socket says of drills.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::{DrillReport, Name};

/// `POST` a [`DrillRequest`]: the [`DrillReport`] of a drill that began.
pub const DRILL: &str = "/v1/groups/{group}/drill";
/// `POST` a [`DrillEndRequest`]: an [`super::OrderDone`].
pub const DRILL_END: &str = "/v1/groups/{group}/drill/end";
/// `GET`: [`Drills`].
pub const DRILLS: &str = "/v1/drills";

/// A live drill lasts from this.
pub const MIN_LIVE: Duration = Duration::from_secs(5);
/// To this.
pub const MAX_LIVE: Duration = Duration::from_secs(24 * 60 * 60);

/// A drill of one group on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// Another member is to own the group for a time; none: the units come up in a network of their
    /// own.
    #[serde(default)]
    pub live: Option<LiveRequest>,
}

/// A live drill: this host owns the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveRequest {
    /// Who shall own it; the best member if none.
    #[serde(default)]
    pub to: Option<Name>,
    /// For how many seconds, [`MIN_LIVE`] to [`MAX_LIVE`].
    pub for_s: u64,
}

/// The end of a live drill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillEndRequest {}

/// The last drill of each group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drills {
    /// One for each group that had one on this host.
    pub drills: Vec<DrillReport>,
    /// Those before, oldest first, without their steps.
    #[serde(default)]
    pub earlier: Vec<DrillReport>,
}
