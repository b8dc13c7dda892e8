//! The host.

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::Snapshot;
use super::encode::Base::{Bytes, Count, Seconds};
use super::encode::{Family, Labels, counter, gauge, labels, seconds};
use crate::facts::Pressure;

/// Processors, memory, load, pressure.
pub(super) fn host(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let host = &shown.observation.host;
    if host.processors == 0 {
        return Ok(()); // not observed yet
    }
    for (name, base, help, value) in [
        (
            "shadowd_host_processors",
            Count,
            "Processors",
            f64::from(host.processors),
        ),
        (
            "shadowd_host_memory",
            Bytes,
            "Memory",
            host.memory_bytes as f64,
        ),
        (
            "shadowd_host_memory_available",
            Bytes,
            "Memory that is available",
            host.memory_available_bytes as f64,
        ),
    ] {
        gauge(to, Family(name, base, help), [(Labels::new(), value)])?;
    }
    let load = ["1m", "5m", "15m"].into_iter().zip(host.load);
    let rows = load.map(|(span, load)| (labels(&[("span", span)]), load));
    gauge(to, Family("shadowd_host_load", Count, "Load average"), rows)?;

    let total = &host.total;
    let cpu = total.cpu_ns.map(|nanos| (Labels::new(), seconds(nanos)));
    let help = "Processor time of all processes since boot";
    counter(to, Family("shadowd_host_cpu", Seconds, help), cpu)?;
    for (name, help, count) in [
        (
            "shadowd_host_context_switches",
            "Context switches since boot",
            total.context_switches,
        ),
        (
            "shadowd_host_oom_kills",
            "Processes killed for want of memory since boot",
            total.oom_kills,
        ),
    ] {
        let row = count.map(|count| (Labels::new(), count));
        counter(to, Family(name, Count, help), row)?;
    }
    pressure(shown, to)
}

fn pressure(shown: &Snapshot, to: &mut DescriptorEncoder) -> fmt::Result {
    let total = &shown.observation.host.total;
    let waited = [
        ("cpu", total.cpu_pressure),
        ("memory", total.memory_pressure),
        ("io", total.io_pressure),
    ];
    let rows = waited.into_iter().flat_map(|(resource, pressure)| {
        let rows = |Pressure { some_ns, full_ns }| {
            [("some", some_ns), ("full", full_ns)].map(|(tasks, nanos)| {
                let pairs = [("resource", resource), ("tasks", tasks)];
                (labels(&pairs), seconds(nanos))
            })
        };
        pressure.map(rows).into_iter().flatten().collect::<Vec<_>>()
    });
    let family = Family(
        "shadowd_host_pressure",
        Seconds,
        "Time in which some or all tasks waited for a resource",
    );
    counter(to, family, rows)
}
