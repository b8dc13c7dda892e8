//! The same program counted by other tools at the same time.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use shadowd::facts::{LifecycleKind, Sample};
use shadowd::observe::{Capture, Limits};

use super::{calls, of, workload};
use crate::Skipped;
use crate::fence::Fence;
use crate::{dropped, until_exit};

/// Calls that a tracer's child does not make before its program. Not futex: strace misses the one
/// that ends when another thread begins a program.
const NAMES: [(&str, libc::c_long); 7] = [
    ("getppid", libc::SYS_getppid),
    ("openat", libc::SYS_openat),
    ("mkdir", libc::SYS_mkdir),
    ("mprotect", libc::SYS_mprotect),
    ("mmap", libc::SYS_mmap),
    ("clone3", libc::SYS_clone3),
    ("sched_getaffinity", libc::SYS_sched_getaffinity),
];

/// Runs `role` under a tool, in a control group of which capture shows nothing else; returns the
/// process of the role, what capture saw, and what the tool wrote to its file.
fn under(tool: &str, options: &[&str], role: &str) -> Result<(u32, Sample, String)> {
    let fence = Fence::new(tool)?;
    let _inside = fence.enter()?;
    let mut capture = fence.watch(Limits::default().syscalls);
    let me = std::env::current_exe()?;
    let name = format!("kernel-check-{}-{tool}", std::process::id());
    let file = std::env::temp_dir().join(name);
    let child = Command::new(tool)
        .args(options)
        .arg("-o")
        .arg(&file)
        .arg("--")
        .arg(&me)
        .arg(role)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut child = match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Skipped("the tool to compare with is not installed".to_owned()).into());
        }
        child => child.with_context(|| format!("{tool} does not start"))?,
    };
    let result = until_exit(&mut capture, child.id());
    let status = child.wait()?;
    let text = std::fs::read_to_string(&file);
    // Not there when the tool failed, which the status tells.
    let _ = std::fs::remove_file(&file);
    let sample = result?;
    // perf does not ask for the status of a child that ends before perf waits, and says 0. The
    // role's own status is looked for below.
    ensure!(
        [Some(0), Some(i32::from(workload::STATUS))].contains(&status.code()),
        "{tool} ended with {status}"
    );
    let status = i32::from(workload::STATUS) << 8;
    let ended = sample
        .lifecycle
        .iter()
        .find(|event| event.pid != child.id() && event.kind == LifecycleKind::Exit { status });
    let pid = ended.context("the role has ended")?.pid;
    Ok((pid, sample, text.context("the tool's file")?))
}

/// `perf stat` counts from the moment the program begins; what its child does before that is the
/// same for every program.
pub fn perf_counts_the_same(_: &mut Capture) -> Result<()> {
    let mut differences = Vec::new();
    for role in ["leave", "mix"] {
        let options = ["stat", "-x,", "-e", "raw_syscalls:sys_enter"];
        let (pid, sample, text) = under("perf", &options, role)?;
        let line = text.lines().find(|line| line.contains("sys_enter"));
        let count = line.and_then(|line| line.split(',').next()?.parse::<u64>().ok());
        let theirs = count.with_context(|| format!("perf says {text:?}"))?;
        let ours = calls(&sample, pid);
        ensure!(ours >= theirs, "{role}: {ours} calls, perf has {theirs}");
        ensure!(dropped(&sample, "syscalls") == 0, "dropped");
        differences.push(ours - theirs);
    }
    ensure!(
        differences[0] == differences[1] && differences[0] < 100,
        "more than perf: {differences:?}"
    );
    Ok(())
}

/// `strace -c` prints calls and errors by name.
pub fn strace_counts_the_same(_: &mut Capture) -> Result<()> {
    let (pid, sample, text) = under("strace", &["-c", "-f"], "mix")?;
    for (name, number) in NAMES {
        let line = text
            .lines()
            .find(|line| line.ends_with(&format!(" {name}")));
        let line = line.with_context(|| format!("strace has no {name}: {text}"))?;
        // % time, seconds, usecs/call, calls, errors if any, name
        let words: Vec<&str> = line.split_whitespace().collect();
        let number_at = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        let theirs = (number_at(3).unwrap_or(0), number_at(4).unwrap_or(0));
        let seen = of(&sample, pid, number);
        let ours = (seen.calls, seen.failed());
        ensure!(ours == theirs, "{name}: {ours:?}, strace has {theirs:?}");
    }
    Ok(())
}
