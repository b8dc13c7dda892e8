//! Samples -> observations: what each unit, process and flow did in one interval.
//!
//! Pure: no clock, no I/O; time is the sample's. Remembers what a sample does not repeat: names of
//! control groups, names and units of processes (also of ended ones, for a few samples, because
//! the kernel's counts of a process arrive after its end), and the totals of flows.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::unit_names::unit_of;
use crate::facts::{
    BootTime, Direction, Flow, FlowCounts, FlowDelta, Lifecycle, LifecycleKind, Losses,
    Observation, ProbeLosses, ProcessReading, ProcessUse, Protocol, Sample, SyscallCounts, UnitUse,
};

/// What belongs to no unit, or to no known process.
const NOBODY: &str = "-";

/// Bounds of what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateLimits {
    /// Flows; the one that was idle for longest goes first.
    pub flows: usize,
    /// Processes, living and ended; the ones that ended first go first.
    pub processes: usize,
    /// Control groups; the ones learnt first go first.
    pub cgroups: usize,
    /// Samples for which an ended process is remembered.
    pub grace: u64,
}

impl Default for AggregateLimits {
    fn default() -> Self {
        Self {
            flows: 4_096,
            processes: 65_536,
            cgroups: 16_384,
            grace: 5,
        }
    }
}

/// One process, as far as it is known.
#[derive(Clone, Debug, Default)]
struct Process {
    command: String,
    unit: String,
    /// Processor time and start at the last reading.
    reading: Option<(Duration, Duration)>,
    rss_bytes: u64,
    /// Sample in which it was known to have ended.
    ended: Option<u64>,
    /// In this interval.
    cpu: f64,
    syscalls: SyscallCounts,
    network: FlowCounts,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FlowKey {
    unit: String,
    pid: u32,
    protocol: Protocol,
    direction: Direction,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
}

/// Turns samples into observations, in the order in which they were taken.
#[derive(Debug)]
pub struct Aggregator {
    limits: AggregateLimits,
    /// Samples absorbed.
    count: u64,
    /// Unit of each control group, `-` for none.
    cgroups: HashMap<u64, String>,
    cgroup_order: VecDeque<u64>,
    processes: BTreeMap<u32, Process>,
    flows: BTreeMap<FlowKey, Flow>,
    evicted_flows: u64,
    unattributed: u64,
    /// Of that, by feature.
    unattributed_of: BTreeMap<&'static str, u64>,
    /// What each feature saw and lost, complete.
    losses: BTreeMap<String, ProbeLosses>,
}

impl Default for Aggregator {
    fn default() -> Self {
        Self::new(AggregateLimits::default())
    }
}

impl Aggregator {
    /// An aggregator that has seen nothing.
    pub fn new(limits: AggregateLimits) -> Self {
        Self {
            limits,
            count: 0,
            cgroups: HashMap::new(),
            cgroup_order: VecDeque::new(),
            processes: BTreeMap::new(),
            flows: BTreeMap::new(),
            evicted_flows: 0,
            unattributed: 0,
            unattributed_of: BTreeMap::new(),
            losses: BTreeMap::new(),
        }
    }

    /// Flows that were forgotten because there were too many; their totals are gone.
    pub fn evicted_flows(&self) -> u64 {
        self.evicted_flows
    }

    /// Takes the next sample and tells what happened in its interval.
    pub fn absorb(&mut self, sample: Sample) -> Observation {
        self.count += 1;
        for process in self.processes.values_mut() {
            process.cpu = 0.0;
            process.syscalls = SyscallCounts::default();
            process.network = FlowCounts::default();
        }
        for flow in self.flows.values_mut() {
            flow.interval = FlowCounts::default();
        }
        let mut units = BTreeMap::<String, UnitUse>::new();
        self.learn_cgroups(sample.cgroups);
        let mut before = self.unattributed;
        for event in &sample.lifecycle {
            self.follow(event, &mut units);
        }
        self.blame("processes", &mut before);
        self.read(sample.processes, sample.interval);
        for delta in &sample.syscalls {
            let unit = self.attribute(delta.pid, delta.cgroup, delta.counts.calls);
            if delta.pid != 0 {
                self.process(delta.pid, &unit).syscalls.add(&delta.counts);
            }
            of(&mut units, &unit).syscalls.add(&delta.counts);
        }
        self.blame("syscalls", &mut before);
        for delta in &sample.flows {
            self.add_flow(delta, sample.at, &mut units);
            let feature = match delta.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            self.blame(feature, &mut before);
        }
        let losses = self.complete(sample.losses, sample.probe_losses);
        for process in self.processes.values() {
            let entry = of(&mut units, &process.unit);
            entry.cpu += process.cpu;
            if process.ended.is_none() {
                entry.processes += 1;
                entry.rss_bytes = entry.rss_bytes.saturating_add(process.rss_bytes);
            }
        }
        let observation = Observation {
            at: sample.at,
            wall_ms: sample.wall_ms,
            interval_ns: u64::try_from(sample.interval.as_nanos()).unwrap_or(u64::MAX),
            units: units
                .into_values()
                .filter(|unit| *unit != idle(&unit.unit))
                .collect(),
            processes: self.process_uses(),
            flows: self.flows.values().cloned().collect(),
            losses,
            ..Observation::default()
        };
        self.forget();
        observation
    }

    /// What each feature saw and lost until the last sample; what could not be attributed is no
    /// longer among what was seen.
    pub fn losses(&self) -> &BTreeMap<String, ProbeLosses> {
        &self.losses
    }

    /// Gives what was not attributed since `before` to a feature.
    fn blame(&mut self, feature: &'static str, before: &mut u64) {
        let more = self.unattributed - *before;
        *before = self.unattributed;
        if more > 0 {
            *self.unattributed_of.entry(feature).or_default() += more;
        }
    }

    /// Moves what could not be attributed out of what was seen, feature by feature and in the sum.
    fn complete(&mut self, sum: Losses, features: BTreeMap<String, ProbeLosses>) -> Losses {
        self.losses = features;
        for (name, more) in &self.unattributed_of {
            let feature = self.losses.entry((*name).to_owned()).or_default();
            feature.seen = feature.seen.saturating_sub(*more);
            feature.unattributed = feature.unattributed.saturating_add(*more);
        }
        Losses {
            seen: sum.seen.saturating_sub(self.unattributed),
            unattributed: sum.unattributed.saturating_add(self.unattributed),
            ..sum
        }
    }

    fn learn_cgroups(&mut self, names: Vec<(u64, String)>) {
        for (id, path) in names {
            let unit = unit_of(&path).unwrap_or_else(|| NOBODY.to_owned());
            if self.cgroups.insert(id, unit).is_none() {
                self.cgroup_order.push_back(id);
            }
            if self.cgroup_order.len() > self.limits.cgroups
                && let Some(oldest) = self.cgroup_order.pop_front()
            {
                self.cgroups.remove(&oldest);
            }
        }
    }

    /// The unit that something belongs to: by control group, else by process. What has neither is
    /// counted as unattributed.
    fn attribute(&mut self, pid: u32, cgroup: u64, happenings: u64) -> String {
        if let Some(unit) = self.cgroups.get(&cgroup) {
            return unit.clone();
        }
        if let Some(process) = self.processes.get(&pid) {
            return process.unit.clone();
        }
        self.unattributed = self.unattributed.saturating_add(happenings);
        NOBODY.to_owned()
    }

    /// The process `pid`, made when it was not known: it came and went between two samples.
    fn process(&mut self, pid: u32, unit: &str) -> &mut Process {
        let count = self.count;
        self.processes.entry(pid).or_insert_with(|| Process {
            command: NOBODY.to_owned(),
            unit: unit.to_owned(),
            ended: Some(count),
            ..Process::default()
        })
    }

    fn follow(&mut self, event: &Lifecycle, units: &mut BTreeMap<String, UnitUse>) {
        let unit = self.attribute(event.pid, event.cgroup, 1);
        let entry = of(units, &unit);
        match event.kind {
            LifecycleKind::Exec => entry.execs += 1,
            LifecycleKind::Exit { status } => {
                entry.exits += 1;
                entry.failed_exits += u64::from(status != 0);
            }
            LifecycleKind::OomKill => entry.oom_kills += 1,
        }
        if event.pid == 0 {
            return; // in a nested pid namespace, where it has no number of ours
        }
        let count = self.count;
        let process = self.process(event.pid, &unit);
        match event.kind {
            LifecycleKind::Exec => {
                if process.ended.is_some() {
                    process.reading = None; // the number is used again
                }
                process.ended = None;
                process.command.clone_from(&event.command);
            }
            LifecycleKind::Exit { .. } => {
                process.ended = Some(count);
                if process.command == NOBODY {
                    process.command.clone_from(&event.command);
                }
            }
            LifecycleKind::OomKill => {} // its end follows
        }
        process.unit = unit;
    }

    fn read(&mut self, readings: Vec<ProcessReading>, interval: Duration) {
        let living: HashSet<u32> = readings.iter().map(|reading| reading.pid).collect();
        for reading in readings {
            let unit = unit_of(&reading.cgroup).unwrap_or_else(|| NOBODY.to_owned());
            let new = !self.processes.contains_key(&reading.pid);
            let first = self.count == 1;
            let process = self.process(reading.pid, &unit);
            let before = process.reading;
            let again = before.is_some_and(|(_, started)| started != reading.started);
            if new || again {
                // Otherwise a known end stands: the reading is older, or is a zombie's.
                process.ended = None;
            }
            let used = match before {
                Some((cpu, _)) if !again => reading.cpu.saturating_sub(cpu),
                // Its whole life, if that is this interval; else an unknown share of it.
                _ if !first => reading.cpu.min(interval),
                _ => Duration::ZERO,
            };
            process.cpu = share(used, interval);
            process.reading = Some((reading.cpu, reading.started));
            process.rss_bytes = reading.rss_bytes;
            process.command = reading.command;
            process.unit = unit;
        }
        let count = self.count;
        for (pid, process) in &mut self.processes {
            if process.ended.is_none() && !living.contains(pid) {
                process.ended = Some(count);
            }
        }
    }

    fn add_flow(&mut self, delta: &FlowDelta, at: BootTime, units: &mut BTreeMap<String, UnitUse>) {
        let counts = &delta.counts;
        let unit = self.attribute(delta.pid, delta.cgroup, delta.happenings());
        of(units, &unit).network.add(counts);
        if delta.pid != 0 {
            self.process(delta.pid, &unit).network.add(counts);
        }

        let known = self.processes.get(&delta.pid);
        let command = known.map_or_else(|| NOBODY.to_owned(), |process| process.command.clone());
        let key = FlowKey {
            unit: unit.clone(),
            pid: delta.pid,
            protocol: delta.protocol,
            direction: delta.direction,
            local: (delta.local.ip(), delta.local.port()),
            remote: (delta.remote.ip(), delta.remote.port()),
        };
        if !self.flows.contains_key(&key) && self.flows.len() >= self.limits.flows.max(1) {
            self.evict_flow();
        }
        let flow = self.flows.entry(key).or_insert_with(|| Flow {
            unit,
            pid: delta.pid,
            command: NOBODY.to_owned(),
            protocol: delta.protocol,
            direction: delta.direction,
            local: delta.local.ip(),
            local_port: delta.local.port(),
            remote: delta.remote.ip(),
            remote_port: delta.remote.port(),
            remote_name: None,
            open: 0,
            total: FlowCounts::default(),
            interval: FlowCounts::default(),
            first_seen: at,
            last_seen: at,
        });
        if command != NOBODY {
            flow.command = command;
        }
        flow.total.add(counts);
        flow.interval.add(counts);
        flow.open = delta.open;
        flow.last_seen = at;
    }

    fn evict_flow(&mut self) {
        let idle = self.flows.iter().min_by_key(|(_, flow)| flow.last_seen);
        if let Some(key) = idle.map(|(key, _)| key.clone()) {
            self.flows.remove(&key);
            self.evicted_flows += 1;
        }
    }

    /// Processes that live, ended in this interval, or did something in it.
    fn process_uses(&self) -> Vec<ProcessUse> {
        let shown = |process: &&(&u32, &Process)| {
            process.1.ended.is_none_or(|ended| ended == self.count) || process.1.syscalls.calls > 0
        };
        let uses = self.processes.iter();
        uses.collect::<Vec<_>>()
            .iter()
            .filter(shown)
            .map(|(pid, process)| ProcessUse {
                pid: **pid,
                command: process.command.clone(),
                unit: process.unit.clone(),
                cpu: process.cpu,
                rss_bytes: if process.ended.is_some() {
                    0
                } else {
                    process.rss_bytes
                },
                syscalls: process.syscalls.clone(),
                network: process.network,
                ended: process.ended.is_some(),
                ..ProcessUse::default()
            })
            .collect()
    }

    fn forget(&mut self) {
        let (count, grace) = (self.count, self.limits.grace);
        self.processes
            .retain(|_, process| process.ended.is_none_or(|ended| count - ended < grace));
        let excess = self.processes.len().saturating_sub(self.limits.processes);
        if excess > 0 {
            let mut order: Vec<(u64, u32)> = self
                .processes
                .iter()
                .map(|(pid, process)| (process.ended.unwrap_or(u64::MAX), *pid))
                .collect();
            order.sort_unstable();
            for (_, pid) in order.into_iter().take(excess) {
                self.processes.remove(&pid);
            }
        }
    }
}

fn of<'a>(units: &'a mut BTreeMap<String, UnitUse>, unit: &str) -> &'a mut UnitUse {
    units.entry(unit.to_owned()).or_insert_with(|| idle(unit))
}

fn idle(unit: &str) -> UnitUse {
    UnitUse {
        unit: unit.to_owned(),
        ..UnitUse::default()
    }
}

fn share(used: Duration, interval: Duration) -> f64 {
    if interval.is_zero() {
        0.0
    } else {
        used.as_secs_f64() / interval.as_secs_f64()
    }
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
