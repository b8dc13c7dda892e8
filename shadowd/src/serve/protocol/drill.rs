//! What the socket says of drills.

use serde::{Deserialize, Serialize};

use crate::facts::DrillReport;

/// `POST` a [`DrillRequest`]: the [`DrillReport`] of a drill that began.
pub const DRILL: &str = "/v1/groups/{group}/drill";
/// `GET`: [`Drills`].
pub const DRILLS: &str = "/v1/drills";

/// A drill of one group on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {}

/// The last drill of each group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drills {
    /// One for each group that had one on this host.
    pub drills: Vec<DrillReport>,
}
