//! Programs are measured by the kernel, and the statistics are off again afterwards.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use shadowd::config::settings::CaptureSettings;
use shadowd::facts::ProbeStatus;
use shadowd::observe::Capture;

use super::{PATIENCE, run_role};

/// No program takes longer, not even where a processor is emulated.
const LONGEST_NS: f64 = 1e6;

/// Waits for the windows of the start, in which a workload makes calls.
pub fn is_measured_and_then_off(_: &mut Capture) -> Result<()> {
    let mut capture = Capture::start(&CaptureSettings::default());
    ensure!(capture.is_measuring(), "{}", capture.cost().measured);
    let deadline = Instant::now() + PATIENCE;
    let mut opened = false;
    while capture.is_measuring() {
        ensure!(Instant::now() < deadline, "{}", capture.cost().measured);
        capture.wait(Duration::from_millis(50));
        opened |= statistics_open()?;
        if opened && statistics_open()? {
            run_role(&mut capture, &["syscalls"])?;
        }
    }
    ensure!(opened, "never measured: {}", capture.cost().measured);
    ensure!(!statistics_open()?, "the statistics are still on");
    capture.tick();
    let probe = probe(&capture, "syscalls")?;
    let Some(cost) = probe.cost_ns else {
        bail!("no cost: {}", capture.cost().measured);
    };
    ensure!(cost > 1.0 && cost < LONGEST_NS, "{cost} ns a run");
    ensure!(probe.events_per_second.is_some() && probe.cpu_share.is_some());
    let own = capture.cost();
    ensure!(own.rss_bytes.is_some_and(|bytes| bytes > 0), "{own:?}");
    println!("    {cost:.0} ns a run of syscalls, {own:?}");
    Ok(())
}

/// All that a feature saw and lost adds up to the totals.
pub fn losses_are_the_sum_of_the_features(capture: &mut Capture) -> Result<()> {
    let (_, sample) = run_role(capture, &["syscalls"])?;
    let features = &sample.probe_losses;
    let syscalls = features.get("syscalls").context("no syscalls")?;
    ensure!(syscalls.seen > 0, "{features:?}");
    let seen: u64 = features.values().map(|feature| feature.seen).sum();
    let dropped: u64 = features.values().map(|feature| feature.dropped).sum();
    ensure!(
        (seen, dropped) == (sample.losses.seen, sample.losses.dropped),
        "{features:?} and {:?}",
        sample.losses
    );
    Ok(())
}

fn probe(capture: &Capture, name: &str) -> Result<ProbeStatus> {
    let mut probes = capture.probes().into_iter();
    let probe = probes.find(|probe| probe.name == name);
    probe.with_context(|| format!("no probe {name}"))
}

/// Whether this process holds the descriptor that keeps the statistics on.
fn statistics_open() -> Result<bool> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let target = fs::read_link(entry?.path());
        if target.is_ok_and(|target| target.to_string_lossy().contains("bpf-stats")) {
            return Ok(true);
        }
    }
    Ok(false)
}
