//! What the socket says of recorded observations.

use serde::{Deserialize, Serialize};

use crate::facts::Observation;

/// `GET` with [`AtQuery`]: a [`Recorded`].
pub const HISTORY_AT: &str = "/v1/history/at";
/// `GET` with [`RecordsQuery`]: [`Records`].
pub const HISTORY_RECORDS: &str = "/v1/history/records";
/// `GET` with [`SumQuery`]: a [`RecordedSum`].
pub const HISTORY_SUM: &str = "/v1/history/sum";

/// More records than this in one answer are refused.
pub const MAX_RECORDS: u32 = 1_000;

/// Which moment is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AtQuery {
    /// The moment, ms since 1970.
    pub wall_ms: i64,
}

/// Which records are wanted: those whose intervals ended between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsQuery {
    /// From when on, ms since 1970.
    pub from_ms: i64,
    /// Until when, ms since 1970.
    pub to_ms: i64,
    /// Only records with a larger number: the last one of the answer before.
    #[serde(default)]
    pub after: u64,
    /// At most so many: 1 to [`MAX_RECORDS`].
    #[serde(default = "default_limit")]
    pub limit: u32,
}

const fn default_limit() -> u32 {
    MAX_RECORDS
}

/// Of which intervals the sum is wanted: of those that ended between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SumQuery {
    /// From when on, ms since 1970.
    pub from_ms: i64,
    /// Until when, ms since 1970.
    pub to_ms: i64,
}

/// What was observed at a moment: what was active, without the totals of flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The observation.
    pub observation: Observation,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number; later records have larger ones.
    pub number: u64,
    /// What was observed.
    pub observation: Observation,
}

/// Records, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// The records.
    pub records: Vec<Record>,
    /// Whether there are more after these.
    pub more: bool,
}

/// Many intervals as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordedSum {
    /// Their sum.
    pub observation: Observation,
    /// How many they are.
    pub records: u64,
    /// Begin of the first, ms since 1970.
    pub from_ms: i64,
    /// Whether reading all of them would have taken too long, so that the oldest are missing.
    #[serde(default)]
    pub cut: bool,
}
