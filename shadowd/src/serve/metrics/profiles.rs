//! Profiles and readiness.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::encode::Base::{Count, Seconds};
use super::encode::{Family, counter, flag, gauge, labels};
use crate::facts::{Name, ProfileStatus, ReadinessSummary, RepositoryStatus};

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
    gauge(to, family, items)?;
    repositories(shown, to)
}

/// How each group's versions stand to the central repository; nothing where that is off.
fn repositories(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let profiles = shown.status.profiles.iter();
    let all = profiles.filter_map(|profile| Some((&profile.group, profile.repository.as_ref()?)));
    let all: Vec<(&Name, &RepositoryStatus)> = all.collect();
    let of = |group: &Name| labels(&[("group", group.as_str())]);
    let family = Family(
        "shadowd_profile_repository_reached",
        Count,
        "Whether the central repository of profiles answers",
    );
    let reached = all.iter().map(|(group, repository)| {
        let reached = repository.reached.is_some() && repository.silent_since.is_none();
        (of(group), flag(reached))
    });
    gauge(to, family, reached)?;
    let family = Family(
        "shadowd_profile_repository_listed_age",
        Seconds,
        "Since the central repository of profiles was last listed",
    );
    let ages = all.iter().filter_map(|(group, repository)| {
        let age = shown.status.now.since(repository.listed?);
        Some((of(group), age.as_secs_f64()))
    });
    gauge(to, family, ages)?;
    let family = Family(
        "shadowd_profile_repository_versions",
        Count,
        "Versions in the central repository, and those that wait to be put or fetched",
    );
    let versions = all.iter().flat_map(|(group, repository)| {
        let counts = [
            ("there", repository.there),
            ("to_put", repository.to_put),
            ("to_get", repository.to_get),
            ("bad", repository.bad),
        ];
        counts.map(|(state, count)| {
            let labels = labels(&[("group", group.as_str()), ("state", state)]);
            (labels, count as f64)
        })
    });
    gauge(to, family, versions)?;
    let family = Family(
        "shadowd_profile_repository_objects",
        Count,
        "Objects of the central repository by what was done with them",
    );
    let objects = all.iter().flat_map(|(group, repository)| {
        let counts = [
            ("put", repository.put),
            ("got", repository.got),
            ("refused", repository.refused),
            ("mended", repository.mended),
        ];
        counts.map(|(done, count)| {
            let labels = labels(&[("group", group.as_str()), ("done", done)]);
            (labels, count)
        })
    });
    counter(to, family, objects)
}
