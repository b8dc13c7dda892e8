//! As a graph for Graphviz (graphviz.org/doc/info/lang.html).

use std::fmt::Write;

use super::text::name;
use super::{each_second, flowing, round_trip, service};
use crate::cli::human::clean;
use crate::decide::map::{Map, NodeKind};

/// The map in the DOT language.
pub(in crate::cli) fn dot(map: &Map) -> String {
    let mut text = String::from(
        "digraph shadowd {\n  rankdir=LR;\n  node [fontname=\"sans-serif\", fontsize=11];\n  \
         edge [fontname=\"sans-serif\", fontsize=9, color=\"#778899\"];\n",
    );
    for node in &map.nodes {
        let shape = match node.kind {
            NodeKind::Clients => "ellipse",
            NodeKind::Unit => "box",
            NodeKind::Service => "cylinder",
        };
        let (id, label) = (quoted(&node.id), quoted(&name(node)));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {id} [shape={shape}, label={label}];");
    }
    for edge in &map.edges {
        let mut label = format!(
            "{} {}\n> {} < {}",
            service(edge),
            each_second(edge.connections_per_second),
            flowing(edge.forward_bytes_per_second),
            flowing(edge.back_bytes_per_second),
        );
        if let Some(rtt) = round_trip(edge) {
            label.push_str(&format!("\nrtt {rtt}"));
        }
        let colour = if edge.failures > 0 {
            label.push_str(&format!("\n{} failed", edge.failures));
            ", color=\"#c0392b\""
        } else {
            ""
        };
        let (from, to) = (quoted(&edge.from), quoted(&edge.to));
        let lines: Vec<String> = label.lines().map(escaped).collect();
        let label = lines.join("\\n");
        let _ = writeln!(text, "  {from} -> {to} [label=\"{label}\"{colour}];");
    }
    text.push_str("}\n");
    text
}

/// A quoted string: control characters replaced, quotes and backslashes escaped.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

fn escaped(text: &str) -> String {
    clean(text).replace('\\', "\\\\").replace('"', "\\\"")
}
