//! What was around a violation: the frames and the events, in one file each, with the seed.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::judge::Violation;
use super::report::Report;
use crate::lab::target;

/// Frames this long before and after the first and the last wrong answer.
const FRAMES_NS: u64 = 50_000_000;
/// Events this long before and after.
const EVENTS_NS: u64 = 2_000_000_000;
/// Lines of frames, at most, and violations that are written.
const MOST_LINES: usize = 2000;
const MOST_FILES: usize = 8;

/// Writes a file for each violation and prints where.
///
/// # Errors
/// A file cannot be written.
pub fn write(report: &Report, events: &[(u64, String, Value)]) -> Result<()> {
    let folder = target().join("prove");
    for (number, violation) in report
        .verdict
        .violations
        .iter()
        .take(MOST_FILES)
        .enumerate()
    {
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("wire-{}-{}.txt", report.seed, number + 1));
        fs::write(&path, told(report, violation, events))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let name = &report.hosts.get(usize::from(violation.host));
        let name = name.map_or("client", |name| name.as_str());
        println!(
            "violation {}: host {name} {} ({:?}, epoch {}, {} frames): {}",
            number + 1,
            violation.wrong.says(),
            violation.vip,
            violation.epoch,
            violation.frames,
            path.display()
        );
    }
    Ok(())
}

fn told(report: &Report, violation: &Violation, events: &[(u64, String, Value)]) -> String {
    let zero = violation.first_ns;
    let mut text = format!(
        "seed {}, {} faults: {violation:?}\ntimes in ms from the first wrong answer\n\n",
        report.seed, report.wanted
    );
    let after = |at_ns: u64| (at_ns as f64 - zero as f64) / 1e6;
    let around =
        |span_ns: u64| zero.saturating_sub(span_ns)..violation.last_ns.saturating_add(span_ns);
    for round in &report.rounds {
        let parts = (after(round.at_ns), &round.step, &round.active.0);
        if round.at_ns <= violation.last_ns && round.at_ns + 20 * EVENTS_NS >= zero {
            let _ = writeln!(
                text,
                "{:>12.3} fault {} (active {})",
                parts.0, parts.1, parts.2
            );
        }
    }
    let mut near: Vec<_> = events
        .iter()
        .filter(|(at_ns, ..)| around(EVENTS_NS).contains(at_ns))
        .collect();
    near.sort_by_key(|(at_ns, ..)| *at_ns);
    for (at_ns, host, event) in near {
        let _ = writeln!(
            text,
            "{:>12.3} {host} {} epoch {} cause {} {}",
            after(*at_ns),
            event["kind"],
            event["epoch"],
            event["cause"],
            event["detail"]
        );
    }
    let mut frames: Vec<_> = report
        .seen
        .answers
        .iter()
        .filter(|answer| answer.vip == violation.vip && around(FRAMES_NS).contains(&answer.at_ns))
        .collect();
    frames.sort_by_key(|answer| answer.at_ns);
    let _ = writeln!(
        text,
        "\nframes ({} of them, at most {MOST_LINES} shown)",
        frames.len()
    );
    for answer in frames.into_iter().take(MOST_LINES) {
        let host = report.hosts.get(usize::from(answer.host));
        let host = host.map_or("client", |name| name.as_str());
        let _ = writeln!(
            text,
            "{:>12.6} {host} {}",
            after(answer.at_ns),
            answer.kind.name()
        );
    }
    text
}
