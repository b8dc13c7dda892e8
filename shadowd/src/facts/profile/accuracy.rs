//! How often a profile was right, as it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Confusion, ResourceKind};

/// How often the profile was right.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProfileAccuracy {
    /// Hours of units since learning began.
    pub units: Confusion,
    /// Hours of dependencies.
    pub dependencies: Confusion,
    /// Units: of what was expected, the share that ran.
    pub unit_precision: Option<f64>,
    /// Units: of what ran, the share that was expected.
    pub unit_recall: Option<f64>,
    /// Dependencies: of what was expected, the share that was used.
    pub dependency_precision: Option<f64>,
    /// Dependencies: of what was used, the share that was expected.
    pub dependency_recall: Option<f64>,
    /// By resource.
    pub resources: BTreeMap<ResourceKind, ResourceAccuracy>,
}

/// How good the forecasts of a resource were, a day ahead.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceAccuracy {
    /// Forecasts that were judged.
    pub count: u64,
    /// Mean absolute error by that of the day before.
    pub mase: Option<f64>,
    /// Pinball loss by the same.
    pub pinball: Option<f64>,
    /// The share within the 80 % interval.
    pub within_80: Option<f64>,
    /// The share within the 95 % interval.
    pub within_95: Option<f64>,
}
