//! What a tick costs: aggregating it, and writing it to the history, against the plain ways to
//! write the same. Measures, so it is not run with the other tests:
//!
//!     cargo test --release -p shadowd --test history_cost -- --ignored --nocapture

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use shadowd::config::settings::HistorySettings;
use shadowd::decide::aggregate::Aggregator;
use shadowd::facts::{
    BlockCounts, BlockDelta, BootTime, Direction, FileCounts, FileDelta, FlowCounts, FlowDelta,
    Histogram, IoDirection, Observation, ProcessReading, Protocol, Sample, SyscallCounts,
    SyscallDelta, Timing,
};
use shadowd::store::history::Writer;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shadowd-cost-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Numbers that look drawn, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn times(dice: &mut Dice, count: u64) -> Histogram {
    let mut times = Histogram::default();
    for _ in 0..4 {
        times.record(1_000 << dice.below(8), count / 4 + 1);
    }
    times
}

/// One second of a host with `living` processes in as many tenths of units, of which `active` do
/// something, and with `flows` active flows that begin at number `first`.
fn second(
    dice: &mut Dice,
    number: u64,
    living: u32,
    active: u32,
    first: u32,
    flows: u32,
) -> Sample {
    let cgroup = |pid: u32| u64::from(pid / 10 + 1);
    let path = |cgroup: u64| format!("/system.slice/service-{cgroup}.service");
    let mut sample = Sample {
        at: BootTime::from_nanos(number * 1_000_000_000),
        wall_ms: 1_795_176_000_000 + i64::try_from(number).unwrap() * 1_000,
        interval: Duration::from_secs(1),
        ..Sample::default()
    };
    if number == 1 {
        sample.cgroups = (1..=cgroup(living)).map(|id| (id, path(id))).collect();
    }
    for pid in 1..=living {
        let busy = u64::from(pid <= active);
        sample.processes.push(ProcessReading {
            pid,
            parent: 1,
            command: format!("worker-{}", pid % 30),
            cgroup: path(cgroup(pid)),
            cpu: Duration::from_millis(number * 10 * busy),
            rss_bytes: 10 << 20,
            started: Duration::from_secs(1),
            context_switches: Some(number * 37 * busy),
        });
        if busy == 1 {
            for call in 0..4 {
                let calls = dice.below(2_000) + 1;
                let counts = SyscallCounts {
                    calls,
                    errors: [(11, dice.below(20) + 1)].into(),
                    total_ns: calls * 900,
                    latency: times(dice, calls),
                };
                sample.syscalls.push(SyscallDelta {
                    pid,
                    cgroup: cgroup(pid),
                    number: call,
                    counts,
                });
            }
            let counts = FileCounts {
                reads: dice.below(90),
                read_bytes: dice.below(1 << 20),
                ..Default::default()
            };
            sample.files.push(FileDelta {
                pid,
                cgroup: cgroup(pid),
                counts,
            });
            let counts = BlockCounts {
                operations: 3,
                bytes: 12_288,
                errors: 0,
                latency: times(dice, 3),
            };
            let direction = IoDirection::Write;
            sample.block.push(BlockDelta {
                pid,
                cgroup: cgroup(pid),
                device: (8, 0),
                direction,
                counts,
            });
        }
    }
    for flow in first..first + flows {
        let pid = flow % living.max(1) + 1;
        let inbound = flow % 3 != 0;
        let remote = [10, (flow >> 16) as u8, (flow >> 8) as u8, flow as u8];
        let remote_port = if inbound { 0 } else { 5_432 };
        let packets = dice.below(500) + 1;
        let counts = FlowCounts {
            opened: dice.below(3),
            closed: dice.below(3),
            rx_bytes: dice.below(1 << 20),
            tx_bytes: dice.below(1 << 22),
            rx_packets: packets,
            tx_packets: packets * 2,
            rtt: Timing {
                count: 2,
                sum_ns: dice.below(1 << 22),
            },
            response: if inbound {
                times(dice, packets)
            } else {
                Histogram::default()
            },
            ..FlowCounts::default()
        };
        sample.flows.push(FlowDelta {
            pid,
            cgroup: cgroup(pid),
            protocol: Protocol::Tcp,
            direction: if inbound {
                Direction::Inbound
            } else {
                Direction::Outbound
            },
            local: SocketAddr::from(([192, 0, 2, 10], if inbound { 80 } else { 0 })),
            remote: SocketAddr::from((remote, remote_port)),
            counts,
            open: 1,
        });
    }
    sample
}

fn per(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_secs_f64() * 1e3 / count as f64
}

#[test]
#[ignore = "measures"]
fn a_tick_with_many_flows() {
    for known in [2_000_u32, 10_000, 100_000] {
        let dice = &mut Dice(7);
        let mut aggregator = Aggregator::default();
        for (number, first) in (0..known).step_by(2_000).enumerate() {
            aggregator.absorb(second(dice, number as u64 + 1, 500, 500, first, 2_000));
        }
        let samples: Vec<Sample> = (0..20)
            .map(|number| second(dice, 1_000 + number, 500, 500, 0, 2_000))
            .collect();
        let began = Instant::now();
        for sample in samples {
            std::hint::black_box(aggregator.absorb(sample));
        }
        let tick = per(began.elapsed(), 20);
        let began = Instant::now();
        std::hint::black_box(aggregator.export());
        println!(
            "absorb: {known} flows known, 2000 active, 500 processes: {tick:.2} ms a tick; export {:.2} ms",
            per(began.elapsed(), 1)
        );
    }
}

fn observed(ticks: u64, living: u32, active: u32, flows: u32) -> Vec<Observation> {
    let dice = &mut Dice(7);
    let mut aggregator = Aggregator::default();
    let ticks = 1..=ticks;
    ticks
        .map(|number| aggregator.absorb(second(dice, number, living, active, 0, flows)))
        .collect()
}

#[test]
#[ignore = "measures"]
fn a_record() {
    for (name, living, active, flows) in [
        ("busy", 500, 500, 2_000),
        ("usual", 200, 40, 60),
        ("quiet", 80, 8, 3),
    ] {
        let observations = observed(60, living, active, flows);
        let count = observations.len();
        let dir = Scratch::new(name);
        let settings = HistorySettings {
            record: true,
            max_bytes: 1 << 40,
            max_age: Duration::from_secs(1 << 30),
            full_resolution: Duration::from_secs(1 << 20),
        };
        let (mut writer, reader, _) = Writer::open(&dir.0, &settings, "boot").unwrap();
        let began = Instant::now();
        for observation in &observations {
            writer.append(observation).unwrap();
        }
        let ours = per(began.elapsed(), count);
        let bytes = reader.status().bytes as f64 / count as f64;

        let began = Instant::now();
        let mut file = File::create(dir.0.join("plain.json")).unwrap();
        for observation in &observations {
            let json = serde_json::to_vec(observation).unwrap();
            file.write_all(&json).unwrap();
        }
        let plain = per(began.elapsed(), count);
        let plain_bytes = file.metadata().unwrap().len() as f64 / count as f64;

        let began = Instant::now();
        let sqlite = rusqlite::Connection::open(dir.0.join("peer.sqlite")).unwrap();
        sqlite
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
                 CREATE TABLE records (number INTEGER PRIMARY KEY, json BLOB)",
            )
            .unwrap();
        for observation in &observations {
            let json = serde_json::to_vec(observation).unwrap();
            sqlite
                .execute("INSERT INTO records (json) VALUES (?1)", [json])
                .unwrap();
        }
        let in_sqlite = per(began.elapsed(), count);

        let began = Instant::now();
        let sum = reader
            .sum(i64::MIN, i64::MAX, Duration::from_secs(600))
            .unwrap();
        assert_eq!(sum.records, count as u64);
        let read = per(began.elapsed(), count);
        println!(
            "{name}: {living} processes, {active} active, {flows} flows: {ours:.2} ms and {:.1} KiB a record \
             ({:.2} % of a core, {:.1} MiB an hour); plain JSON {plain:.2} ms, {:.0} KiB (x{:.2}, x{:.0}); \
             SQLite {in_sqlite:.2} ms (x{:.2}); reading and summing {read:.2} ms a record",
            bytes / 1024.0,
            ours / 10.0,
            bytes * 3_600.0 / (1 << 20) as f64,
            plain_bytes / 1024.0,
            ours / plain,
            plain_bytes / bytes,
            ours / in_sqlite,
        );
    }
}
