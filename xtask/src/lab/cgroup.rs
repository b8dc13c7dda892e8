//! Control groups of the lab: one for each host, so that all of a host can be frozen or ended.
//!
//! They are made beside what the machine has, never inside it, and none of the machine's own
//! settings is changed. Where the cpu controller sits in a v1 hierarchy, each host has a group
//! there too, for starvation.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::state::State;

/// Real time that a host gets of each processor, and in which time, in microseconds: a fifth, which
/// is more than the heartbeats of a debug build take. Who has used it up waits for the rest of that
/// time, so it is short.
const REAL_TIME_US: u64 = 4_000;
const REAL_TIME_EACH_US: u64 = 20_000;

/// Where the machine mounted the cgroup2 tree.
///
/// # Errors
/// It did not.
pub fn tree() -> Result<PathBuf> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, path, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(path))
        })
        .next()
        .context("this machine has no cgroup2 tree mounted")
}

/// Where the machine mounted the v1 cpu controller, if it did.
pub fn cpu_tree() -> Option<PathBuf> {
    ["/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.join("cpu.cfs_quota_us").exists() || path.join("cpu.shares").exists())
}

/// Makes the groups of a lab.
///
/// # Errors
/// A group cannot be made.
pub fn make(state: &State) -> Result<()> {
    let supervisor = state.supervisor_cgroup();
    let hosts = state
        .hosts
        .iter()
        .flat_map(|host| [Some(&host.cgroup), host.cpu_cgroup.as_ref()]);
    for path in [Some(&supervisor)].into_iter().chain(hosts).flatten() {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    lend_real_time(state)
}

/// Where a v1 hierarchy rations real time, a group begins with none of it: hosts get a share each,
/// as they have all of it on a machine of their own. Heartbeats are real-time threads.
fn lend_real_time(state: &State) -> Result<()> {
    let lend = |group: &Path, share: u64| {
        write(
            &group.join("cpu.rt_period_us"),
            &REAL_TIME_EACH_US.to_string(),
        )?;
        write(&group.join("cpu.rt_runtime_us"), &share.to_string())
    };
    let Some(lab) = &state.cpu_cgroup else {
        return Ok(());
    };
    if !lab.join("cpu.rt_runtime_us").exists() {
        return Ok(());
    }
    let share = REAL_TIME_US * state.hosts.len() as u64;
    // What an earlier lab had comes back once the kernel has freed its groups, and it tells nobody when.
    let end = Instant::now() + Duration::from_secs(5);
    let mut lent = lend(lab, share);
    while lent.is_err() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        lent = lend(lab, share);
    }
    if let Err(refused) = lent {
        println!(
            "without real-time threads in the hosts, heartbeats are less regular: {refused:#}"
        );
        return Ok(());
    }
    let mut hosts = state
        .hosts
        .iter()
        .filter_map(|host| host.cpu_cgroup.as_ref());
    hosts.try_for_each(|group| lend(group, REAL_TIME_US))
}

/// Moves the calling process into a group.
///
/// # Errors
/// The kernel refuses.
pub fn enter(group: &Path) -> Result<()> {
    write(&group.join("cgroup.procs"), "0")
}

/// Writes one control file.
///
/// # Errors
/// The kernel refuses the value, or the file is not there.
pub fn write(file: &Path, value: &str) -> Result<()> {
    fs::write(file, value).with_context(|| format!("cannot write {value:?} to {}", file.display()))
}

/// Whether any process lives in the group or below.
pub fn populated(group: &Path) -> bool {
    fs::read_to_string(group.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// Ends everything in the lab's groups and removes them.
///
/// # Errors
/// Something is still there after ten seconds.
pub fn remove(state: &State) -> Result<()> {
    if state.cgroup.exists() {
        write(&state.cgroup.join("cgroup.kill"), "1")?;
    }
    let end = Instant::now() + Duration::from_secs(10);
    for group in [Some(&state.cgroup), state.cpu_cgroup.as_ref()]
        .into_iter()
        .flatten()
    {
        while group.exists() {
            remove_below(group);
            if !group.exists() {
                break;
            }
            if Instant::now() > end {
                bail!("{} still has processes", group.display());
            }
            // The kernel tells nobody when a group of a v1 hierarchy empties.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Removes the empty groups at and below `group`, deepest first; what is not empty stays.
fn remove_below(group: &Path) {
    if let Ok(entries) = fs::read_dir(group) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_below(&entry.path());
            }
        }
    }
    let _ = fs::remove_dir(group);
}

/// The processes of one group, without those of groups below.
pub fn processes(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
