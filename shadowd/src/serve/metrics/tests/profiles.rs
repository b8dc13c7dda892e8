//! A profile whose repository is reached.

use super::{Metrics, scrape, value};
use crate::facts::{BootTime, ProfileStatus, RepositoryStatus};

pub(super) fn profiles() -> Vec<ProfileStatus> {
    vec![ProfileStatus {
        group: "web".parse().expect("a name"),
        version: None,
        readiness: None,
        repository: Some(RepositoryStatus {
            reached: Some(BootTime::from_nanos(1)),
            listed: Some(BootTime::from_nanos(60_000_000_000)),
            to_put: 2,
            refused: 3,
            ..RepositoryStatus::default()
        }),
    }]
}

#[test]
fn a_repository_has_rows() {
    let rows = scrape(&Metrics::default(), Vec::new());
    for (name, label, wanted) in [
        ("shadowd_profile_repository_reached", ("group", "web"), 1.0),
        (
            "shadowd_profile_repository_listed_age_seconds",
            ("group", "web"),
            30.0,
        ),
        (
            "shadowd_profile_repository_versions",
            ("state", "to_put"),
            2.0,
        ),
        (
            "shadowd_profile_repository_objects_total",
            ("done", "refused"),
            3.0,
        ),
    ] {
        assert_eq!(value(&rows, name, label), Some(wanted), "{name} {label:?}");
    }
}
