//! The results as tables for people.

use std::fmt::Write as _;

use super::case::Case;
use super::figures::Figures;
use super::results::Results;
use super::run::{Endured, Run};
use super::stages::Stages;
use super::system::System;

type Value = fn(&Run) -> Option<f64>;

/// What stands in a table of outages, three columns each.
const OUTAGES: [(&str, Value); 3] = [
    ("IPv4 outage", |run| Some(run.outage_ms)),
    ("IPv6 outage", |run| Some(run.outage_v6_ms)),
    ("to the address", Run::address_after_ms),
];

/// Every table for which something was measured.
pub fn tables(results: &Results) -> String {
    let tables = [
        outages(results),
        stages(results),
        handovers(results),
        endured(results),
        lost(results),
    ];
    let filled: Vec<String> = tables
        .into_iter()
        .filter(|table| !table.is_empty())
        .collect();
    filled.join("\n")
}

fn outages(results: &Results) -> String {
    let mut text = String::new();
    if results.runs.is_empty() {
        return text;
    }
    let _ = write!(text, "{:<14}{:<12}{:>5}{:>5}", "ms", "", "runs", "dark");
    for (name, _) in OUTAGES {
        let _ = write!(text, "{name:>18} p50{:>8}{:>8}", "p99", "max");
    }
    text.push('\n');
    for case in results.runs.keys() {
        for system in System::BOTH {
            let runs = results.runs_of(*case, system);
            let dark = runs.iter().filter(|run| run.dark).count();
            let _ = write!(
                text,
                "{:<14}{:<12}{:>5}{dark:>5}",
                case.name(),
                system.name(),
                runs.len()
            );
            for (_, value) in OUTAGES {
                columns(&mut text, results.figures(*case, system, value), 1);
            }
            text.push('\n');
        }
        let _ = write!(text, "{:<14}{:<12}{:>5}{:>5}", "", "ratio", "", "");
        for (_, value) in OUTAGES {
            let [theirs, ours] = System::BOTH.map(|system| results.figures(*case, system, value));
            let ratio = ours.zip(theirs).map(|(ours, theirs)| Figures {
                p50: ours.p50 / theirs.p50,
                p99: ours.p99 / theirs.p99,
                max: ours.max / theirs.max,
                ..ours
            });
            columns(&mut text, ratio, 3);
        }
        text.push('\n');
    }
    text
}

fn columns(text: &mut String, figures: Option<Figures>, digits: usize) {
    let _ = match figures {
        Some(Figures { p50, p99, max, .. }) => {
            write!(text, "{p50:>22.digits$}{p99:>8.digits$}{max:>8.digits$}")
        }
        None => write!(text, "{:>22}{:>8}{:>8}", "-", "-", "-"),
    };
}

/// Where shadowd's time goes: p50 and p99 of each stage.
fn stages(results: &Results) -> String {
    let mut text = String::new();
    for case in results.runs.keys() {
        let stages: Vec<Stages> = results
            .runs_of(*case, System::Shadowd)
            .iter()
            .filter_map(|run| run.stages)
            .collect();
        let Some(first) = stages.first() else {
            continue;
        };
        if text.is_empty() {
            let _ = write!(text, "{:<26}{:>5}", "shadowd, ms: p50 / p99", "runs");
            for (name, _) in first.named() {
                let _ = write!(text, "{name:>16}");
            }
            text.push('\n');
        }
        let _ = write!(text, "{:<26}{:>5}", case.name(), stages.len());
        for place in 0..first.named().len() {
            let values = stages.iter().filter_map(|stages| stages.named()[place].1);
            let cell = Figures::of(values).map_or("-".to_owned(), |figures| {
                format!("{:.1} / {:.1}", figures.p50, figures.p99)
            });
            let _ = write!(text, "{cell:>16}");
        }
        text.push('\n');
    }
    text
}

fn handovers(results: &Results) -> String {
    let mut text = String::new();
    for system in System::BOTH {
        let runs = results.runs_of(Case::Handover, system);
        if runs.is_empty() {
            continue;
        }
        if text.is_empty() {
            let _ = writeln!(
                text,
                "{:<26}{:>5}{:>12}{:>8}{:>8}{:>12}{:>8}",
                "planned handover", "runs", "connections", "failed", "late", "held open", "broken"
            );
        }
        let sum = |field: fn(&Run) -> u64| -> u64 { runs.iter().map(field).sum() };
        let _ = writeln!(
            text,
            "{:<26}{:>5}{:>12}{:>8}{:>8}{:>12}{:>8}",
            system.name(),
            runs.len(),
            sum(|run| run.connects),
            sum(|run| run.failed),
            sum(|run| run.late),
            sum(|run| run.held),
            sum(|run| run.broken)
        );
    }
    text
}

fn endured(results: &Results) -> String {
    let mut text = String::new();
    for (case, systems) in &results.endured {
        for (system, endured) in systems {
            if text.is_empty() {
                let _ = writeln!(
                    text,
                    "{:<16}{:<12}{:>8}{:>18}{:>16}{:>16}{:>20}",
                    "nobody died",
                    "",
                    "minutes",
                    "false promotions",
                    "two owners, s",
                    "no answer, %",
                    "longest outage, ms"
                );
            }
            let sum = |field: fn(&Endured) -> f64| -> f64 { endured.iter().map(field).sum() };
            let connects = sum(|one| one.connects as f64).max(1.0);
            let longest = endured.iter().map(|one| one.outage_ms).fold(0.0, f64::max);
            let _ = writeln!(
                text,
                "{:<16}{:<12}{:>8.1}{:>18}{:>16.1}{:>16.2}{:>20.1}",
                case.name(),
                system.name(),
                sum(|one| one.minutes),
                sum(|one| one.promotions.len() as f64),
                sum(|one| one.two_holders_ms) / 1e3,
                sum(|one| one.failed as f64) / connects * 100.0,
                longest
            );
        }
    }
    text
}

fn lost(results: &Results) -> String {
    let lines = results.lost.iter().map(|lost| {
        let (case, system) = (lost.case.name(), lost.system.name());
        format!("without a result: {case}, {system}: {}\n", lost.why)
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_both_systems_their_ratio_and_only_what_was_measured() {
        let mut results = Results::default();
        results.add_run(Case::Handover, System::Keepalived, Run::with_outage(8.0));
        results.add_run(Case::Handover, System::Shadowd, Run::with_outage(4.0));
        let text = tables(&results);
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(words[1][..5], ["handover", "keepalived", "1", "0", "8.0"]);
        assert_eq!(words[3][..4], ["ratio", "0.500", "0.500", "0.500"]);
        assert_eq!(words[6], ["keepalived", "1", "1000", "0", "0", "20", "0"]);
        assert!(
            !text.contains("nobody died") && !text.contains("detect"),
            "{text}"
        );
        assert_eq!(tables(&Results::default()), "");
    }
}
