//! Nothing is lost without being counted: seen + dropped is what the load did, when nobody reads
//! for seconds and when every table is as small as it can be.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use shadowd::facts::{ProbeLosses, Protocol, Sample};
use shadowd::observe::{Capture, Limits};
use shadowd_tests::load::churn::{ChurnPlan, Lives};

use super::ledger::Ledger;
use crate::generator::Generator;
use crate::{PATIENCE, run_role, settings, start, workload};

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
pub fn undrained(capture: &mut Capture, per_second: u32) -> Result<()> {
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
    let deadline = std::time::Instant::now() + PATIENCE;
    while happenings(&ledger) + after.dropped - before.dropped < HAPPENINGS * made
        && std::time::Instant::now() < deadline
    {
        capture.wait(std::time::Duration::from_millis(20));
        after = of(&ledger.tick(capture), "tcp");
    }
    let dropped = after.dropped - before.dropped;
    let seen = happenings(&ledger);
    ensure!(
        seen + dropped == HAPPENINGS * made,
        "{seen} seen and {dropped} dropped of {HAPPENINGS} x {made}"
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

/// Every table is as small as it can be. Another capture, whose tables have room, tells what else
/// happened on this machine meanwhile.
pub fn smallest_tables(witness: &mut Capture) -> Result<()> {
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
    let start_of_witness = totals(&witness.tick());
    let mut capture = Capture::start_with(&settings(), limits);
    let before = capture.tick();
    let (_, made) = come_and_go(0, 2_000)?;
    let mut role = start(&["swarm", &PROCESSES.to_string()])?;
    let mut input = role.stdin.take().context("it has an input")?;
    input.write_all(b"g")?;
    ensure!(role.wait()?.code() == Some(workload::STATUS.into()));
    run_role(witness, &["syscalls"])?;
    let after = capture.tick();
    let end_of_witness = totals(&witness.tick());
    // Each process and the load itself: begin and end.
    let least = BTreeMap::from([
        ("tcp", HAPPENINGS * made),
        ("processes", 2 * (PROCESSES + 1)),
        ("syscalls", workload::GETPPIDS + workload::FAILING_OPENS),
    ]);
    for (feature, made) in least {
        let counted = totals(&after)[feature] - totals(&before)[feature];
        let most = end_of_witness[feature] - start_of_witness[feature];
        ensure!(
            (made..=most).contains(&counted),
            "{feature}: {counted} seen or dropped; {made} were made, {most} is all there was"
        );
        let dropped = of(&after, feature).dropped - of(&before, feature).dropped;
        ensure!(
            feature == "processes" || dropped > 0,
            "{feature}: nothing was dropped of {counted}"
        );
    }
    Ok(())
}
