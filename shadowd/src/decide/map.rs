//! An observation -> who depends on whom: units, the services they use, the clients they serve.
//!
//! Pure. An edge points from who connected to who was connected to. What two units of this host say
//! to each other is seen at both ends and becomes one edge. Nodes and edges are bounded: the most
//! active stay, the others are summed, by kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use crate::facts::{BootTime, Direction, Flow, FlowCounts, Observation, Protocol, UnitUse};

/// How much of it is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLimits {
    /// Nodes, without those that stand for the others.
    pub nodes: usize,
    /// Edges.
    pub edges: usize,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// Remotes that connect to this host, of one network.
    Clients,
    /// A unit of this host.
    Unit,
    /// What this host connects to.
    Service,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// What edges call it.
    pub id: String,
    /// What it is.
    pub kind: NodeKind,
    /// What people call it. Names come from the host and from DNS: untrusted.
    pub label: String,
    /// How many it stands for: addresses, or units.
    pub count: usize,
    /// Processor time of a unit, as a share of one processor.
    pub cpu: Option<f64>,
}

/// What passes from one node to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Edge {
    /// Who connected.
    pub from: String,
    /// To whom.
    pub to: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port of the service; 0 when there are several.
    pub port: u16,
    /// Connections open now.
    pub open: u64,
    /// Connections since capture began.
    pub connections: u64,
    /// Connections that failed since capture began.
    pub failures: u64,
    /// Connections opened per second, in the last interval.
    pub connections_per_second: f64,
    /// Connections that failed, per second.
    pub failures_per_second: f64,
    /// Payload bytes per second from who connected.
    pub forward_bytes_per_second: f64,
    /// Payload bytes per second back.
    pub back_bytes_per_second: f64,
    /// Payload bytes since capture began, both ways.
    pub bytes: u64,
    /// Mean round trip, ns.
    pub rtt_ns: Option<u64>,
}

/// The map.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Map {
    /// End of the interval.
    pub at: BootTime,
    /// Its length.
    pub interval_ns: u64,
    /// By kind, then id.
    pub nodes: Vec<Node>,
    /// By the ids of their ends.
    pub edges: Vec<Edge>,
    /// Edges that are not told.
    pub edges_left_out: usize,
    /// Their bytes since capture began.
    pub bytes_left_out: u64,
}

/// What an edge is found by.
type Key = (String, String, Protocol, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total: FlowCounts,
    now: FlowCounts,
    open: u64,
    outbound: bool,
}

impl Sum {
    /// Adds a flow, turned so that `tx` is from who connected.
    fn add(&mut self, total: &FlowCounts, now: &FlowCounts, open: u64) {
        self.total.add(total);
        self.now.add(now);
        self.open = self.open.saturating_add(open);
    }

    fn activity(&self) -> (u64, u64, u64) {
        let bytes = |counts: &FlowCounts| counts.rx_bytes.saturating_add(counts.tx_bytes);
        let happened = self.now.opened.saturating_add(self.now.failed);
        (
            happened.saturating_add(bytes(&self.now) / 1024),
            bytes(&self.total),
            self.total.opened,
        )
    }
}

/// Draws the map of `seen`.
pub fn map(seen: &Observation, limits: MapLimits) -> Map {
    let mut drawing = Drawing::default();
    let own = own_addresses(seen);
    let served = servers(seen, &own);
    for flow in &seen.flows {
        drawing.flow(flow, &own, &served);
    }
    drawing.bound_nodes(limits.nodes.max(1));
    drawing.finish(seen, limits.edges.max(1))
}

/// The addresses that are this host's, as far as flows and listeners show them.
fn own_addresses(seen: &Observation) -> BTreeSet<IpAddr> {
    let flows = seen.flows.iter().map(|flow| flow.local.to_canonical());
    let listeners = seen.listeners.iter().map(|it| it.local.to_canonical());
    let real = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    flows.chain(listeners).filter(real).collect()
}

/// Which units answer on which port of this host, and at which address; none: at any.
type Servers = BTreeMap<(Protocol, u16), BTreeMap<Option<IpAddr>, String>>;

fn servers(seen: &Observation, own: &BTreeSet<IpAddr>) -> Servers {
    let mut servers = Servers::new();
    for listener in &seen.listeners {
        let address = listener.local.to_canonical();
        let address = (!address.is_unspecified()).then_some(address);
        let port = servers
            .entry((Protocol::Tcp, listener.local_port))
            .or_default();
        port.entry(address).or_insert_with(|| listener.unit.clone());
    }
    for flow in &seen.flows {
        if flow.direction == Direction::Inbound && own.contains(&flow.local.to_canonical()) {
            let port = servers.entry((flow.protocol, flow.local_port)).or_default();
            port.entry(Some(flow.local.to_canonical()))
                .or_insert_with(|| flow.unit.clone());
        }
    }
    servers
}

fn server<'a>(served: &'a Servers, flow: &Flow) -> Option<&'a str> {
    let port = served.get(&(flow.protocol, flow.remote_port))?;
    let exact = port.get(&Some(flow.remote.to_canonical()));
    exact.or_else(|| port.get(&None)).map(String::as_str)
}

#[derive(Debug, Default)]
struct Drawing {
    /// Each node with the addresses or units it stands for.
    nodes: BTreeMap<String, (NodeKind, String, BTreeSet<String>)>,
    edges: BTreeMap<Key, Sum>,
}

impl Drawing {
    fn flow(&mut self, flow: &Flow, own: &BTreeSet<IpAddr>, served: &Servers) {
        let remote = flow.remote.to_canonical();
        let is_own = remote.is_loopback() || own.contains(&remote);
        let unit = self.unit(&flow.unit);
        match flow.direction {
            Direction::Outbound => {
                let server = if is_own { server(served, flow) } else { None };
                let to = match server {
                    Some(server) => self.unit(server),
                    None => self.service(flow, remote),
                };
                let key = (unit, to, flow.protocol, flow.remote_port);
                let sum = self.edges.entry(key).or_default();
                sum.outbound = true;
                sum.add(&flow.total, &flow.interval, flow.open);
            }
            // Seen from the other end already, unless that end was not seen.
            Direction::Inbound if is_own => {
                let from = self.clients("host", "this host", remote);
                let key = (from, unit, flow.protocol, flow.local_port);
                let (total, now) = (turned(&flow.total), turned(&flow.interval));
                self.edges
                    .entry(key)
                    .or_default()
                    .add(&total, &now, flow.open);
            }
            Direction::Inbound => {
                let network = network(remote);
                let from = self.clients(&network, &network, remote);
                let key = (from, unit, flow.protocol, flow.local_port);
                let (total, now) = (turned(&flow.total), turned(&flow.interval));
                self.edges
                    .entry(key)
                    .or_default()
                    .add(&total, &now, flow.open);
            }
        }
    }

    fn node(&mut self, id: String, kind: NodeKind, label: &str, member: String) -> String {
        let label = || (kind, label.to_owned(), BTreeSet::new());
        self.nodes
            .entry(id.clone())
            .or_insert_with(label)
            .2
            .insert(member);
        id
    }

    fn unit(&mut self, unit: &str) -> String {
        let label = if unit == "-" { "(no unit)" } else { unit };
        self.node(
            format!("unit:{unit}"),
            NodeKind::Unit,
            label,
            unit.to_owned(),
        )
    }

    fn service(&mut self, flow: &Flow, remote: IpAddr) -> String {
        let host = match (&flow.remote_name, remote) {
            (Some(name), _) => name.clone(),
            (None, IpAddr::V4(address)) => address.to_string(),
            (None, IpAddr::V6(address)) => format!("[{address}]"),
        };
        let label = match flow.remote_port {
            0 => host,
            port => format!("{host}:{port}"),
        };
        self.node(
            format!("service:{label}"),
            NodeKind::Service,
            &label,
            remote.to_string(),
        )
    }

    fn clients(&mut self, id: &str, label: &str, remote: IpAddr) -> String {
        self.node(
            format!("clients:{id}"),
            NodeKind::Clients,
            label,
            remote.to_string(),
        )
    }

    /// Drops what was seen twice, then keeps the most active nodes; the rest is one node a kind.
    fn bound_nodes(&mut self, limit: usize) {
        let joined: BTreeSet<(String, Protocol, u16)> = self
            .edges
            .iter()
            .filter(|((_, to, ..), sum)| sum.outbound && to.starts_with("unit:"))
            .map(|((_, to, protocol, port), _)| (to.clone(), *protocol, *port))
            .collect();
        self.edges.retain(|(from, to, protocol, port), _| {
            from != "clients:host" || !joined.contains(&(to.clone(), *protocol, *port))
        });
        let mut activity = BTreeMap::<&str, (u64, u64, u64)>::new();
        for ((from, to, ..), sum) in &self.edges {
            for end in [from, to] {
                let entry = activity.entry(end).or_default();
                let more = sum.activity();
                entry.0 = entry.0.saturating_add(more.0);
                entry.1 = entry.1.saturating_add(more.1);
                entry.2 = entry.2.saturating_add(more.2);
            }
        }
        let mut ranked: Vec<(&str, (u64, u64, u64))> = activity.into_iter().collect();
        ranked.sort_by_key(|(id, activity)| (std::cmp::Reverse(*activity), *id));
        let kept: BTreeSet<String> = ranked
            .into_iter()
            .take(limit)
            .map(|(id, _)| id.to_owned())
            .collect();
        let edges = std::mem::take(&mut self.edges);
        for ((from, to, protocol, port), sum) in edges {
            let mut place = |id: String| {
                if kept.contains(&id) {
                    (id, false)
                } else {
                    (self.others(&id), true)
                }
            };
            let ((from, _), (to, merged)) = (place(from), place(to));
            let port = if merged { 0 } else { port };
            let entry = self.edges.entry((from, to, protocol, port)).or_default();
            entry.add(&sum.total, &sum.now, sum.open);
        }
    }

    /// The node that stands for `id` and all others of its kind.
    fn others(&mut self, id: &str) -> String {
        let Some((kind, _, members)) = self.nodes.get(id).cloned() else {
            return id.to_owned();
        };
        let (id, label) = match kind {
            NodeKind::Clients => ("others:clients", "other clients"),
            NodeKind::Unit => ("others:units", "other units"),
            NodeKind::Service => ("others:services", "other services"),
        };
        for member in members {
            self.node(id.to_owned(), kind, label, member);
        }
        id.to_owned()
    }

    fn finish(self, seen: &Observation, limit: usize) -> Map {
        let mut ranked: Vec<(Key, Sum)> = self.edges.into_iter().collect();
        ranked.sort_by(|a, b| {
            let order = b.1.activity().cmp(&a.1.activity());
            order.then_with(|| a.0.cmp(&b.0))
        });
        let rest = ranked.split_off(limit.min(ranked.len()));
        let bytes = |sum: &Sum| sum.total.rx_bytes.saturating_add(sum.total.tx_bytes);
        ranked.sort_by(|a, b| a.0.cmp(&b.0));
        let seconds = (seen.interval_ns as f64 / 1e9).max(1e-9);
        let edges: Vec<Edge> = ranked
            .into_iter()
            .map(|(key, sum)| edge(key, &sum, seconds))
            .collect();
        let used: BTreeSet<&str> = edges
            .iter()
            .flat_map(|edge| [edge.from.as_str(), edge.to.as_str()])
            .collect();
        let units: BTreeMap<&str, &UnitUse> = seen
            .units
            .iter()
            .map(|unit| (unit.unit.as_str(), unit))
            .collect();
        let mut nodes = Vec::new();
        for (id, found) in self.nodes {
            if !used.contains(id.as_str()) {
                continue;
            }
            let (kind, label, members) = found;
            let unit = id.strip_prefix("unit:").and_then(|unit| units.get(unit));
            let cpu = unit.map(|unit| unit.cpu);
            let count = members.len();
            let label = match kind {
                // One client is called by its address.
                NodeKind::Clients if count == 1 && id != "clients:host" => {
                    members.into_iter().next().unwrap_or(label)
                }
                _ => label,
            };
            nodes.push(Node {
                id,
                kind,
                label,
                count,
                cpu,
            });
        }
        nodes.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
        Map {
            at: seen.at,
            interval_ns: seen.interval_ns,
            nodes,
            edges,
            edges_left_out: rest.len(),
            bytes_left_out: rest
                .iter()
                .fold(0, |all: u64, (_, sum)| all.saturating_add(bytes(sum))),
        }
    }
}

fn edge((from, to, protocol, port): Key, sum: &Sum, seconds: f64) -> Edge {
    let rate = |count: u64| count as f64 / seconds;
    Edge {
        from,
        to,
        protocol,
        port,
        open: sum.open,
        connections: sum.total.opened.saturating_add(sum.total.adopted),
        failures: sum.total.failed,
        connections_per_second: rate(sum.now.opened),
        failures_per_second: rate(sum.now.failed),
        forward_bytes_per_second: rate(sum.now.tx_bytes),
        back_bytes_per_second: rate(sum.now.rx_bytes),
        bytes: sum.total.rx_bytes.saturating_add(sum.total.tx_bytes),
        rtt_ns: sum.total.rtt.mean_ns(),
    }
}

/// The same as the other end counts it.
fn turned(counts: &FlowCounts) -> FlowCounts {
    FlowCounts {
        rx_bytes: counts.tx_bytes,
        tx_bytes: counts.rx_bytes,
        rx_packets: counts.tx_packets,
        tx_packets: counts.rx_packets,
        ..*counts
    }
}

/// The network that clients are grouped by: /24, or /64.
fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits() >> 64 << 64;
            format!("{}/64", Ipv6Addr::from_bits(bits))
        }
    }
}

#[cfg(test)]
#[path = "map_tests.rs"]
mod tests;
