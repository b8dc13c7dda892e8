//! As a tree: each unit, who comes to it, and what it uses.

use super::{each_second, flowing, round_trip, service};
use crate::cli::human::{bytes, clean, count, share};
use crate::cli::table::{Cell, Paint, Table, Tone};
use crate::decide::map::{Edge, Map, Node, NodeKind};

/// The map as a tree.
pub(in crate::cli) fn text(map: &Map, paint: Paint) -> String {
    if map.interval_ns == 0 {
        return "nothing was observed yet: the first interval is not over\n".to_owned();
    }
    if map.edges.is_empty() {
        return "no connections\n".to_owned();
    }
    let mut text = String::new();
    for unit in map.nodes.iter().filter(|node| node.kind == NodeKind::Unit) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&paint.apply(Tone::Heading, &name(unit)));
        if let Some(cpu) = unit.cpu {
            text.push_str(&format!("  cpu {}", share(cpu)));
        }
        text.push('\n');
        text.push_str(&edges_of(unit, map).render(paint));
    }
    if map.edges_left_out > 0 {
        let bytes = bytes(map.bytes_left_out);
        text.push_str(&format!("\n{} more edges, {bytes}\n", map.edges_left_out));
    }
    text
}

fn edges_of(unit: &Node, map: &Map) -> Table {
    let mut table = Table::new(
        2,
        [
            "", "WITH", "SERVICE", ">CONNS", ">OPEN", ">FAIL", ">RX", ">TX", ">RTT",
        ],
    );
    let mut row = |edge: &Edge, arrow: &str, other: &str, rx: f64, tx: f64| {
        let tone = if edge.failures > 0 {
            Tone::Warning
        } else {
            Tone::Plain
        };
        table.row([
            arrow.into(),
            find(map, other).map(name).unwrap_or_default().into(),
            service(edge).into(),
            each_second(edge.connections_per_second).into(),
            count(edge.open).into(),
            Cell::new(count(edge.failures), tone),
            flowing(rx).into(),
            flowing(tx).into(),
            round_trip(edge).unwrap_or_else(|| "-".to_owned()).into(),
        ]);
    };
    for edge in map.edges.iter().filter(|edge| edge.to == unit.id) {
        let (rx, tx) = (edge.forward_bytes_per_second, edge.back_bytes_per_second);
        row(edge, "<-", &edge.from, rx, tx);
    }
    for edge in map.edges.iter().filter(|edge| edge.from == unit.id) {
        let (rx, tx) = (edge.back_bytes_per_second, edge.forward_bytes_per_second);
        row(edge, "->", &edge.to, rx, tx);
    }
    table
}

fn find<'a>(map: &'a Map, id: &str) -> Option<&'a Node> {
    map.nodes.iter().find(|node| node.id == id)
}

/// What a node is called, with how many it stands for.
pub(super) fn name(node: &Node) -> String {
    let label = clean(&node.label);
    match (node.kind, node.count) {
        (_, 0 | 1) => label,
        (NodeKind::Clients, count) => format!("{label} ({count} clients)"),
        (NodeKind::Unit, count) => format!("{label} ({count})"),
        (NodeKind::Service, count) => format!("{label} ({count} addresses)"),
    }
}
