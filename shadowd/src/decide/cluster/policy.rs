//! What bounds automatic failover: maintenance, freeze, failback, the flap budget.
//!
//! None of it makes anybody an owner: it only keeps a member from claiming, or begins a handover
//! that a lease and its voters decide upon like any other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::flap::Flap;
use super::group::{Group, State, View};
use super::handover::Refusal;
use super::loan::Loan;
use crate::facts::{
    BootTime, BorrowedStatus, Cause, Enlistment, EventKind, FailbackStatus, Name, OrderStatus,
    PolicyMemory, PolicyOrder, PolicyStatus, PolicyWord, RememberedOrder,
};

/// A handover that came to nothing is tried again after so many suspicion times.
const AGAIN: u32 = 100;
/// Members miss no more orders than that.
const ORDER_LEAP: u64 = 1 << 40;
/// The longest freeze that fits into a heartbeat: 49 days.
const FREEZE_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// An order that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Order {
    /// None: until it is ended.
    until: Option<BootTime>,
    reason: String,
}

impl Order {
    fn holds(&self, now: BootTime) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    fn remembered(&self, now: BootTime) -> RememberedOrder {
        let left = self.until.map(|until| until.since(now));
        RememberedOrder {
            left_ms: left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            reason: self.reason.clone(),
        }
    }

    fn restored(remembered: RememberedOrder, elapsed: Duration, now: BootTime) -> Option<Self> {
        let left = remembered.left_ms.map(Duration::from_millis);
        let left = left.map(|left| left.saturating_sub(elapsed));
        (left != Some(Duration::ZERO)).then(|| Self {
            until: left.map(|left| now.after(left)),
            reason: remembered.reason,
        })
    }

    fn status(&self) -> OrderStatus {
        OrderStatus {
            until: self.until,
            reason: self.reason.clone(),
        }
    }
}

/// What bounds automatic failover of one group on this member.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Policy {
    maintenance: Option<Order>,
    /// The newest order to freeze or unfreeze; what it says is `freeze`.
    freeze_order: u64,
    freeze: Option<Order>,
    flap: Flap,
    /// `failback_window` is open, by the word of whoever has a wall clock.
    window_open: bool,
    /// No handover is begun by itself before then.
    next_handover: BootTime,
    /// Whose idea the offer under way was.
    pub offered_for: Option<Cause>,
    /// Digest of the group's addresses and members.
    pub definition: u32,
    /// The newest word of an owner of which spares are enlisted.
    pub enlisted: Enlistment,
    /// Counts what is worth remembering over a restart.
    pub changes: u64,
    /// The last live drill that began here.
    pub loan: Option<Loan>,
}

impl Group {
    /// Whether `failback_window` is open now: the core has no wall clock.
    pub fn on_failback_window(&mut self, open: bool, now: BootTime) {
        self.policy.window_open = open;
        self.turn(now);
        self.review(now);
    }

    /// An operator's order. Returns whom the group is being handed to because of it.
    ///
    /// # Errors
    /// Maintenance of an owner that nobody could relieve, unless it is forced; a live drill that
    /// cannot begin, or does not go on: nothing changed.
    pub fn on_order(&mut self, order: PolicyOrder, now: BootTime) -> Result<Option<Name>, Refusal> {
        self.turn(now);
        let mut to = None;
        match order {
            PolicyOrder::MaintenanceOn {
                span,
                reason,
                force,
            } => to = self.begin_maintenance(span, reason, force, now)?,
            PolicyOrder::MaintenanceOff => self.end_maintenance("ended by an operator", now),
            PolicyOrder::Freeze { span, reason } => {
                let span = span.min(FREEZE_MAX);
                let until = Some(now.after(span));
                let detail = format!("frozen for {} s: {reason}", span.as_secs());
                self.set_freeze(
                    self.next_freeze(),
                    Some(Order { until, reason }),
                    detail,
                    now,
                );
            }
            PolicyOrder::Unfreeze => {
                let detail = "not frozen any more: by an operator".to_owned();
                self.set_freeze(self.next_freeze(), None, detail, now);
            }
            PolicyOrder::Lend {
                tag,
                to: wanted,
                span,
                patience,
            } => to = Some(self.lend(wanted.as_ref(), Loan::new(tag, span, patience), now)?),
            PolicyOrder::Recall => to = self.recall(now)?,
        }
        // The others know at once.
        self.beat();
        self.review(now);
        Ok(to)
    }

    fn begin_maintenance(
        &mut self,
        span: Option<Duration>,
        reason: String,
        force: bool,
        now: BootTime,
    ) -> Result<Option<Name>, Refusal> {
        let mut to = None;
        if let State::Active(active) = &self.state {
            to = match &active.offer {
                Some(offer) => Some(self.members[offer.to].name.clone()),
                None => match self.offer(None, Cause::Maintenance, now) {
                    Ok(to) => Some(to),
                    Err(_) if force => None,
                    Err(refusal) => return Err(refusal),
                },
            };
        }
        let until = span.map(|span| now.after(span));
        let detail = match (&to, self.owned()) {
            (Some(to), _) => format!("on, hands the group to {to}: {reason}"),
            (None, Some(_)) => format!("on, owns the group until another could: {reason}"),
            (None, None) => format!("on: {reason}"),
        };
        self.policy.maintenance = Some(Order { until, reason });
        self.policy.changes += 1;
        self.record(
            EventKind::Maintenance,
            Some(Cause::Maintenance),
            detail,
            now,
        );
        Ok(to)
    }

    fn end_maintenance(&mut self, why: &str, now: BootTime) {
        if self.policy.maintenance.take().is_some() {
            self.policy.changes += 1;
            self.record(EventKind::Maintenance, None, format!("off: {why}"), now);
        }
    }

    /// Above every order that is known, and never another member's number.
    fn next_freeze(&self) -> u64 {
        let [high, low, ..] = *self.me.id.as_bytes();
        let count = (self.policy.freeze_order >> 16).wrapping_add(1);
        count << 16 | u64::from(u16::from_be_bytes([high, low]))
    }

    fn set_freeze(&mut self, order: u64, freeze: Option<Order>, detail: String, now: BootTime) {
        self.policy.freeze_order = order;
        self.policy.freeze = freeze;
        self.policy.changes += 1;
        self.record(EventKind::Freeze, None, detail, now);
    }

    /// A member's heartbeat tells the newest order to freeze that it knows.
    pub(super) fn learn_policy(&mut self, from: usize, word: &PolicyWord, now: BootTime) {
        let known = self.policy.freeze_order;
        // A leap could leave no number for the next order.
        if word.freeze_order <= known || word.freeze_order - known > ORDER_LEAP {
            return;
        }
        let left = Duration::from_millis(u64::from(word.freeze_left_ms));
        let name = self.members[from].name.clone();
        let (freeze, detail) = if left.is_zero() {
            (None, format!("not frozen any more: by the word of {name}"))
        } else {
            let detail = format!("frozen for {} s, by the word of {name}", left.as_secs());
            let (until, reason) = (Some(now.after(left)), String::new());
            (Some(Order { until, reason }), detail)
        };
        self.set_freeze(word.freeze_order, freeze, detail, now);
    }

    /// What this member says of it with each heartbeat.
    pub(super) fn policy_word(&self, now: BootTime) -> PolicyWord {
        let freeze = self.policy.freeze.as_ref().and_then(|freeze| freeze.until);
        let left = freeze.map_or(Duration::ZERO, |until| until.since(now));
        PolicyWord {
            definition: self.policy.definition,
            reason: self.trouble(now),
            freeze_order: self.policy.freeze_order,
            freeze_left_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            loan: self.policy.loan.as_ref().and_then(Loan::word),
            enlisted: self.policy.enlisted,
        }
    }

    pub(super) fn in_maintenance(&self, now: BootTime) -> bool {
        let order = self.policy.maintenance.as_ref();
        order.is_some_and(|order| order.holds(now))
    }

    pub(super) fn flapping(&self) -> bool {
        self.policy.flap.held()
    }

    pub(super) fn frozen(&self, now: BootTime) -> bool {
        let order = self.policy.freeze.as_ref();
        order.is_some_and(|order| order.holds(now))
    }

    /// Whether a freeze keeps this member from claiming: not what completes an operator's handover,
    /// and not whom the group was frozen with.
    pub(super) fn frozen_out(&self, now: BootTime) -> bool {
        let ordered = match &self.state {
            State::Shadow(View::Vacant { cause, .. }) => *cause == Cause::Handover,
            State::Shadow(View::Asking(asking)) => asking.cause == Cause::Handover,
            State::Shadow(View::Follows { .. })
            | State::Joining { .. }
            | State::Active(_)
            | State::Leaving { .. }
            | State::Stopped => false,
        };
        self.frozen(now) && !ordered && self.newest.owner != self.me.id
    }

    /// Whether an owner with this trouble gives the group up at once, without a handover.
    pub(super) fn gives_up_for(&self, trouble: Cause, now: BootTime) -> bool {
        let orderly = matches!(
            trouble,
            Cause::Maintenance | Cause::Flapping | Cause::DefinitionDiffers
        );
        // Whoever is held back is still better than an owner that cannot serve; but not than one that
        // only abstained for a step that failed before, and owns the group because all others do.
        let abstained = trouble == Cause::StepFailed && !self.failed_as_owner();
        // And so is whoever lacks something, where the policy lets it own the group at all.
        let better = |member: &super::member::Member| {
            let lacks = self.settings.promote_unready && member.abstains_for(Cause::NotReady);
            member.ready() || ((member.holds_back() || lacks) && !abstained)
        };
        !orderly && !self.frozen(now) && self.members.iter().any(better)
    }

    /// The group left this member because of `cause`: what was no operator's wish is a flap.
    pub(super) fn left(&mut self, cause: Cause, now: BootTime) {
        self.policy.changes += 1;
        match cause {
            Cause::UnitDied
            | Cause::LinkLost
            | Cause::NewerEpoch
            | Cause::StepFailed
            | Cause::LeaseLost
            | Cause::Unanswered => self.add_penalty(cause, now),
            Cause::ColdStart
            | Cause::Silence
            | Cause::DaemonRefused
            | Cause::DaemonStopped
            | Cause::Handover
            | Cause::NoActive
            | Cause::Joined
            | Cause::Maintenance
            | Cause::Failback
            | Cause::Flapping
            | Cause::Spare
            | Cause::DefinitionDiffers
            | Cause::NotReady
            | Cause::Drill => {}
        }
    }

    fn add_penalty(&mut self, cause: Cause, now: BootTime) {
        let flap = &self.settings.policy.flap;
        let begins = self.policy.flap.add(flap, now);
        let points = self.policy.flap.points(flap, now);
        let mut detail = format!("{points:.0}");
        if begins && let Some(until) = self.policy.flap.held_until(flap) {
            let span = until.since(now).as_secs();
            detail = format!("{points:.0}: held back for {span} s while another member could own");
        }
        self.record(EventKind::FlapPenalty, Some(cause), detail, now);
    }

    /// Ends what has run out.
    pub(super) fn review_policy(&mut self, now: BootTime) {
        let over = |order: &Option<Order>| order.as_ref().is_some_and(|order| !order.holds(now));
        if over(&self.policy.maintenance) {
            self.end_maintenance("its time is over", now);
        }
        if over(&self.policy.freeze) {
            let order = self.policy.freeze_order;
            let detail = "not frozen any more: its time is over".to_owned();
            self.set_freeze(order, None, detail, now);
        }
        if self.policy.flap.ease(&self.settings.policy.flap, now) {
            self.policy.changes += 1;
            let detail = "not held back any more".to_owned();
            self.record(EventKind::FlapPenalty, None, detail, now);
        }
        for member in &mut self.members {
            let ready = member.ready();
            member.ready_since = member
                .ready_since
                .filter(|_| ready)
                .or(ready.then_some(now));
        }
    }

    /// Whether an owner should hand the group over by itself; begins it.
    pub(super) fn review_handover(&mut self, now: BootTime) {
        let State::Active(active) = &self.state else {
            return;
        };
        if active.offer.is_some() || self.frozen(now) || now < self.policy.next_handover {
            return;
        }
        let (to, cause) = if self.in_maintenance(now) {
            (None, Cause::Maintenance)
        } else if let Some((lender, back)) = self.lender() {
            if !back {
                return;
            }
            (Some(lender.clone()), Cause::Drill)
        } else {
            match self.failback_to() {
                Some((member, at)) if self.policy.window_open && at <= now => {
                    (Some(self.members[member].name.clone()), Cause::Failback)
                }
                Some(_) | None => return,
            }
        };
        if self.offer(to.as_ref(), cause, now).is_ok() {
            self.policy.next_handover = now.after(self.settings.suspect_after * AGAIN);
        }
    }

    /// The member that gets the group back, and when at the earliest: it was ready for long enough,
    /// and this one owned the group for as long.
    fn failback_to(&self) -> Option<(usize, BootTime)> {
        let wait = self.settings.policy.failback?;
        let State::Active(_) = &self.state else {
            return None;
        };
        // A live drill has an end of its own.
        if self.lender().is_some() {
            return None;
        }
        let better = |index: &usize| {
            let member = &self.members[*index];
            let better = self.settings.spare || member.priority() > self.settings.priority;
            member.ready() && !member.spare && better
        };
        let best = (0..self.members.len())
            .filter(better)
            .min_by_key(|index| self.key_of(*index))?;
        let since = self.members[best].ready_since?.max(self.since);
        Some((best, since.after(wait)))
    }

    /// What a restart should not forget, as of `now`.
    pub fn remembered(&self, now: BootTime) -> PolicyMemory {
        let (policy, flap) = (&self.policy, &self.settings.policy.flap);
        let holding = |order: &Option<Order>| {
            let order = order.as_ref().filter(|order| order.holds(now));
            order.map(|order| order.remembered(now))
        };
        PolicyMemory {
            maintenance: holding(&policy.maintenance),
            freeze_order: policy.freeze_order,
            freeze: holding(&policy.freeze),
            penalty: policy.flap.points(flap, now),
            held: policy.flap.held(),
            owner: self.active_epoch().is_some(),
            loan: policy.loan.as_ref().and_then(|loan| loan.remembered(now)),
            enlisted: policy.enlisted,
        }
    }

    /// Changes with everything that [`Self::remembered`] tells, but for what passes with time.
    pub fn policy_changes(&self) -> u64 {
        self.policy.changes
    }

    /// Takes up what an earlier daemon of this member remembered, `elapsed` ago.
    pub fn restore(&mut self, memory: PolicyMemory, elapsed: Duration, now: BootTime) {
        let taken_up = |order: Option<RememberedOrder>| {
            order.and_then(|order| Order::restored(order, elapsed, now))
        };
        let flap = &self.settings.policy.flap;
        self.policy.maintenance = taken_up(memory.maintenance);
        self.policy.freeze = taken_up(memory.freeze);
        self.policy.freeze_order = memory.freeze_order;
        self.policy.enlisted = self.policy.enlisted.max(memory.enlisted);
        self.policy.flap = Flap::restored(memory.penalty, memory.held, elapsed, flap, now);
        let loan = memory.loan;
        self.policy.loan = loan.map(|loan| Loan::restored(loan, elapsed, now));
        self.policy.changes += 1;
        // An owner that goes on where it paused has lost nothing.
        if memory.owner && self.owned().is_none() {
            self.add_penalty(Cause::Silence, now);
        }
    }

    /// For people.
    pub(super) fn policy_status(&self, now: BootTime) -> PolicyStatus {
        let (policy, flap) = (&self.policy, &self.settings.policy.flap);
        let failback = self.failback_to().filter(|_| !self.frozen(now));
        let holding = |order: &Option<Order>| {
            let order = order.as_ref().filter(|order| order.holds(now));
            order.map(Order::status)
        };
        PolicyStatus {
            reason: self.trouble(now),
            maintenance: holding(&policy.maintenance),
            frozen: holding(&policy.freeze),
            flap_penalty: policy.flap.points(flap, now).round(),
            held_until: policy.flap.held_until(flap),
            failback: failback.map(|(member, not_before)| FailbackStatus {
                to: self.members[member].name.clone(),
                not_before,
                window_open: policy.window_open,
            }),
            differs_from: self.differing().map(|member| member.name.clone()).collect(),
            loan: policy.loan.as_ref().and_then(Loan::status),
            borrowed: self.lender().map(|(from, back)| BorrowedStatus {
                from: from.clone(),
                back,
            }),
        }
    }
}

impl Policy {
    /// What bounds the whole group, without what bounds this member alone.
    pub fn without_own(&self) -> Self {
        Self {
            maintenance: None,
            flap: Flap::default(),
            next_handover: BootTime::default(),
            offered_for: None,
            loan: None,
            ..self.clone()
        }
    }

    /// Nothing bounds a group that has just begun.
    pub fn new(definition: u32, window_open: bool) -> Self {
        Self {
            definition,
            window_open,
            ..Self::default()
        }
    }
}
