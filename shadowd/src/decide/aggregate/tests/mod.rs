//! Tests of [`super::Aggregator`].

use proptest::prelude::*;

use super::*;
use crate::facts::{Direction, FlowCounts, FlowDelta, ProcessReading, SyscallCounts, SyscallDelta};

mod resources;
mod totals;

fn at(second: u64) -> Sample {
    Sample {
        at: BootTime::from_nanos(second * 1_000_000_000),
        interval: Duration::from_secs(1),
        ..Sample::default()
    }
}

fn reading(pid: u32, cpu_ms: u64) -> ProcessReading {
    ProcessReading {
        pid,
        parent: 1,
        command: format!("cmd{pid}"),
        cgroup: String::from("/system.slice/nginx.service"),
        cpu: Duration::from_millis(cpu_ms),
        rss_bytes: 4_096,
        started: Duration::from_secs(1),
        context_switches: None,
    }
}

fn calls(pid: u32, cgroup: u64, calls: u64) -> SyscallDelta {
    SyscallDelta {
        pid,
        cgroup,
        number: 0,
        counts: SyscallCounts {
            calls,
            errors: [(2, 1)].into(),
            ..SyscallCounts::default()
        },
    }
}

fn event(pid: u32, kind: LifecycleKind) -> Lifecycle {
    Lifecycle {
        pid,
        cgroup: 9,
        command: String::from("short"),
        at: BootTime::default(),
        kind,
        cpu_ns: None,
    }
}

fn delta(remote: u8, second: u64) -> (Sample, FlowDelta) {
    let delta = FlowDelta {
        pid: 5,
        cgroup: 9,
        direction: Direction::Inbound,
        local: ([192, 0, 2, 10], 80).into(),
        remote: ([192, 0, 2, remote], 0).into(),
        protocol: Protocol::Tcp,
        counts: FlowCounts {
            opened: 1,
            closed: 1,
            rx_bytes: 100,
            tx_bytes: 1_000,
            ..FlowCounts::default()
        },
        open: 0,
    };
    let sample = Sample {
        flows: vec![delta],
        cgroups: vec![(9, String::from("/system.slice/nginx.service"))],
        ..at(second)
    };
    (sample, delta)
}

#[test]
fn processor_time_is_a_share_of_the_interval() {
    let mut aggregator = Aggregator::default();
    aggregator.absorb(Sample {
        processes: vec![reading(5, 1_000)],
        ..at(1)
    });
    let seen = aggregator.absorb(Sample {
        processes: vec![reading(5, 1_250)],
        ..at(2)
    });
    assert!((seen.processes[0].cpu - 0.25).abs() < 1e-9, "{seen:?}");
    assert_eq!(seen.units[0].unit, "nginx.service");
    assert!((seen.units[0].cpu - 0.25).abs() < 1e-9);
    assert_eq!(
        (seen.units[0].processes, seen.units[0].rss_bytes),
        (1, 4_096)
    );
}

#[test]
fn a_process_that_lived_between_two_samples_is_attributed() {
    let mut aggregator = Aggregator::default();
    aggregator.absorb(at(1));
    let seen = aggregator.absorb(Sample {
        cgroups: vec![(9, String::from("/system.slice/job.service"))],
        lifecycle: vec![
            event(77, LifecycleKind::Exec),
            event(77, LifecycleKind::Exit { status: 0 }),
        ],
        ..at(2)
    });
    assert_eq!(
        (seen.units[0].unit.as_str(), seen.units[0].execs),
        ("job.service", 1)
    );
    assert_eq!(seen.units[0].exits, 1);
    // Its counts come late, and its group is already gone from the kernel's side.
    let late = aggregator.absorb(Sample {
        syscalls: vec![calls(77, 0, 30)],
        ..at(3)
    });
    assert_eq!(late.units[0].unit, "job.service");
    assert_eq!(late.losses.unattributed, 0);
    let process = &late.processes[0];
    assert_eq!(
        (
            process.command.as_str(),
            process.syscalls.calls,
            process.ended
        ),
        ("short", 30, true)
    );
}

#[test]
fn a_number_that_is_used_again_in_an_unknown_group_is_not_the_dead_processes() {
    let mut aggregator = Aggregator::default();
    let moment = |kind, nanos, cgroup| Lifecycle {
        at: BootTime::from_nanos(nanos),
        cgroup,
        ..event(77, kind)
    };
    let exit = LifecycleKind::Exit { status: 0 };
    let seen = aggregator.absorb(Sample {
        cgroups: vec![(9, String::from("/system.slice/job.service"))],
        lifecycle: vec![
            moment(LifecycleKind::Exec, 10, 9),
            moment(exit, 20, 9),
            // A process that began no program, in a group of which nobody knows the name.
            moment(exit, 30, 10),
        ],
        ..at(1)
    });
    let of_unit = seen.units.iter().find(|entry| entry.unit == "job.service");
    assert_eq!(
        of_unit.map(|entry| (entry.execs, entry.exits)),
        Some((1, 1))
    );
    assert_eq!(seen.losses.unattributed, 1);
}

#[test]
fn an_ended_process_is_forgotten_after_the_grace() {
    let mut aggregator = Aggregator::new(AggregateLimits {
        grace: 2,
        ..Default::default()
    });
    aggregator.absorb(Sample {
        processes: vec![reading(5, 0)],
        ..at(1)
    });
    let ended = aggregator.absorb(at(2));
    assert!(ended.processes[0].ended);
    aggregator.absorb(at(3));
    aggregator.absorb(at(4));
    let unknown = aggregator.absorb(Sample {
        syscalls: vec![calls(5, 0, 3)],
        ..at(5)
    });
    assert_eq!(unknown.losses.unattributed, 3);
    assert_eq!(aggregator.losses()["syscalls"].unattributed, 3);
    assert_eq!(unknown.units[0].unit, NOBODY);
}

#[test]
fn a_pid_used_again_takes_nothing_from_its_first_owner() {
    let mut aggregator = Aggregator::default();
    aggregator.absorb(Sample {
        processes: vec![reading(5, 90_000)],
        ..at(1)
    });
    let again = ProcessReading {
        started: Duration::from_secs(9),
        ..reading(5, 10)
    };
    let seen = aggregator.absorb(Sample {
        processes: vec![again],
        ..at(2)
    });
    assert!((seen.processes[0].cpu - 0.01).abs() < 1e-9, "{seen:?}");
}

#[test]
fn flows_add_up_and_the_idle_one_goes_first() {
    let mut aggregator = Aggregator::new(AggregateLimits {
        flows: 2,
        ..Default::default()
    });
    for (remote, second) in [(1, 1), (2, 2), (1, 3), (3, 4)] {
        aggregator.absorb(delta(remote, second).0);
    }
    let seen = aggregator.absorb(at(5));
    let ends: Vec<_> = seen
        .flows
        .iter()
        .map(|flow| (flow.remote, flow.total.opened))
        .collect();
    assert_eq!(
        ends,
        [([192, 0, 2, 3].into(), 1), ([192, 0, 2, 1].into(), 2)],
        "the one active last first"
    );
    let table = &aggregator.tables()[0];
    assert_eq!(
        (table.name.as_str(), table.entries, table.evicted),
        ("flows", 2, 1)
    );
    assert_eq!(seen.flows[0].unit, "nginx.service");
    assert_eq!(
        (seen.flows[0].local_port, seen.flows[0].remote_port),
        (80, 0)
    );
    assert_eq!(
        (seen.flows[1].total.rx_bytes, seen.flows[1].total.tx_bytes),
        (200, 2_000)
    );
    assert!(seen.flows[1].first_seen < seen.flows[1].last_seen);
    assert_eq!(seen.flows[0].interval, FlowCounts::default());
    // What was evicted stays in the unit.
    assert_eq!(seen.units[0].total.network.opened, 4);
}

#[test]
fn bytes_reach_the_unit_in_their_interval_only() {
    let mut aggregator = Aggregator::default();
    let first = aggregator.absorb(delta(1, 1).0);
    let unit = &first.units[0];
    assert_eq!(
        (
            unit.network.opened,
            unit.network.rx_bytes,
            unit.network.tx_bytes
        ),
        (1, 100, 1_000)
    );
    let second = aggregator.absorb(at(2));
    assert_eq!(second.units[0].network, FlowCounts::default());
    assert!(!second.units[0].is_active());
    assert_eq!(second.units[0].total.network.rx_bytes, 100);
}

proptest! {
    /// Whatever arrives: totals by unit and by process match the sample, tables stay bounded, and
    /// the output is sorted.
    #[test]
    fn counts_are_neither_lost_nor_invented(
        rounds in prop::collection::vec(
            prop::collection::vec((0_u32..40, 0_u64..12, 1_u64..1_000), 0..30), 1..12),
    ) {
        let limits = AggregateLimits {
            flows: 4, shown_flows: 3, units: 5, processes: 16, cgroups: 8, grace: 2,
            ..AggregateLimits::default()
        };
        let mut aggregator = Aggregator::new(limits);
        let mut unattributed = 0;
        let mut ever = 0;
        for (second, round) in rounds.into_iter().enumerate() {
            let mut sample = at(second as u64);
            for (pid, cgroup, count) in round {
                sample.syscalls.push(calls(pid, cgroup, count));
                if count % 3 == 0 {
                    sample.cgroups.push((cgroup, format!("/system.slice/u{cgroup}.service")));
                }
                if count % 5 == 0 {
                    sample.processes.push(reading(pid, count));
                }
            }
            let total: u64 = sample.syscalls.iter().map(|delta| delta.counts.calls).sum();
            let nobody: u64 = sample.syscalls.iter()
                .filter(|delta| delta.pid == 0).map(|delta| delta.counts.calls).sum();
            let seen = aggregator.absorb(sample);
            ever += total;
            // The few units of the table may have made room within the interval.
            let now: u64 = seen.units.iter().map(|unit| unit.syscalls.calls).sum();
            prop_assert!(now == total || aggregator.units.size().2 > 0 && now < total);
            let totals: u64 = seen.units.iter().map(|unit| unit.total.syscalls.calls).sum();
            prop_assert_eq!(totals, ever);
            let by_process: u64 = seen.processes.iter().map(|process| process.syscalls.calls).sum();
            // A reading of pid 0 cannot come from procfs, so the process table has none.
            prop_assert!(by_process + nobody >= total);
            prop_assert!(seen.units.windows(2).all(|pair| pair[0].unit < pair[1].unit));
            prop_assert!(seen.processes.windows(2).all(|pair| pair[0].pid < pair[1].pid));
            prop_assert!(seen.losses.unattributed >= unattributed);
            unattributed = seen.losses.unattributed;
            prop_assert!(aggregator.processes.size().0 <= limits.processes);
            prop_assert!(aggregator.units.size().0 <= limits.units);
            prop_assert!(seen.flows.len() <= limits.shown_flows);
            prop_assert!(aggregator.cgroups.len() <= limits.cgroups);
        }
    }
}
