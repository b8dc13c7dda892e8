//! What outlasts a restart: totals of units and of flows, and how recorded intervals add to them.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Aggregator;
use crate::facts::{AggregateState, Direction, Flow, FlowCounts, Observation, Protocol};

impl Aggregator {
    /// The totals as they are after the last sample.
    pub fn export(&self) -> AggregateState {
        AggregateState {
            units: self.units.totals(),
            flows: self.flows.saved(self.limits.saved_flows),
        }
    }

    /// Adds the totals of an earlier life. For an aggregator that has seen nothing.
    pub fn restore(&mut self, state: AggregateState) {
        self.units.restore(state.units);
        for flow in state.flows.into_iter().rev() {
            self.flows.restore(flow);
        }
    }
}

type Key = (
    String,
    u32,
    Protocol,
    Direction,
    (IpAddr, u16),
    (IpAddr, u16),
);

fn key(flow: &Flow) -> Key {
    (
        flow.unit.clone(),
        flow.pid,
        flow.protocol,
        flow.direction,
        (flow.local, flow.local_port),
        (flow.remote, flow.remote_port),
    )
}

/// `state` after the intervals of `records` (oldest first), which came after it: units have the
/// totals that were recorded last, flows what passed in each interval is added to.
pub fn caught_up(mut state: AggregateState, records: &[Observation]) -> AggregateState {
    for record in records {
        for unit in &record.units {
            state.units.insert(unit.unit.clone(), unit.total.clone());
        }
    }
    // By last activity: the index of a flow and what came to it.
    let mut added: HashMap<Key, (Flow, usize)> = HashMap::new();
    for (age, record) in records.iter().enumerate() {
        for flow in &record.flows {
            let (sum, last) = added
                .entry(key(flow))
                .or_insert_with(|| (flow_without_counts(flow), age));
            sum.total.add(&flow.interval);
            sum.open = flow.open;
            sum.last_seen = flow.last_seen;
            sum.remote_name.clone_from(&flow.remote_name);
            sum.command.clone_from(&flow.command);
            *last = age;
        }
    }
    let mut flows = Vec::with_capacity(state.flows.len() + added.len());
    for mut flow in state.flows {
        match added.remove(&key(&flow)) {
            Some((more, age)) => {
                flow.total.add(&more.total);
                flow.open = more.open;
                flow.last_seen = more.last_seen;
                flow.remote_name = more.remote_name;
                flow.command = more.command;
                flows.push((Some(age), flow));
            }
            None => flows.push((None, flow)),
        }
    }
    flows.extend(added.into_values().map(|(flow, age)| (Some(age), flow)));
    // Newest first; the order of those that nothing came to stays.
    flows.sort_by(|(a, one), (b, other)| {
        b.cmp(a).then_with(|| match a {
            Some(_) => key(one).cmp(&key(other)),
            None => std::cmp::Ordering::Equal,
        })
    });
    state.flows = flows.into_iter().map(|(_, flow)| flow).collect();
    state
}

fn flow_without_counts(flow: &Flow) -> Flow {
    Flow {
        total: FlowCounts::default(),
        interval: FlowCounts::default(),
        ..flow.clone()
    }
}
