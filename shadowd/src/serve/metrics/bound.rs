//! Which units and remotes have series of their own, and the sum of all others.
//!
//! A series is a counter that never goes back, also while units come, go and change places: what
//! has no series of its own is summed by what was added since the scrape before.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{
    BlockCounts, FileCounts, Flow, FlowCounts, Histogram, Observation, SyscallCounts, Timing,
    UnitTotals, UnitUse,
};

/// Stands for all that has no series of its own.
pub const OTHER: &str = "_other";

/// The units of all scrapes so far.
#[derive(Debug, Default)]
pub struct Units {
    /// Those that have series of their own.
    named: BTreeSet<String>,
    /// What each other unit had counted at the last scrape.
    seen: BTreeMap<String, UnitTotals>,
    /// What the other units counted, ever.
    other: UnitTotals,
}

/// The units of one scrape.
#[derive(Debug, Default)]
pub struct Chosen {
    /// Units with series of their own, by name.
    pub named: Vec<UnitUse>,
    /// The others: their number and their sum; none while there never was one.
    pub others: Option<(usize, UnitUse)>,
}

impl Units {
    /// Chooses at most `limit` units of `observation`. Who has series keeps them while it is
    /// there, unless it rests and another unit works: series that come and go cannot be rated.
    pub fn choose(&mut self, observation: &Observation, limit: usize) -> Chosen {
        let here: BTreeSet<&str> = observation.units.iter().map(|u| u.unit.as_str()).collect();
        let before = self.named.clone();
        self.named.retain(|name| here.contains(name.as_str()));
        let mut ranked: Vec<&UnitUse> = observation.units.iter().collect();
        ranked.sort_by_key(|unit| (std::cmp::Reverse(activity(unit)), &unit.unit));
        let working = |unit: &&UnitUse| activity(unit).0 > 0;
        let mut resting: Vec<String> = ranked
            .iter()
            .rev()
            .filter(|unit| !working(unit) && self.named.contains(&unit.unit))
            .map(|unit| unit.unit.clone())
            .collect();
        for unit in &ranked {
            if self.named.contains(&unit.unit) {
                continue;
            }
            if self.named.len() >= limit {
                if !working(unit) || resting.is_empty() {
                    break;
                }
                self.named.remove(&resting.remove(0));
            }
            self.named.insert(unit.unit.clone());
        }
        self.sum(observation, &before, &here)
    }

    fn sum(
        &mut self,
        observation: &Observation,
        before: &BTreeSet<String>,
        here: &BTreeSet<&str>,
    ) -> Chosen {
        self.seen.retain(|name, _| here.contains(name.as_str()));
        let mut chosen = Chosen::default();
        let (mut count, mut sum) = (0, UnitUse::default());
        for unit in &observation.units {
            if self.named.contains(&unit.unit) {
                self.seen.remove(&unit.unit);
                chosen.named.push(unit.clone());
                continue;
            }
            count += 1;
            sum.processes = sum.processes.saturating_add(unit.processes);
            sum.rss_bytes = sum.rss_bytes.saturating_add(unit.rss_bytes);
            let total = unit.total.clone();
            match self.seen.insert(unit.unit.clone(), total.clone()) {
                Some(last) => add_totals(&mut self.other, &since(&total, &last)),
                // What it counted under its own name is not counted a second time.
                None if before.contains(&unit.unit) => {}
                None => add_totals(&mut self.other, &total),
            }
        }
        if count > 0 || self.other != UnitTotals::default() {
            sum.unit = OTHER.to_owned();
            sum.total = self.other.clone();
            chosen.others = Some((count, sum));
        }
        chosen
    }
}

/// How much a unit does: now, then ever.
fn activity(unit: &UnitUse) -> (u64, u64) {
    let network = &unit.network;
    let now = (unit.cpu * 1e6) as u64
        + unit.syscalls.calls
        + (network.rx_bytes.saturating_add(network.tx_bytes)) / 1024
        + unit.execs;
    (now, unit.total.cpu_ns)
}

/// A remote that a unit talks to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remote {
    /// The unit.
    pub unit: String,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// Its address, or [`OTHER`].
    pub remote: String,
    /// Its port; 0 for clients.
    pub port: u16,
}

/// What passed between units and remotes, in all scrapes so far.
#[derive(Debug, Default)]
pub struct Remotes {
    seen: BTreeMap<(Remote, u32, std::net::IpAddr, u16), FlowCounts>,
    totals: BTreeMap<Remote, FlowCounts>,
    /// Those of them that are one remote.
    own: usize,
}

impl Remotes {
    /// The totals after `observation`; at most `limit` remotes are told apart, the first ones,
    /// because a remote that went could come back.
    pub fn follow(
        &mut self,
        observation: &Observation,
        limit: usize,
        named: &[UnitUse],
    ) -> &BTreeMap<Remote, FlowCounts> {
        let named: BTreeSet<&str> = named.iter().map(|unit| unit.unit.as_str()).collect();
        let mut seen = BTreeMap::new();
        let mut flows: Vec<&Flow> = observation.flows.iter().collect();
        flows.sort_by_key(|flow| {
            std::cmp::Reverse(flow.total.rx_bytes.saturating_add(flow.total.tx_bytes))
        });
        for flow in flows {
            let mut remote = remote(flow);
            let key = (remote.clone(), flow.pid, flow.local, flow.local_port);
            let last = self.seen.get(&key).copied().unwrap_or_default();
            let more = flow_since(&flow.total, &last);
            seen.insert(key, flow.total);
            if !named.contains(flow.unit.as_str()) {
                remote.unit = OTHER.to_owned();
            }
            if !self.totals.contains_key(&remote) {
                if self.own < limit {
                    self.own += 1;
                } else {
                    remote.unit = OTHER.to_owned();
                    remote.remote = OTHER.to_owned();
                    remote.port = 0;
                }
            }
            self.totals.entry(remote).or_default().add(&more);
        }
        self.seen = seen;
        &self.totals
    }
}

fn remote(flow: &Flow) -> Remote {
    Remote {
        unit: flow.unit.clone(),
        protocol: match flow.protocol {
            crate::facts::Protocol::Tcp => "tcp",
            crate::facts::Protocol::Udp => "udp",
        },
        direction: match flow.direction {
            crate::facts::Direction::Inbound => "inbound",
            crate::facts::Direction::Outbound => "outbound",
        },
        remote: flow.remote.to_string(),
        port: flow.remote_port,
    }
}

fn add_totals(sum: &mut UnitTotals, more: &UnitTotals) {
    for (mine, theirs) in [
        (&mut sum.cpu_ns, more.cpu_ns),
        (&mut sum.execs, more.execs),
        (&mut sum.exits, more.exits),
        (&mut sum.oom_kills, more.oom_kills),
        (&mut sum.context_switches, more.context_switches),
    ] {
        *mine = mine.saturating_add(theirs);
    }
    sum.syscalls.add(&more.syscalls);
    sum.network.add(&more.network);
    sum.block_read.add(&more.block_read);
    sum.block_write.add(&more.block_write);
    sum.files.add(&more.files);
}

/// What came after `last`. A counter that went back began anew.
fn less(now: u64, last: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}

fn since(now: &UnitTotals, last: &UnitTotals) -> UnitTotals {
    UnitTotals {
        cpu_ns: less(now.cpu_ns, last.cpu_ns),
        syscalls: syscalls_since(&now.syscalls, &last.syscalls),
        execs: less(now.execs, last.execs),
        exits: less(now.exits, last.exits),
        oom_kills: less(now.oom_kills, last.oom_kills),
        context_switches: less(now.context_switches, last.context_switches),
        network: flow_since(&now.network, &last.network),
        block_read: block_since(&now.block_read, &last.block_read),
        block_write: block_since(&now.block_write, &last.block_write),
        files: FileCounts {
            reads: less(now.files.reads, last.files.reads),
            read_bytes: less(now.files.read_bytes, last.files.read_bytes),
            writes: less(now.files.writes, last.files.writes),
            write_bytes: less(now.files.write_bytes, last.files.write_bytes),
            opens: less(now.files.opens, last.files.opens),
        },
    }
}

fn syscalls_since(now: &SyscallCounts, last: &SyscallCounts) -> SyscallCounts {
    let error = |(errno, count): (&u16, &u64)| {
        let before = last.errors.get(errno).copied().unwrap_or(0);
        (*errno, less(*count, before))
    };
    SyscallCounts {
        calls: less(now.calls, last.calls),
        errors: now.errors.iter().map(error).collect(),
        total_ns: less(now.total_ns, last.total_ns),
        latency: times_since(&now.latency, &last.latency),
    }
}

fn block_since(now: &BlockCounts, last: &BlockCounts) -> BlockCounts {
    BlockCounts {
        operations: less(now.operations, last.operations),
        bytes: less(now.bytes, last.bytes),
        errors: less(now.errors, last.errors),
        latency: times_since(&now.latency, &last.latency),
    }
}

fn flow_since(now: &FlowCounts, last: &FlowCounts) -> FlowCounts {
    let timing = |now: Timing, last: Timing| Timing {
        count: less(now.count, last.count),
        sum_ns: less(now.sum_ns, last.sum_ns),
    };
    FlowCounts {
        opened: less(now.opened, last.opened),
        adopted: less(now.adopted, last.adopted),
        closed: less(now.closed, last.closed),
        failed: less(now.failed, last.failed),
        resets: less(now.resets, last.resets),
        rx_bytes: less(now.rx_bytes, last.rx_bytes),
        tx_bytes: less(now.tx_bytes, last.tx_bytes),
        rx_packets: less(now.rx_packets, last.rx_packets),
        tx_packets: less(now.tx_packets, last.tx_packets),
        retransmits: less(now.retransmits, last.retransmits),
        rtt: timing(now.rtt, last.rtt),
        connect: timing(now.connect, last.connect),
        response: times_since(&now.response, &last.response),
    }
}

fn times_since(now: &Histogram, last: &Histogram) -> Histogram {
    let pairs = now.counts().iter().zip(last.counts());
    Histogram::from_counts(pairs.map(|(now, last)| less(*now, *last)))
}
