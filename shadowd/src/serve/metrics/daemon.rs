//! The daemon, its groups, peers and probes.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::Snapshot;
use super::encode::Base::{Bytes, Count, Ratio, Seconds};
use super::encode::{Family, Labels, counter, flag, gauge, labels, seconds};
use super::paths::paths;
use crate::facts::{
    BootTime, GroupStatus, LinkCounters, PeerStatus, ProbeStatus, Protection, Role,
};

type Gauge<T> = (Family, fn(&T) -> Option<f64>);

const GROUP: &[Gauge<GroupStatus>] = &[
    (
        Family("shadowd_group_epoch", Count, "Newest epoch of the group"),
        |group| Some(group.epoch.counter as f64),
    ),
    (
        Family(
            "shadowd_group_eligible",
            Count,
            "Whether this host could own the group now",
        ),
        |group| Some(flag(group.eligible)),
    ),
    (
        Family(
            "shadowd_group_owned",
            Count,
            "Whether the group has an owner that this host knows",
        ),
        |group| Some(flag(group.active.is_some())),
    ),
    (
        Family(
            "shadowd_group_suspects",
            Count,
            "Members that are silent for too long",
        ),
        |group| Some(group.members.iter().filter(|it| it.suspected).count() as f64),
    ),
    (
        Family(
            "shadowd_group_protected",
            Count,
            "Whether a lease keeps the group from having two owners",
        ),
        |group| Some(flag(group.protection == Protection::Lease)),
    ),
    (
        Family(
            "shadowd_group_lease",
            Seconds,
            "How long a lease this host asks for",
        ),
        |group| group.lease.as_ref().map(|lease| seconds(lease.length_ns)),
    ),
    (
        Family(
            "shadowd_group_lease_lapsed",
            Count,
            "Whether this host is active without a lease: its addresses are silent",
        ),
        |group| group.lease.as_ref().map(|lease| flag(lease.lapsed)),
    ),
    (
        Family(
            "shadowd_group_silenced",
            Count,
            "Packets from and to the virtual IPs that the guard dropped, since it is there",
        ),
        |group| {
            let dropped = group
                .guard
                .iter()
                .map(|vip| vip.dropped_rx + vip.dropped_tx);
            (!group.guard.is_empty()).then(|| dropped.sum::<u64>() as f64)
        },
    ),
    (
        Family(
            "shadowd_group_passed",
            Count,
            "Packets to the virtual IPs that went to the host that serves their connections",
        ),
        |group| {
            let passed = group.guard.iter().map(|vip| vip.passed);
            (!group.guard.is_empty()).then(|| passed.sum::<u64>() as f64)
        },
    ),
];

const POLICY: &[Gauge<GroupStatus>] = &[
    (
        Family(
            "shadowd_group_maintenance",
            Count,
            "Whether an operator keeps this host from owning the group",
        ),
        |group| Some(flag(group.policy.maintenance.is_some())),
    ),
    (
        Family(
            "shadowd_group_frozen",
            Count,
            "Whether an operator keeps every member from taking the group over",
        ),
        |group| Some(flag(group.policy.frozen.is_some())),
    ),
    (
        Family(
            "shadowd_group_flap_penalty",
            Count,
            "What is left of the penalty for failovers away from this host, 1000 each",
        ),
        |group| Some(group.policy.flap_penalty),
    ),
    (
        Family(
            "shadowd_group_flap_held",
            Count,
            "Whether the flap penalty holds this host back",
        ),
        |group| Some(flag(group.policy.held_until.is_some())),
    ),
    (
        Family(
            "shadowd_group_definition_differs",
            Count,
            "Members whose configuration has other virtual IPs or members for the group",
        ),
        |group| Some(group.policy.differs_from.len() as f64),
    ),
];

const REDUNDANCY: &[Gauge<GroupStatus>] = &[
    (
        Family(
            "shadowd_group_redundant",
            Count,
            "Whether as many shadows are ready as the group wants; on the active alone",
        ),
        |group| group.redundancy.as_ref().map(|it| flag(it.full)),
    ),
    (
        Family(
            "shadowd_group_shadows_ready",
            Count,
            "Shadows that could take the group over now; on the active alone",
        ),
        |group| group.redundancy.as_ref().map(|it| f64::from(it.ready)),
    ),
    (
        Family(
            "shadowd_group_shadows_wanted",
            Count,
            "Shadows that the group wants; on the active alone",
        ),
        |group| group.redundancy.as_ref().map(|it| f64::from(it.wanted)),
    ),
    (
        Family(
            "shadowd_group_spares_enlisted",
            Count,
            "Spares that count as shadows; on the active alone",
        ),
        |group| {
            let status = group.redundancy.as_ref();
            status.map(|it| it.enlisted.len() as f64)
        },
    ),
    (
        Family(
            "shadowd_group_redundancy_restored_after",
            Seconds,
            "How long the last loss of redundancy that this host has seen end had lasted",
        ),
        |group| {
            let last = group.redundancy.as_ref()?.last.as_ref()?;
            Some(seconds(last.took_ns))
        },
    ),
];

const PEER: &[Gauge<PeerStatus>] = &[
    (
        Family(
            "shadowd_peer_connected",
            Count,
            "Whether the stream to the peer is up",
        ),
        |peer| Some(flag(peer.connected)),
    ),
    (
        Family(
            "shadowd_peer_round_trip",
            Seconds,
            "Last round trip of datagrams",
        ),
        |peer| peer.round_trip_ns.map(seconds),
    ),
    (
        Family(
            "shadowd_peer_round_trip_p99",
            Seconds,
            "Round trip that 99 of 100 datagrams stayed within",
        ),
        |peer| peer.round_trip_p99_ns.map(seconds),
    ),
];

const PROBE: &[Gauge<ProbeStatus>] = &[
    (
        Family("shadowd_probe_on", Count, "Whether the probe is fed"),
        |probe| Some(flag(probe.hook.is_some())),
    ),
    (
        Family(
            "shadowd_probe_run",
            Seconds,
            "Measured time of one run of the probe's programs",
        ),
        |probe| probe.cost_ns.map(|nanos| nanos / 1e9),
    ),
    (
        Family(
            "shadowd_probe_cpu",
            Ratio,
            "Measured share of one processor in the last interval",
        ),
        |probe| probe.cpu_share,
    ),
];

fn gauges<T>(
    to: &mut DescriptorEncoder,
    families: &[Gauge<T>],
    all: &[T],
    of: impl Fn(&T) -> Labels,
) -> fmt::Result {
    for (family, value) in families {
        let rows = all.iter().filter_map(|item| Some((of(item), value(item)?)));
        gauge(to, *family, rows)?;
    }
    Ok(())
}

/// Who answers and what it uses itself.
pub(super) fn daemon(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let status = &shown.status;
    let who = labels(&[("host", status.host.as_str()), ("version", &status.version)]);
    to.encode_descriptor("shadowd_build", "Who answers", None, MetricType::Info)?
        .encode_info(&who)?;
    let alone = |value: Option<f64>| value.map(|value| (Labels::new(), value));
    let up = status.now.since(status.started).as_secs_f64();
    let family = Family("shadowd_uptime", Seconds, "Time since the daemon started");
    gauge(to, family, alone(Some(up)))?;
    let family = Family(
        "shadowd_process_cpu",
        Seconds,
        "Processor time of the daemon",
    );
    counter(to, family, alone(shown.own.cpu_seconds))?;
    let family = Family(
        "shadowd_process_resident_memory",
        Bytes,
        "Resident memory of the daemon",
    );
    let rss = shown.own.rss_bytes.map(|bytes| bytes as f64);
    gauge(to, family, alone(rss))?;
    let family = Family(
        "shadowd_warnings",
        Count,
        "Sentences that an operator should read: see shadowctl status",
    );
    gauge(to, family, alone(Some(status.warnings.len() as f64)))
}

/// Groups and peers.
pub(super) fn failover(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let groups = &shown.status.groups;
    let roles = [Role::Joining, Role::Shadow, Role::Active, Role::Stopped];
    let role = groups.iter().flat_map(|group| {
        roles.iter().map(|role| {
            let labels = labels(&[("group", group.group.as_str()), ("role", &role.to_string())]);
            (labels, flag(*role == group.role))
        })
    });
    let family = Family(
        "shadowd_group_role",
        Count,
        "1 for the role of this host in the group, else 0",
    );
    gauge(to, family, role)?;
    let reasons = groups.iter().filter_map(|group| {
        let reason = group.policy.reason?.to_string();
        let pairs = [("group", group.group.as_str()), ("reason", &reason)];
        Some((labels(&pairs), 1.0))
    });
    let family = Family(
        "shadowd_group_ineligible",
        Count,
        "1 for the reason why this host could not own the group now; absent while it could",
    );
    gauge(to, family, reasons)?;
    for families in [GROUP, POLICY, REDUNDANCY] {
        gauges(to, families, groups, |it| {
            labels(&[("group", it.group.as_str())])
        })?;
    }

    let peers = &shown.status.peers;
    gauges(to, PEER, peers, |peer| {
        labels(&[("peer", peer.host.as_str())])
    })?;
    let silence = |at: BootTime| shown.status.now.since(at).as_secs_f64();
    let silences = peers.iter().filter_map(|peer| {
        let silence = peer.last_heard.map(silence)?;
        Some((labels(&[("peer", peer.host.as_str())]), silence))
    });
    let family = Family(
        "shadowd_peer_silence",
        Seconds,
        "Time since the last authentic datagram",
    );
    gauge(to, family, silences)?;
    let datagrams = peers.iter().flat_map(|peer| {
        outcomes(&peer.counters).map(|(outcome, count)| {
            let pairs = [("peer", peer.host.as_str()), ("outcome", outcome)];
            (labels(&pairs), count)
        })
    });
    let family = Family(
        "shadowd_peer_datagrams",
        Count,
        "Heartbeats and other datagrams",
    );
    counter(to, family, datagrams)?;
    paths(shown, to)?;
    links(shown, to)
}

const fn outcomes(counters: &LinkCounters) -> [(&'static str, u64); 7] {
    [
        ("sent", counters.sent),
        ("unsent", counters.unsent),
        ("received", counters.received),
        ("malformed", counters.malformed),
        ("forged", counters.forged),
        ("replayed", counters.replayed),
        ("copied", counters.copies),
    ]
}

/// Strangers' datagrams, and connections of both.
fn links(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let strangers = &shown.status.strangers;
    let refused = [
        ("malformed", strangers.malformed),
        ("forged", strangers.forged),
        ("limited", strangers.limited),
    ];
    let family = Family(
        "shadowd_stranger_datagrams",
        Count,
        "Refused datagrams that belong to no peer",
    );
    let by_outcome = |(outcome, count)| (labels(&[("outcome", outcome)]), count);
    counter(to, family, refused.into_iter().map(by_outcome))?;
    let streams = &shown.status.connections;
    let outcomes = [
        ("established", streams.established),
        ("renewed", streams.renewed),
        ("refused", streams.refused),
        ("crowded", streams.crowded),
        ("limited", streams.limited),
        ("failed_dials", streams.failed_dials),
        ("violations", streams.violations),
    ];
    let family = Family(
        "shadowd_link_connections",
        Count,
        "Connections between hosts",
    );
    counter(to, family, outcomes.into_iter().map(by_outcome))
}

/// Capture: what feeds it, what it costs, what it lost.
pub(super) fn probes(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let probes = &shown.status.capture.probes;
    gauges(to, PROBE, probes, |probe| {
        labels(&[("probe", probe.name.as_str())])
    })?;
    let events = probes
        .iter()
        .filter_map(|probe| Some((labels(&[("probe", &probe.name)]), probe.events?)));
    let family = Family(
        "shadowd_probe_events",
        Count,
        "Runs of the probe's programs in the kernel",
    );
    counter(to, family, events)?;
    let outcomes = probes.iter().flat_map(|probe| {
        [
            ("seen", probe.losses.seen),
            ("dropped", probe.losses.dropped),
            ("unattributed", probe.losses.unattributed),
            ("filtered", probe.losses.filtered),
            ("missed", probe.losses.missed),
        ]
        .map(|(outcome, count)| {
            let pairs = [("probe", probe.name.as_str()), ("outcome", outcome)];
            (labels(&pairs), count)
        })
    });
    let family = Family(
        "shadowd_probe_records",
        Count,
        "What happened: seen, dropped, given to no unit, filtered, or (at most) left out by the kernel",
    );
    counter(to, family, outcomes)?;
    let losses = shown.observation.losses;
    let rows = [
        ("seen", losses.seen),
        ("dropped", losses.dropped),
        ("unattributed", losses.unattributed),
    ]
    .map(|(outcome, count)| (labels(&[("outcome", outcome)]), count));
    let family = Family(
        "shadowd_capture_records",
        Count,
        "The records of all probes",
    );
    counter(to, family, rows)
}
