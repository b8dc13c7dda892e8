//! What came of drills: kept in memory for whoever asks, in a file for the next daemon, and told as
//! events.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use super::{Drills, millis};
use crate::facts::{DrillRecord, DrillReport, DrillState, DrillStep, EventKind, Name};
use crate::observe::sys::boot_time;
use crate::run::record::wall_ms;
use crate::store::drills as file;

impl Drills {
    pub(super) fn record(&self) -> MutexGuard<'_, DrillRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last drill of a group, or the one that goes on.
    pub(super) fn last(&self, name: &Name) -> Option<DrillReport> {
        self.record().of(name).cloned()
    }

    /// A step has ended; the one of the same name is replaced. Its failure, in words.
    pub(super) fn step(
        &self,
        name: &Name,
        what: String,
        began: Instant,
        said: Result<String, String>,
    ) -> Result<(), String> {
        let failed = said.as_ref().err().map(|why| format!("{what}: {why}"));
        let step = DrillStep {
            what,
            ok: failed.is_none(),
            took_ms: millis(began.elapsed()),
            said: said.unwrap_or_else(|why| why),
        };
        if let Some(report) = self.record().of_mut(name) {
            report.took_ms = wall_ms().saturating_sub(report.began_ms);
            match report.steps.iter_mut().find(|it| it.what == step.what) {
                Some(known) => *known = step,
                None => report.steps.push(step),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The drill of a group has ended: keeps what came of it and tells of it.
    pub(super) async fn end(&self, name: &Name, epoch: u64, state: DrillState, why: String) {
        let said = self.record().of_mut(name).map(|report| {
            (report.state, report.why) = (state, why);
            report.took_ms = wall_ms().saturating_sub(report.began_ms);
            if state == DrillState::Passed {
                report.last_passed_ms = Some(wall_ms());
            }
            sentence(report)
        });
        let kind = match state {
            DrillState::Passed => EventKind::DrillPassed,
            DrillState::Failed => EventKind::DrillFailed,
            DrillState::Running | DrillState::Aborted | DrillState::Skipped => EventKind::Drill,
        };
        self.event(kind, name, epoch, said.unwrap_or_default());
        self.save().await;
    }

    pub(super) async fn save(&self) {
        let (directory, record) = (self.state_dir.clone(), self.record().clone());
        let write = move || file::save(&directory, &record);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            error!(%error, "what came of a drill is not stored");
        }
    }

    pub(super) fn event(&self, kind: EventKind, name: &Name, epoch: u64, detail: String) {
        let group = Some((name, epoch));
        self.recorder.notice(kind, group, boot_time(), detail);
    }
}

fn sentence(report: &DrillReport) -> String {
    let (state, steps) = (report.state, report.steps.len());
    let took = Duration::from_millis(report.took_ms);
    let live = if report.live.is_some() { "live: " } else { "" };
    match report.why.as_str() {
        "" => format!("{live}{state} after {took:?}, {steps} steps"),
        why => format!("{live}{state} after {took:?}: {why}"),
    }
}
