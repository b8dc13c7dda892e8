//! The last drill of a group.

use std::time::Duration;

use super::super::human::{clean, span, wall};
use super::super::table::{Paint, Tone};
use crate::facts::{DrillReport, DrillState};

/// One line of `status`.
pub(super) fn line(report: &DrillReport, paint: Paint) -> String {
    let tone = match report.state {
        DrillState::Passed => Tone::Good,
        DrillState::Failed => Tone::Bad,
        DrillState::Running | DrillState::Aborted | DrillState::Skipped => Tone::Warning,
    };
    let state = paint.apply(tone, &report.state.to_string());
    let (began, took) = (
        wall(report.began_ms),
        span(Duration::from_millis(report.took_ms)),
    );
    let why = match report.why.as_str() {
        "" => String::new(),
        why => format!(": {}", clean(why)),
    };
    let live = match &report.live {
        Some(live) => format!(" live on {}", live.to),
        None => String::new(),
    };
    let passed = match report.last_passed_ms {
        Some(passed) if report.state != DrillState::Passed => {
            format!("; passed last at {}", wall(passed))
        }
        _ => String::new(),
    };
    format!("  drill{live} {state} at {began}, {took}{why}{passed}\n")
}

/// One line of `failover drills`.
pub(in crate::cli) fn drill_line(report: &DrillReport, paint: Paint) -> String {
    let DrillReport {
        group, scheduled, ..
    } = report;
    let by = if *scheduled { " by schedule" } else { "" };
    let text = line(report, paint);
    format!(
        "group {group}{by}:{}",
        text.trim_start_matches(' ').replacen("drill", " drill", 1)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_that_failed_tells_why_and_when_one_passed() {
        let report = DrillReport {
            group: "web".parse().unwrap(),
            state: DrillState::Failed,
            scheduled: false,
            began_ms: 1_700_000_000_000,
            took_ms: 1_500,
            why: "check http: exit 1".to_owned(),
            steps: Vec::new(),
            last_passed_ms: Some(1_600_000_000_000),
            live: None,
        };
        let line = line(&report, Paint(false));
        for part in [
            "drill failed at 2023-11-14",
            ": check http: exit 1;",
            "last at 2020-09-13",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
}
