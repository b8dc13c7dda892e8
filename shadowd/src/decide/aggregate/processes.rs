//! What is known of each process, and what it did in the interval.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::units::Units;
use super::{NOBODY, share};
use crate::facts::{
    BlockCounts, BootTime, FileCounts, FlowCounts, Lifecycle, LifecycleKind, ProcessReading,
    ProcessUse, SyscallCounts,
};

/// Start times are read in clock ticks (sysconf(3), `_SC_CLK_TCK`), the longest of which is 10 ms.
const START_GRAIN: Duration = Duration::from_millis(10);

/// Counts of one process in the interval, made when there is something to count.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    pub syscalls: SyscallCounts,
    pub network: FlowCounts,
    pub block_read: BlockCounts,
    pub block_write: BlockCounts,
    pub files: FileCounts,
}

/// One process, as far as it is known.
#[derive(Clone, Debug)]
struct Process {
    command: Arc<str>,
    unit: Arc<str>,
    /// The group that `unit` was taken from, if a reading told it.
    cgroup: String,
    /// When it started, after boot, once a reading told it.
    started: Option<Duration>,
    /// Processor time of its life that was counted, in some interval or as before the first.
    counted: Duration,
    /// Context switches at the last reading.
    switches: Option<u64>,
    rss_bytes: u64,
    /// Sample and time in which it was known to have ended.
    ended: Option<(u64, BootTime)>,
    /// In this interval.
    cpu: Duration,
    context_switches: u64,
    activity: Option<Box<Activity>>,
}

impl Process {
    fn new(unit: &Arc<str>) -> Self {
        Self {
            command: NOBODY.into(),
            unit: Arc::clone(unit),
            cgroup: String::new(),
            started: None,
            counted: Duration::ZERO,
            switches: None,
            rss_bytes: 0,
            ended: None,
            cpu: Duration::ZERO,
            context_switches: 0,
            activity: None,
        }
    }

    /// The number is used again, by another process.
    fn again(&mut self) {
        self.started = None;
        self.counted = Duration::ZERO;
        self.switches = None;
        self.ended = None;
        self.cgroup.clear();
    }

    /// Its whole life has used `cpu` so far: what was not counted before is this interval's.
    fn used(&mut self, cpu: Duration) {
        self.cpu += cpu.saturating_sub(self.counted);
        self.counted = self.counted.max(cpu);
    }
}

/// Every process that lives, and for some samples those that ended.
#[derive(Debug)]
pub struct Processes {
    known: BTreeMap<u32, Process>,
    limit: usize,
    grace: u64,
    /// The sample.
    count: u64,
    evicted: u64,
}

impl Processes {
    pub fn new(limit: usize, grace: u64) -> Self {
        Self {
            known: BTreeMap::new(),
            limit,
            grace,
            count: 0,
            evicted: 0,
        }
    }

    /// Entries, entries at most, evicted.
    pub fn size(&self) -> (usize, usize, u64) {
        (self.known.len(), self.limit, self.evicted)
    }

    /// A new interval begins: nobody has done anything in it.
    pub fn begin(&mut self, count: u64) {
        self.count = count;
        for process in self.known.values_mut() {
            process.cpu = Duration::ZERO;
            process.context_switches = 0;
            process.activity = None;
        }
    }

    pub fn unit(&self, pid: u32) -> Option<Arc<str>> {
        Some(Arc::clone(&self.known.get(&pid)?.unit))
    }

    /// As `unit`, for something that happened at that time: a process that had ended before is
    /// another one of the same number.
    pub fn unit_at(&self, pid: u32, at: BootTime) -> Option<Arc<str>> {
        let (_, ended) = self.known.get(&pid)?.ended.unwrap_or_default();
        let other = ended > BootTime::default() && ended < at;
        if other { None } else { self.unit(pid) }
    }

    /// Short name of a process, if it is known.
    pub fn command(&self, pid: u32) -> Option<Arc<str>> {
        let command = &self.known.get(&pid)?.command;
        (**command != *NOBODY).then(|| Arc::clone(command))
    }

    /// The counts of process `pid` of `unit`; none for 0, which stands for no process of ours.
    pub fn activity(&mut self, pid: u32, unit: &Arc<str>) -> Option<&mut Activity> {
        (pid != 0).then(|| &mut **self.process(pid, unit).activity.get_or_insert_default())
    }

    /// The process `pid`, made when it was not known: it came and went between two samples.
    fn process(&mut self, pid: u32, unit: &Arc<str>) -> &mut Process {
        let ended = Some((self.count, BootTime::default()));
        self.known.entry(pid).or_insert_with(|| Process {
            ended,
            ..Process::new(unit)
        })
    }

    pub fn follow(&mut self, event: &Lifecycle, unit: Arc<str>) {
        if event.pid == 0 {
            return; // in a nested pid namespace, where it has no number of ours
        }
        let count = self.count;
        let process = self.process(event.pid, &unit);
        match event.kind {
            LifecycleKind::Exec => {
                if process.ended.is_some() {
                    process.again();
                }
                process.command = event.command.as_str().into();
            }
            LifecycleKind::Exit { .. } => {
                process.ended = Some((count, event.at));
                if *process.command == *NOBODY {
                    process.command = event.command.as_str().into();
                }
                if let Some(cpu) = event.cpu_ns {
                    process.used(Duration::from_nanos(cpu));
                }
            }
            LifecycleKind::OomKill => {} // its end follows
        }
        process.unit = unit;
    }

    pub fn read(&mut self, readings: Vec<ProcessReading>, at: BootTime, interval: Duration) {
        let living: HashSet<u32> = readings.iter().map(|reading| reading.pid).collect();
        let (count, nobody) = (self.count, Arc::<str>::from(NOBODY));
        let end = Duration::from_nanos(at.as_nanos());
        for reading in readings {
            let new = !self.known.contains_key(&reading.pid);
            let process = self.process(reading.pid, &nobody);
            // Another start than before, or a start after the end that is known.
            let again = match (process.started, process.ended) {
                (Some(started), _) => started != reading.started,
                (None, Some((_, ended))) => {
                    ended > BootTime::default()
                        && reading.started > Duration::from_nanos(ended.as_nanos())
                }
                (None, None) => false,
            };
            if again {
                process.again();
            }
            if new {
                // Otherwise a known end stands: the reading is older, or is a zombie's.
                process.ended = None;
            }
            if process.started.is_none() && process.counted.is_zero() {
                // What it used before this interval is not known, unless it began in it.
                let began_here = reading.started + interval + START_GRAIN >= end;
                process.counted = match count {
                    1 => reading.cpu,
                    _ if began_here => Duration::ZERO,
                    _ => reading.cpu.saturating_sub(interval),
                };
            }
            process.used(reading.cpu);
            process.started = Some(reading.started);
            if let Some(switches) = reading.context_switches {
                let before = process
                    .switches
                    .unwrap_or(if count == 1 { switches } else { 0 });
                process.context_switches += switches.saturating_sub(before);
                process.switches = Some(switches);
            }
            process.rss_bytes = reading.rss_bytes;
            if *process.command != *reading.command {
                process.command = reading.command.into();
            }
            if process.cgroup != reading.cgroup || process.cgroup.is_empty() {
                process.unit = super::units::unit_name(&reading.cgroup);
                process.cgroup = reading.cgroup;
            }
        }
        for (pid, process) in &mut self.known {
            if process.ended.is_none() && !living.contains(pid) {
                process.ended = Some((count, at));
            }
        }
    }

    /// Adds what procfs told of each process to its unit.
    pub fn add_to(&self, units: &mut Units) {
        for process in self.known.values() {
            let living = process.ended.is_none();
            if living || !process.cpu.is_zero() {
                units.used(&process.unit, process.cpu, process.context_switches);
            }
            if living {
                let unit = units.of(&process.unit);
                unit.processes += 1;
                unit.rss_bytes = unit.rss_bytes.saturating_add(process.rss_bytes);
            }
        }
    }

    /// Processes that live, ended in this interval, or did something in it.
    pub fn uses(&mut self, interval: Duration) -> Vec<ProcessUse> {
        let count = self.count;
        let shown = |process: &Process| {
            process.ended.is_none_or(|(ended, _)| ended == count)
                || process.activity.is_some()
                || !process.cpu.is_zero()
        };
        let processes = self.known.iter_mut().filter(|(_, process)| shown(process));
        processes
            .map(|(pid, process)| {
                let activity = process.activity.take().map(|own| *own).unwrap_or_default();
                let ended = process.ended.is_some();
                ProcessUse {
                    pid: *pid,
                    command: process.command.to_string(),
                    unit: process.unit.to_string(),
                    cpu: share(process.cpu, interval),
                    rss_bytes: if ended { 0 } else { process.rss_bytes },
                    syscalls: activity.syscalls,
                    context_switches: process.context_switches,
                    network: activity.network,
                    block_read: activity.block_read,
                    block_write: activity.block_write,
                    files: activity.files,
                    ended,
                }
            })
            .collect()
    }

    pub fn forget(&mut self) {
        let (count, grace) = (self.count, self.grace);
        self.known
            .retain(|_, process| process.ended.is_none_or(|(ended, _)| count - ended < grace));
        let excess = self.known.len().saturating_sub(self.limit);
        if excess > 0 {
            let order = |(pid, process): (&u32, &Process)| {
                (process.ended.map_or(u64::MAX, |(ended, _)| ended), *pid)
            };
            let mut order: Vec<(u64, u32)> = self.known.iter().map(order).collect();
            order.sort_unstable();
            for (_, pid) in order.into_iter().take(excess) {
                self.known.remove(&pid);
            }
            self.evicted += excess as u64;
        }
    }
}
