//! A peer as it may be shown.

use crate::facts::{BootTime, PathState, PathStatus};

/// One path is lost, the other carries.
pub(super) fn paths() -> Vec<PathStatus> {
    let first = PathStatus {
        local: "192.0.2.1:7373".to_owned(),
        remote: "192.0.2.2:7373".to_owned(),
        state: PathState::Lost,
        last_heard: Some(BootTime::from_nanos(80_000_000_000)),
        round_trip_ns: None,
        loss: Some(0.5),
        arrived: 10,
        missed: 9,
        refused: 2,
    };
    let second = PathStatus {
        state: PathState::Up,
        round_trip_ns: Some(300_000),
        missed: 0,
        ..first.clone()
    };
    vec![first, second]
}
