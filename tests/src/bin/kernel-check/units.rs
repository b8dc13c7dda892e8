//! Processes and control groups that live 20 ms: each belongs to its unit all the same.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shadowd::decide::aggregate::Aggregator;
use shadowd::facts::{Sample, UnitUse};
use shadowd::observe::Capture;

use crate::{PATIENCE, start, workload};

/// How long each process and each group lives.
const LIFE: Duration = Duration::from_millis(20);
/// Processes at a time.
const ABREAST: usize = 20;

/// A role: starts `count` processes that live a moment, in whatever group it is put into first.
pub fn swarm(count: u32) -> Result<()> {
    // A word from whoever moves this process.
    std::io::stdin().read_exact(&mut [0])?;
    let mut alive = std::collections::VecDeque::new();
    for _ in 0..count {
        if alive.len() == ABREAST {
            reap(alive.pop_front())?;
        }
        alive.push_back(nap()?);
    }
    while !alive.is_empty() {
        reap(alive.pop_front())?;
    }
    Ok(())
}

/// A role: makes `count` groups named `PREFIX-NUMBER.scope`, in each of which one process lives a
/// moment, and removes each.
pub fn scopes(count: u32, prefix: &str) -> Result<()> {
    let mount = workload::cgroup_mount()?;
    let me = std::process::id().to_string();
    let mut alive = std::collections::VecDeque::new();
    for number in 0..count {
        let group = mount.join(format!("{prefix}-{number}.scope"));
        fs::create_dir(&group).context("no control group can be made")?;
        // Born inside: a process that is moved there has begun its program elsewhere.
        fs::write(group.join("cgroup.procs"), &me)?;
        let child = nap();
        fs::write(mount.join("cgroup.procs"), &me)?;
        alive.push_back((child?, group));
        if alive.len() == ABREAST {
            leave(alive.pop_front())?;
        }
    }
    while !alive.is_empty() {
        leave(alive.pop_front())?;
    }
    Ok(())
}

/// A role: lives a moment.
pub fn live_a_moment() -> Result<()> {
    std::thread::sleep(LIFE);
    Ok(())
}

fn nap() -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("nap").stdin(Stdio::null());
    command.spawn().context("a process does not start")
}

fn reap(child: Option<Child>) -> Result<()> {
    let status = child.context("one lives")?.wait()?;
    ensure!(status.code() == Some(workload::STATUS.into()), "{status}");
    Ok(())
}

fn leave(one: Option<(Child, PathBuf)>) -> Result<()> {
    let (child, group) = one.context("one lives")?;
    reap(Some(child))?;
    workload::remove_group(&group)
}

/// A control group that is removed when it goes out of scope.
struct Group(PathBuf);

impl Group {
    fn make(name: &str) -> Result<Self> {
        let group = workload::cgroup_mount()?.join(name);
        fs::create_dir(&group).context("no control group can be made")?;
        Ok(Self(group))
    }

    fn take(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.0.join("cgroup.procs"), pid.to_string())?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A failed check leaves processes behind, which end by themselves soon.
        if let Err(error) = workload::remove_group(&self.0) {
            println!("{}: {error:#}", self.0.display());
        }
    }
}

/// Execs and exits by unit, over many samples.
struct Totals<'a> {
    capture: &'a mut Capture,
    aggregator: Aggregator,
    units: std::collections::BTreeMap<String, (u64, u64)>,
}

impl<'a> Totals<'a> {
    fn new(capture: &'a mut Capture) -> Result<Self> {
        let mut aggregator = Aggregator::default();
        // Names are told once, that of the root long ago. What was counted before is of no concern.
        let mount = workload::cgroup_mount()?;
        aggregator.absorb(Sample {
            cgroups: vec![(fs::metadata(mount)?.ino(), "/".to_owned())],
            ..Sample::default()
        });
        aggregator.absorb(capture.tick());
        Ok(Self {
            capture,
            aggregator,
            units: std::collections::BTreeMap::new(),
        })
    }

    fn tick(&mut self) {
        let seen = self.aggregator.absorb(self.capture.tick());
        for UnitUse {
            unit, execs, exits, ..
        } in seen.units
        {
            let sum = self.units.entry(unit).or_default();
            sum.0 += execs;
            sum.1 += exits;
        }
    }

    /// Takes samples until the role has ended and `unit` has no more to come.
    fn until_end(&mut self, mut role: Child) -> Result<()> {
        let deadline = Instant::now() + 3 * PATIENCE;
        let status = loop {
            if let Some(status) = role.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "the role does not end");
            self.capture.wait(Duration::from_millis(100));
            self.tick();
        };
        ensure!(status.code() == Some(workload::STATUS.into()), "{status}");
        self.tick();
        Ok(())
    }
}

/// `count` processes of one unit.
pub fn short_processes(capture: &mut Capture, count: u32) -> Result<()> {
    let unit = format!("kernel-check-{}.service", std::process::id());
    let group = Group::make(&unit)?;
    let mut role = start(&["swarm", &count.to_string()])?;
    group.take(role.id())?;
    let mut totals = Totals::new(capture)?;
    let mut input = role.stdin.take().context("it has an input")?;
    std::io::Write::write_all(&mut input, b"g")?;
    totals.until_end(role)?;
    let seen = totals.units.get(&unit).copied().unwrap_or_default();
    // The role itself began its program before it was moved.
    let count = u64::from(count);
    ensure!(
        seen == (count, count + 1),
        "{seen:?} execs and exits of {unit}, {count} and one more exit there were; {:?}",
        totals.units
    );
    Ok(())
}

/// `count` groups, one process each.
pub fn short_groups(capture: &mut Capture, count: u32) -> Result<()> {
    let prefix = format!("kernel-check-{}", std::process::id());
    let mut totals = Totals::new(capture)?;
    let role = start(&["scopes", &count.to_string(), &prefix])?;
    totals.until_end(role)?;
    let mount = workload::cgroup_mount()?;
    for number in 0..count {
        let unit = format!("{prefix}-{number}.scope");
        let seen = totals.units.get(&unit).copied().unwrap_or_default();
        ensure!(seen == (1, 1), "{seen:?} execs and exits of {unit}");
        ensure!(!mount.join(&unit).exists(), "{unit} is still there");
    }
    Ok(())
}
