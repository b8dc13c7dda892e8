//! As a picture (SVG 1.1): no font, no script and nothing else from outside.

use std::fmt::Write;

use super::layout::{Path, Place, WIDTH, layout};
use super::text::name;
use super::{each_second, flowing, round_trip, service};
use crate::cli::human::{bytes, clean, share, wall};
use crate::decide::map::{Edge, Map, Node, NodeKind};

/// Letters of a name that fit into a box.
const LETTERS: usize = 27;

const STYLE: &str = "\
text{font-family:'Inter','DejaVu Sans',system-ui,sans-serif;fill:#1f2937}
.page{fill:#fbfbfa}
.title{font-size:17px;font-weight:600}
.note{font-size:11px;fill:#6b7280}
.name{font-size:12.5px;font-weight:600}
.box{stroke-width:1.2}
.unit{fill:#e8f0fb;stroke:#7ba3d8}
.service{fill:#f3edf9;stroke:#b096cf}
.clients{fill:#eaf5ee;stroke:#8abf9c}
.edge{fill:none;stroke:#8a97a8;stroke-opacity:.75}
.head{fill:#8a97a8}
.failed{stroke:#c8553d}
.failedhead{fill:#c8553d}
.label{font-size:10.5px;fill:#4b5563;stroke:#fbfbfa;stroke-width:3.5px;paint-order:stroke}
.bad{fill:#b03a24;font-weight:600}
@media (prefers-color-scheme:dark){
text{fill:#e5e7eb}
.page{fill:#16181d}
.note{fill:#9ca3af}
.unit{fill:#1c2a3f;stroke:#4f7ab3}
.service{fill:#2a2138;stroke:#80649f}
.clients{fill:#1b2f24;stroke:#4f8a64}
.label{fill:#cbd5e1;stroke:#16181d}
.bad{fill:#f08a72}
}
";

/// The map as a picture; `host` and `wall_ms` stand in its title.
pub(in crate::cli) fn svg(map: &Map, host: &str, wall_ms: i64) -> String {
    let layout = layout(map);
    let (width, height) = (layout.width.max(480.0).ceil(), layout.height.ceil());
    // Writing to a String cannot fail.
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    let title = escape(&format!("Dependencies of {host}"));
    let _ = writeln!(text, "<title>{title}</title>");
    let _ = writeln!(
        text,
        "<text class=\"title\" x=\"36\" y=\"40\">{title}</text>"
    );
    let when = wall(u64::try_from(wall_ms).unwrap_or(0));
    let mut note = format!(
        "{when}, rates of the last {:.1} s",
        map.interval_ns as f64 / 1e9
    );
    if map.edges_left_out > 0 {
        let (edges, bytes) = (map.edges_left_out, bytes(map.bytes_left_out));
        note.push_str(&format!(", {edges} more edges with {bytes} are not drawn"));
    }
    let _ = writeln!(
        text,
        "<text class=\"note\" x=\"36\" y=\"60\">{}</text>",
        escape(&note)
    );
    for (edge, path) in map.edges.iter().zip(&layout.paths) {
        text.push_str(&line(edge, path));
    }
    for (node, place) in map.nodes.iter().zip(&layout.places) {
        text.push_str(&a_box(node, place));
    }
    // Labels last: lines run under them.
    for (edge, path) in map.edges.iter().zip(&layout.paths) {
        text.push_str(&label(edge, path));
    }
    text.push_str("</svg>\n");
    text
}

fn a_box(node: &Node, Place { x, y, height }: &Place) -> String {
    let (class, radius) = match node.kind {
        NodeKind::Unit => ("unit", 6),
        NodeKind::Service => ("service", 6),
        NodeKind::Clients => ("clients", 20),
    };
    let middle = y + height / 2.0;
    let note = match (node.kind, node.cpu, node.count) {
        (NodeKind::Unit, Some(cpu), _) => format!("cpu {}", share(cpu)),
        (NodeKind::Unit, None, 0 | 1) => "unit".to_owned(),
        (NodeKind::Unit, None, count) => format!("{count} units"),
        (NodeKind::Service, _, 0 | 1) => "service".to_owned(),
        (NodeKind::Service, _, count) => format!("{count} addresses"),
        (NodeKind::Clients, _, 0 | 1) => "client".to_owned(),
        (NodeKind::Clients, _, count) => format!("{count} clients"),
    };
    let center = x + WIDTH / 2.0;
    format!(
        "<g><title>{}</title><rect class=\"box {class}\" x=\"{x:.1}\" y=\"{y:.1}\" \
         width=\"{WIDTH}\" height=\"{height:.1}\" rx=\"{radius}\"/>\
         <text class=\"name\" x=\"{center:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"note\" x=\"{center:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text></g>\n",
        escape(&name(node)),
        middle - 3.0,
        escape(&shortened(&node.label)),
        middle + 13.0,
        escape(&note),
    )
}

/// A name that fits: the middle goes, because beginning and end tell names apart.
fn shortened(label: &str) -> String {
    let label = clean(label);
    let letters: Vec<char> = label.chars().collect();
    if letters.len() <= LETTERS {
        return label;
    }
    let half = (LETTERS - 1) / 2;
    let start: String = letters[..half].iter().collect();
    let end: String = letters[letters.len() - half..].iter().collect();
    format!("{start}\u{2026}{end}")
}

fn line(edge: &Edge, path: &Path) -> String {
    let failed = edge.failures > 0;
    let rate = edge.forward_bytes_per_second + edge.back_bytes_per_second;
    let thick = (1.2 + (1.0 + rate / 1024.0).log10()).min(6.0);
    let (class, head) = if failed {
        ("edge failed", "failedhead")
    } else {
        ("edge", "head")
    };
    let (x, y) = path.to;
    format!(
        "<path class=\"{class}\" stroke-width=\"{thick:.1}\" d=\"{}\"/>\
         <path class=\"{head}\" d=\"M{x:.1} {y:.1}l-9 -4.5v9z\"/>\n",
        curve(path),
    )
}

/// From box to box, straight past the columns between; the arrow's head stands before the box.
fn curve(path: &Path) -> String {
    let (mut x, mut y) = path.from;
    let mut text = format!("M{x:.1} {y:.1}");
    let last = (path.to.0 - 7.0, path.to.1);
    for (number, (to_x, to_y)) in path.past.iter().copied().chain([last]).enumerate() {
        let (bend, away) = if path.forward {
            (((to_x - x) * 0.45).max(30.0), 0.0)
        } else {
            // One that runs back leaves its box and comes to the other in a bow.
            (110.0, 60.0)
        };
        text.push_str(&format!(
            "C{:.1} {:.1} {:.1} {:.1} {to_x:.1} {to_y:.1}",
            x + bend,
            y - away,
            to_x - bend,
            to_y - away,
        ));
        (x, y) = (to_x, to_y);
        if number < path.past.len() {
            x += WIDTH;
            text.push_str(&format!("H{x:.1}"));
        }
    }
    text
}

fn label(edge: &Edge, path: &Path) -> String {
    let (x, y, anchor) = if path.label_at_start {
        (path.from.0 + 10.0, path.from.1, "start")
    } else {
        (path.to.0 - 14.0, path.to.1, "end")
    };
    let mut first = service(edge);
    if edge.connections_per_second > 0.0 {
        first.push_str(&format!(
            " \u{b7} {}",
            each_second(edge.connections_per_second)
        ));
    } else if edge.open > 0 {
        first.push_str(&format!(" \u{b7} {} open", edge.open));
    }
    if let Some(rtt) = round_trip(edge) {
        first.push_str(&format!(" \u{b7} {rtt}"));
    }
    let mut second = escape(&format!(
        "\u{2192} {} \u{b7} \u{2190} {}",
        flowing(edge.forward_bytes_per_second),
        flowing(edge.back_bytes_per_second)
    ));
    if edge.failures > 0 {
        let failed = format!(
            "<tspan class=\"bad\"> \u{b7} {} failed</tspan>",
            edge.failures
        );
        second.push_str(&failed);
    }
    format!(
        "<text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>\
         <text class=\"label\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{second}</text>\n",
        y - 15.5,
        escape(&first),
        y - 4.5,
    )
}

/// Text for XML: markup escaped, and no character that XML 1.0 does not have.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in clean(text).chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{FFFE}' | '\u{FFFF}' => escaped.push('\u{FFFD}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}
