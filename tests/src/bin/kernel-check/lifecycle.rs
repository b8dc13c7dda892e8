//! What the end of a process tells: its processor time, and whether memory was the reason.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};
use shadowd::facts::{LifecycleKind, Sample};
use shadowd::observe::Capture;

use super::{PATIENCE, absorb, run_role, skip, start, until_exit, workload};

/// Threads that use a processor, the first one not counted.
const THREADS: u32 = 3;
/// Processor time of each.
const BURNT: Duration = Duration::from_millis(60);
/// The longest timer tick of a kernel, for each thread.
const TICK: Duration = Duration::from_millis(10);

/// Memory of the group, and what its process asks for.
const MEMORY_MAX: usize = 24 << 20;
const EATEN: usize = 96 << 20;

/// The role: threads that use a known processor time each. One ends last, alone.
pub fn burn() -> Result<()> {
    let used = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            std::thread::spawn(move || {
                while used()? < BURNT {
                    std::hint::spin_loop();
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().ok().context("a thread failed")??;
    }
    Ok(())
}

/// The role: waits until it is told to, then uses more memory than it has.
pub fn eat() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let memory = vec![0xa5_u8; EATEN];
    ensure!(std::hint::black_box(&memory)[EATEN - 1] == 0xa5);
    Ok(())
}

fn of_children() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// As the kernel tells its parent, but for the last timer tick of each thread.
pub fn tells_processor_time(capture: &mut Capture) -> Result<()> {
    let before = of_children()?;
    let (pid, sample) = run_role(capture, &["burn"])?;
    let truth = of_children()? - before;
    let mut ends = (sample.lifecycle.iter())
        .filter(|event| event.pid == pid && matches!(event.kind, LifecycleKind::Exit { .. }));
    let told = ends.next().and_then(|event| event.cpu_ns);
    let told = Duration::from_nanos(told.context("no processor time")?);
    ensure!(truth >= BURNT * THREADS, "the workload used {truth:?} only");
    let slack = TICK * (THREADS + 1);
    ensure!(
        told <= truth + TICK && told + slack >= truth,
        "the parent is told {truth:?}, the exit {told:?}"
    );
    println!("    the parent is told {truth:?}, the exit {told:?}");
    Ok(())
}

/// A group with little memory, removed when it goes out of scope.
struct SmallGroup(PathBuf);

impl SmallGroup {
    /// `None` where there is no memory controller to give.
    fn make() -> Result<Option<Self>> {
        let mount = workload::cgroup_mount()?;
        let offered = fs::read_to_string(mount.join("cgroup.controllers"))?;
        // Controllers are this machine's own business unless this is its first process.
        if std::process::id() != 1 || !offered.split_whitespace().any(|name| name == "memory") {
            return Ok(None);
        }
        fs::write(mount.join("cgroup.subtree_control"), "+memory")?;
        let group = Self(mount.join("kernel-check-oom.scope"));
        fs::create_dir(&group.0)?;
        fs::write(group.0.join("memory.max"), MEMORY_MAX.to_string())?;
        Ok(Some(group))
    }
}

impl Drop for SmallGroup {
    fn drop(&mut self) {
        // Its process is dead or will never be; the check has failed already then.
        let _ = workload::remove_group(&self.0);
    }
}

/// The victim is told with its group, once, before its end.
pub fn tells_oom_kill(capture: &mut Capture) -> Result<()> {
    let Some(group) = SmallGroup::make()? else {
        return skip("no memory controller that is the check's own to use");
    };
    let mut child = start(&["eat"])?;
    let pid = child.id();
    fs::write(group.0.join("cgroup.procs"), pid.to_string())?;
    drop(child.stdin.take());
    let mut sample = until_exit(capture, pid)?;
    child.wait()?;
    let deadline = Instant::now() + PATIENCE;
    while ends(&sample, pid).is_empty() && Instant::now() < deadline {
        absorb(&mut sample, capture.tick());
    }
    let kinds: Vec<_> = of(&sample, pid);
    ensure!(
        kinds
            == [
                LifecycleKind::Exec,
                LifecycleKind::OomKill,
                LifecycleKind::Exit { status: 9 }
            ],
        "{kinds:?}"
    );
    let id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&group.0)?);
    let after_exec = sample.lifecycle.iter().filter(|event| event.pid == pid);
    for event in after_exec.skip(1) {
        ensure!(event.cgroup == id, "{event:?} is not of group {id}");
    }
    Ok(())
}

fn of(sample: &Sample, pid: u32) -> Vec<LifecycleKind> {
    let of_pid = sample.lifecycle.iter().filter(|event| event.pid == pid);
    of_pid.map(|event| event.kind).collect()
}

fn ends(sample: &Sample, pid: u32) -> Vec<LifecycleKind> {
    let mut kinds = of(sample, pid);
    kinds.retain(|kind| matches!(kind, LifecycleKind::Exit { .. }));
    kinds
}
