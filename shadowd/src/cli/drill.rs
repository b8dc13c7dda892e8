//! `failover drill`: begins one, shows each step as it ends, and ends with what came of it; `failover
//! drills` shows what came of all.

use std::time::Duration;

use super::client::Client;
use super::failover::DrillArguments;
use super::human::{clean, span};
use super::table::Tone;
use super::{Failure, Screen, show};
use crate::facts::{DrillReport, DrillState, DrillStep, Name};
use crate::serve::protocol::{
    self, Code, DRILL, DRILL_END, DRILLS, DrillEndRequest, DrillRequest, Drills, LiveRequest,
    OrderDone, Refusal,
};

/// How often the daemon is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

pub(super) async fn drill(
    client: &Client,
    screen: &mut Screen<'_>,
    wanted: DrillArguments,
) -> Result<(), Failure> {
    let DrillArguments {
        group, span, to, ..
    } = wanted;
    let live = span.map(|span| LiveRequest {
        to,
        for_s: span.as_secs(),
    });
    let path = protocol::group_path(DRILL, &group);
    let begun: DrillReport = client.post(&path, &DrillRequest { live }).await?;
    let mut shown = Vec::new();
    loop {
        let answer: Drills = client.get(DRILLS).await?;
        let mut drills = answer.drills.into_iter();
        let ours =
            |report: &DrillReport| report.group == group && report.began_ms == begun.began_ms;
        let Some(report) = drills.find(ours) else {
            let message = format!("the drill of {group} is not known any more");
            let remedy = "see `shadowctl events`";
            let refusal = Refusal::new(Code::Failed, message, remedy);
            return Err(super::client::CallError::Refused(refusal).into());
        };
        // A check that is made again is shown again only when it ended differently.
        for (number, step) in report.steps.iter().enumerate().filter(|_| !screen.json) {
            if shown.get(number) == Some(&step.ok) {
                continue;
            }
            let line = step_line(step, screen);
            screen.out.write_all(line.as_bytes())?;
            screen.out.flush()?;
        }
        shown = report.steps.iter().map(|step| step.ok).collect();
        if report.state != DrillState::Running {
            return end(screen, report);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

pub(super) async fn end_live(
    client: &Client,
    screen: &mut Screen<'_>,
    group: &Name,
) -> Result<(), Failure> {
    let path = protocol::group_path(DRILL_END, group);
    let done: OrderDone = client.post(&path, &DrillEndRequest {}).await?;
    let text = match &done.handed_to {
        Some(to) => format!("group {}: handed back to {to}\n", done.group),
        None => format!("group {}: asked for\n", done.group),
    };
    screen.show(&done, text)
}

pub(super) async fn drills(client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let answer: Drills = client.get(DRILLS).await?;
    let mut text = String::new();
    for report in answer.earlier.iter().chain(&answer.drills) {
        text.push_str(&show::drill_line(report, screen.paint));
        if answer.drills.contains(report) {
            for step in &report.steps {
                text.push_str("    ");
                text.push_str(&step_line(step, screen));
            }
        }
    }
    if text.is_empty() {
        text.push_str("no drill yet\n");
    }
    screen.show(&answer, text)
}

fn end(screen: &mut Screen<'_>, report: DrillReport) -> Result<(), Failure> {
    let tone = match report.state {
        DrillState::Passed => Tone::Good,
        DrillState::Failed => Tone::Bad,
        DrillState::Running | DrillState::Aborted | DrillState::Skipped => Tone::Warning,
    };
    let state = screen.paint.apply(tone, &report.state.to_string());
    let took = span(Duration::from_millis(report.took_ms));
    let text = format!("group {}: drill {state} after {took}\n", report.group);
    screen.show(&report, text)?;
    match report.state {
        DrillState::Passed => Ok(()),
        DrillState::Running | DrillState::Failed | DrillState::Aborted | DrillState::Skipped => {
            Err(Failure::Drill {
                group: report.group,
                state: report.state,
                why: report.why,
            })
        }
    }
}

fn step_line(step: &DrillStep, screen: &Screen<'_>) -> String {
    let (word, tone) = if step.ok {
        ("ok", Tone::Good)
    } else {
        ("failed", Tone::Bad)
    };
    let word = screen.paint.apply(tone, &format!("{word:<6}"));
    let took = span(Duration::from_millis(step.took_ms));
    let what = format!("{:<24}", clean(&step.what));
    format!("{word}  {took:>8}  {what}  {}\n", clean(&step.said))
}
