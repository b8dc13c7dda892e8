//! Flows: totals of what passed between a process and a remote end.
//!
//! The cost of a sample grows with the flows that were active in it and with those that are shown,
//! not with those that are known.

use std::net::IpAddr;
use std::sync::Arc;

use super::recent::Recent;
use super::{NOBODY, size};
use crate::facts::{BootTime, Direction, Flow, FlowCounts, FlowDelta, Protocol};

/// Of the flows that stood still, so many are in an observation: making them all anew on each tick
/// would cost more than all else.
const IDLE_SHOWN: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    unit: Arc<str>,
    pid: u32,
    protocol: Protocol,
    direction: Direction,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
}

#[derive(Debug)]
struct Entry {
    command: Option<Arc<str>>,
    name: Option<Arc<str>>,
    open: u64,
    total: Box<FlowCounts>,
    /// Made when the flow is active, taken when it has been shown.
    interval: Option<Box<FlowCounts>>,
    first_seen: BootTime,
    last_seen: BootTime,
}

/// Every flow that is known, in the order of their last activity.
#[derive(Debug)]
pub struct Flows {
    known: Recent<Key, Entry>,
}

impl Flows {
    pub fn new(limit: usize) -> Self {
        Self {
            known: Recent::new(limit),
        }
    }

    /// Entries, entries at most, evicted.
    pub fn size(&self) -> (usize, usize, u64) {
        size(&self.known)
    }

    pub fn add(
        &mut self,
        delta: &FlowDelta,
        unit: Arc<str>,
        command: Option<Arc<str>>,
        name: Option<Arc<str>>,
        at: BootTime,
    ) {
        let key = Key {
            unit,
            pid: delta.pid,
            protocol: delta.protocol,
            direction: delta.direction,
            local: (delta.local.ip(), delta.local.port()),
            remote: (delta.remote.ip(), delta.remote.port()),
        };
        let (flow, _) = self.known.entry(&key, || Entry {
            command: None,
            name: None,
            open: 0,
            total: Box::default(),
            interval: None,
            first_seen: at,
            last_seen: at,
        });
        if command.is_some() {
            flow.command = command;
        }
        if name.is_some() {
            flow.name = name;
        }
        flow.total.add(&delta.counts);
        flow.interval.get_or_insert_default().add(&delta.counts);
        flow.open = delta.open;
        flow.last_seen = at;
    }

    /// At most `limit` flows that were active in the interval, as many of the others as still are of
    /// interest, and how many more there are. Ends the interval.
    pub fn shown(&mut self, limit: usize) -> (Vec<Flow>, u64) {
        let active = |flow: &Entry| flow.interval.is_some();
        let mut idle = 0;
        let known = self.known.iter().take(limit).take_while(|(_, flow)| {
            idle += usize::from(!active(flow));
            idle <= IDLE_SHOWN
        });
        let shown: Vec<Flow> = known.map(|(key, flow)| fact(key, flow)).collect();
        // The active ones are in front.
        self.known
            .change_while(|_, flow| flow.interval.take().is_some());
        let left_out = self.known.len().saturating_sub(shown.len()) as u64;
        (shown, left_out)
    }

    /// The `limit` flows that were active last.
    pub fn saved(&self, limit: usize) -> Vec<Flow> {
        let known = self.known.iter().take(limit);
        known.map(|(key, flow)| fact(key, flow)).collect()
    }

    /// Takes a flow over that was saved; the one active longest ago comes first.
    pub fn restore(&mut self, saved: Flow) {
        let key = Key {
            unit: saved.unit.into(),
            pid: saved.pid,
            protocol: saved.protocol,
            direction: saved.direction,
            local: (saved.local, saved.local_port),
            remote: (saved.remote, saved.remote_port),
        };
        let command = (saved.command != NOBODY).then(|| saved.command.into());
        self.known.entry(&key, || Entry {
            command,
            name: saved.remote_name.map(Into::into),
            open: saved.open,
            total: Box::new(saved.total),
            interval: None,
            first_seen: saved.first_seen,
            last_seen: saved.last_seen,
        });
    }
}

fn fact(key: &Key, flow: &Entry) -> Flow {
    let command = flow.command.as_deref().unwrap_or(NOBODY);
    Flow {
        unit: key.unit.to_string(),
        pid: key.pid,
        command: command.to_owned(),
        protocol: key.protocol,
        direction: key.direction,
        local: key.local.0,
        local_port: key.local.1,
        remote: key.remote.0,
        remote_port: key.remote.1,
        remote_name: flow.name.as_deref().map(str::to_owned),
        open: flow.open,
        total: *flow.total,
        interval: flow.interval.as_deref().copied().unwrap_or_default(),
        first_seen: flow.first_seen,
        last_seen: flow.last_seen,
    }
}
