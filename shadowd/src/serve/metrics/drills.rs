//! Drills.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::encode::Base::{Count, Seconds};
use super::encode::{Family, flag, gauge, labels};
use crate::facts::{DrillReport, DrillState};

/// The last drill of each group; nothing before the first.
pub(super) fn drills(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let ended = shown.status.drills.iter();
    let ended = ended.filter(|report| report.state != DrillState::Running);
    let of = |report: &DrillReport| labels(&[("group", report.group.as_str())]);
    let family = Family(
        "shadowd_drill_ok",
        Count,
        "Whether the last drill of the group passed",
    );
    let ok = ended.map(|report| (of(report), flag(report.state == DrillState::Passed)));
    gauge(to, family, ok)?;
    let family = Family(
        "shadowd_drill_last_passed_timestamp",
        Seconds,
        "When a drill of the group last passed on this host, since the Unix epoch",
    );
    let passed = shown.status.drills.iter().filter_map(|report| {
        let passed_ms = report.last_passed_ms?;
        Some((of(report), passed_ms as f64 / 1_000.0))
    });
    gauge(to, family, passed)
}
