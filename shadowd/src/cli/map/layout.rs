//! Where nodes and edges of the drawing go: columns from clients over units to services.
//!
//! Units that call other units stand before them. In a column, nodes are ordered by where their
//! neighbours are, which keeps most edges from crossing. Every edge ends at a place of its own, so
//! that labels beside the ends never lie on each other.

use std::collections::BTreeMap;

use crate::decide::map::{Map, NodeKind};

/// Height of the way of an edge past a column.
const LANE: f64 = 16.0;
/// Width of a box.
pub(super) const WIDTH: f64 = 210.0;
/// Between the places of two edges at a box.
pub(super) const STEP: f64 = 30.0;
/// Height of the words in a box.
const HEAD: f64 = 46.0;
/// Between two boxes of a column.
const APART: f64 = 26.0;
/// Between two columns: room for labels.
const GAP: f64 = 310.0;
/// Around everything; above it stands the title.
const MARGIN: f64 = 36.0;
const TITLE: f64 = 52.0;
/// How often the order of the columns is improved.
const SWEEPS: usize = 6;

/// A box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) height: f64,
}

/// Where an edge begins and ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Path {
    pub(super) from: (f64, f64),
    /// The left ends of its ways past columns; each is as wide as a box.
    pub(super) past: Vec<(f64, f64)>,
    pub(super) to: (f64, f64),
    /// Whether it runs to a column at the right.
    pub(super) forward: bool,
    /// Whether it has its beginning to itself less than its end: the label stands there then.
    pub(super) label_at_start: bool,
}

/// The drawing.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) width: f64,
    pub(super) height: f64,
    /// By number of the node.
    pub(super) places: Vec<Place>,
    /// By number of the edge.
    pub(super) paths: Vec<Path>,
}

/// Lays `map` out.
pub(super) fn layout(map: &Map) -> Layout {
    let numbers: BTreeMap<&str, usize> = map
        .nodes
        .iter()
        .enumerate()
        .map(|(number, node)| (node.id.as_str(), number))
        .collect();
    let edges: Vec<(usize, usize)> = map
        .edges
        .iter()
        .filter_map(|edge| {
            Some((
                *numbers.get(edge.from.as_str())?,
                *numbers.get(edge.to.as_str())?,
            ))
        })
        .collect();
    let mut columns = columns(map, &edges);
    let (steps, lanes) = steps(&mut columns, &edges);
    let ordered = order(&columns, &steps, columns.len());
    let real = map.nodes.len();
    let mut places = place(&ordered, &steps, columns.len(), real);
    let mut paths = paths(&places, real, &edges, &lanes);
    for (path, lanes) in paths.iter_mut().zip(&lanes) {
        let past = lanes.iter().map(|lane| &places[*lane]);
        path.past = past.map(|place| (place.x, place.y + LANE / 2.0)).collect();
    }
    let width = places
        .iter()
        .map(|place| place.x + WIDTH)
        .fold(0.0, f64::max);
    let height = places.iter().map(|place| place.y + place.height);
    let height = height.fold(TITLE + MARGIN, f64::max) + MARGIN;
    places.truncate(real);
    Layout {
        width: width + MARGIN,
        height,
        places,
        paths,
    }
}

/// The column of each node: clients first, services last, units by how deep they are called.
fn columns(map: &Map, edges: &[(usize, usize)]) -> Vec<usize> {
    let kinds: Vec<NodeKind> = map.nodes.iter().map(|node| node.kind).collect();
    let units = kinds.iter().filter(|kind| **kind == NodeKind::Unit).count();
    let mut depth = vec![0; kinds.len()];
    // As many rounds as there are units settle every order; a circle ends with the rounds. Edges
    // that would close one are seen by their length and left to run back.
    let deepest = units.min(6);
    for _ in 0..deepest {
        for (from, to) in edges {
            let both = kinds[*from] == NodeKind::Unit && kinds[*to] == NodeKind::Unit;
            if both && from != to && depth[*to] <= depth[*from] && depth[*from] + 1 < deepest {
                let closes = edges.contains(&(*to, *from)) && from > to;
                if !closes {
                    depth[*to] = depth[*from] + 1;
                }
            }
        }
    }
    let last = kinds
        .iter()
        .zip(&depth)
        .filter(|(kind, _)| **kind == NodeKind::Unit)
        .map(|(_, depth)| *depth)
        .max()
        .unwrap_or(0);
    let mut columns: Vec<usize> = kinds
        .iter()
        .zip(depth)
        .map(|(kind, depth)| match kind {
            NodeKind::Clients => 0,
            NodeKind::Unit => 1 + depth,
            NodeKind::Service => 2 + last,
        })
        .collect();
    // Columns without a node take no room.
    let mut used = columns.clone();
    used.sort_unstable();
    used.dedup();
    for column in &mut columns {
        *column = used.binary_search(column).unwrap_or(0);
    }
    columns
}

/// Edges as steps from column to column: one that passes columns gets a lane in each of them, as if
/// it were a node. Gives the steps, and the lanes of each edge.
fn steps(
    columns: &mut Vec<usize>,
    edges: &[(usize, usize)],
) -> (Vec<(usize, usize)>, Vec<Vec<usize>>) {
    let (mut steps, mut all) = (Vec::new(), Vec::new());
    for (from, to) in edges {
        let mut lanes = Vec::new();
        let mut at = *from;
        for column in columns[*from] + 1..columns[*to] {
            let lane = columns.len();
            columns.push(column);
            steps.push((at, lane));
            lanes.push(lane);
            at = lane;
        }
        steps.push((at, *to));
        all.push(lanes);
    }
    (steps, all)
}

/// The nodes of each column from top to bottom.
fn order(columns: &[usize], edges: &[(usize, usize)], nodes: usize) -> Vec<Vec<usize>> {
    let count = columns.iter().max().map_or(0, |last| last + 1);
    let mut ordered = vec![Vec::new(); count];
    for node in 0..nodes {
        ordered[columns[node]].push(node);
    }
    let mut rank = vec![0.0; nodes];
    let number = |ordered: &[Vec<usize>], rank: &mut Vec<f64>| {
        for column in ordered {
            for (at, node) in column.iter().enumerate() {
                rank[*node] = (at as f64 + 0.5) / column.len() as f64;
            }
        }
    };
    number(&ordered, &mut rank);
    for sweep in 0..SWEEPS {
        for step in 0..count {
            let at = if sweep % 2 == 0 {
                step
            } else {
                count - 1 - step
            };
            let middle = |node: usize| {
                let near = edges.iter().filter_map(|(from, to)| {
                    if *to == node && *from != node {
                        Some(rank[*from])
                    } else if *from == node && *to != node {
                        Some(rank[*to])
                    } else {
                        None
                    }
                });
                let (sum, count) = near.fold((0.0, 0), |(sum, n), rank| (sum + rank, n + 1));
                if count == 0 {
                    rank[node]
                } else {
                    sum / f64::from(count)
                }
            };
            let mut column: Vec<(f64, usize)> = ordered[at]
                .iter()
                .map(|node| (middle(*node), *node))
                .collect();
            column.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            ordered[at] = column.into_iter().map(|(_, node)| node).collect();
            number(&ordered, &mut rank);
        }
    }
    ordered
}

/// Columns side by side, each in the middle of the height.
fn place(
    ordered: &[Vec<usize>],
    edges: &[(usize, usize)],
    nodes: usize,
    real: usize,
) -> Vec<Place> {
    let height = |node: usize| {
        if node >= real {
            return LANE;
        }
        let ins = edges.iter().filter(|(_, to)| *to == node).count();
        let outs = edges.iter().filter(|(from, _)| *from == node).count();
        HEAD.max(ins.max(outs) as f64 * STEP + 12.0)
    };
    let tall = |column: &[usize]| {
        let boxes: f64 = column.iter().map(|node| height(*node)).sum();
        boxes + APART * column.len().saturating_sub(1) as f64
    };
    let tallest = ordered
        .iter()
        .map(|column| tall(column))
        .fold(0.0, f64::max);
    let mut places = vec![
        Place {
            x: 0.0,
            y: 0.0,
            height: 0.0
        };
        nodes
    ];
    for (at, column) in ordered.iter().enumerate() {
        let mut y = TITLE + MARGIN + (tallest - tall(column)) / 2.0;
        for node in column {
            let height = height(*node);
            let x = MARGIN + at as f64 * (WIDTH + GAP);
            places[*node] = Place { x, y, height };
            y += height + APART;
        }
    }
    places
}

/// Each edge from its place at the right of a box to its place at the left of another.
fn paths(
    places: &[Place],
    real: usize,
    edges: &[(usize, usize)],
    lanes: &[Vec<usize>],
) -> Vec<Path> {
    let middle = |node: usize| places[node].y + places[node].height / 2.0;
    let end_of = |(from, to): &(usize, usize), right: bool| if right { *from } else { *to };
    let mut paths = vec![Path::default(); edges.len()];
    for (node, Place { x, y, height }) in places[..real].iter().enumerate() {
        for right in [true, false] {
            let mut ends: Vec<(f64, usize)> = edges
                .iter()
                .enumerate()
                .filter(|(_, edge)| end_of(edge, right) == node)
                .map(|(number, (from, to))| {
                    let next = if right {
                        lanes[number].first().unwrap_or(to)
                    } else {
                        lanes[number].last().unwrap_or(from)
                    };
                    (middle(*next), number)
                })
                .collect();
            ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let top = y + height / 2.0 - STEP * (ends.len() as f64 - 1.0) / 2.0;
            for (at, (_, number)) in ends.into_iter().enumerate() {
                let here = top + at as f64 * STEP;
                if right {
                    paths[number].from = (x + WIDTH, here);
                } else {
                    paths[number].to = (*x, here);
                }
            }
        }
    }
    let degree = |end: fn(&(usize, usize)) -> usize, node: usize| {
        edges.iter().filter(|edge| end(edge) == node).count()
    };
    for (path, (from, to)) in paths.iter_mut().zip(edges) {
        path.forward = places[*from].x < places[*to].x;
        path.label_at_start = degree(|edge| edge.0, *from) >= degree(|edge| edge.1, *to);
    }
    paths
}
