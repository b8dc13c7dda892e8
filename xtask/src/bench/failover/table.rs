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
    ("outage, IPv4", |run| Some(run.outage_ms)),
    ("outage, IPv6", |run| Some(run.outage_v6_ms)),
    ("until the address is there", Run::address_after_ms),
];

/// Every table for which something was measured.
pub fn tables(results: &Results) -> String {
    let all = results.runs.values().flat_map(|systems| systems.values());
    let undisturbed = match all.flatten().any(Run::is_disturbed) {
        true => outages("undisturbed, ms", results, |run| !run.is_disturbed()),
        false => String::new(),
    };
    let tables = [
        outages("all runs, ms", results, |_| true),
        undisturbed,
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

/// Outages of the runs that are `wanted`. On a busy machine the client itself stands still now and
/// then; a table of the other runs shows how much that was.
fn outages(title: &str, results: &Results, wanted: fn(&Run) -> bool) -> String {
    let mut text = String::new();
    if results.runs.is_empty() {
        return text;
    }
    let _ = write!(text, "{:<38}", "");
    for (name, _) in OUTAGES {
        let _ = write!(text, "{name:>27}");
    }
    let _ = write!(text, "\n{title:<16}{:<12}{:>5}{:>5}", "", "runs", "dark");
    for _ in OUTAGES {
        let _ = write!(text, "{:>11}{:>8}{:>8}", "p50", "p99", "max");
    }
    text.push('\n');
    for case in results.runs.keys() {
        for system in System::BOTH {
            let runs = || {
                results
                    .runs_of(*case, system)
                    .iter()
                    .filter(|run| wanted(run))
            };
            let dark = runs().filter(|run| run.dark).count();
            let _ = write!(
                text,
                "{:<16}{:<12}{:>5}{dark:>5}",
                case.name(),
                system.name(),
                runs().count()
            );
            for (_, value) in OUTAGES {
                columns(&mut text, Figures::of(runs().filter_map(value)), 1);
            }
            text.push('\n');
        }
        let _ = write!(text, "{:<16}{:<12}{:>5}{:>5}", "", "ratio", "", "");
        for (_, value) in OUTAGES {
            let [theirs, ours] = System::BOTH.map(|system| {
                let wanted = |run: &Run| wanted(run).then(|| value(run)).flatten();
                results.figures(*case, system, wanted)
            });
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
            write!(text, "{p50:>11.digits$}{p99:>8.digits$}{max:>8.digits$}")
        }
        None => write!(text, "{:>11}{:>8}{:>8}", "-", "-", "-"),
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
                "{:<26}{:>5}{:>12}{:>8}{:>8}{:>12}{:>8}{:>28}",
                "planned handover",
                "runs",
                "connections",
                "failed",
                "late",
                "held open",
                "broken",
                "address nowhere, p50 / p99"
            );
        }
        let sum = |field: fn(&Run) -> u64| -> u64 { runs.iter().map(field).sum() };
        let gap = Figures::of(runs.iter().map(|run| run.no_holder_ms));
        let gap = gap.map(|gap| format!("{:.1} / {:.1} ms", gap.p50, gap.p99));
        let _ = writeln!(
            text,
            "{:<26}{:>5}{:>12}{:>8}{:>8}{:>12}{:>8}{:>28}",
            system.name(),
            runs.len(),
            sum(|run| run.connects),
            sum(|run| run.failed),
            sum(|run| run.late),
            sum(|run| run.held),
            sum(|run| run.broken),
            gap.unwrap_or_default()
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
                    "{:<16}{:<12}{:>8}{:>18}{:>10}{:>14}{:>14}{:>14}{:>20}",
                    "nobody died",
                    "",
                    "minutes",
                    "false promotions",
                    "regained",
                    "no owner, s",
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
                "{:<16}{:<12}{:>8.1}{:>18}{:>10}{:>14.1}{:>14.1}{:>14.2}{:>20.1}",
                case.name(),
                system.name(),
                sum(|one| one.minutes),
                sum(|one| one.promotions.len() as f64),
                sum(|one| f64::from(one.regains)),
                sum(|one| one.no_holder_ms) / 1e3,
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
        format!(
            "without a result: {case}, {system}: {}\n",
            lost.why.replace('\n', " ")
        )
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
        assert_eq!(words[2][..5], ["handover", "keepalived", "1", "0", "8.0"]);
        assert_eq!(words[4][..4], ["ratio", "0.500", "0.500", "0.500"]);
        assert_eq!(
            words[7][..7],
            ["keepalived", "1", "1000", "0", "0", "20", "0"]
        );
        assert!(
            !text.contains("nobody died") && !text.contains("detect"),
            "{text}"
        );
        assert_eq!(tables(&Results::default()), "");
    }
}
