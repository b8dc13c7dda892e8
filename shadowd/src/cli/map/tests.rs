//! Tests of what [`super`] draws.

use super::*;
use crate::cli::table::Paint;
use crate::decide::map::{Map, Node, NodeKind};

const HOSTILE: &str = "a\"]; <script>&'\\\x1b[2J\n\u{FFFE}]]>";

fn node(kind: NodeKind, id: &str, label: &str, count: usize) -> Node {
    Node {
        id: id.to_owned(),
        kind,
        label: label.to_owned(),
        count,
        cpu: (kind == NodeKind::Unit).then_some(0.12),
    }
}

fn edge(from: &str, to: &str, port: u16, rate: f64) -> Edge {
    Edge {
        from: from.to_owned(),
        to: to.to_owned(),
        protocol: Protocol::Tcp,
        port,
        open: 3,
        connections: 40,
        failures: u64::from(port == 6379),
        connections_per_second: rate,
        failures_per_second: 0.0,
        forward_bytes_per_second: rate * 700.0,
        back_bytes_per_second: rate * 9_000.0,
        bytes: 1 << 20,
        rtt_ns: Some(250_000),
    }
}

fn sample() -> Map {
    Map {
        interval_ns: 1_000_000_000,
        nodes: vec![
            node(NodeKind::Clients, "c1", "203.0.113.0/24", 12),
            node(NodeKind::Clients, "c2", "2001:db8:7:1::/64", 3),
            node(NodeKind::Clients, "c3", "198.51.100.20", 1),
            node(NodeKind::Unit, "u1", "nginx.service", 1),
            node(NodeKind::Unit, "u2", "shop@production.service", 1),
            node(NodeKind::Unit, "u3", "postgresql@15-main.service", 1),
            node(NodeKind::Unit, "u4", "redis.service", 1),
            node(
                NodeKind::Unit,
                "u5",
                "a-very-long-unit-name-that-does-not-fit@3.service",
                1,
            ),
            node(NodeKind::Unit, "u6", "backup.service", 1),
            node(NodeKind::Service, "s1", "api.payments.example:443", 2),
            node(NodeKind::Service, "s2", "192.0.2.53:53", 1),
            node(NodeKind::Service, "s3", "others", 17),
            node(NodeKind::Service, "s4", HOSTILE, 1),
        ],
        edges: vec![
            edge("c1", "u1", 443, 120.0),
            edge("c2", "u1", 443, 4.0),
            edge("c3", "u1", 80, 0.0),
            edge("c3", "u3", 5432, 0.1),
            edge("u1", "u2", 8080, 80.0),
            edge("u1", "u5", 8081, 12.0),
            edge("u2", "u3", 5432, 300.0),
            edge("u5", "u3", 5432, 31.0),
            edge("u2", "u4", 6379, 900.0),
            edge("u5", "u4", 6379, 2.0),
            edge("u2", "s1", 443, 3.0),
            edge("u5", "s1", 443, 1.0),
            edge("u2", "s2", 53, 5.0),
            edge("u6", "s3", 0, 0.4),
            edge("u6", "u3", 5432, 0.2),
            edge("u4", "u2", 9000, 0.3),
            edge("u6", "s4", 22, 0.3),
        ],
        edges_left_out: 5,
        bytes_left_out: 7_000,
        ..Map::default()
    }
}

/// Reads `text` as XML without namespaces and instructions: panics where it is not well formed.
/// Gives the text of each element of the kind `text`.
fn read_xml(text: &str) -> Vec<String> {
    let (mut open, mut rest, mut found) = (Vec::<String>::new(), text.trim_end(), Vec::new());
    assert!(rest.starts_with('<'));
    while !rest.is_empty() {
        let (before, after) = rest.split_once('<').unwrap_or((rest, ""));
        let words = unescape(before);
        if let Some("text" | "tspan") = open.last().map(String::as_str) {
            found.push(words);
        } else if open.is_empty() {
            assert!(words.trim().is_empty(), "text outside of the root");
        }
        let Some((tag, more)) = after.split_once('>') else {
            assert!(after.is_empty(), "a tag is closed");
            break;
        };
        rest = more;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "tags are nested");
            continue;
        }
        let empty = tag.ends_with('/');
        let tag = tag.trim_end_matches('/');
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(
            name.chars().all(|letter| letter.is_ascii_alphanumeric()),
            "{name}"
        );
        let parts: Vec<&str> = attributes.split('"').collect();
        assert!(parts.len() % 2 == 1, "quotes in {attributes}");
        for pair in parts.chunks(2) {
            if let [key, value] = pair {
                let key = key.trim().strip_suffix('=').expect("a key has a value");
                assert!(
                    key.chars()
                        .all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
                );
                unescape(value);
            } else {
                assert!(pair[0].trim().is_empty());
            }
        }
        if !empty {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?} is open");
    found
}

fn unescape(text: &str) -> String {
    assert!(
        text.chars()
            .all(|letter| letter == '\n' || !letter.is_control())
    );
    assert!(!text.contains(['\u{FFFE}', '\u{FFFF}', '<', '>']) || !text.contains('<'));
    let mut rest = text;
    let mut plain = String::new();
    while let Some((before, after)) = rest.split_once('&') {
        let (name, more) = after.split_once(';').expect("a reference ends");
        plain.push_str(before);
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "#39" => '\'',
            other => panic!("&{other};"),
        });
        rest = more;
    }
    plain + rest
}

#[test]
fn the_picture_is_well_formed_whatever_the_names_are() {
    let shown = svg(&sample(), HOSTILE, 1_700_000_000_000);
    let words = read_xml(&shown);
    assert!(
        words.iter().any(|word| word == "nginx.service"),
        "{words:?}"
    );
    assert!(
        words.iter().any(|word| word.contains("<script>&'")),
        "{words:?}"
    );
    assert!(!shown.contains("<script"));
    assert!(
        words
            .iter()
            .any(|word| word.contains("5 more edges with 6.84 KiB"))
    );
    // What does not fit is cut in the middle.
    assert!(
        words
            .iter()
            .any(|word| word == "a-very-long-u\u{2026}fit@3.service"),
        "{words:?}"
    );
    read_xml(&svg(&Map::default(), "a", 0));
}

#[test]
fn boxes_do_not_lie_on_each_other_and_labels_have_a_line_of_their_own() {
    let map = sample();
    let drawn = layout::layout(&map);
    for (number, one) in drawn.places.iter().enumerate() {
        assert!(one.x >= 0.0 && one.x + layout::WIDTH <= drawn.width);
        assert!(one.y >= 0.0 && one.y + one.height <= drawn.height);
        for other in &drawn.places[number + 1..] {
            let apart = one.x != other.x
                || one.y + one.height <= other.y
                || other.y + other.height <= one.y;
            assert!(apart, "{one:?} {other:?}");
        }
    }
    let mut labels: Vec<(f64, f64, bool)> = drawn
        .paths
        .iter()
        .map(|path| {
            let (x, y) = if path.label_at_start {
                path.from
            } else {
                path.to
            };
            (x, y, path.label_at_start)
        })
        .collect();
    labels.sort_by(|a, b| {
        a.2.cmp(&b.2)
            .then(a.0.total_cmp(&b.0))
            .then(a.1.total_cmp(&b.1))
    });
    for pair in labels.windows(2) {
        let beside = pair[0].2 == pair[1].2 && pair[0].0 == pair[1].0;
        assert!(
            !beside || pair[1].1 - pair[0].1 >= layout::STEP - 0.01,
            "{pair:?}"
        );
    }
    // Clients stand at the left, services at the right, callers before the called.
    let x = |id: &str| {
        let at = map.nodes.iter().position(|node| node.id == id);
        drawn.places[at.expect("it is there")].x
    };
    assert!(x("c1") < x("u1") && x("u1") < x("u2") && x("u2") < x("u3") && x("u3") < x("s1"));
}

#[test]
fn a_circle_of_units_is_laid_out_too() {
    let mut map = Map::default();
    for number in 0..9 {
        let id = format!("u{number}");
        map.nodes.push(node(NodeKind::Unit, &id, &id, 1));
        map.edges
            .push(edge(&id, &format!("u{}", (number + 1) % 9), 80, 1.0));
        map.edges.push(edge(&id, &id, 81, 1.0));
    }
    let drawn = layout::layout(&map);
    assert!(
        drawn.width.is_finite() && drawn.width < 4_000.0,
        "{}",
        drawn.width
    );
    read_xml(&svg(&map, "a", 0));
}

#[test]
fn the_graph_quotes_every_name() {
    let shown = dot(&sample());
    assert_eq!(shown.lines().count(), 4 + 13 + 17 + 1);
    assert!(
        shown.contains("label=\"a\\\"]; <script>&'\\\\\u{FFFD}[2J\u{FFFD}"),
        "{shown}"
    );
    assert!(shown.contains("\"u2\" -> \"u4\" [label=\"tcp 6379 900/s\\n> 615 KiB/s < 7.72 MiB/s"));
    for line in shown.lines() {
        let quotes = line
            .replace("\\\\", "")
            .replace("\\\"", "")
            .matches('"')
            .count();
        assert!(quotes % 2 == 0, "{line}");
    }
}

#[test]
fn the_tree_tells_each_unit_both_ways() {
    let shown = text(&sample(), Paint(false));
    let wanted = "\
nginx.service  cpu 12.0 %
      WITH                                               SERVICE   CONNS  OPEN  FAIL          RX          TX       RTT
  <-  203.0.113.0/24 (12 clients)                        tcp 443   120/s     3     0  82.0 KiB/s  1.03 MiB/s  250.0 us
";
    assert!(shown.starts_with(wanted), "{shown}");
    assert!(
        shown.contains("  ->  shop@production.service                            tcp 8080   80/s")
    );
    assert!(shown.ends_with("5 more edges, 6.84 KiB\n"));
    assert!(!shown.contains('\x1b'));
    assert_eq!(text(&Map::default(), Paint(false)).lines().count(), 1);
}
