//! Drills that begin by themselves.

use std::sync::Arc;

use super::Drills;
use crate::decide::drill::{Objection, is_due, objection_by_itself};
use crate::facts::{DrillState, EventKind};
use crate::run::record::wall_ms;
use crate::serve::protocol::Code;

/// The same reason to skip a drill is recorded once in so long (ms).
const SKIP_AGAIN_MS: u64 = 3_600_000;

impl Drills {
    /// Begins the first drill that is due, unless one goes on.
    pub(super) fn by_schedule(self: &Arc<Self>, skipped_ms: &mut u64) {
        let now_ms = wall_ms();
        let now = jiff::Zoned::now();
        let minute = u16::from(now.hour().unsigned_abs()) * 60;
        let minute = minute + u16::from(now.minute().unsigned_abs());
        for (group, settings) in &self.groups {
            let last_ms = self.last(&group.name).map(|last| last.began_ms);
            let Some(seen) = self.seen(&group.name) else {
                continue;
            };
            if !is_due(settings, last_ms, now_ms, minute) {
                continue;
            }
            let why = match objection_by_itself(&seen) {
                // Each member has the same schedule; only a shadow follows it.
                Some(Objection::Active | Objection::NoShadow) => continue,
                Some(objection) => objection.to_string(),
                // One drill at a time: another group's turn comes at the next look.
                None => match self.begin(&group.name, true) {
                    Ok(_) => return,
                    Err(refusal) if refusal.code == Code::Busy => return,
                    Err(refusal) => refusal.message,
                },
            };
            if now_ms.saturating_sub(*skipped_ms) >= SKIP_AGAIN_MS {
                *skipped_ms = now_ms;
                let detail = format!("{}: {why}", DrillState::Skipped);
                self.event(EventKind::Drill, &group.name, seen.epoch.counter, detail);
            }
        }
    }
}
