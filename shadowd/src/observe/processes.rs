//! Every visible process, as procfs shows it: name, group, processor time, memory, switches.
//!
//! Reads only /proc, which in a container is the container's own. A process that ends while it is
//! read is left out.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use procfs::process::{Process, all_processes};

use super::groups::contents;
use crate::facts::ProcessReading;

/// Most processes in one reading.
const PROCESSES_MAX: usize = 32_768;

/// Most threads of one process whose context switches are read.
const THREADS_MAX: usize = 1_024;

/// What is known of a process's context switches.
#[derive(Default)]
struct Switches {
    /// What tells the process from another one with its number, and whether it ran.
    started: Duration,
    cpu: Duration,
    /// Since it started.
    total: u64,
    /// By thread.
    threads: HashMap<u32, u64>,
}

/// Reads processes and remembers what only the difference of two readings tells.
#[derive(Default)]
pub struct Processes {
    switches: HashMap<u32, Switches>,
    text: String,
}

impl Processes {
    /// Reads them all.
    pub fn read_all(&mut self) -> Vec<ProcessReading> {
        let Ok(processes) = all_processes() else {
            return Vec::new();
        };
        let mut before = std::mem::take(&mut self.switches);
        let mut readings = Vec::new();
        for process in processes.flatten().take(PROCESSES_MAX) {
            let Some(mut reading) = read(&process) else {
                continue;
            };
            let known = before.remove(&reading.pid);
            let known = known.filter(|known| known.started == reading.started);
            let mut switches = known.unwrap_or_default();
            // A process that did not run was not switched to: most of a host's did not.
            if switches.cpu != reading.cpu || switches.total == 0 {
                self.count(reading.pid, &mut switches);
            }
            (switches.started, switches.cpu) = (reading.started, reading.cpu);
            reading.context_switches = (switches.total > 0).then_some(switches.total);
            self.switches.insert(reading.pid, switches);
            readings.push(reading);
        }
        readings
    }

    /// Adds the context switches of every thread since the last time. Those of a thread that ended
    /// since then are not told by procfs.
    fn count(&mut self, pid: u32, switches: &mut Switches) {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return;
        };
        let mut now = HashMap::new();
        for thread in threads.flatten().take(THREADS_MAX) {
            let number = thread.file_name();
            let Some(number) = number.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let status: PathBuf = thread.path().join("status");
            let Some(status) = contents(status, &mut self.text) else {
                continue;
            };
            let count = context_switches(status);
            let before = switches.threads.get(&number).copied().unwrap_or(0);
            // Less than before: the number is another thread's now.
            let more = count.checked_sub(before).unwrap_or(count);
            switches.total = switches.total.saturating_add(more);
            now.insert(number, count);
        }
        switches.threads = now;
    }
}

/// The sum of both kinds in a thread's status (proc_pid_status(5)), which ends with them.
pub(super) fn context_switches(status: &str) -> u64 {
    let mut sum = 0_u64;
    for line in status.lines().rev().take(8) {
        if let Some((name, count)) = line.split_once(":\t")
            && name.ends_with("voluntary_ctxt_switches")
        {
            sum = sum.saturating_add(count.trim().parse().unwrap_or(0));
        }
    }
    sum
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
        let all = Processes::default().read_all();
        let mine = all
            .iter()
            .find(|process| process.pid == me)
            .expect("this process runs");
        assert!(mine.rss_bytes > 0);
        assert!(mine.cgroup.starts_with('/'));
        assert!(mine.started > Duration::ZERO);
    }

    #[test]
    fn context_switches_are_counted_and_never_go_back() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(context_switches(status), 7);
        assert_eq!(context_switches("voluntary_ctxt_switches:\tx\n"), 0);
        let mut processes = Processes::default();
        let mut mine = || {
            let all = processes.read_all();
            let mine = all.iter().find(|one| one.pid == std::process::id());
            mine.and_then(|one| one.context_switches).expect("it runs")
        };
        let first = mine();
        let (sender, receiver) = std::sync::mpsc::sync_channel(0);
        let other = std::thread::spawn(move || receiver.iter().count());
        for _ in 0..200 {
            sender.send(()).expect("somebody listens");
        }
        drop(sender);
        assert_eq!(other.join().expect("it ends"), 200);
        assert!(mine() >= first);
    }
}
