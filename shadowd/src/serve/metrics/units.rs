//! Units, and remotes where they are wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::bound::OTHER;
use super::encode::Base::{self, Bytes, Count, Ratio, Seconds};
use super::encode::{Family, Labels, counter, gauge, histogram, labels, seconds};
use crate::facts::{FlowCounts, Histogram, UnitTotals, UnitUse, errno_name};

/// Error numbers of one unit that have series of their own; the others are summed.
const ERRORS: usize = 16;

/// Name, unit, words, value.
type Counter<T> = (&'static str, Base, &'static str, fn(&T) -> u64);

const COUNTS: &[Counter<UnitTotals>] = &[
    (
        "shadowd_unit_syscalls",
        Count,
        "System calls that returned",
        |total| total.syscalls.calls,
    ),
    ("shadowd_unit_execs", Count, "Programs begun", |total| {
        total.execs
    }),
    ("shadowd_unit_exits", Count, "Processes ended", |total| {
        total.exits
    }),
    (
        "shadowd_unit_oom_kills",
        Count,
        "Processes killed for want of memory",
        |total| total.oom_kills,
    ),
    (
        "shadowd_unit_context_switches",
        Count,
        "Context switches",
        |total| total.context_switches,
    ),
    (
        "shadowd_unit_connections_opened",
        Count,
        "TCP connections that became established",
        |total| total.network.opened,
    ),
    (
        "shadowd_unit_connections_closed",
        Count,
        "TCP connections that ended",
        |total| total.network.closed,
    ),
    (
        "shadowd_unit_connections_failed",
        Count,
        "TCP connects refused or timed out",
        |total| total.network.failed,
    ),
    (
        "shadowd_unit_connections_reset",
        Count,
        "TCP connections that a reset ended",
        |total| total.network.resets,
    ),
    (
        "shadowd_unit_network_receive",
        Bytes,
        "Payload received",
        |total| total.network.rx_bytes,
    ),
    (
        "shadowd_unit_network_transmit",
        Bytes,
        "Payload sent",
        |total| total.network.tx_bytes,
    ),
    (
        "shadowd_unit_network_receive_packets",
        Count,
        "TCP segments and UDP datagrams received",
        |total| total.network.rx_packets,
    ),
    (
        "shadowd_unit_network_transmit_packets",
        Count,
        "TCP segments and UDP datagrams sent",
        |total| total.network.tx_packets,
    ),
    (
        "shadowd_unit_network_retransmits",
        Count,
        "TCP segments sent again",
        |total| total.network.retransmits,
    ),
    (
        "shadowd_unit_block_read",
        Bytes,
        "Read from block devices",
        |total| total.block_read.bytes,
    ),
    (
        "shadowd_unit_block_write",
        Bytes,
        "Written to block devices",
        |total| total.block_write.bytes,
    ),
    (
        "shadowd_unit_block_read_operations",
        Count,
        "Reads from block devices",
        |total| total.block_read.operations,
    ),
    (
        "shadowd_unit_block_write_operations",
        Count,
        "Writes to block devices",
        |total| total.block_write.operations,
    ),
    (
        "shadowd_unit_block_read_errors",
        Count,
        "Reads from block devices that failed",
        |total| total.block_read.errors,
    ),
    (
        "shadowd_unit_block_write_errors",
        Count,
        "Writes to block devices that failed",
        |total| total.block_write.errors,
    ),
    (
        "shadowd_unit_file_read",
        Bytes,
        "Read from regular files",
        |total| total.files.read_bytes,
    ),
    (
        "shadowd_unit_file_write",
        Bytes,
        "Written to regular files",
        |total| total.files.write_bytes,
    ),
    ("shadowd_unit_file_opens", Count, "Files opened", |total| {
        total.files.opens
    }),
    (
        "shadowd_unit_round_trip_samples",
        Count,
        "TCP round trips looked at",
        |total| total.network.rtt.count,
    ),
    (
        "shadowd_unit_connect_samples",
        Count,
        "TCP connects measured",
        |total| total.network.connect.count,
    ),
];

/// Values in nanoseconds.
const TIMES: &[Counter<UnitTotals>] = &[
    ("shadowd_unit_cpu", Seconds, "Processor time", |total| {
        total.cpu_ns
    }),
    (
        "shadowd_unit_round_trip",
        Seconds,
        "Sum of TCP round trips: divide by the samples",
        |total| total.network.rtt.sum_ns,
    ),
    (
        "shadowd_unit_connect",
        Seconds,
        "Sum from TCP connect to established: divide by the samples",
        |total| total.network.connect.sum_ns,
    ),
];

/// Times one by one, and their sum in nanoseconds where it is known.
type Times = (
    &'static str,
    &'static str,
    fn(&UnitTotals) -> (&Histogram, Option<u64>),
);

const LATENCIES: &[Times] = &[
    (
        "shadowd_unit_syscall_latency",
        "From entry to return of system calls",
        |total| (&total.syscalls.latency, Some(total.syscalls.total_ns)),
    ),
    (
        "shadowd_unit_response_latency",
        "Inbound TCP, from the last receive to the first send; sum estimated",
        |total| (&total.network.response, None),
    ),
    (
        "shadowd_unit_block_read_latency",
        "Block reads, from issue to completion; sum estimated",
        |total| (&total.block_read.latency, None),
    ),
    (
        "shadowd_unit_block_write_latency",
        "Block writes, from issue to completion; sum estimated",
        |total| (&total.block_write.latency, None),
    ),
];

const REMOTES: &[Counter<FlowCounts>] = &[
    (
        "shadowd_remote_connections_opened",
        Count,
        "TCP connections that became established",
        |it| it.opened,
    ),
    (
        "shadowd_remote_connections_failed",
        Count,
        "TCP connects refused or timed out",
        |it| it.failed,
    ),
    ("shadowd_remote_receive", Bytes, "Payload received", |it| {
        it.rx_bytes
    }),
    ("shadowd_remote_transmit", Bytes, "Payload sent", |it| {
        it.tx_bytes
    }),
];

fn of(unit: &UnitUse) -> Labels {
    labels(&[("unit", &unit.unit)])
}

/// What units use now and what they counted ever.
pub(super) fn units(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let others = shown.units.others.as_ref();
    let summed = others.map_or(0, |(count, _)| *count);
    let all = shown.units.named.len() + summed;
    let family = Family("shadowd_units", Count, "Units observed");
    gauge(to, family, [(Labels::new(), all as f64)])?;
    let family = Family(
        "shadowd_units_summed",
        Count,
        "Units without series of their own, summed in _other",
    );
    gauge(to, family, [(Labels::new(), summed as f64)])?;

    let named = shown.units.named.iter();
    let units: Vec<&UnitUse> = named.chain(others.map(|(_, unit)| unit)).collect();
    now(&units, to)?;
    connections(shown, to)?;
    for (name, base, help, read) in COUNTS {
        let rows = units.iter().map(|unit| (of(unit), read(&unit.total)));
        counter(to, Family(name, *base, help), rows)?;
    }
    for (name, base, help, read) in TIMES {
        let rows = units
            .iter()
            .map(|unit| (of(unit), seconds(read(&unit.total))));
        counter(to, Family(name, *base, help), rows)?;
    }
    let family = Family(
        "shadowd_unit_syscall_errors",
        Count,
        "System calls that failed, by error",
    );
    counter(to, family, units.iter().flat_map(|unit| errors(unit)))?;
    for (name, help, read) in LATENCIES {
        let rows = units.iter().map(|unit| {
            let (times, sum_ns) = read(&unit.total);
            (of(unit), times, sum_ns)
        });
        histogram(to, Family(name, Seconds, help), rows)?;
    }
    Ok(())
}

fn now(units: &[&UnitUse], to: &mut DescriptorEncoder) -> fmt::Result {
    type Now = (
        &'static str,
        Base,
        &'static str,
        fn(&UnitUse) -> Option<f64>,
    );
    let gauges: [Now; 3] = [
        (
            "shadowd_unit_processes",
            Count,
            "Processes of the unit",
            |unit| Some(f64::from(unit.processes)),
        ),
        (
            "shadowd_unit_resident_memory",
            Bytes,
            "Resident memory of its processes",
            |unit| Some(unit.rss_bytes as f64),
        ),
        (
            "shadowd_unit_memory",
            Bytes,
            "Memory charged to its control group",
            |unit| unit.memory_bytes.map(|bytes| bytes as f64),
        ),
    ];
    for (name, base, help, read) in gauges {
        let rows = units
            .iter()
            .filter_map(|unit| Some((of(unit), read(unit)?)));
        gauge(to, Family(name, base, help), rows)?;
    }
    let pressures = units.iter().flat_map(|unit| {
        [
            ("cpu", unit.cpu_pressure),
            ("memory", unit.memory_pressure),
            ("io", unit.io_pressure),
        ]
        .into_iter()
        .filter_map(|(resource, share)| {
            Some((
                labels(&[("unit", &unit.unit), ("resource", resource)]),
                share?,
            ))
        })
    });
    let help = "Share of the last interval in which some task waited for a resource";
    gauge(to, Family("shadowd_unit_pressure", Ratio, help), pressures)
}

/// Connections are counted by flow.
fn connections(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let named: BTreeSet<&str> = shown
        .units
        .named
        .iter()
        .map(|unit| unit.unit.as_str())
        .collect();
    let mut open = BTreeMap::<&str, u64>::new();
    for flow in &shown.observation.flows {
        let unit = named.get(flow.unit.as_str()).copied().unwrap_or(OTHER);
        let count = open.entry(unit).or_default();
        *count = count.saturating_add(flow.open);
    }
    let rows = open
        .into_iter()
        .map(|(unit, open)| (labels(&[("unit", unit)]), open as f64));
    gauge(
        to,
        Family(
            "shadowd_unit_connections",
            Count,
            "TCP connections open now",
        ),
        rows,
    )
}

/// The unit's errors, by number: those that are not among the first are one series.
fn errors(unit: &UnitUse) -> Vec<(Labels, u64)> {
    let errors = &unit.total.syscalls.errors;
    let row = |errno: &str, count| (labels(&[("unit", &unit.unit), ("errno", errno)]), count);
    let mut rows: Vec<_> = errors
        .iter()
        .take(ERRORS)
        .map(|(errno, count)| row(&errno_name(*errno), *count))
        .collect();
    if errors.len() > ERRORS {
        let rest = errors.values().skip(ERRORS);
        let sum = rest.fold(0, |sum: u64, count| sum.saturating_add(*count));
        rows.push(row(OTHER, sum));
    }
    rows
}

/// What passed between units and remotes.
pub(super) fn remotes(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    for (name, base, help, read) in REMOTES {
        let rows = shown.remotes.iter().map(|(remote, counts)| {
            let labels = labels(&[
                ("unit", &remote.unit),
                ("protocol", remote.protocol),
                ("direction", remote.direction),
                ("remote", &remote.remote),
                ("port", &remote.port.to_string()),
            ]);
            (labels, read(counts))
        });
        counter(to, Family(name, *base, help), rows)?;
    }
    Ok(())
}
