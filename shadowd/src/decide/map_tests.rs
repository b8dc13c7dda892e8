//! Tests of [`super::map`].

use super::*;
use crate::facts::{FlowCounts, Listener, Timing};

const LIMITS: MapLimits = MapLimits {
    nodes: 40,
    edges: 80,
};

fn flow(unit: &str, direction: Direction, local: (&str, u16), remote: (&str, u16)) -> Flow {
    let counts = FlowCounts {
        opened: 4,
        failed: 1,
        tx_bytes: 1_000,
        rx_bytes: 3_000,
        rtt: Timing {
            count: 2,
            sum_ns: 400_000,
        },
        ..FlowCounts::default()
    };
    Flow {
        unit: unit.to_owned(),
        pid: 1,
        command: "x".to_owned(),
        protocol: Protocol::Tcp,
        direction,
        local: local.0.parse().expect("an address"),
        local_port: local.1,
        remote: remote.0.parse().expect("an address"),
        remote_port: remote.1,
        remote_name: None,
        open: 2,
        total: counts,
        interval: counts,
        first_seen: BootTime::default(),
        last_seen: BootTime::default(),
    }
}

fn out(unit: &str, remote: &str, port: u16) -> Flow {
    flow(unit, Direction::Outbound, ("192.0.2.1", 0), (remote, port))
}

fn inward(unit: &str, port: u16, remote: &str) -> Flow {
    flow(unit, Direction::Inbound, ("192.0.2.1", port), (remote, 0))
}

fn seen(flows: Vec<Flow>) -> Observation {
    Observation {
        interval_ns: 2_000_000_000,
        flows,
        ..Observation::default()
    }
}

fn listener(unit: &str, local: &str, port: u16) -> Listener {
    Listener {
        unit: unit.to_owned(),
        pid: 1,
        command: "x".to_owned(),
        local: local.parse().expect("an address"),
        local_port: port,
        backlog: 0,
        backlog_max: 10,
        overflows: 0,
        overflows_total: 0,
    }
}

fn ends(map: &Map) -> Vec<(&str, &str)> {
    map.edges
        .iter()
        .map(|edge| (edge.from.as_str(), edge.to.as_str()))
        .collect()
}

fn ids(map: &Map) -> Vec<&str> {
    map.nodes.iter().map(|node| node.id.as_str()).collect()
}

#[test]
fn an_edge_points_from_who_connected_and_counts_its_bytes_that_way() {
    let drawn = map(
        &seen(vec![
            out("web.service", "198.51.100.7", 443),
            inward("web.service", 80, "203.0.113.9"),
        ]),
        LIMITS,
    );
    assert_eq!(
        ends(&drawn),
        [
            ("clients:203.0.113.0/24", "unit:web.service"),
            ("unit:web.service", "service:198.51.100.7:443"),
        ]
    );
    let [served, used] = &drawn.edges[..] else {
        panic!("two edges");
    };
    assert_eq!((served.port, used.port), (80, 443));
    // Half of what passed in two seconds; what comes in is forward when the client connected.
    assert_eq!(served.forward_bytes_per_second, 1_500.0);
    assert_eq!(served.back_bytes_per_second, 500.0);
    assert_eq!(used.forward_bytes_per_second, 500.0);
    assert_eq!(used.connections_per_second, 2.0);
    assert_eq!((used.failures, used.failures_per_second), (1, 0.5));
    assert_eq!((used.rtt_ns, used.open), (Some(200_000), 2));
}

#[test]
fn two_units_of_this_host_are_one_edge() {
    let client = |address: &str| {
        let mut flow = out("web.service", address, 5432);
        flow.local = address.parse().expect("an address");
        flow
    };
    let server = flow(
        "db.service",
        Direction::Inbound,
        ("127.0.0.1", 5432),
        ("127.0.0.1", 0),
    );
    let wanted = [("unit:web.service", "unit:db.service")];
    // By the flow at the other end.
    let both = seen(vec![client("127.0.0.1"), server.clone()]);
    assert_eq!(ends(&map(&both, LIMITS)), wanted);
    assert_eq!(map(&both, LIMITS).edges[0].connections, 4, "counted once");
    // By the listening socket: on any address, on this one, on another.
    for (local, fits) in [("0.0.0.0", true), ("127.0.0.1", true), ("192.0.2.9", false)] {
        let mut seen = seen(vec![client("127.0.0.1")]);
        seen.listeners = vec![listener("db.service", local, 5432)];
        let drawn = map(&seen, LIMITS);
        assert_eq!(ends(&drawn) == wanted, fits, "{local}: {drawn:?}");
    }
    // By an address of the host that is not loopback, and written as IPv6.
    let mut mapped = client("::ffff:192.0.2.1");
    mapped.local = "192.0.2.1".parse().expect("an address");
    let mut seen = seen(vec![mapped]);
    seen.listeners = vec![listener("db.service", "::", 5432)];
    assert_eq!(ends(&map(&seen, LIMITS)), wanted);
    // The end that connected was not seen: the other is told.
    let one = Observation {
        flows: vec![server],
        ..seen
    };
    assert_eq!(
        ends(&map(&one, LIMITS)),
        [("clients:host", "unit:db.service")]
    );
}

#[test]
fn services_are_grouped_by_name_and_clients_by_network() {
    let mut flows = Vec::new();
    for last in 1..=3 {
        let mut flow = out("web.service", &format!("198.51.100.{last}"), 443);
        flow.remote_name = Some("api.example".to_owned());
        flows.push(flow);
        flows.push(inward("web.service", 80, &format!("203.0.113.{last}")));
        flows.push(inward("web.service", 80, &format!("2001:db8:0:1::{last}")));
    }
    flows.push(inward("web.service", 80, "203.0.114.1"));
    let drawn = map(&seen(flows), LIMITS);
    let nodes: Vec<(&str, usize)> = drawn
        .nodes
        .iter()
        .map(|node| (node.label.as_str(), node.count))
        .collect();
    assert_eq!(
        nodes,
        [
            ("2001:db8:0:1::/64", 3),
            ("203.0.113.0/24", 3),
            ("203.0.114.1", 1),
            ("web.service", 1),
            ("api.example:443", 3),
        ]
    );
    assert_eq!(drawn.edges.len(), 4);
    assert_eq!(drawn.edges[1].connections, 12);
}

#[test]
fn only_the_most_active_are_told_apart_and_nothing_is_lost() {
    let mut flows = Vec::new();
    for number in 1..=200_u16 {
        let mut flow = out(
            "web.service",
            &format!("198.51.100.{}", number % 250),
            1_000 + number,
        );
        flow.total.tx_bytes = u64::from(number) * 1_000_000;
        flows.push(flow);
    }
    let all: u64 = flows
        .iter()
        .map(|flow| flow.total.tx_bytes + flow.total.rx_bytes)
        .sum();
    let limits = MapLimits {
        nodes: 10,
        edges: 80,
    };
    let drawn = map(&seen(flows.clone()), limits);
    assert_eq!(drawn.nodes.len(), 11);
    assert!(
        ids(&drawn).contains(&"service:198.51.100.200:1200"),
        "the busiest"
    );
    assert!(!ids(&drawn).contains(&"service:198.51.100.1:1001"));
    let others = drawn.nodes.iter().find(|node| node.id == "others:services");
    assert_eq!(others.map(|node| node.count), Some(191));
    assert_eq!(drawn.edges.iter().map(|edge| edge.bytes).sum::<u64>(), all);
    // Edges beyond the bound are counted.
    let few = MapLimits {
        nodes: 500,
        edges: 3,
    };
    let drawn = map(&seen(flows), few);
    assert_eq!((drawn.edges.len(), drawn.edges_left_out), (3, 197));
    assert_eq!(drawn.nodes.len(), 4);
    let told: u64 = drawn.edges.iter().map(|edge| edge.bytes).sum();
    assert_eq!(told + drawn.bytes_left_out, all);
}

#[test]
fn the_order_of_what_was_seen_changes_nothing() {
    let mut flows: Vec<Flow> = (1..60)
        .flat_map(|number| {
            let unit = format!("u{}.service", number % 7);
            [
                out(&unit, &format!("198.51.100.{number}"), 443),
                inward(&unit, 80, &format!("203.0.{number}.1")),
            ]
        })
        .collect();
    let limits = MapLimits {
        nodes: 20,
        edges: 15,
    };
    let once = map(&seen(flows.clone()), limits);
    flows.reverse();
    assert_eq!(map(&seen(flows), limits), once);
}
