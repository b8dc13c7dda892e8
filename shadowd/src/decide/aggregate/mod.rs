//! Samples -> observations: what the host, each unit, process and flow did in one interval.
//!
//! Pure: no clock, no I/O; time is the sample's. Remembers what a sample does not repeat: names of
//! control groups, names and units of processes (also of ended ones, for a few samples, because
//! the kernel's counts of a process arrive after its end), DNS names of addresses, readings of
//! counters that only grow, and the totals of units and flows. Every table is bounded: what was
//! used longest ago goes first, is counted, and stays in the totals of its unit.

mod flows;
mod groups;
mod host;
mod listeners;
mod processes;
mod recent;
mod state;
mod units;

pub use state::caught_up;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::{
    BlockDelta, BootTime, DeviceUse, FileOpen, FileUse, HostReading, IoDirection, Lifecycle,
    LifecycleKind, Losses, NameAnswer, Observation, ProbeLosses, Protocol, Sample, TableStatus,
};
use flows::Flows;
use groups::Groups;
use host::Host;
use listeners::Listeners;
use processes::Processes;
use recent::Recent;
use units::Units;

/// What belongs to no unit, or to no known process.
pub const NOBODY: &str = "-";

/// Name of the unit that holds the totals of units that were forgotten.
pub const FORGOTTEN: &str = "(forgotten)";

/// Bounds of what is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateLimits {
    /// Flows; the one that was idle for longest goes first.
    pub flows: usize,
    /// Flows of one observation, the ones active last.
    pub shown_flows: usize,
    /// Flows whose totals outlast a restart, the ones active last.
    pub saved_flows: usize,
    /// Units; the one that was idle for longest goes first.
    pub units: usize,
    /// Processes, living and ended; the ones that ended first go first.
    pub processes: usize,
    /// Control groups; the one that nothing was attributed to for longest goes first.
    pub cgroups: usize,
    /// Addresses with a DNS name; the one asked for longest ago goes first.
    pub names: usize,
    /// Listening sockets, and files opened, of one interval; the rest is left out.
    pub listed: usize,
    /// Samples for which an ended process is remembered.
    pub grace: u64,
}

impl Default for AggregateLimits {
    fn default() -> Self {
        Self {
            flows: 16_384,
            shown_flows: 10_000,
            saved_flows: 16_384,
            units: 2_048,
            processes: 65_536,
            cgroups: 16_384,
            names: 16_384,
            listed: 8_192,
            grace: 5,
        }
    }
}

/// Turns samples into observations, in the order in which they were taken.
#[derive(Debug)]
pub struct Aggregator {
    limits: AggregateLimits,
    /// Samples absorbed.
    count: u64,
    /// Unit of each control group, [`NOBODY`] for none.
    cgroups: Recent<u64, Arc<str>>,
    processes: Processes,
    units: Units,
    flows: Flows,
    names: Recent<IpAddr, Arc<str>>,
    groups: Groups,
    listeners: Listeners,
    host: Host,
    /// What could not be given to a process or unit since the daemon started, by feature.
    unattributed: BTreeMap<&'static str, u64>,
    /// What each feature saw and lost, complete.
    losses: BTreeMap<String, ProbeLosses>,
    /// Listening sockets and opened files that found no room in an observation.
    left_out: u64,
    nobody: Arc<str>,
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
            cgroups: Recent::new(limits.cgroups),
            processes: Processes::new(limits.processes, limits.grace),
            units: Units::new(limits.units),
            flows: Flows::new(limits.flows),
            names: Recent::new(limits.names),
            groups: Groups::default(),
            listeners: Listeners::default(),
            host: Host::default(),
            unattributed: BTreeMap::new(),
            losses: BTreeMap::new(),
            left_out: 0,
            nobody: NOBODY.into(),
        }
    }

    /// What each feature saw and lost until the last sample; what could not be attributed is no
    /// longer among what was seen.
    pub fn losses(&self) -> &BTreeMap<String, ProbeLosses> {
        &self.losses
    }

    /// How full the tables are and what they forgot.
    pub fn tables(&self) -> Vec<TableStatus> {
        let table = |name: &str, entries: usize, limit: usize, evicted| TableStatus {
            name: name.to_owned(),
            entries: entries as u64,
            limit: limit as u64,
            evicted,
        };
        let of = |name, table_: (usize, usize, u64)| table(name, table_.0, table_.1, table_.2);
        vec![
            of("flows", self.flows.size()),
            of("units", self.units.size()),
            of("processes", self.processes.size()),
            of("control groups", size(&self.cgroups)),
            of("names", size(&self.names)),
            table("lists", 0, self.limits.listed, self.left_out),
        ]
    }

    /// Takes the next sample and tells what happened in its interval.
    pub fn absorb(&mut self, sample: Sample) -> Observation {
        self.count += 1;
        let interval = sample.interval;
        self.learn(sample.cgroups, sample.names);
        self.processes.begin(self.count);
        for event in &sample.lifecycle {
            self.follow(event);
        }
        self.processes.read(sample.processes, sample.at, interval);
        for delta in &sample.syscalls {
            let unit = self.attribute(delta.pid, delta.cgroup, "syscalls", delta.counts.calls);
            if let Some(activity) = self.processes.activity(delta.pid, &unit) {
                activity.syscalls.add(&delta.counts);
            }
            self.units.of(&unit).syscalls.add(&delta.counts);
        }
        for delta in &sample.flows {
            self.add_flow(delta, sample.at);
        }
        let devices = self.add_block(&sample.block, &sample.host);
        for delta in &sample.files {
            let counts = &delta.counts;
            let unit = self.attribute(delta.pid, delta.cgroup, "files", delta.happenings());
            if let Some(activity) = self.processes.activity(delta.pid, &unit) {
                activity.files.add(counts);
            }
            self.units.of(&unit).files.add(counts);
        }
        let files = self.opened(sample.opens);
        let listeners = self.listening(&sample.listeners);
        self.groups.read(&sample.groups, interval, self.count == 1);
        self.processes.add_to(&mut self.units);
        let losses = self.complete(sample.losses, sample.probe_losses);
        let (flows, flows_left_out) = self.flows.shown(self.limits.shown_flows);
        let observation = Observation {
            at: sample.at,
            wall_ms: sample.wall_ms,
            interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            host: self.host.read(&sample.host, interval),
            units: self.units.end(&mut self.groups, interval),
            processes: self.processes.uses(interval),
            flows,
            flows_left_out,
            listeners,
            devices,
            files,
            losses,
        };
        self.processes.forget();
        observation
    }

    /// Moves what could not be attributed out of what was seen, feature by feature and in the sum.
    fn complete(&mut self, sum: Losses, features: BTreeMap<String, ProbeLosses>) -> Losses {
        self.losses = features;
        let mut all = 0_u64;
        for (name, more) in &self.unattributed {
            let feature = self.losses.entry((*name).to_owned()).or_default();
            feature.seen = feature.seen.saturating_sub(*more);
            feature.unattributed = feature.unattributed.saturating_add(*more);
            all = all.saturating_add(*more);
        }
        Losses {
            seen: sum.seen.saturating_sub(all),
            unattributed: sum.unattributed.saturating_add(all),
            ..sum
        }
    }

    fn learn(&mut self, cgroups: Vec<(u64, String)>, names: Vec<NameAnswer>) {
        for (id, path) in cgroups {
            let unit = units::unit_name(&path);
            let made = || Arc::clone(&unit);
            self.cgroups.entry(&id, made).0.clone_from(&unit);
        }
        for answer in names {
            let name: Arc<str> = answer.name.into();
            let made = || Arc::clone(&name);
            self.names.entry(&answer.address, made).0.clone_from(&name);
        }
    }

    /// The unit that something belongs to: by control group, else by process. What has neither is
    /// counted as unattributed.
    fn attribute(
        &mut self,
        pid: u32,
        cgroup: u64,
        feature: &'static str,
        happenings: u64,
    ) -> Arc<str> {
        let known = self.processes.unit(pid);
        self.attribute_or(known, cgroup, feature, happenings)
    }

    /// As `attribute`; `known` is what is known of the process.
    fn attribute_or(
        &mut self,
        known: Option<Arc<str>>,
        cgroup: u64,
        feature: &'static str,
        happenings: u64,
    ) -> Arc<str> {
        if let Some(unit) = self.cgroups.touch(&cgroup) {
            return Arc::clone(unit);
        }
        if let Some(unit) = known {
            return unit;
        }
        if happenings == 0 {
            return Arc::clone(&self.nobody);
        }
        let count = self.unattributed.entry(feature).or_default();
        *count = count.saturating_add(happenings);
        Arc::clone(&self.nobody)
    }

    fn follow(&mut self, event: &Lifecycle) {
        let feature = match event.kind {
            LifecycleKind::Exec | LifecycleKind::Exit { .. } => "processes",
            LifecycleKind::OomKill => "oom",
        };
        let known = self.processes.unit_at(event.pid, event.at);
        let unit = self.attribute_or(known, event.cgroup, feature, 1);
        let entry = self.units.of(&unit);
        match event.kind {
            LifecycleKind::Exec => entry.execs += 1,
            LifecycleKind::Exit { status } => {
                entry.exits += 1;
                entry.failed_exits += u64::from(status != 0);
            }
            LifecycleKind::OomKill => self.units.killed(&unit),
        }
        self.processes.follow(event, unit);
    }

    fn add_flow(&mut self, delta: &crate::facts::FlowDelta, at: BootTime) {
        let counts = &delta.counts;
        let feature = match delta.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let unit = self.attribute(delta.pid, delta.cgroup, feature, delta.happenings());
        self.units.of(&unit).network.add(counts);
        if let Some(activity) = self.processes.activity(delta.pid, &unit) {
            activity.network.add(counts);
        }
        let command = self.processes.command(delta.pid);
        let name = self.names.touch(&delta.remote.ip()).cloned();
        self.flows.add(delta, unit, command, name, at);
    }

    fn add_block(&mut self, deltas: &[BlockDelta], host: &HostReading) -> Vec<DeviceUse> {
        let mut devices = BTreeMap::<(u32, u32), DeviceUse>::new();
        for delta in deltas {
            let counts = &delta.counts;
            let operations = counts.operations;
            let unit = self.attribute(delta.pid, delta.cgroup, "block", operations);
            let device = devices.entry(delta.device).or_default();
            let activity = self.processes.activity(delta.pid, &unit);
            let entry = self.units.of(&unit);
            match delta.direction {
                IoDirection::Read => {
                    device.read.add(counts);
                    entry.block_read.add(counts);
                    activity
                        .into_iter()
                        .for_each(|own| own.block_read.add(counts));
                }
                IoDirection::Write => {
                    device.write.add(counts);
                    entry.block_write.add(counts);
                    activity
                        .into_iter()
                        .for_each(|own| own.block_write.add(counts));
                }
                IoDirection::Other => device.other.add(counts),
            }
        }
        let named = |((major, minor), device): ((u32, u32), DeviceUse)| {
            let known = host.disks.iter().find(|(id, _)| *id == (major, minor));
            DeviceUse {
                device: known.map_or_else(|| format!("{major}:{minor}"), |(_, name)| name.clone()),
                ..device
            }
        };
        devices.into_iter().map(named).collect()
    }

    fn opened(&mut self, mut opens: Vec<FileOpen>) -> Vec<FileUse> {
        let excess = opens.len().saturating_sub(self.limits.listed);
        self.left_out += excess as u64;
        opens.truncate(self.limits.listed);
        let mut used = |open: FileOpen| {
            let unit = self.attribute(open.pid, open.cgroup, "opens", 1);
            FileUse {
                unit: unit.to_string(),
                pid: open.pid,
                command: self.command(open.pid),
                path: open.path,
                write: open.write,
                at: open.at,
            }
        };
        opens.into_iter().map(&mut used).collect()
    }

    fn listening(
        &mut self,
        readings: &[crate::facts::ListenerReading],
    ) -> Vec<crate::facts::Listener> {
        self.listeners.begin(self.count == 1);
        let excess = readings.len().saturating_sub(self.limits.listed);
        self.left_out += excess as u64;
        for reading in &readings[..readings.len() - excess] {
            // A listener is a state, not a happening: nothing is lost when nobody owns it.
            let unit = self.attribute(reading.pid, reading.cgroup, "tcp", 0);
            let command = self.command(reading.pid);
            self.listeners.add(reading, &unit, command);
        }
        self.listeners.end()
    }

    fn command(&self, pid: u32) -> String {
        let known = self.processes.command(pid);
        known.map_or_else(|| NOBODY.to_owned(), |command| command.to_string())
    }
}

fn size<K: Clone + Eq + std::hash::Hash, V>(table: &Recent<K, V>) -> (usize, usize, u64) {
    (table.len(), table.limit(), table.evicted())
}

/// `used` as a share of `interval`.
fn share(used: Duration, interval: Duration) -> f64 {
    if interval.is_zero() {
        0.0
    } else {
        used.as_secs_f64() / interval.as_secs_f64()
    }
}

#[cfg(test)]
mod tests;
