//! Hooks and alerts.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::encode::Base::Count;
use super::encode::{Family, Labels, counter, flag, gauge, labels};
use crate::facts::ReceiverStatus;

/// What became of notices, by receiver; nothing without receivers.
pub(super) fn notices(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let receivers = &shown.status.receivers;
    let outcomes = receivers.iter().flat_map(|receiver| {
        let counts = receiver.counts;
        [
            ("delivered", counts.delivered),
            ("failed", counts.failed),
            ("timed_out", counts.timed_out),
            ("retried", counts.retried),
            ("given_up", counts.given_up),
            ("skipped", counts.skipped),
            ("repeated", counts.repeated),
        ]
        .map(|(outcome, count)| {
            let mut labels = of(receiver);
            labels.push(("outcome", outcome.to_owned()));
            (labels, count)
        })
    });
    let family = Family(
        "shadowd_notices",
        Count,
        "Notices to hooks and alerts, by what became of them",
    );
    counter(to, family, outcomes)?;
    let family = Family(
        "shadowd_notices_waiting",
        Count,
        "Notices that wait for a hook or an alert",
    );
    let waiting = receivers
        .iter()
        .map(|receiver| (of(receiver), receiver.waiting as f64));
    gauge(to, family, waiting)?;
    let family = Family(
        "shadowd_notice_ok",
        Count,
        "Whether the last notice to a hook or an alert ended well",
    );
    let ok = receivers.iter().filter_map(|receiver| {
        let last = receiver.last.as_ref()?;
        Some((of(receiver), flag(last.ok)))
    });
    gauge(to, family, ok)
}

fn of(receiver: &ReceiverStatus) -> Labels {
    let kind = receiver.kind.to_string();
    labels(&[("receiver", receiver.name.as_str()), ("kind", &kind)])
}

/// A hook that was told four times, for the tests of the exposition.
#[cfg(test)]
pub(super) fn receiver() -> ReceiverStatus {
    use crate::facts::{ReceiverCounts, ReceiverKind};
    ReceiverStatus {
        name: "dns".parse().unwrap(),
        kind: ReceiverKind::Hook,
        events: Vec::new(),
        groups: Vec::new(),
        running: None,
        waiting: 2,
        counts: ReceiverCounts {
            delivered: 4,
            ..ReceiverCounts::default()
        },
        last: None,
    }
}
