//! Several intervals as one: counts are summed up, shares are means over time, what is a state is
//! the newest one's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::facts::{
    DeviceUse, Direction, FileUse, Flow, FlowCounts, HostUse, Listener, Observation, ProcessUse,
    Protocol, UnitUse,
};

/// Flows of one sum; those that would be one more are left out and counted.
const FLOWS: usize = 65_536;
/// Processes of one sum; counts of more are in their units only.
const PROCESSES: usize = 65_536;
/// Listening sockets and files of one sum.
const LISTED: usize = 8_192;

type FlowKey = (
    String,
    u32,
    Protocol,
    Direction,
    (IpAddr, u16),
    (IpAddr, u16),
);

/// The sum of the observations that were added so far, in any order of time.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Of the newest: its end, the host, the losses.
    newest: Option<Observation>,
    overflows: u64,
    oom_kills: u64,
    interval_ns: u64,
    host: Means,
    units: BTreeMap<String, (UnitUse, Means)>,
    processes: BTreeMap<(u32, String, String), (ProcessUse, f64)>,
    flows: BTreeMap<FlowKey, Flow>,
    flows_left_out: u64,
    listeners: BTreeMap<(IpAddr, u16, u32), Listener>,
    devices: BTreeMap<String, DeviceUse>,
    files: BTreeMap<(String, u32, String, bool), FileUse>,
}

/// Shares of intervals, each multiplied by the length of its interval.
#[derive(Clone, Copy, Debug, Default)]
struct Means {
    cpu: Mean,
    cpu_pressure: Mean,
    memory_pressure: Mean,
    io_pressure: Mean,
}

/// A mean over time.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sum: f64,
    over: f64,
}

impl Mean {
    fn add(&mut self, share: Option<f64>, interval: f64) {
        if let Some(share) = share {
            self.sum += share * interval;
            self.over += interval;
        }
    }

    fn get(self) -> Option<f64> {
        (self.over > 0.0).then(|| self.sum / self.over)
    }
}

impl Sum {
    /// Adds one interval.
    pub fn add(&mut self, more: &Observation) {
        let interval = more.interval_ns as f64;
        let is_newest = self
            .newest
            .as_ref()
            .is_none_or(|newest| newest.wall_ms <= more.wall_ms);
        self.interval_ns = self.interval_ns.saturating_add(more.interval_ns);
        self.add_host(more, interval, is_newest);
        for unit in &more.units {
            self.add_unit(unit, interval, is_newest);
        }
        for process in &more.processes {
            self.add_process(process, interval, is_newest);
        }
        for flow in &more.flows {
            self.add_flow(flow, is_newest);
        }
        for listener in &more.listeners {
            let key = (listener.local, listener.local_port, listener.pid);
            if self.listeners.len() < LISTED || self.listeners.contains_key(&key) {
                let fresh = || Listener {
                    overflows: 0,
                    ..listener.clone()
                };
                let mine = self.listeners.entry(key).or_insert_with(fresh);
                let overflows = mine.overflows.saturating_add(listener.overflows);
                if is_newest {
                    mine.clone_from(listener);
                }
                mine.overflows = overflows;
            }
        }
        for device in &more.devices {
            let mine = self.devices.entry(device.device.clone()).or_default();
            mine.device.clone_from(&device.device);
            mine.read.add(&device.read);
            mine.write.add(&device.write);
            mine.other.add(&device.other);
        }
        for file in &more.files {
            let key = (file.unit.clone(), file.pid, file.path.clone(), file.write);
            if self.files.len() < LISTED || self.files.contains_key(&key) {
                let mine = self.files.entry(key).or_insert_with(|| file.clone());
                mine.at = mine.at.max(file.at);
            }
        }
        self.flows_left_out = self.flows_left_out.max(more.flows_left_out);
    }

    fn add_host(&mut self, more: &Observation, interval: f64, is_newest: bool) {
        let host = &more.host;
        self.host.cpu.add(host.cpu, interval);
        self.host.cpu_pressure.add(host.cpu_pressure, interval);
        self.host
            .memory_pressure
            .add(host.memory_pressure, interval);
        self.host.io_pressure.add(host.io_pressure, interval);
        self.overflows = self.overflows.saturating_add(host.listen_overflows);
        self.oom_kills = self.oom_kills.saturating_add(host.oom_kills);
        if is_newest {
            self.newest = Some(Observation {
                at: more.at,
                wall_ms: more.wall_ms,
                host: host.clone(),
                losses: more.losses,
                ..Observation::default()
            });
        }
    }

    fn add_unit(&mut self, more: &UnitUse, interval: f64, is_newest: bool) {
        let fresh = || {
            let unit = UnitUse {
                unit: more.unit.clone(),
                ..UnitUse::default()
            };
            (unit, Means::default())
        };
        let (mine, means) = self.units.entry(more.unit.clone()).or_insert_with(fresh);
        means.cpu.sum += more.cpu * interval;
        means.cpu_pressure.add(more.cpu_pressure, interval);
        means.memory_pressure.add(more.memory_pressure, interval);
        means.io_pressure.add(more.io_pressure, interval);
        mine.syscalls.add(&more.syscalls);
        mine.execs = mine.execs.saturating_add(more.execs);
        mine.exits = mine.exits.saturating_add(more.exits);
        mine.failed_exits = mine.failed_exits.saturating_add(more.failed_exits);
        mine.oom_kills = mine.oom_kills.saturating_add(more.oom_kills);
        mine.context_switches = mine.context_switches.saturating_add(more.context_switches);
        mine.network.add(&more.network);
        mine.block_read.add(&more.block_read);
        mine.block_write.add(&more.block_write);
        mine.files.add(&more.files);
        // Totals never go back, so the newest has the most calls, whatever the order.
        if is_newest || mine.total == Default::default() {
            mine.processes = more.processes;
            mine.rss_bytes = more.rss_bytes;
            mine.memory_bytes = more.memory_bytes;
            mine.total = more.total.clone();
        }
    }

    fn add_process(&mut self, more: &ProcessUse, interval: f64, is_newest: bool) {
        let key = (more.pid, more.command.clone(), more.unit.clone());
        if self.processes.len() >= PROCESSES && !self.processes.contains_key(&key) {
            return;
        }
        let fresh = || {
            let process = ProcessUse {
                pid: more.pid,
                command: more.command.clone(),
                unit: more.unit.clone(),
                rss_bytes: more.rss_bytes,
                ..ProcessUse::default()
            };
            (process, 0.0)
        };
        let (mine, cpu) = self.processes.entry(key).or_insert_with(fresh);
        *cpu += more.cpu * interval;
        mine.syscalls.add(&more.syscalls);
        mine.context_switches = mine.context_switches.saturating_add(more.context_switches);
        mine.network.add(&more.network);
        mine.block_read.add(&more.block_read);
        mine.block_write.add(&more.block_write);
        mine.files.add(&more.files);
        mine.ended |= more.ended;
        if is_newest {
            mine.rss_bytes = more.rss_bytes;
        }
    }

    fn add_flow(&mut self, more: &Flow, is_newest: bool) {
        let key = (
            more.unit.clone(),
            more.pid,
            more.protocol,
            more.direction,
            (more.local, more.local_port),
            (more.remote, more.remote_port),
        );
        if self.flows.len() >= FLOWS && !self.flows.contains_key(&key) {
            self.flows_left_out += 1;
            return;
        }
        let mine = self.flows.entry(key).or_insert_with(|| Flow {
            interval: FlowCounts::default(),
            ..more.clone()
        });
        mine.interval.add(&more.interval);
        mine.first_seen = mine.first_seen.min(more.first_seen);
        mine.last_seen = mine.last_seen.max(more.last_seen);
        if is_newest {
            mine.open = more.open;
            if more.remote_name.is_some() {
                mine.remote_name.clone_from(&more.remote_name);
            }
        }
    }

    /// All of it as one interval.
    pub fn observation(self) -> Observation {
        let Some(newest) = self.newest else {
            return Observation::default();
        };
        let whole = self.interval_ns as f64;
        let share = |sum: f64| if whole > 0.0 { sum / whole } else { 0.0 };
        let unit = |(mut unit, means): (UnitUse, Means)| {
            unit.cpu = share(means.cpu.sum);
            unit.cpu_pressure = means.cpu_pressure.get();
            unit.memory_pressure = means.memory_pressure.get();
            unit.io_pressure = means.io_pressure.get();
            unit
        };
        let process = |(mut process, cpu): (ProcessUse, f64)| {
            process.cpu = share(cpu);
            process
        };
        Observation {
            interval_ns: self.interval_ns,
            host: HostUse {
                cpu: self.host.cpu.get(),
                cpu_pressure: self.host.cpu_pressure.get(),
                memory_pressure: self.host.memory_pressure.get(),
                io_pressure: self.host.io_pressure.get(),
                listen_overflows: self.overflows,
                oom_kills: self.oom_kills,
                ..newest.host
            },
            units: self.units.into_values().map(unit).collect(),
            processes: self.processes.into_values().map(process).collect(),
            flows: self.flows.into_values().collect(),
            flows_left_out: self.flows_left_out,
            listeners: self.listeners.into_values().collect(),
            devices: self.devices.into_values().collect(),
            files: self.files.into_values().collect(),
            ..newest
        }
    }
}
