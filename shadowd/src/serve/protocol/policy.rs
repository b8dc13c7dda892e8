//! What the socket says of maintenance and freezes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::Name;

/// `POST` a [`MaintenanceRequest`]: [`OrderDone`].
pub const MAINTENANCE: &str = "/v1/groups/{group}/maintenance";
/// `POST` a [`FreezeRequest`]: [`OrderDone`].
pub const FREEZE: &str = "/v1/groups/{group}/freeze";
/// `POST` an [`UnfreezeRequest`]: [`OrderDone`].
pub const UNFREEZE: &str = "/v1/groups/{group}/unfreeze";

/// Orders that end by themselves last from 1 s to this.
pub const MAX_ORDER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a freeze lasts when a request does not say: one that is forgotten must end.
pub const DEFAULT_FREEZE: Duration = Duration::from_secs(60 * 60);
/// A longer reason (characters) is refused.
pub const MAX_REASON: usize = 200;

/// Maintenance of this host in one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// Begin or end.
    pub on: bool,
    /// Ends by itself after so many seconds, 1 to 30 days; until it is ended when none.
    #[serde(default)]
    pub for_s: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Also when nobody else could own the group: this host then keeps it until somebody can.
    #[serde(default)]
    pub force: bool,
}

/// A freeze of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// Ends by itself after so many seconds, 1 to 30 days; [`DEFAULT_FREEZE`] when none.
    #[serde(default)]
    pub for_s: Option<u64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// The end of a freeze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnfreezeRequest {}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDone {
    /// The group.
    pub group: Name,
    /// Who owns it now because of the order; none when nothing had to move.
    #[serde(default)]
    pub handed_to: Option<Name>,
    /// This host is in maintenance and owns the group all the same, until somebody else can.
    #[serde(default)]
    pub kept: bool,
}
