//! A decision of a group's core, as it is kept with all that led to it.

use serde::{Deserialize, Serialize};

use super::{BootTime, Cause, EventKind};

/// What was decided, and when. Of several things at once it is the weightiest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Number in this host's store, from 1; 0 until the store has numbered it.
    pub number: u64,
    /// When, on the host's boot clock.
    pub at: BootTime,
    /// When, in milliseconds since the Unix epoch: for people only.
    pub wall_ms: u64,
    /// What.
    pub kind: EventKind,
    /// The epoch counter it was taken in.
    pub epoch: u64,
    /// Epochs of everything that was decided with it: the smallest counter.
    pub first_epoch: u64,
    /// And the largest.
    pub last_epoch: u64,
    /// Why.
    pub cause: Option<Cause>,
}
