//! What is known of one unit, and its past as lines.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Color;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Sparkline};

use super::Palette;
use crate::cli::human::{bytes, count, share, span};
use crate::cli::tui::state::{Past, View};
use crate::facts::{Histogram, UnitUse};

/// Cells for the names of the lines and for their largest value.
const MARGIN: u16 = 24;

/// The unit in words and, where there is room, its past.
pub(super) fn draw(frame: &mut Frame, area: Rect, view: &View, palette: Palette) {
    let words = match view.detail {
        Some((unit, _)) => words(unit, view.seen.interval_ns),
        None => vec!["the unit did nothing in the last interval".to_owned()],
    };
    let past = if area.height >= 7 { 2 } else { 0 };
    let [text, below] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(past)]).areas(area);
    let shown: Vec<Line> = words.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(shown), text);
    lines(frame, below, view, palette);
}

fn words(unit: &UnitUse, interval_ns: u64) -> Vec<String> {
    let seconds = (interval_ns as f64 / 1e9).max(1e-9);
    let each = |number: u64| count((number as f64 / seconds).round() as u64);
    let flow = |number: u64| format!("{}/s", bytes((number as f64 / seconds) as u64));
    let (calls, network) = (&unit.syscalls, &unit.network);
    let mean = |nanos: Option<u64>| {
        nanos.map_or_else(
            || "-".to_owned(),
            |ns| span(std::time::Duration::from_nanos(ns)),
        )
    };
    let waits = match unit.io_pressure {
        Some(waits) => format!("  waits for io {}", share(waits)),
        None => String::new(),
    };
    vec![
        format!(
            "cpu {}  memory {}  processes {}  begun {}/s  ended {}/s{waits}",
            share(unit.cpu),
            bytes(unit.memory_bytes.unwrap_or(unit.rss_bytes)),
            unit.processes,
            each(unit.execs),
            each(unit.exits),
        ),
        format!(
            "calls {}/s  failed {}/s  {}",
            each(calls.calls),
            each(calls.failed()),
            quantiles(&calls.latency),
        ),
        format!(
            "network in {}  out {}  opened {}/s  failed {}  again {}  rtt {}",
            flow(network.rx_bytes),
            flow(network.tx_bytes),
            each(network.opened),
            network.failed,
            network.retransmits,
            mean(network.rtt.mean_ns()),
        ),
        format!(
            "answers {}  connects {}",
            quantiles(&network.response),
            mean(network.connect.mean_ns()),
        ),
        format!(
            "block read {} {}  write {} {}  files read {} write {}",
            flow(unit.block_read.bytes),
            quantiles(&unit.block_read.latency),
            flow(unit.block_write.bytes),
            quantiles(&unit.block_write.latency),
            flow(unit.files.read_bytes),
            flow(unit.files.write_bytes),
        ),
    ]
}

fn quantiles(times: &Histogram) -> String {
    match (times.quantile(0.5), times.quantile(0.99)) {
        (Some(half), Some(most)) => format!("p50 {} p99 {}", span(half), span(most)),
        _ => "p50 - p99 -".to_owned(),
    }
}

/// Processor and network of the unit, the newest at the right.
pub(super) fn lines(frame: &mut Frame, area: Rect, view: &View, palette: Palette) {
    let Some((_, past)) = view.detail else {
        return;
    };
    let empty = Past::default();
    let past = past.unwrap_or(&empty);
    let rows = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).split(area);
    let cpu = past.cpu.iter().copied().fold(0.0, f64::max);
    let network = past.network.iter().copied().fold(0.0, f64::max);
    for (row, name, values, most, colour) in [
        (rows[0], "cpu", &past.cpu, share(cpu), Color::Green),
        (
            rows[1],
            "net",
            &past.network,
            format!("{}/s", bytes(network as u64)),
            Color::Cyan,
        ),
    ] {
        if row.height == 0 {
            continue;
        }
        let name = format!("{name}, most {most}");
        let [label, line] =
            Layout::horizontal([Constraint::Length(MARGIN), Constraint::Min(0)]).areas(row);
        frame.render_widget(Paragraph::new(name), label);
        let sparkline = Sparkline::default()
            .data(scaled(values, usize::from(line.width)))
            .style(palette.of(colour));
        frame.render_widget(sparkline, line);
    }
}

/// The newest `room` values as whole numbers from 0 to 1000.
fn scaled(values: &VecDeque<f64>, room: usize) -> Vec<u64> {
    let values: Vec<f64> = values
        .iter()
        .skip(values.len().saturating_sub(room))
        .copied()
        .collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let scale = |value: f64| {
        if most > 0.0 {
            (value / most * 1_000.0) as u64
        } else {
            0
        }
    };
    values.into_iter().map(scale).collect()
}
