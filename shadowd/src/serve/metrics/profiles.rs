//! Profiles and readiness.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::encode::Base::Count;
use super::encode::{Family, flag, gauge, labels};
use crate::facts::{ProfileStatus, ReadinessSummary};

/// The version in use of each group, and how this host compares with it; nothing before the first.
pub(super) fn profiles(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let profiles = &shown.status.profiles;
    let of = |profile: &ProfileStatus| labels(&[("group", profile.group.as_str())]);
    let family = Family(
        "shadowd_profile_version",
        Count,
        "Number of the version of the profile that is in use",
    );
    let versions = profiles.iter().filter_map(|profile| {
        let (number, _) = profile.version?;
        Some((of(profile), number as f64))
    });
    gauge(to, family, versions)?;
    let compared: Vec<(&ProfileStatus, &ReadinessSummary)> = profiles
        .iter()
        .filter_map(|profile| Some((profile, profile.readiness.as_ref()?)))
        .collect();
    let family = Family(
        "shadowd_ready",
        Count,
        "Whether this host is proven ready to take the group over",
    );
    let proven = compared.iter().map(|(profile, readiness)| {
        let proven = readiness.not_ready == 0 && readiness.unknown == 0 && readiness.ready > 0;
        (of(profile), flag(proven))
    });
    gauge(to, family, proven)?;
    let family = Family(
        "shadowd_ready_items",
        Count,
        "Items of the profile by what came of the comparison with this host",
    );
    let items = compared.iter().flat_map(|(profile, readiness)| {
        let counts = [
            ("ready", readiness.ready),
            ("not_ready", readiness.not_ready),
            ("cannot_tell", readiness.unknown),
        ];
        let group = profile.group.as_str();
        counts.map(|(verdict, count)| {
            let labels = labels(&[("group", group), ("verdict", verdict)]);
            (labels, count as f64)
        })
    });
    gauge(to, family, items)
}
