//! Health: whether this member could own the group, and steps that failed and are tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Step};
use super::group::{Cold, Group, State};
use crate::facts::{BootTime, Cause, Epoch, EventKind, Name, UnitMode};

/// After a step failed here, this member leaves the group to others for this long.
pub(super) const HOLD_AFTER_FAILURE: Duration = Duration::from_secs(30);
/// A host that was found ready counts as proven for this long.
const PROOF_LASTS: Duration = Duration::from_secs(30);
/// Before addresses that would not go are removed again: nobody may take over before.
const DROP_AGAIN: Duration = Duration::from_millis(100);
/// Before any other failed step is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The same failure is recorded once in this time.
const RECORD_AGAIN: Duration = Duration::from_secs(60);

/// A step that failed, to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retry {
    pub step: Step,
    pub epoch: Epoch,
    /// When; none while it is under way again.
    pub at: Option<BootTime>,
}

impl Group {
    /// The link of the virtual IPs' interface came or went.
    pub fn on_carrier(&mut self, up: bool, now: BootTime) {
        let before = self.carrier.replace(up);
        if before != Some(up) {
            self.record(EventKind::LinkChanged, None, updown(up).to_owned(), now);
        }
        self.turn(now);
        if up && before == Some(false) && matches!(self.state, State::Shadow(_)) {
            // What was said meanwhile was not heard, and address resolution may take its second:
            // this member knows as little as one that just started.
            self.listening_since = now;
            let until = now.after(self.settings.join_wait);
            self.enter(State::Joining { until }, Cause::LinkLost, now);
        }
        // A link that went may have taken addresses with it; adding them twice does no harm.
        if up
            && before == Some(false)
            && let State::Active(active) = &self.state
        {
            let (epoch, deadline) = (active.epoch, active.deadline);
            self.actions.push_back(Action::TakeVips { epoch, deadline });
        }
        self.review(now);
    }

    /// A unit of the group came up or went down. Other units are ignored.
    pub fn on_unit(&mut self, unit: &Name, up: bool, now: BootTime) {
        self.turn(now);
        if !self.settings.units.iter().any(|known| known.name == *unit) {
            return;
        }
        if self.units.insert(unit.clone(), up) != Some(up) {
            let kind = if up {
                EventKind::UnitUp
            } else {
                EventKind::UnitDown
            };
            self.record(kind, None, unit.to_string(), now);
        }
        self.review(now);
    }

    /// Clients of a unit wait without an answer, or are answered again. Other units are ignored.
    pub fn on_serving(&mut self, unit: &str, serves: bool, now: BootTime) {
        self.turn(now);
        let mut units = self.settings.units.iter();
        let Some(unit) = units.find(|known| known.name.as_str() == unit) else {
            return;
        };
        let name = unit.name.clone();
        let detail = if serves {
            self.unanswered.remove(&name);
            format!("{name} answers its clients again")
        } else {
            self.unanswered.insert(name.clone());
            format!("{name} runs, but leaves its clients without an answer")
        };
        self.record(EventKind::Serving, Some(Cause::Unanswered), detail, now);
        self.review(now);
    }

    /// Why this member could not own the group now. What is not known counts as trouble: missing
    /// data never promotes.
    pub fn trouble(&self, now: BootTime) -> Option<Cause> {
        let cold_count = matches!(&self.state, State::Active(active) if active.cold == Cold::Run);
        let unit_down = self.settings.units.iter().any(|unit| {
            let counts = unit.mode == UnitMode::Warm || cold_count;
            counts && !self.runs(&unit.name)
        });
        if self.carrier != Some(true) {
            Some(Cause::LinkLost)
        } else if unit_down {
            Some(Cause::UnitDied)
        } else if self.owned().is_some() && !self.unanswered.is_empty() {
            // Of a member without clients nothing is known either way.
            Some(Cause::Unanswered)
        } else if self.outvoted() {
            Some(Cause::DefinitionDiffers)
        } else if self.in_maintenance(now) {
            Some(Cause::Maintenance)
        } else if now < self.held_until {
            Some(Cause::StepFailed)
        } else if self.flapping() {
            Some(Cause::Flapping)
        } else if self.lacks(now) && self.owned().is_none() {
            // An owner proves itself by serving.
            Some(Cause::NotReady)
        } else if !self.may_serve() {
            // Last: one that says so could own the group as soon as it is enlisted.
            Some(Cause::Spare)
        } else {
            None
        }
    }

    /// Whether this host lacks something that the group's profile asks for. It then goes last, or
    /// where the policy says so not at all: there it has to be said again within [`PROOF_LASTS`], or
    /// whoever compares hangs and nobody knows.
    pub fn on_readiness(&mut self, ready: bool, now: BootTime) {
        self.turn(now);
        self.unready = !ready;
        self.proven_until = if ready { now.after(PROOF_LASTS) } else { now };
    }

    fn lacks(&self, now: BootTime) -> bool {
        self.unready || (!self.settings.promote_unready && now >= self.proven_until)
    }

    /// What this member abstains for went wrong since it has its role.
    pub(super) fn failed_as_owner(&self) -> bool {
        self.held_until >= self.since.after(HOLD_AFTER_FAILURE)
    }

    pub(super) fn runs(&self, unit: &Name) -> bool {
        self.units.get(unit) == Some(&true)
    }

    pub(super) fn cold_units(&self) -> impl Iterator<Item = &Name> {
        let cold = self
            .settings
            .units
            .iter()
            .filter(|unit| unit.mode == UnitMode::Cold);
        cold.map(|unit| &unit.name)
    }

    pub(super) fn has_cold_units(&self) -> bool {
        self.cold_units().next().is_some()
    }

    /// Where a lease protects the group somebody may own it who cannot be heard: whoever does not
    /// own it runs no cold unit.
    pub(super) fn stop_forgotten(&mut self) {
        if self.lease.is_some() {
            self.stop_leftovers();
        }
    }

    /// A cold unit runs on the active alone: what an earlier daemon or an operator left running
    /// beside another host's is stopped.
    pub(super) fn stop_leftovers(&mut self) {
        if !self.stopping && self.cold_units().any(|unit| self.runs(unit)) {
            self.stopping = true;
            self.actions
                .push_back(Action::StopUnits { epoch: self.newest });
        }
    }

    /// Everything that was asked for has come about: nothing holds this member back any more.
    pub(super) fn step_succeeded(&mut self, step: Step) {
        if self.retry.is_some_and(|retry| retry.step == step) {
            self.retry = None;
            self.held_until = BootTime::default();
        }
    }

    pub(super) fn step_failed(&mut self, epoch: Epoch, step: Step, why: String, now: BootTime) {
        self.failure(format!("{step}: {why}"), now);
        let wait = match step {
            Step::DropVips => DROP_AGAIN,
            Step::TakeVips | Step::StartUnits | Step::StopUnits => TRY_AGAIN,
        };
        match step {
            Step::TakeVips | Step::StartUnits if self.active_epoch() == Some(epoch) => {
                self.held_until = now.after(HOLD_AFTER_FAILURE);
            }
            // Its epoch is over, and what the state needs now may have failed before.
            Step::TakeVips | Step::StartUnits => return,
            Step::StopUnits => self.withdraw_offer(now),
            Step::DropVips => {}
        }
        if step == Step::StopUnits && self.retry.is_some_and(|retry| retry.step != step) {
            // What an owner needs is tried again first.
            self.stopping = false;
            return;
        }
        let at = Some(now.after(wait));
        self.retry = Some(Retry { step, epoch, at });
    }

    /// Records a failure, but the same one only now and then: it may repeat for days.
    pub(super) fn failure(&mut self, detail: String, now: BootTime) {
        let known = self.last_failure.as_ref();
        if known.is_some_and(|(last, at)| *last == detail && now.since(*at) < RECORD_AGAIN) {
            return;
        }
        self.last_failure = Some((detail.clone(), now));
        self.record(EventKind::Failure, Some(Cause::StepFailed), detail, now);
    }

    /// Tries a failed step again, if it is due and still wanted.
    pub(super) fn try_again(&mut self, now: BootTime) {
        let due = |retry: &Retry| retry.at.is_some_and(|at| now >= at);
        let Some(Retry { step, epoch, .. }) = self.retry.filter(due) else {
            return;
        };
        self.retry = None;
        let action = match (&self.state, step) {
            (State::Active(active), Step::TakeVips) if active.epoch == epoch => {
                let deadline = active.deadline;
                Action::TakeVips { epoch, deadline }
            }
            (State::Active(active), Step::StartUnits) if active.epoch == epoch => {
                Action::StartUnits { epoch }
            }
            (State::Leaving { epoch: held, .. }, Step::DropVips) if *held == epoch => {
                Action::DropVips { epoch }
            }
            (_, Step::StopUnits) => {
                // Whatever still runs beside the owner's is found again by `stop_leftovers`.
                self.stopping = false;
                return;
            }
            // The epoch it belonged to is over.
            (_, Step::TakeVips | Step::StartUnits | Step::DropVips) => return,
        };
        let at = None;
        self.retry = Some(Retry { step, epoch, at });
        self.actions.push_back(action);
    }

    /// Whether the cold units count: once each was seen to run, one that does not has died.
    pub(super) fn note_running_units(&mut self) {
        let run = self.cold_units().all(|unit| self.runs(unit));
        if let State::Active(active) = &mut self.state
            && active.cold == Cold::Started
            && run
        {
            active.cold = Cold::Run;
        }
    }
}

fn updown(up: bool) -> &'static str {
    if up { "link up" } else { "link down" }
}
