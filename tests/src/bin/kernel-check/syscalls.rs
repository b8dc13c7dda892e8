//! The checks of system calls: counts, errnos, times, owners, and what a full table leaves.

mod peers;
pub mod roles;

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use shadowd::facts::{Histogram, Sample, SyscallCounts};
use shadowd::observe::{Capture, Limits};

use super::fence::Fence;
use super::{Skipped, absorb, dropped, missed, run_role, start, until_exit, workload};

pub use peers::{perf_counts_the_same, strace_counts_the_same};

/// Runs of a check in which the kernel may leave something out.
const TRIES: u32 = 5;

/// All calls of one number by one process.
fn of(sample: &Sample, pid: u32, number: libc::c_long) -> SyscallCounts {
    let mut sum = SyscallCounts::default();
    for delta in &sample.syscalls {
        if delta.pid == pid && libc::c_long::from(delta.number) == number {
            sum.add(&delta.counts);
        }
    }
    sum
}

/// Calls of one process, all numbers.
fn calls(sample: &Sample, pid: u32) -> u64 {
    let of_pid = sample.syscalls.iter().filter(|delta| delta.pid == pid);
    of_pid.map(|delta| delta.counts.calls).sum()
}

/// Threads, failing calls of several errnos, a program begun by a thread that is not the first
/// one, calls that never return: every number, against the same program that does nothing.
///
/// A kernel that may run another task in the middle of a program leaves that task's calls out when it
/// does so in both programs of the feature. It says how many, and then the run is made again.
pub fn counts_and_errnos_are_exact(capture: &mut Capture) -> Result<()> {
    for _ in 0..TRIES {
        let missed = mixed_calls(capture)?;
        if missed == 0 {
            return Ok(());
        }
        println!("the kernel left out {missed} calls at most");
    }
    bail!("the kernel left calls out in each of {TRIES} runs");
}

/// One run of it: exact, or short by at most what the kernel says to have left out, which it gives.
fn mixed_calls(capture: &mut Capture) -> Result<u64> {
    let before = missed(&capture.tick(), "syscalls");
    let (idle_pid, idle) = run_role(capture, &["leave"])?;
    let (pid, sample) = run_role(capture, &["mix"])?;
    let missed = missed(&capture.tick(), "syscalls") - before;
    let mut short = 0;
    for made in roles::mix() {
        let number = made.number;
        let mut expected = SyscallCounts::default();
        for _ in 0..made.idle {
            expected.add(&of(&idle, idle_pid, number));
        }
        expected.calls += made.calls;
        for (errno, count) in made.errors {
            *expected.errors.entry(errno as u16).or_default() += count;
        }
        let seen = of(&sample, pid, number);
        short += seen.calls.abs_diff(expected.calls);
        ensure!(
            missed > 0 || (seen.calls, &seen.errors) == (expected.calls, &expected.errors),
            "call {number}: {seen:?}, expected {expected:?}"
        );
        let never_returns = [libc::SYS_exit, libc::SYS_exit_group].contains(&number);
        let timed = if never_returns { 0 } else { seen.calls };
        ensure!(
            missed > 0 || seen.latency.count() == timed,
            "call {number}: {timed} of {seen:?} have a time"
        );
    }
    ensure!(short <= missed, "{short} calls are gone, {missed} left out");
    let dropped = dropped(&sample, "syscalls") - dropped(&idle, "syscalls");
    ensure!(dropped == 0, "dropped {dropped}");
    Ok(missed)
}

/// Calls that wait for a known time are in its bucket or, on a busy machine, above.
pub fn blocking_calls_take_their_time(capture: &mut Capture) -> Result<()> {
    let (pid, sample) = run_role(capture, &["block"])?;
    for (number, times) in roles::block() {
        let seen = of(&sample, pid, number);
        let least = Histogram::bucket(roles::PAUSE.as_nanos() as u64);
        let long: u64 = seen.latency.counts()[least..].iter().sum();
        ensure!(
            long == times,
            "call {number}: {long} of {times} took {:?}: {seen:?}",
            roles::PAUSE
        );
        let sum = Duration::from_nanos(seen.total_ns);
        ensure!(sum >= roles::PAUSE * times as u32, "call {number}: {sum:?}");
        ensure!(sum < Duration::from_secs(20), "call {number}: {sum:?}");
    }
    Ok(())
}

/// Tells a child that waits for a line to go on, and waits for its answer.
fn step(child: &mut Child, answers: &mut impl std::io::BufRead) -> Result<()> {
    let input = child.stdin.as_mut().context("the child has a pipe")?;
    input.write_all(b"go\n")?;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    ensure!(line.trim() == "done", "the child said {line:?}");
    Ok(())
}

/// Each group has the calls that the process made while it was in it.
pub fn a_moved_process_counts_where_it_is(capture: &mut Capture) -> Result<()> {
    let fences = [Fence::new("one")?, Fence::new("two")?];
    let mut child = start(&["steps"])?;
    let pid = child.id();
    let output = child.stdout.take().context("the child has a pipe")?;
    let mut answers = BufReader::new(output);
    step(&mut child, &mut answers)?;
    // There and back again: the same group twice.
    for fence in [&fences[0], &fences[1], &fences[0]] {
        fence.take(&child)?;
        step(&mut child, &mut answers)?;
    }
    drop(child.stdin.take());
    let sample = until_exit(capture, pid)?;
    child.wait()?;
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for delta in &sample.syscalls {
        if delta.pid == pid && libc::c_long::from(delta.number) == libc::SYS_getppid {
            *seen.entry(delta.cgroup).or_default() += delta.counts.calls;
        }
    }
    let once = roles::STEP;
    let of = |fence: &Fence| seen.get(&fence.id).copied().unwrap_or(0);
    ensure!(
        (of(&fences[0]), of(&fences[1])) == (2 * once, once)
            && seen.values().sum::<u64>() == 4 * once,
        "{seen:?}"
    );
    Ok(())
}

/// One process in a group of its own is counted twice, once with room for three numbers only.
pub fn seen_and_dropped_are_all(_: &mut Capture) -> Result<()> {
    let fence = Fence::new("full")?;
    let mut large = fence.watch(Limits::default().syscalls);
    let mut tiny = fence.watch(3);
    ensure!(
        dropped(&tiny.tick(), "syscalls") == 0,
        "dropped before the start"
    );
    let mut child = start(&["gated"])?;
    let pid = child.id();
    fence.take(&child)?;
    drop(child.stdin.take());
    let whole = until_exit(&mut large, pid)?;
    let part = tiny.tick();
    child.wait()?;
    let in_group = whole
        .syscalls
        .iter()
        .filter(|delta| delta.cgroup == fence.id);
    let all: u64 = in_group.map(|delta| delta.counts.calls).sum();
    let (seen, lost) = (calls(&part, pid), dropped(&part, "syscalls"));
    ensure!(dropped(&whole, "syscalls") == 0, "the large table is full");
    // Each of the two may miss what the other one has, where the kernel leaves programs out.
    let missed = missed(&whole, "syscalls") + missed(&part, "syscalls");
    ensure!(
        seen > 0 && lost > 0 && (seen + lost).abs_diff(all) <= missed,
        "seen {seen} + dropped {lost} of {all}, missed {missed}"
    );
    Ok(())
}

/// Far more processes, one after the other, than there are slots for.
pub fn the_dead_leave_their_slots(_: &mut Capture) -> Result<()> {
    const ROUNDS: u64 = 24;
    let fence = Fence::new("dead")?;
    // One process takes some fifteen.
    let mut capture = fence.watch(64);
    let mut seen = 0;
    for _ in 0..ROUNDS {
        let mut child = start(&["gated"])?;
        let pid = child.id();
        fence.take(&child)?;
        drop(child.stdin.take());
        let mut sample = until_exit(&mut capture, pid)?;
        child.wait()?;
        absorb(&mut sample, capture.tick());
        seen += of(&sample, pid, libc::SYS_getppid).calls;
        let lost = dropped(&sample, "syscalls");
        ensure!(lost == 0, "dropped {lost} after {seen} calls");
    }
    ensure!(seen == ROUNDS * roles::GATED, "{seen} calls");
    Ok(())
}

/// A pid that is used again: the second process gets nothing of the first one's.
pub fn a_pid_used_again_is_another_process(capture: &mut Capture) -> Result<()> {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    const ATTEMPTS: u32 = 200;
    if !std::fs::exists(LAST)? {
        return Err(Skipped("this kernel does not let pids be chosen".to_owned()).into());
    }
    let (first, sample) = run_role(capture, &["syscalls"])?;
    let before = of(&sample, first, libc::SYS_getppid).calls;
    let newest = std::fs::read_to_string(LAST)?;
    let mut after = None;
    for _ in 0..ATTEMPTS {
        // Another process of this machine may be quicker.
        std::fs::write(LAST, (first - 1).to_string())?;
        let (second, sample) = run_role(capture, &["leave"])?;
        if second == first {
            after = Some(of(&sample, second, libc::SYS_getppid).calls);
            break;
        }
    }
    // Or the checks that follow would meet pids of processes that have just ended.
    std::fs::write(LAST, newest.trim())?;
    let after = after.with_context(|| format!("{first} was not used again"))?;
    ensure!(
        before >= workload::GETPPIDS && after == before - workload::GETPPIDS,
        "{before} calls, then {after}"
    );
    Ok(())
}
