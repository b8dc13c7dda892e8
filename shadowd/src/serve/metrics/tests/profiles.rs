//! Readiness, accuracy and the repository of profiles as series.

use super::*;
use crate::facts::{
    Confusion, ProfileAccuracy, ProfileStatus, ReadinessSummary, RepositoryStatus,
    ResourceAccuracy, ResourceKind, VersionId,
};

/// A profile whose repository is reached.
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
        accuracy: ProfileAccuracy::default(),
    }]
}

/// What is said of `profiles`.
fn told(profiles: Vec<ProfileStatus>) -> Vec<Row> {
    let status = Status {
        profiles,
        ..status()
    };
    let text = Metrics::default().text(status, observed(Vec::new()), OwnUse::default());
    let of_profiles = |row: &Row| {
        ["shadowd_profile_", "shadowd_forecast_", "shadowd_ready"]
            .iter()
            .any(|prefix| row.0.starts_with(prefix))
    };
    read(&text).into_iter().filter(of_profiles).collect()
}

fn profile(accuracy: ProfileAccuracy) -> ProfileStatus {
    ProfileStatus {
        group: "web".parse().expect("a name"),
        version: None,
        readiness: None,
        repository: None,
        accuracy,
    }
}

fn judged() -> ProfileAccuracy {
    let units = Confusion {
        true_positives: 6,
        false_positives: 2,
        false_negatives: 4,
        true_negatives: 9,
    };
    let cpu = ResourceAccuracy {
        count: 12,
        mase: Some(0.5),
        pinball: Some(0.25),
        within_80: Some(0.75),
        within_95: Some(1.0),
    };
    // The day before was always right: there is nothing to scale by.
    let memory = ResourceAccuracy {
        count: 3,
        within_80: Some(1.0),
        within_95: Some(1.0),
        ..ResourceAccuracy::default()
    };
    ProfileAccuracy {
        units,
        resources: BTreeMap::from([
            (ResourceKind::Cpu, cpu),
            (ResourceKind::Memory, memory),
            (ResourceKind::DiskRead, ResourceAccuracy::default()),
        ]),
        ..ProfileAccuracy::default()
    }
}

/// The value of the one series of `name` with these labels beside the group.
fn of(rows: &[Row], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |row: &&Row| {
        let said = |(key, value): &(&str, &str)| row.1.get(*key).is_some_and(|it| it == value);
        row.0 == name && row.1.len() == labels.len() + 1 && labels.iter().all(said)
    };
    rows.iter().find(fits).map(|row| row.2)
}

#[test]
fn accuracy_is_told_by_kind_and_what_was_not_judged_has_no_series() {
    let rows = told(vec![profile(judged())]);
    for (name, labels, wanted) in [
        (
            "shadowd_profile_expectations_total",
            &[("what", "unit"), ("outcome", "false_negative")][..],
            Some(4.0),
        ),
        (
            "shadowd_profile_expectations_total",
            &[("what", "unit"), ("outcome", "true_negative")],
            Some(9.0),
        ),
        (
            "shadowd_profile_expectations_total",
            &[("what", "dependency"), ("outcome", "true_positive")],
            Some(0.0),
        ),
        (
            "shadowd_profile_precision_ratio",
            &[("what", "unit")],
            Some(0.75),
        ),
        (
            "shadowd_profile_recall_ratio",
            &[("what", "unit")],
            Some(0.6),
        ),
        (
            "shadowd_profile_recall_ratio",
            &[("what", "dependency")],
            None,
        ),
        (
            "shadowd_forecast_judged_total",
            &[("resource", "cpu")],
            Some(12.0),
        ),
        (
            "shadowd_forecast_judged_total",
            &[("resource", "disk_read")],
            None,
        ),
        (
            "shadowd_forecast_coverage_ratio",
            &[("resource", "cpu"), ("interval", "80")],
            Some(0.75),
        ),
        (
            "shadowd_forecast_coverage_ratio",
            &[("resource", "memory"), ("interval", "95")],
            Some(1.0),
        ),
        ("shadowd_forecast_mase", &[("resource", "cpu")], Some(0.5)),
        ("shadowd_forecast_mase", &[("resource", "memory")], None),
        (
            "shadowd_forecast_pinball_loss",
            &[("resource", "cpu")],
            Some(0.25),
        ),
    ] {
        assert_eq!(of(&rows, name, labels), wanted, "{name} {labels:?}");
    }
    // 8 counts, 2 shares, then 2 counts, 4 coverages, 1 loss, 1 error.
    assert_eq!(rows.len(), 18, "{rows:?}");
}

#[test]
fn readiness_has_its_score_and_its_age_once_it_was_compared() {
    let mut one = profile(ProfileAccuracy::default());
    let before = told(vec![one.clone()]);
    assert_eq!(before.len(), 8, "nothing but counts of 0: {before:?}");
    one.version = Some((7, VersionId::from_bytes([1; 32])));
    one.readiness = Some(ReadinessSummary {
        at: BootTime::from_nanos(86_000_000_000),
        score: 0.75,
        ready: 3,
        not_ready: 1,
        unknown: 0,
        worst: Vec::new(),
    });
    let rows = told(vec![one]);
    for (name, labels, wanted) in [
        ("shadowd_profile_version", &[][..], 7.0),
        ("shadowd_ready", &[], 0.0),
        ("shadowd_ready_score_ratio", &[], 0.75),
        ("shadowd_ready_age_seconds", &[], 4.0),
        ("shadowd_ready_items", &[("verdict", "ready")], 3.0),
        ("shadowd_ready_items", &[("verdict", "not_ready")], 1.0),
        ("shadowd_ready_items", &[("verdict", "cannot_tell")], 0.0),
    ] {
        assert_eq!(of(&rows, name, labels), Some(wanted), "{name} {labels:?}");
    }
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
