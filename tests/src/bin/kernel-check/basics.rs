//! The first checks: calls, programs begun and ended, groups, and that nothing comes from outside.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shadowd::decide::aggregate::Aggregator;
use shadowd::facts::{Lifecycle, LifecycleKind, Sample};
use shadowd::observe::{Capture, boot_time};

use crate::{PATIENCE, absorb, run_role, settings, start, workload};

pub fn syscalls_and_errors_are_exact(capture: &mut Capture) -> Result<()> {
    // What the loader and the runtime do by themselves is in both.
    let (idle_pid, idle) = run_role(capture, &["leave"])?;
    let (pid, sample) = run_role(capture, &["syscalls"])?;
    for (number, calls, errors) in [
        (libc::SYS_getppid, workload::GETPPIDS, 0),
        (
            libc::SYS_openat,
            workload::FAILING_OPENS,
            workload::FAILING_OPENS,
        ),
    ] {
        let seen = counted(&sample, pid, number);
        let before = counted(&idle, idle_pid, number);
        ensure!(
            seen == (before.0 + calls, before.1 + errors),
            "call {number}: {seen:?} with the calls, {before:?} without; made {calls}, {errors}"
        );
    }
    ensure!(
        sample.losses.dropped == 0,
        "dropped {}",
        sample.losses.dropped
    );
    Ok(())
}

/// Calls and errors of one number by one process.
pub fn counted(sample: &Sample, pid: u32, number: libc::c_long) -> (u64, u64) {
    let of_pid = sample.syscalls.iter().filter(|count| count.pid == pid);
    let matching = of_pid.filter(|count| libc::c_long::from(count.number) == number);
    matching.fold((0, 0), |sum, count| {
        (sum.0 + count.counts.calls, sum.1 + count.counts.failed())
    })
}

pub fn exec_and_exit_are_seen_with_status(capture: &mut Capture) -> Result<()> {
    let (pid, sample) = run_role(capture, &["leave"])?;
    let of_pid: Vec<_> = sample
        .lifecycle
        .iter()
        .filter(|event| event.pid == pid)
        .collect();
    let kinds: Vec<_> = of_pid.iter().map(|event| event.kind).collect();
    let status = i32::from(workload::STATUS) << 8;
    ensure!(
        kinds == [LifecycleKind::Exec, LifecycleKind::Exit { status }],
        "{of_pid:?}"
    );
    ensure!(
        of_pid[0].at < of_pid[1].at && of_pid[1].at < boot_time(),
        "{of_pid:?}"
    );
    ensure!(of_pid.iter().all(|event| event.cgroup != 0), "{of_pid:?}");
    Ok(())
}

/// The median of several deaths: one may meet a busy machine.
pub fn exit_wakes_the_reader_at_once(capture: &mut Capture) -> Result<()> {
    let mut delays = Vec::new();
    for _ in 0..9 {
        let mut child = start(&["wait"])?;
        let pid = child.id();
        child.kill()?;
        let deadline = Instant::now() + PATIENCE;
        let died = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no exit of {pid} within {PATIENCE:?}");
            let events = capture.wait(left);
            let now = boot_time();
            let exit = |event: &&Lifecycle| {
                event.pid == pid && matches!(event.kind, LifecycleKind::Exit { status: 9 })
            };
            if let Some(event) = events.iter().find(exit) {
                break now.since(event.at);
            }
        };
        delays.push(died);
        child.wait()?;
    }
    delays.sort();
    // Emulated processors are some thirty times slower.
    let limit = Duration::from_millis(if std::process::id() == 1 { 100 } else { 1 });
    ensure!(delays[4] <= limit, "{delays:?}");
    Ok(())
}

/// A death that a tick takes from the ring buffer must still reach whoever waits, once.
pub fn an_exit_during_a_tick_is_heard_once(capture: &mut Capture) -> Result<()> {
    let exits = |events: &[Lifecycle], pid: u32| {
        let exit = |event: &&Lifecycle| {
            event.pid == pid && matches!(event.kind, LifecycleKind::Exit { .. })
        };
        events.iter().filter(exit).count()
    };
    let mut child = start(&["leave"])?;
    let pid = child.id();
    child.wait()?;
    let sample = capture.tick();
    let heard = exits(&capture.wait(Duration::ZERO), pid);
    let again = exits(&capture.wait(Duration::ZERO), pid);
    ensure!(
        (exits(&sample.lifecycle, pid), heard, again) == (1, 1, 0),
        "in the sample {}, heard {heard}, again {again}",
        exits(&sample.lifecycle, pid)
    );

    let mut child = start(&["leave"])?;
    let pid = child.id();
    child.wait()?;
    let mut urgent = Vec::new();
    let sample = capture.tick_with(|event| urgent.push(event.clone()));
    let again = exits(&capture.wait(Duration::ZERO), pid);
    ensure!(
        (exits(&sample.lifecycle, pid), exits(&urgent, pid), again) == (1, 1, 0),
        "urgent {urgent:?}, again {again}"
    );
    Ok(())
}

/// A unit that lived shorter than an interval: only the kernel's own events can name it. Nothing
/// in the sample may come from outside of the control groups that are visible here.
pub fn a_group_that_is_gone_keeps_its_unit(capture: &mut Capture) -> Result<()> {
    capture.tick();
    let unit = format!("kernel-check-{}.scope", std::process::id());
    let group = workload::cgroup_mount()?.join(&unit);
    std::fs::create_dir(&group)?;
    let mut child = start(&["wait"])?;
    let pid = child.id();
    let moved = std::fs::write(group.join("cgroup.procs"), pid.to_string());
    drop(child.stdin.take());
    child.wait()?;
    moved?;
    workload::remove_group(&group)?;

    let sample = capture.tick();
    let named: BTreeSet<u64> = sample.cgroups.iter().map(|(id, _)| *id).collect();
    let exit = sample
        .lifecycle
        .iter()
        .find(|event| event.pid == pid && matches!(event.kind, LifecycleKind::Exit { .. }));
    let exit = exit.with_context(|| format!("no exit of {pid}: {:?}", sample.lifecycle))?;
    ensure!(
        named.contains(&exit.cgroup),
        "{exit:?} is in none of {:?}",
        sample.cgroups
    );
    let mut aggregator = Aggregator::default();
    let seen = aggregator.absorb(sample);
    let of_unit = seen.units.iter().find(|entry| entry.unit == unit);
    let of_unit = of_unit.with_context(|| format!("no unit {unit}: {:?}", seen.units))?;
    ensure!(
        of_unit.exits == 1 && of_unit.syscalls.calls > 0,
        "{of_unit:?}"
    );
    Ok(())
}

/// Counts of control groups that are not visible here would be another host's. Also shows that two
/// captures run beside each other.
pub fn nothing_comes_from_outside(_: &mut Capture) -> Result<()> {
    let mut second = Capture::start(&settings());
    let mut sample = second.tick();
    for _ in 0..20 {
        let (_, part) = run_role(&mut second, &["syscalls"])?;
        sample.cgroups.extend(part.cgroups.iter().cloned());
        absorb(&mut sample, part);
    }
    let named: BTreeSet<u64> = sample.cgroups.iter().map(|(id, _)| *id).collect();
    let groups = (sample
        .syscalls
        .iter()
        .map(|count| (count.pid, count.cgroup)))
    .chain(
        sample
            .lifecycle
            .iter()
            .map(|event| (event.pid, event.cgroup)),
    );
    for (pid, group) in groups {
        ensure!(
            named.contains(&group),
            "process {pid} in the unknown group {group}"
        );
    }
    Ok(())
}
