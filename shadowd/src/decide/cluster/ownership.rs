//! Taking a group and giving it up.

use std::time::Duration;

use super::action::Action;
use super::ballots::{Lease, longest};
use super::group::{Active, Cold, Group, LAST_WORDS_REPEATS, LastWords, State, Then, View};
use super::health::HOLD_AFTER_FAILURE;
use crate::facts::{Body, BootTime, Cause, Drain, Epoch, EventKind};

/// A vacancy that somebody named is meant to fill is left to him for so many suspicion times.
pub(super) const GRACE: u32 = 10;

impl Group {
    /// Nobody owns the group: the better of the living members go first, one suspicion time apart.
    pub(super) fn vacant(&mut self, cause: Cause, now: BootTime) {
        let claim_at = now.after(self.settings.suspect_after * self.rank());
        self.enter(State::Shadow(View::Vacant { cause, claim_at }), cause, now);
    }

    /// As [`Self::vacant`], but after every member that knows more had its turn.
    pub(super) fn vacant_after_grace(&mut self, cause: Cause, now: BootTime) {
        let turns = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let claim_at = now.after(self.settings.suspect_after * (self.rank() + turns));
        self.enter(State::Shadow(View::Vacant { cause, claim_at }), cause, now);
    }

    /// Nobody owns the group, but another member was named to take it.
    pub(super) fn reserved(&mut self, now: BootTime) {
        let claim_at = now.after(self.grace());
        let cause = Cause::Handover;
        self.enter(State::Shadow(View::Vacant { cause, claim_at }), cause, now);
    }

    pub(super) fn grace(&self) -> Duration {
        self.settings.suspect_after * GRACE
    }

    /// From when this member may claim a vacant group: never while it could not own it. One that
    /// only abstains, after a failed step, for its flap penalty or because it lacks something, goes
    /// after all others, and only if none of them could.
    pub(super) fn claim_time(&self, claim_at: BootTime, now: BootTime) -> Option<BootTime> {
        if self.frozen_out(now) {
            return None;
        }
        match self.trouble(now) {
            None => Some(claim_at),
            Some(Cause::NotReady) if !self.settings.promote_unready => None,
            Some(Cause::StepFailed | Cause::Flapping | Cause::NotReady)
                if !self.members.iter().any(|member| member.can_own()) =>
            {
                Some(claim_at.after(self.grace()))
            }
            Some(_) => None,
        }
    }

    /// How many living members that could own the group come before this one.
    pub(super) fn rank(&self) -> u32 {
        let own = self.key(self.settings.priority, self.me.id);
        let better = self
            .members
            .iter()
            .filter(|member| member.can_own() && self.key(member.priority(), member.id) < own);
        better.count().try_into().unwrap_or(u32::MAX)
    }

    /// Owns the group in an epoch above every one known: at once where nothing protects it, else
    /// when the voters have agreed.
    pub(super) fn claim(&mut self, cause: Cause, now: BootTime) {
        match (&self.lease, &self.state) {
            (Some(_), State::Active(_)) => return self.raise(now),
            (Some(_), _) => return self.ask(cause, now),
            (None, _) => {}
        }
        let Some(counter) = self.newest.counter.checked_add(1) else {
            // 2^64 ownerships do not happen; a member that says so is broken, and nobody claims.
            return;
        };
        let epoch = Epoch {
            counter,
            owner: self.me.id,
        };
        self.own(epoch, None, cause, now);
    }

    /// Owns the group from now on, in `epoch`.
    pub(super) fn own(
        &mut self,
        epoch: Epoch,
        deadline: Option<BootTime>,
        cause: Cause,
        now: BootTime,
    ) {
        let counter = epoch.counter;
        self.begin_redundancy(cause, now);
        self.newest = epoch;
        self.carry_enlistment(epoch);
        self.policy.changes += 1;
        self.last_words = None;
        let cold = match &self.state {
            State::Active(active) => active.cold,
            State::Joining { .. } | State::Shadow(_) | State::Leaving { .. } | State::Stopped => {
                Cold::Down
            }
        };
        self.record(
            EventKind::Claimed,
            Some(cause),
            format!("epoch {counter}"),
            now,
        );
        self.actions.push_back(Action::TakeVips { epoch, deadline });
        self.loan_ends_here(cause, now);
        self.enter(
            State::Active(Active {
                epoch,
                deadline,
                lapsed: false,
                cold,
                offer: None,
            }),
            cause,
            now,
        );
        self.beat();
    }

    pub(super) fn vips_taken(&mut self, taken: Epoch) {
        if self.active_epoch() == Some(taken) && self.has_cold_units() {
            self.actions.push_back(Action::StartUnits { epoch: taken });
        }
    }

    /// Looks whether this owner should go on: it leaves only to somebody who can do better.
    pub(super) fn review_ownership(&mut self, active: &Active, now: BootTime) {
        if let Some(cause) = self.trouble(now)
            && self.gives_up_for(cause, now)
        {
            if cause == Cause::Unanswered {
                // Without clients it looks well at once.
                self.held_until = now.after(HOLD_AFTER_FAILURE);
            }
            self.leave(active.epoch, Then::Resign(cause), cause, now);
        } else if let Some(offer) = &active.offer
            && now >= offer.until
        {
            self.withdraw_offer(now);
        }
    }

    /// Gives the group up: the addresses first, the word to the others once they are gone.
    pub(super) fn leave(&mut self, epoch: Epoch, then: Then, cause: Cause, now: BootTime) {
        let cause = match then {
            Then::Transfer { .. } => self.policy.offered_for.unwrap_or(cause),
            Then::Resign(_) | Then::Yield | Then::Stop => cause,
        };
        self.left(cause, now);
        self.actions.push_back(match then {
            Then::Transfer {
                drain: Some(successor),
                ..
            } => Action::HandOn {
                epoch,
                successor,
                until: now.after(self.settings.drain),
            },
            Then::Transfer { drain: None, .. } | Then::Resign(_) | Then::Yield | Then::Stop => {
                Action::DropVips { epoch }
            }
        });
        self.enter(State::Leaving { epoch, then }, cause, now);
    }

    pub(super) fn vips_dropped(&mut self, dropped: Epoch, now: BootTime) {
        let State::Leaving { epoch, then } = self.state.clone() else {
            return;
        };
        if epoch != dropped {
            return;
        }
        // A transfer stops the cold units before the addresses go; every other way after, because
        // the service is lost or owned elsewhere already and the others need the word first.
        let mut stop_units = self.has_cold_units();
        // What a voter promised for longer it may have forgotten when the successor counts on it.
        let promised = now.after(longest(&self.settings));
        let deadline = self.lease.as_ref().map(Lease::deadline);
        let deadline = deadline.unwrap_or_default().min(promised);
        match then {
            Then::Resign(cause) => {
                self.release_lease(dropped);
                self.last_words(Body::Resign { cause });
                self.vacant_after_grace(cause, now);
            }
            Then::Transfer { to, drain } => {
                stop_units = false;
                let lasts = self.settings.drain;
                let drain = drain.and(self.mac).map(|at| Drain { at, lasts });
                let to = self.members[to].id;
                self.transfer_lease(dropped, to, deadline, now);
                self.last_words(Body::Transfer {
                    to,
                    deadline,
                    drain,
                });
                self.reserved(now);
            }
            Then::Yield => {
                self.release_lease(dropped);
                self.follow_owner(now);
            }
            Then::Stop => {
                self.release_lease(dropped);
                self.last_words(Body::Resign {
                    cause: Cause::DaemonStopped,
                });
                self.enter(State::Stopped, Cause::DaemonStopped, now);
            }
        }
        self.record(
            EventKind::Released,
            None,
            format!("epoch {}", dropped.counter),
            now,
        );
        if stop_units {
            self.actions.push_back(Action::StopUnits { epoch: dropped });
        }
    }

    fn follow_owner(&mut self, now: BootTime) {
        match self
            .members
            .iter()
            .position(|member| member.id == self.newest.owner)
        {
            Some(owner) => self.follow(owner, Cause::NewerEpoch, now),
            None => self.vacant_after_grace(Cause::NoActive, now),
        }
    }

    fn last_words(&mut self, body: Body) {
        let epoch = self.newest;
        self.send_to_all(&body, epoch);
        self.send_to_witnesses(&body, epoch);
        self.last_words = Some(LastWords {
            body,
            epoch,
            left: LAST_WORDS_REPEATS,
        });
    }
}
