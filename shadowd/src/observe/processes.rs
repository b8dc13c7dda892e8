//! Every visible process, as procfs shows it: name, group, processor time, memory.
//!
//! Reads only /proc, which in a container is the container's own. A process that ends while it is
//! read is left out.

use std::time::Duration;

use procfs::process::{Process, all_processes};

use crate::facts::ProcessReading;

/// Most processes in one reading.
const PROCESSES_MAX: usize = 32_768;

/// Reads them all.
pub fn read_all() -> Vec<ProcessReading> {
    let Ok(processes) = all_processes() else {
        return Vec::new();
    };
    processes
        .flatten()
        .take(PROCESSES_MAX)
        .filter_map(|process| read(&process))
        .collect()
}

fn read(process: &Process) -> Option<ProcessReading> {
    let stat = process.stat().ok()?;
    Some(ProcessReading {
        pid: u32::try_from(stat.pid).ok()?,
        parent: u32::try_from(stat.ppid).unwrap_or(0),
        cgroup: cgroup_path(process).unwrap_or_else(|| String::from("/")),
        cpu: ticks(stat.utime.saturating_add(stat.stime)),
        rss_bytes: stat.rss.saturating_mul(procfs::page_size()),
        started: ticks(stat.starttime),
        command: stat.comm,
        context_switches: None,
    })
}

/// Path of the process's cgroup2 group, from the visible root.
pub fn cgroup_path(process: &Process) -> Option<String> {
    let groups = process.cgroups().ok()?;
    groups
        .into_iter()
        .find(|group| group.hierarchy == 0)
        .map(|group| group.pathname)
}

fn ticks(count: u64) -> Duration {
    let per_second = procfs::ticks_per_second().max(1);
    let nanos = u128::from(count) * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_among_them() {
        let me = std::process::id();
        let all = read_all();
        let mine = all
            .iter()
            .find(|process| process.pid == me)
            .expect("this process runs");
        assert!(mine.rss_bytes > 0);
        assert!(mine.cgroup.starts_with('/'));
        assert!(mine.started > Duration::ZERO);
    }
}
