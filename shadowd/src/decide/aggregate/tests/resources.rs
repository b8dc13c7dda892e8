//! What the host, control groups, processes, sockets and disks used.

use super::*;
use crate::facts::{
    BlockCounts, BlockDelta, FileCounts, FileDelta, GroupReading, ListenerReading, Pressure,
    Resources,
};

fn group(path: &str, cpu_ms: u64, waited_ms: u64) -> GroupReading {
    GroupReading {
        path: path.to_owned(),
        cgroup: 9,
        resources: Resources {
            cpu_ns: Some(cpu_ms * 1_000_000),
            memory_bytes: Some(cpu_ms),
            oom_kills: Some(cpu_ms / 1_000),
            context_switches: Some(cpu_ms * 2),
            cpu_pressure: Some(Pressure {
                some_ns: waited_ms * 1_000_000,
                full_ns: 0,
            }),
            ..Resources::default()
        },
    }
}

fn unit<'a>(seen: &'a Observation, name: &str) -> &'a crate::facts::UnitUse {
    let mut units = seen.units.iter();
    units
        .find(|unit| unit.unit == name)
        .expect("the unit is told")
}

#[test]
fn a_process_shorter_than_a_tick_is_credited_its_processor_time() {
    let mut aggregator = Aggregator::default();
    aggregator.absorb(Sample {
        processes: vec![reading(5, 1_000)],
        ..at(1)
    });
    let ended = |pid, cpu_ms: u64| Lifecycle {
        cpu_ns: Some(cpu_ms * 1_000_000),
        ..event(pid, LifecycleKind::Exit { status: 1 })
    };
    let seen = aggregator.absorb(Sample {
        cgroups: vec![(9, String::from("/system.slice/job.service"))],
        // 5 was known with one second; 77 came and went.
        lifecycle: vec![
            event(77, LifecycleKind::Exec),
            ended(77, 20),
            ended(5, 1_100),
        ],
        // What procfs read of 5 before it ended.
        processes: vec![reading(5, 1_050)],
        ..at(2)
    });
    let of = |pid| seen.processes.iter().find(|process| process.pid == pid);
    assert!((of(77).expect("it is shown").cpu - 0.02).abs() < 1e-9);
    assert!((of(5).expect("it is shown").cpu - 0.1).abs() < 1e-9, "once");
    assert_eq!(unit(&seen, "job.service").failed_exits, 2);
    let later = aggregator.absorb(at(3));
    assert!(later.processes.iter().all(|process| process.cpu == 0.0));
    let total: u64 = later.units.iter().map(|unit| unit.total.cpu_ns).sum();
    assert_eq!(total, 120_000_000);
}

#[test]
fn a_unit_uses_what_its_own_group_counted() {
    let mut aggregator = Aggregator::default();
    let groups = |more: u64| {
        vec![
            group("/system.slice", 9_000 + 5 * more, more),
            group("/system.slice/nginx.service", 1_000 + more, 100 + more),
            group("/system.slice/nginx.service/payload", 500 + more, 0),
        ]
    };
    let first = aggregator.absorb(Sample {
        groups: groups(0),
        processes: vec![reading(5, 400)],
        ..at(1)
    });
    assert!(
        unit(&first, "nginx.service").cpu.abs() < 1e-9,
        "of before the start"
    );
    assert_eq!(unit(&first, "nginx.service").memory_bytes, Some(1_000));
    let seen = aggregator.absorb(Sample {
        groups: groups(250),
        processes: vec![reading(5, 410)],
        ..at(2)
    });
    let nginx = unit(&seen, "nginx.service");
    assert!(
        (nginx.cpu - 0.25).abs() < 1e-9,
        "the group's, not procfs's: {}",
        nginx.cpu
    );
    assert_eq!(nginx.context_switches, 500);
    assert!((nginx.cpu_pressure.expect("PSI is there") - 0.25).abs() < 1e-9);
    let slice = unit(&seen, "system.slice");
    assert!(slice.cpu.abs() < 1e-9, "what is below it is not its own");
    assert_eq!(slice.total.cpu_ns, 0);
}

#[test]
fn a_kill_that_two_sources_tell_is_told_once() {
    let mut aggregator = Aggregator::default();
    let kills = |count: u64| vec![group("/system.slice/nginx.service", count * 1_000, 0)];
    aggregator.absorb(Sample {
        groups: kills(1),
        cgroups: vec![(9, String::from("/system.slice/nginx.service"))],
        ..at(1)
    });
    let told = aggregator.absorb(Sample {
        groups: kills(1),
        lifecycle: vec![event(5, LifecycleKind::OomKill)],
        ..at(2)
    });
    assert_eq!(unit(&told, "nginx.service").oom_kills, 1);
    let counted = aggregator.absorb(Sample {
        groups: kills(2),
        ..at(3)
    });
    assert_eq!(unit(&counted, "nginx.service").oom_kills, 0);
    assert_eq!(unit(&counted, "nginx.service").total.oom_kills, 1);
}

#[test]
fn the_host_is_told_by_what_came_since_the_last_sample() {
    let mut aggregator = Aggregator::default();
    let host = |cpu_ms: u64| HostReading {
        resources: group("", cpu_ms, cpu_ms / 2).resources,
        processors: 2,
        listen_overflows: cpu_ms,
        ..HostReading::default()
    };
    let first = aggregator.absorb(Sample {
        host: host(5_000),
        ..at(1)
    });
    assert_eq!((first.host.cpu, first.host.listen_overflows), (None, 0));
    let seen = aggregator.absorb(Sample {
        host: host(6_500),
        ..at(2)
    });
    assert_eq!(seen.host.cpu, Some(1.5));
    assert_eq!(seen.host.cpu_pressure, Some(0.75));
    assert_eq!(
        (seen.host.listen_overflows, seen.host.oom_kills),
        (1_500, 1)
    );
    // A reading that failed tells nothing, and what it missed is told by the next.
    assert_eq!(aggregator.absorb(at(3)).host.cpu, None);
    let after = aggregator.absorb(Sample {
        host: host(6_600),
        ..at(4)
    });
    assert_eq!(after.host.listen_overflows, 100);
}

#[test]
fn listeners_tell_what_they_refused_in_the_interval() {
    let mut aggregator = Aggregator::default();
    let listener = |port: u16, overflows| ListenerReading {
        pid: 5,
        cgroup: 9,
        local: ([0, 0, 0, 0], port).into(),
        backlog: 3,
        backlog_max: 128,
        overflows,
    };
    let mut seen = |second, listeners| {
        aggregator
            .absorb(Sample {
                listeners,
                ..at(second)
            })
            .listeners
            .iter()
            .map(|one| {
                (
                    one.local_port,
                    one.backlog,
                    one.overflows,
                    one.overflows_total,
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        seen(1, vec![listener(80, 7), listener(80, 1)]),
        [(80, 6, 0, 8)]
    );
    let now = vec![listener(443, 2), listener(80, 9), listener(80, 1)];
    assert_eq!(
        seen(2, now),
        [(80, 6, 2, 10), (443, 3, 2, 2)],
        "443 is new: all of it"
    );
    assert_eq!(seen(3, vec![]), []);
}

#[test]
fn block_and_file_io_reach_disk_unit_and_process() {
    let mut aggregator = Aggregator::default();
    let block = |pid, direction, bytes| BlockDelta {
        pid,
        cgroup: 0,
        device: (8, 0),
        direction,
        counts: BlockCounts {
            operations: 1,
            bytes,
            ..BlockCounts::default()
        },
    };
    let seen = aggregator.absorb(Sample {
        processes: vec![reading(5, 0)],
        block: vec![
            block(5, IoDirection::Read, 10),
            block(5, IoDirection::Write, 20),
            block(0, IoDirection::Write, 40),
        ],
        files: vec![FileDelta {
            pid: 5,
            cgroup: 0,
            counts: FileCounts {
                reads: 2,
                read_bytes: 99,
                ..FileCounts::default()
            },
        }],
        opens: vec![FileOpen {
            pid: 5,
            cgroup: 0,
            at: BootTime::default(),
            path: String::from("/etc/nginx/nginx.conf"),
            write: false,
        }],
        host: HostReading {
            disks: vec![((8, 0), String::from("sda"))],
            ..Default::default()
        },
        ..at(1)
    });
    let disk = &seen.devices[0];
    assert_eq!(
        (disk.device.as_str(), disk.read.bytes, disk.write.bytes),
        ("sda", 10, 60)
    );
    let nginx = unit(&seen, "nginx.service");
    assert_eq!((nginx.block_read.bytes, nginx.block_write.bytes), (10, 20));
    assert_eq!(
        (nginx.files.read_bytes, nginx.total.files.read_bytes),
        (99, 99)
    );
    let process = &seen.processes[0];
    assert_eq!((process.block_write.bytes, process.files.reads), (20, 2));
    let file = &seen.files[0];
    assert_eq!(
        (file.unit.as_str(), file.command.as_str()),
        ("nginx.service", "cmd5")
    );
    assert_eq!(aggregator.losses()["block"].unattributed, 1);
    assert_eq!(seen.losses.unattributed, 1);
}

#[test]
fn a_flow_has_the_name_that_a_dns_answer_gave() {
    let mut aggregator = Aggregator::default();
    let (sample, flow) = delta(1, 1);
    let named = |name: &str| NameAnswer {
        address: flow.remote.ip(),
        name: name.to_owned(),
    };
    assert_eq!(aggregator.absorb(sample.clone()).flows[0].remote_name, None);
    let seen = aggregator.absorb(Sample {
        names: vec![named("b.example")],
        ..sample.clone()
    });
    assert_eq!(seen.flows[0].remote_name.as_deref(), Some("b.example"));
    let seen = aggregator.absorb(sample);
    assert_eq!(
        seen.flows[0].remote_name.as_deref(),
        Some("b.example"),
        "it stays"
    );
}
