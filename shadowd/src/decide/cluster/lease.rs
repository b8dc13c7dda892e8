//! The lease: the right to own the group until a deadline, as promised by a majority of voters.
//!
//! Members and witnesses vote. A candidate asks all of them for an epoch; an owner's heartbeats ask
//! again in the epoch it owns. Each promise that comes back lasts, on this member's clock, from
//! when the request left for as long as was promised, less the margin for drifting clocks
//! ([`super::voter`]). The deadline is what the majority's promises have in common; this member's
//! own vote is its own while it holds or wants the lease.
//!
//! Two majorities share a voter, and that voter promises to one at a time: so two members never
//! hold a lease at the same instant, however wrong either is about the other.
//!
//! A group without protection has no voters; nothing here limits it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::group::{Group, State, Then, View};
use super::voter::drift_margin;
use crate::facts::{Body, BootTime, Cause, Epoch, EventKind, HostId};

/// An owner that is starved asks for so many times the configured lease. The death of a starved host
/// may be noticed later: nobody is served well by it.
const STARVED_STRETCH: u32 = 2;

/// An ask that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asking {
    pub cause: Cause,
    pub epoch: Epoch,
    /// Given back after this.
    pub until: BootTime,
    /// Who refused may be asked again from then on.
    pub again: BootTime,
}

impl Group {
    /// How long the lease is that this member asks for: 0 where there is none.
    pub(super) fn wanted_lease(&self) -> Duration {
        self.lease
            .as_ref()
            .map_or(Duration::ZERO, |lease| lease.length.wanted())
    }

    /// This process did not run for `late`: from now on a lease outlasts as much, and the time until
    /// answers come, for a while. What happens before this member could own the group teaches
    /// nothing: a daemon that starts has more to do than it will have.
    pub(super) fn ran_late(&mut self, late: Duration, now: BootTime) {
        if !matches!(self.state, State::Joining { .. }) {
            self.stretch_lease(late + self.settings.heartbeat, now);
        }
    }

    /// Threads of this host wait long for their turns, and sooner or later this one does: for a lock, a
    /// page, a processor that is taken away. Waiting for the first time would move the group.
    pub(super) fn expect_to_run_late(&mut self, now: BootTime) {
        self.stretch_lease(self.settings.lease * STARVED_STRETCH, now);
    }

    fn stretch_lease(&mut self, needed: Duration, now: BootTime) {
        if let Some(lease) = &mut self.lease {
            lease.length.trouble(needed, now);
        }
    }

    /// Until when this host may answer for the addresses: none where nothing limits it, the past
    /// while it does not own the group.
    pub fn may_answer_until(&self) -> Option<BootTime> {
        let lease = self.lease.as_ref()?;
        Some(match &self.state {
            State::Active(active) => active.deadline.unwrap_or_default(),
            State::Leaving { .. } => lease.deadline(),
            State::Joining { .. } | State::Shadow(_) | State::Stopped => BootTime::default(),
        })
    }

    /// Asks the voters for the next epoch. The own vote may still be somebody else's.
    pub(super) fn ask(&mut self, cause: Cause, now: BootTime) {
        let (newest, owner, wanted) = (self.newest, self.me.id, self.wanted_lease());
        let patience = self.settings.suspect_after;
        let Some(lease) = &mut self.lease else { return };
        let Some(epoch) = lease.next(newest.max(lease.own.newest()), owner) else {
            return; // as in `claim`
        };
        if let Err(refused) = lease.own.promise(epoch, wanted, now) {
            let claim_at = now.after(refused.wait.max(Duration::from_nanos(1)));
            self.state = State::Shadow(View::Vacant { cause, claim_at });
            return;
        }
        lease.forget();
        self.state = State::Shadow(View::Asking(Asking {
            cause,
            epoch,
            until: now.after(patience * 2),
            again: now.after(self.settings.heartbeat),
        }));
        self.send_asks(epoch, now, true);
    }

    /// The time of the ask under way has come: again, or enough of it.
    pub(super) fn review_asking(&mut self, asking: Asking, now: BootTime) {
        let cause = asking.cause;
        if self.claim_time(now, now).is_none() {
            self.vacant(cause, now);
        } else if now >= asking.until {
            // Whoever is better goes first now; one that stands alone tries again soon.
            let claim_at = now.after(self.settings.suspect_after * (1 + self.rank()));
            self.enter(State::Shadow(View::Vacant { cause, claim_at }), cause, now);
        } else if now >= asking.again {
            let again = now.after(self.settings.heartbeat);
            self.state = State::Shadow(View::Asking(Asking { again, ..asking }));
            self.send_asks(asking.epoch, now, false);
        }
    }

    fn send_asks(&mut self, epoch: Epoch, now: BootTime, all: bool) {
        let wanted = self.wanted_lease();
        let Some(lease) = &mut self.lease else { return };
        let _ = lease.own.promise(epoch, wanted, now);
        let body = Body::Ask {
            lease: wanted,
            electorate: lease.electorate,
        };
        for ballot in lease.voters().filter(|ballot| all || ballot.until <= now) {
            let (to, body) = (ballot.name.clone(), body.clone());
            self.actions.push_back(Action::Send { to, epoch, body });
        }
    }

    /// Gives back what was promised for an ask that failed.
    pub(super) fn withdraw(&mut self, asking: Asking) {
        let Some(lease) = &mut self.lease else { return };
        lease.own.release(asking.epoch);
        lease.forget();
        self.send_to_voters(&Body::Withdraw, asking.epoch);
    }

    /// A voter keeps others out for this member, from when `sent` left here.
    pub(super) fn on_promise(
        &mut self,
        voter: usize,
        epoch: Epoch,
        sent: BootTime,
        promised: Duration,
        now: BootTime,
    ) {
        let wanted = match &self.state {
            State::Active(active) => active.epoch,
            State::Leaving { epoch, .. } => *epoch,
            State::Shadow(View::Asking(asking)) => asking.epoch,
            State::Joining { .. } | State::Shadow(_) | State::Stopped => return,
        };
        let promised = promised.min(self.longest_promise());
        let Some(lease) = &mut self.lease else { return };
        // What it says to have answered must have been sent, and in this very epoch.
        if epoch != wanted || sent > now {
            return;
        }
        let until = sent.after(promised.saturating_sub(drift_margin(promised)));
        let ballot = &mut lease.ballots[voter];
        ballot.until = ballot.until.max(until);
        ballot.heard = Some(now);
        let lost = lease.answers.on_answer(voter, sent, lease.needed());
        lease.losses(lost, self.settings.heartbeat, now);
        let deadline = lease.deadline();
        match &mut self.state {
            State::Shadow(View::Asking(asking)) => {
                let asking = *asking;
                if now < deadline && self.claim_time(now, now).is_some() {
                    self.own(asking.epoch, Some(deadline), asking.cause, now);
                }
            }
            State::Active(active) => {
                let lapsed = active.deadline.is_some_and(|deadline| deadline <= now);
                // Promises only extend what holds, also what was inherited.
                active.deadline = active.deadline.max(Some(deadline));
                if lapsed && now < deadline {
                    self.lease_regained(now);
                }
            }
            State::Joining { .. } | State::Shadow(_) | State::Leaving { .. } | State::Stopped => {}
        }
    }

    /// A voter keeps this member out: for somebody else, or because it knows a newer epoch.
    pub(super) fn on_refusal(&mut self, voter: usize, epoch: Epoch, wait: Duration, now: BootTime) {
        let Some(lease) = &mut self.lease else { return };
        lease.ballots[voter].heard = Some(now);
        let lost = lease.answers.on_refusal(voter, lease.needed());
        lease.losses(lost, self.settings.heartbeat, now);
        match &mut self.state {
            State::Shadow(View::Asking(asking)) => {
                if wait.is_zero() {
                    if epoch < asking.epoch {
                        return; // it answers an earlier ask
                    }
                    // This number is used up; the next one is above what the voter knows.
                    lease.asked = lease.asked.max(epoch.counter);
                    let claim_at = now.after(self.settings.heartbeat);
                    let cause = asking.cause;
                    self.enter(State::Shadow(View::Vacant { cause, claim_at }), cause, now);
                } else {
                    asking.again = asking.again.min(now.after(wait));
                }
            }
            State::Active(active) => {
                let holds = active.deadline.is_none_or(|deadline| now < deadline);
                // Until the promise of another runs out, who holds the lease has no need of this voter.
                if epoch > active.epoch && (wait.is_zero() || !holds) {
                    self.newest = self.newest.max(epoch);
                    self.raise_or_yield(epoch, now);
                }
            }
            State::Joining { .. } | State::Shadow(_) | State::Leaving { .. } | State::Stopped => {}
        }
    }

    /// This owner learns of an epoch above its own.
    pub(super) fn raise_or_yield(&mut self, newer: Epoch, now: BootTime) {
        let State::Active(active) = &self.state else {
            return;
        };
        let held = active.epoch;
        let holds = active.deadline.is_none_or(|deadline| now < deadline);
        if holds || newer.owner == self.me.id {
            self.raise(now);
        } else {
            self.leave(held, Then::Yield, Cause::NewerEpoch, now);
        }
    }

    /// An owner goes on in an epoch above every one known. What was promised to it stays.
    pub(super) fn raise(&mut self, now: BootTime) {
        let owner = self.me.id;
        let State::Active(active) = &self.state else {
            return;
        };
        let (deadline, newest) = (active.deadline, self.newest);
        let Some(lease) = &mut self.lease else { return };
        let Some(epoch) = lease.next(newest.max(lease.own.newest()), owner) else {
            return;
        };
        self.own(epoch, deadline, Cause::NoActive, now);
    }

    /// Looks whether the lease ran out, and for how long.
    pub(super) fn review_lease(&mut self, now: BootTime) {
        let State::Active(active) = &mut self.state else {
            return;
        };
        let Some(deadline) = active.deadline.filter(|deadline| *deadline <= now) else {
            return;
        };
        let epoch = active.epoch;
        if !std::mem::replace(&mut active.lapsed, true) {
            let detail = format!(
                "no majority since {:.1} ms",
                now.since(deadline).as_secs_f64() * 1e3
            );
            self.record(EventKind::LeaseLapsed, Some(Cause::LeaseLost), detail, now);
            if self.listening_since < deadline {
                // This process ran all the time: answers were lost.
                self.stretch_lease(self.wanted_lease() * 2, now);
            }
        }
        // Where no kernel silences the addresses they have to go at once.
        if !self.settings.guard || now.since(deadline) >= self.grace() {
            // Cold units may run elsewhere by now.
            self.leave(epoch, Then::Resign(Cause::LeaseLost), Cause::LeaseLost, now);
        }
    }

    fn lease_regained(&mut self, now: BootTime) {
        let State::Active(active) = &mut self.state else {
            return;
        };
        let epoch = active.epoch;
        if std::mem::replace(&mut active.lapsed, false) {
            self.record(
                EventKind::LeaseHeld,
                None,
                "a majority answers again".to_owned(),
                now,
            );
        }
        // Neighbours may have given up on the addresses meanwhile.
        self.actions.push_back(Action::Announce { epoch });
    }

    /// What this member was promised is `to`'s now, who counts on it until `deadline` at most.
    pub(super) fn transfer_lease(
        &mut self,
        epoch: Epoch,
        to: HostId,
        deadline: BootTime,
        now: BootTime,
    ) {
        if let Some(lease) = &mut self.lease {
            lease.own.hand_on(epoch, to, deadline, now);
            lease.forget();
        }
    }

    /// Owns the group with what is left of the lease of who owned it in `epoch`; whether it can.
    pub(super) fn inherit(
        &mut self,
        epoch: Epoch,
        inherited: Option<BootTime>,
        now: BootTime,
    ) -> bool {
        let Some(deadline) = inherited.filter(|deadline| now < *deadline) else {
            return false;
        };
        // The voters keep everybody else out of the next epoch, and of no other.
        let Some(counter) = epoch
            .counter
            .checked_add(1)
            .filter(|_| epoch == self.newest)
        else {
            return false;
        };
        let owner = self.me.id;
        let Some(lease) = &mut self.lease else {
            return false;
        };
        // What was said of an epoch that was asked for and given back may still be on its way.
        if counter <= lease.asked {
            return false;
        }
        lease.asked = counter;
        lease.forget();
        self.own(
            Epoch { counter, owner },
            Some(deadline),
            Cause::Handover,
            now,
        );
        true
    }

    /// The lease is not needed any more: others may have it at once.
    pub(super) fn release_lease(&mut self, epoch: Epoch) {
        if let Some(lease) = &mut self.lease {
            lease.own.release(epoch);
            lease.forget();
        }
    }

    pub(super) fn send_to_voters(&mut self, body: &Body, epoch: Epoch) {
        let Some(lease) = &self.lease else { return };
        for ballot in lease.voters() {
            let (to, body) = (ballot.name.clone(), body.clone());
            self.actions.push_back(Action::Send { to, epoch, body });
        }
    }

    /// A heartbeat, or last words, go to the witnesses too.
    pub(super) fn send_to_witnesses(&mut self, body: &Body, epoch: Epoch) {
        let Some(lease) = &self.lease else { return };
        for ballot in lease.ballots.iter().filter(|ballot| ballot.witness) {
            let (to, body) = (ballot.name.clone(), body.clone());
            self.actions.push_back(Action::Send { to, epoch, body });
        }
    }
}
