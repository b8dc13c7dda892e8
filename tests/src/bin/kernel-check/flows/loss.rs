//! Nothing is lost without being counted: seen + dropped is what the load did, when nobody reads
//! for seconds and when every table is as small as it can be.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shadowd::facts::{ProbeLosses, Protocol, Sample};
use shadowd::observe::{Capture, Limits};
use shadowd_tests::load::churn::{ChurnPlan, Lives};

use super::ledger::Ledger;
use crate::fence::{Apart, Fence};
use crate::generator::Generator;
use crate::{PATIENCE, dropped, run_role, start, workload};

/// The second number of the addresses.
const NETWORK: u8 = 48;
/// Each connection has two ends, each of which opens and closes.
const HAPPENINGS: u64 = 4;
/// Processes that live a moment while the tables are small.
const PROCESSES: u64 = 60;

/// Lets connections come and go in a namespace of its own; returns how many, by the load's own
/// count and by the namespace's.
fn come_and_go(per_second: u32, count: u32) -> Result<(u32, u64)> {
    let plan = ChurnPlan {
        network: NETWORK,
        held: 0,
        per_second,
        stop_after: count,
    };
    let mut load = Generator::start("churn", &plan)?;
    for word in ["open", "stopped"] {
        ensure!(load.read::<String>()? == word, "it says {word}");
    }
    let pid = load.pid();
    load.hang_up();
    let lives: Lives = load.read()?;
    let _: Lives = load.read()?;
    let made = lives.lives.len() as u64;
    ensure!(
        (lives.active, lives.passive) == (made, made),
        "the namespace opened {} and {}, the load {made}",
        lives.active,
        lives.passive
    );
    load.close()?;
    Ok((pid, made))
}

/// Nobody reads for five seconds, as when the daemon is stopped.
pub fn undrained(_: &mut Capture, per_second: u32) -> Result<()> {
    let apart = Apart::new("undrained")?;
    let mut capture = apart.watch();
    let capture = &mut capture;
    let mut ledger = Ledger::default();
    let before = of(&ledger.tick(capture), "tcp");
    let (pid, made) = come_and_go(per_second, 5 * per_second)?;
    let happenings = |ledger: &Ledger| -> u64 {
        let ours =
            |flow: &&shadowd::facts::FlowDelta| flow.pid == pid && flow.protocol == Protocol::Tcp;
        let flows = ledger.flows.iter().filter(ours);
        flows.map(|flow| flow.happenings()).sum()
    };
    let mut after = of(&ledger.tick(capture), "tcp");
    let deadline = Instant::now() + PATIENCE;
    while happenings(&ledger) + after.dropped - before.dropped < HAPPENINGS * made
        && Instant::now() < deadline
    {
        capture.wait(Duration::from_millis(20));
        after = of(&ledger.tick(capture), "tcp");
    }
    let dropped = after.dropped - before.dropped;
    let seen = happenings(&ledger);
    // What the kernel left out is at most what is in no other count.
    let missed = after.missed - before.missed;
    let all = HAPPENINGS * made;
    ensure!(
        seen + dropped <= all && all <= seen + dropped + missed,
        "{seen} seen, {dropped} dropped and {missed} missed of {HAPPENINGS} x {made}"
    );
    Ok(())
}

fn of(sample: &Sample, feature: &str) -> ProbeLosses {
    let losses = sample.probe_losses.get(feature).copied();
    losses.unwrap_or_default()
}

/// What each feature told of or lost until now.
fn totals(sample: &Sample) -> BTreeMap<&'static str, u64> {
    ["tcp", "processes", "syscalls"]
        .into_iter()
        .map(|feature| {
            let losses = of(sample, feature);
            (feature, losses.seen + losses.dropped)
        })
        .collect()
}

/// Every table is as small as it can be. Another capture of the same group, whose tables have room,
/// tells what else this process did meanwhile.
pub fn smallest_tables(_: &mut Capture) -> Result<()> {
    let limits = Limits {
        only: None,
        syscalls: 1,
        events_bytes: 4_096,
        block: 1,
        requests: 1,
        files: 1,
        opens_bytes: 4_096,
        flows: 1,
        sockets: 1,
        listeners: 1,
    };
    let fence = Fence::new("smallest")?;
    let _inside = fence.enter()?;
    let mut witness = fence.watch_with(Limits::default());
    let start_of_witness = totals(&witness.tick());
    let mut capture = fence.watch_with(limits);
    let before = capture.tick();
    let (_, made) = come_and_go(0, 2_000)?;
    let mut role = start(&["swarm", &PROCESSES.to_string()])?;
    let mut input = role.stdin.take().context("it has an input")?;
    input.write_all(b"g")?;
    ensure!(role.wait()?.code() == Some(workload::STATUS.into()));
    run_role(&mut witness, &["syscalls"])?;
    let tcp = |sample: &Sample| totals(sample)["tcp"];
    let mut after = capture.tick();
    let deadline = Instant::now() + PATIENCE;
    // The kernel ends a connection when it has heard of both ends.
    while tcp(&after) < tcp(&before) + HAPPENINGS * made && Instant::now() < deadline {
        capture.wait(Duration::from_millis(20));
        after = capture.tick();
    }
    let end_of_witness = totals(&witness.tick());
    // The load, the role and each of its processes, and the last role: begin and end.
    let processes = 2 * (PROCESSES + 3);
    let calls = workload::GETPPIDS + workload::FAILING_OPENS;
    let all = |feature| end_of_witness[feature] - start_of_witness[feature];
    for (feature, made) in [
        ("tcp", HAPPENINGS * made..=HAPPENINGS * made),
        ("processes", processes..=processes),
        ("syscalls", calls..=all("syscalls")),
    ] {
        let counted = totals(&after)[feature] - totals(&before)[feature];
        ensure!(
            made.contains(&counted),
            "{feature}: {counted} seen or dropped; {made:?} were made, the witness has {}",
            all(feature)
        );
        let lost = dropped(&after, feature) - dropped(&before, feature);
        ensure!(
            feature == "processes" || lost > 0,
            "{feature}: nothing was dropped of {counted}"
        );
    }
    Ok(())
}
