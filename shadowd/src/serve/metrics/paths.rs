//! The paths to the peers.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::encode::Base::{Count, Ratio, Seconds};
use super::encode::{Family, Labels, counter, flag, gauge, labels, seconds};
use crate::facts::{BootTime, PathState, PathStatus};

type Value = fn(&PathStatus, BootTime) -> Option<f64>;

const PATH: [(Family, Value); 4] = [
    (
        Family(
            "shadowd_path_up",
            Count,
            "Whether what the peer says comes over the path",
        ),
        |path, _| Some(flag(path.state == PathState::Up)),
    ),
    (
        Family(
            "shadowd_path_round_trip",
            Seconds,
            "Last round trip there and back over the path",
        ),
        |path, _| path.round_trip_ns.map(seconds),
    ),
    (
        Family(
            "shadowd_path_silence",
            Seconds,
            "Time since the last authentic datagram over the path",
        ),
        |path, now| path.last_heard.map(|at| now.since(at).as_secs_f64()),
    ),
    (
        Family(
            "shadowd_path_loss",
            Ratio,
            "Share of the newest datagrams that came over another path only",
        ),
        |path, _| path.loss,
    ),
];

/// Every path to every peer, numbered from 1.
pub(super) fn paths(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let status = &shown.status;
    let all = || {
        status.peers.iter().flat_map(|peer| {
            let paths = peer.paths.iter().enumerate();
            paths.map(|(place, path)| {
                let number = (place + 1).to_string();
                let who = labels(&[("peer", peer.host.as_str()), ("path", &number)]);
                (who, path)
            })
        })
    };
    for (family, value) in PATH {
        let rows = all().filter_map(|(who, path)| Some((who, value(path, status.now)?)));
        gauge(to, family, rows)?;
    }
    let counts = all().flat_map(|(who, path)| {
        let counts = [
            ("arrived", path.arrived),
            ("missed", path.missed),
            ("refused", path.refused),
        ];
        counts.map(|(outcome, count)| {
            let labels: Labels = who
                .iter()
                .cloned()
                .chain(labels(&[("outcome", outcome)]))
                .collect();
            (labels, count)
        })
    });
    let family = Family(
        "shadowd_path_datagrams",
        Count,
        "Datagrams that came over the path, that came over others only, and that the peer's kernel \
         refused",
    );
    counter(to, family, counts)
}
