//! Profiles and readiness.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::encode::Base::{Count, Ratio, Seconds};
use super::encode::{Family, Labels, counter, flag, gauge, labels, seconds};
use crate::facts::{
    Confusion, Name, ProfileAccuracy, ProfileStatus, ReadinessSummary, RepositoryStatus,
    ResourceAccuracy, ResourceKind,
};

/// All that is told of profiles.
pub(super) fn profiles(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    versions(shown, to)?;
    readiness(shown, to)?;
    expectations(shown, to)?;
    forecasts(shown, to)
}

/// The version in use of each group; nothing before the first.
fn versions(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let family = Family(
        "shadowd_profile_version",
        Count,
        "Number of the version of the profile that is in use",
    );
    let versions = shown.status.profiles.iter().filter_map(|profile| {
        let (number, _) = profile.version?;
        Some((of(profile), number as f64))
    });
    gauge(to, family, versions)
}

/// How this host compares with it; nothing on the owner and before the first comparison.
fn readiness(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let profiles = shown.status.profiles.iter();
    let compared: Vec<(&ProfileStatus, &ReadinessSummary)> = profiles
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
        "shadowd_ready_score",
        Ratio,
        "Share of the items of the profile that are ready on this host",
    );
    let scores = compared.iter();
    let scores = scores.map(|(profile, readiness)| (of(profile), readiness.score));
    gauge(to, family, scores)?;
    let family = Family(
        "shadowd_ready_age",
        Seconds,
        "Time since this host was compared with the profile",
    );
    let now = shown.status.now;
    let ages = compared.iter().map(|(profile, readiness)| {
        let age = now.as_nanos().saturating_sub(readiness.at.as_nanos());
        (of(profile), seconds(age))
    });
    gauge(to, family, ages)?;
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

/// How often units and dependencies were there when they were expected, hour by hour. Shares have no
/// series before anything was judged.
fn expectations(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let judged = || {
        let profiles = shown.status.profiles.iter();
        profiles.flat_map(|profile| {
            let ProfileAccuracy {
                units,
                dependencies,
                ..
            } = &profile.accuracy;
            [("unit", units), ("dependency", dependencies)]
                .map(|(what, confusion)| (profile.group.as_str(), what, confusion))
        })
    };
    let family = Family(
        "shadowd_profile_expectations",
        Count,
        "Hours of units and dependencies, by whether each was expected (positive) and whether that was right (true)",
    );
    let counts = judged().flat_map(|(group, what, confusion)| {
        let row = |(outcome, count): (&'static str, u64)| {
            let pairs = [("group", group), ("what", what), ("outcome", outcome)];
            (labels(&pairs), count)
        };
        outcomes(confusion).map(row)
    });
    counter(to, family, counts)?;
    let share = |of: fn(&Confusion) -> Option<f64>| {
        judged().filter_map(move |(group, what, confusion)| {
            let labels = labels(&[("group", group), ("what", what)]);
            Some((labels, of(confusion)?))
        })
    };
    let family = Family(
        "shadowd_profile_precision",
        Ratio,
        "Of what was expected, the share that was there",
    );
    gauge(to, family, share(Confusion::precision))?;
    let family = Family(
        "shadowd_profile_recall",
        Ratio,
        "Of what was there, the share that was expected",
    );
    gauge(to, family, share(Confusion::recall))
}

const fn outcomes(confusion: &Confusion) -> [(&'static str, u64); 4] {
    [
        ("true_positive", confusion.true_positives),
        ("false_positive", confusion.false_positives),
        ("false_negative", confusion.false_negatives),
        ("true_negative", confusion.true_negatives),
    ]
}

/// How good the forecasts of each resource were, a day ahead; a resource of which none was judged
/// has no series.
fn forecasts(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let resources = || {
        let profiles = shown.status.profiles.iter();
        let resources = profiles.flat_map(|profile| {
            let resources = profile.accuracy.resources.iter();
            resources.map(move |(kind, errors)| (profile.group.as_str(), *kind, errors))
        });
        resources.filter(|(.., errors)| errors.count > 0)
    };
    let family = Family(
        "shadowd_forecast_judged",
        Count,
        "Forecasts of five minutes each, made a day before, whose reading has come",
    );
    let counts = resources().map(|(group, kind, errors)| (resource(group, kind), errors.count));
    counter(to, family, counts)?;
    let family = Family(
        "shadowd_forecast_coverage",
        Ratio,
        "Share of the readings within the interval that should hold 80 or 95 percent of them",
    );
    let coverage = resources().flat_map(|(group, kind, errors)| {
        let shares = [("80", errors.within_80), ("95", errors.within_95)];
        shares.map(|(interval, share)| {
            let mut labels = resource(group, kind);
            labels.push(("interval", interval.to_owned()));
            (labels, share.unwrap_or(f64::NAN))
        })
    });
    gauge(to, family, coverage)?;
    let errors = |of: fn(&ResourceAccuracy) -> Option<f64>| {
        resources()
            .filter_map(move |(group, kind, errors)| Some((resource(group, kind), of(errors)?)))
    };
    let family = Family(
        "shadowd_forecast_pinball_loss",
        Count,
        "Mean pinball loss of three quantiles, by the error of the reading a day before",
    );
    gauge(to, family, errors(|one| one.pinball))?;
    let family = Family(
        "shadowd_forecast_mase",
        Count,
        "Mean absolute error by that of the reading a day before: below 1 is better than that",
    );
    gauge(to, family, errors(|one| one.mase))
}

fn of(profile: &ProfileStatus) -> Labels {
    labels(&[("group", profile.group.as_str())])
}

fn resource(group: &str, kind: ResourceKind) -> Labels {
    labels(&[("group", group), ("resource", kind.as_str())])
}
