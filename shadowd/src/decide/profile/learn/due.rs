//! When a version is due, and for which reason.

use std::collections::BTreeMap;

use super::{Learner, Output};
use crate::decide::profile::changes::changes;
use crate::facts::{Content, Need, ResourceKind};

/// A reason names so many changes.
const REASONS_MAX: usize = 5;
/// Versions wait for what is still on its way, for so many times what it takes to last.
const OVERDUE: u64 = 3;
/// What could not be kept is due again after so many seconds.
const AGAIN: u64 = 30;

/// A version that was due and could not be kept.
#[derive(Clone, Debug)]
pub(super) struct Unkept {
    reason: Option<String>,
    again_at: u64,
}

impl Learner {
    /// The version that was due for this reason could not be kept, `in_use` still is the last one: it is
    /// due again. What is stored says so too, if the daemon ends before that.
    pub fn on_unkept(&mut self, reason: Option<String>, in_use: Option<&Content>) {
        self.begun = in_use.is_some();
        self.before = in_use.cloned().unwrap_or_default();
        self.due = Some(self.watched);
        let again_at = self.watched + AGAIN;
        self.unkept = Some(Unkept { reason, again_at });
    }

    /// One version for all that settles together.
    pub(super) fn make_version(&mut self, now: u64) {
        let Some(since) = self.due else { return };
        let rests = |unkept: &Unkept| now < unkept.again_at;
        if self.unkept.as_ref().is_some_and(rests) {
            return;
        }
        let moving = self.units.is_moving()
            || self.packages.is_moving()
            || self.files.is_moving()
            || self.parameters.is_moving();
        if moving && now.saturating_sub(since) < OVERDUE * self.rules.settle {
            return;
        }
        self.due = None;
        let told = changes(&self.before, &self.profile.content);
        let unkept = self.unkept.take();
        if told.is_empty() && self.begun {
            // It was for what the units need, which is as it was.
            if let Some(Unkept { reason, .. }) = unkept {
                self.tell(Output::Version(reason));
            }
            return;
        }
        let reason = self.begun.then(|| {
            let named: Vec<String> = told
                .iter()
                .take(REASONS_MAX)
                .map(ToString::to_string)
                .collect();
            match told.len().saturating_sub(named.len()) {
                0 => named.join("; "),
                more => format!("{}; {more} more", named.join("; ")),
            }
        });
        self.version(reason, BTreeMap::new());
    }

    /// A version is due; `changed` are needs that are known better than by their forecasts.
    pub(super) fn version(
        &mut self,
        reason: Option<String>,
        changed: BTreeMap<(String, ResourceKind), Need>,
    ) {
        self.begun = true;
        self.before = self.profile.content.clone();
        self.profile.needs = self.needs();
        self.profile.needs.extend(changed);
        self.needs_at = self.watched;
        self.levels.clear();
        self.tell(Output::Version(reason));
    }
}
