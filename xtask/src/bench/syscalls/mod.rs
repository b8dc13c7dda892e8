//! What counting costs a system call: calls, times and errors by process, counted in six ways.
//!
//! `getppid`, the shortest call, is made with nothing attached, with a pair of empty programs, with
//! the usual design of such tools (hash tables of times of entry and of data), with a bpftrace
//! script, and with the daemon. One after the other in each round, so that whatever the machine
//! does meets all; compared is the time that each adds to the bare call of its own round.

mod peers;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, getppid};

use self::peers::{Bpftrace, Probes};
use super::daemon::Daemon;
use super::measure::timed;
use super::report::Metric;
use crate::build;
use crate::command::run as run_command;
use crate::setup::{self, Part};

/// Each way once; a round takes some eight seconds, three times that on a busy machine.
const ROUNDS: usize = 7;
/// Parts of a turn. Its lower quartile is the turn's time: an interruption only ever adds.
const PARTS: usize = 600;
/// Calls of a part: a fraction of a millisecond, so that most parts meet no other process.
const CALLS: u32 = 1_000;
/// Features that are off when only system calls are counted.
const ONLY_SYSCALLS: &str = "probes_off = [\"tcp\", \"udp\", \"udp-remotes\", \"listeners\", \"before\", \
    \"dns\", \"block\", \"files\", \"opens\", \"processes\", \"oom\", \"cgroups\"]";

/// A way to count.
struct Way {
    name: &'static str,
    turn: fn() -> Result<f64>,
}

const BARE: usize = 0;
const EMPTY: usize = 1;
const TABLE: usize = 2;
const BPFTRACE: usize = 3;
const SYSCALLS: usize = 4;
const ALL: usize = 5;

const WAYS: [Way; 6] = [
    Way {
        name: "bare",
        turn: || Ok(calls()),
    },
    Way {
        name: "empty_pair",
        turn: || Probes::start("empty")?.during(calls),
    },
    Way {
        name: "hash_tables",
        turn: || Probes::start("table")?.during(calls),
    },
    Way {
        name: "bpftrace",
        turn: || Bpftrace::start()?.during(calls),
    },
    Way {
        name: "shadowd_syscalls",
        turn: || with_daemon(ONLY_SYSCALLS),
    },
    Way {
        name: "shadowd_all",
        turn: || with_daemon(""),
    },
];

/// Time added to a call by each way, and by shadowd in proportion to the others.
///
/// # Errors
/// The build fails, this is not root, a tool is missing, or the kernel refuses the probes.
pub fn run() -> Result<Vec<Metric>> {
    if !nix::unistd::geteuid().is_root() {
        bail!("loading probes needs root");
    }
    setup::ensure(&[Part::Bench])?;
    build::run(build::Args { release: true })?;
    go_first();
    let before = sched_getaffinity(Pid::from_raw(0)).context("the own processors")?;
    let mut rounds: Vec<[f64; WAYS.len()]> = Vec::new();
    for round in 0..ROUNDS {
        let mut times = [0.0; WAYS.len()];
        for step in 0..WAYS.len() {
            let way = (round + step) % WAYS.len();
            let Way { name, turn } = &WAYS[way];
            times[way] = turn().with_context(|| (*name).to_owned())?;
        }
        println!("round {}: {times:.0?}", round + 1);
        rounds.push(times);
    }
    sched_setaffinity(Pid::from_raw(0), &before).context("the own processors")?;
    Ok(metrics(&rounds))
}

/// Puts the measured loop before what else runs on its processor; what it starts runs as usual.
fn go_first() {
    let own = std::process::id().to_string();
    let set =
        run_command(Command::new("chrt").args(["--reset-on-fork", "--fifo", "--pid", "10", &own]));
    if let Err(error) = set {
        println!("measured beside what else runs: {error:#}");
    }
}

fn with_daemon(capture: &str) -> Result<f64> {
    let daemon = Daemon::start(&format!("cost = \"off\"\n{capture}"))?;
    let time = calls();
    daemon.stop()?;
    Ok(time)
}

/// Nanoseconds of one call, on one processor.
fn calls() -> f64 {
    // What is started keeps to all processors: only this loop stays on one.
    let own = Pid::from_raw(0);
    let all = sched_getaffinity(own);
    if let Some(last) = all.as_ref().ok().and_then(last) {
        let mut one = CpuSet::new();
        // A processor that may not be used shows as noise, which the spread tells.
        let _ = one.set(last).and_then(|()| sched_setaffinity(own, &one));
    }
    let mut parts: Vec<Duration> = (0..PARTS)
        .map(|_| {
            timed(CALLS, || {
                std::hint::black_box(getppid());
            })
        })
        .collect();
    if let Ok(all) = all {
        let _ = sched_setaffinity(own, &all);
    }
    parts.sort_unstable();
    parts[PARTS / 4].as_nanos() as f64 / f64::from(CALLS)
}

fn last(set: &CpuSet) -> Option<usize> {
    (0..CpuSet::count())
        .rev()
        .find(|processor| set.is_set(*processor).unwrap_or(false))
}

fn metrics(rounds: &[[f64; WAYS.len()]]) -> Vec<Metric> {
    let added = |way: usize| -> Vec<f64> {
        let mut times: Vec<f64> = rounds
            .iter()
            .map(|round| round[way] - round[BARE])
            .collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let metric = |name, way: usize, peer: usize| {
        let (ours, theirs) = (added(way), added(peer));
        let (value, other) = (median(&ours), median(&theirs));
        Metric {
            name,
            value,
            unit: "ns added",
            peer: WAYS[peer].name,
            ratio: value / other.max(f64::MIN_POSITIVE),
            spread: (ours[ours.len() * 3 / 4] - ours[ours.len() / 4]) / value.max(1.0),
        }
    };
    let mut bare: Vec<f64> = rounds.iter().map(|round| round[BARE]).collect();
    bare.sort_by(f64::total_cmp);
    let value = median(&bare);
    vec![
        Metric {
            name: "bare_call",
            value,
            unit: "ns/call",
            peer: "itself",
            ratio: 1.0,
            spread: (bare[bare.len() * 3 / 4] - bare[bare.len() / 4]) / value,
        },
        metric("empty_pair", EMPTY, EMPTY),
        metric("hash_tables", TABLE, EMPTY),
        metric("bpftrace", BPFTRACE, EMPTY),
        metric("syscalls_to_empty", SYSCALLS, EMPTY),
        metric("syscalls_to_tables", SYSCALLS, TABLE),
        metric("syscalls_to_bpftrace", SYSCALLS, BPFTRACE),
        metric("all_to_empty", ALL, EMPTY),
        metric("all_to_tables", ALL, TABLE),
        metric("all_to_bpftrace", ALL, BPFTRACE),
    ]
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_compared_round_by_round() {
        // The machine is twice as slow in the second round, and disturbed in the third.
        let rounds = [
            [100.0, 150.0, 300.0, 500.0, 200.0, 210.0],
            [200.0, 250.0, 400.0, 600.0, 300.0, 310.0],
            [100.0, 900.0, 300.0, 500.0, 200.0, 900.0],
        ];
        let metrics = metrics(&rounds);
        let of = |name: &str| {
            let metric = metrics.iter().find(|metric| metric.name == name);
            metric.expect("it is among them")
        };
        assert_eq!(of("bare_call").value, 100.0);
        assert_eq!(of("empty_pair").value, 50.0);
        assert_eq!(of("syscalls_to_empty").ratio, 2.0);
        assert_eq!(of("syscalls_to_tables").ratio, 0.5);
        assert_eq!(of("syscalls_to_bpftrace").ratio, 0.25);
        assert_eq!(of("all_to_empty").value, 110.0);
    }
}
