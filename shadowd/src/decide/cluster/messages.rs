//! What the other members say.

use std::time::Duration;

use super::action::Action;
use super::ballots::longest;
use super::echo::ECHO_AGE;
use super::group::{Group, State, Then, View};
use super::handover::Transfer;
use super::member::Said;
use super::pause::PAUSE_MAX;
use super::voter::{drift_margin, is_absurd};
use crate::facts::{Body, BootTime, Cause, Epoch, EventKind, GroupMessage, Name, Role};

/// Until when a lease is inherited of which `left` remained when its message was sent. That was
/// after `heard`, by this member's clock: counted from there it ends no later than for the voters.
/// The clock that was echoed has drifted since it was read.
fn inherited(left: Duration, heard: Option<BootTime>, now: BootTime) -> Option<BootTime> {
    let left = left.saturating_sub(drift_margin(left) + drift_margin(ECHO_AGE));
    let heard = heard.filter(|heard| *heard <= now);
    heard.map(|heard| heard.after(left))
}

impl Group {
    /// A member or a witness sent `message` at `sent`, on its own clock; it had heard what this
    /// member sent at `heard`, on this member's clock, or later. A stranger's message, another group's
    /// and one that a newer message of the same member overtook change nothing.
    pub fn on_message(
        &mut self,
        from: &Name,
        sent: BootTime,
        message: &GroupMessage,
        heard: Option<BootTime>,
        now: BootTime,
    ) {
        let Some(index) = self.members.iter().position(|member| member.name == *from) else {
            return self.on_witness(from, message, now);
        };
        if message.group != self.settings.name {
            return;
        }
        let overtaken = self.members[index].overtaken(sent);
        self.turn(now);
        if overtaken {
            // A promise says itself what it is for, so it counts in any order.
            if matches!(message.body, Body::Promise { .. }) {
                self.vote(index, sent, message, now);
                self.review(now);
            }
            return;
        }
        if is_absurd(message.epoch, self.newest) {
            let from = &self.members[index].name;
            let detail = format!("{from} says epoch {}: not believed", message.epoch.counter);
            self.failure(detail, now);
            return;
        }
        self.heard(index, sent, &message.body, now);
        self.learn_epoch(index, message.epoch, &message.body, now);
        self.learn_enlistment(index, message, now);
        self.vote(index, sent, message, now);
        match &message.body {
            Body::Beat { role, .. } => self.on_beat(index, *role, message.epoch, now),
            Body::Pause { .. } => self.on_beat(index, Role::Active, message.epoch, now),
            Body::Ask { .. } | Body::Promise { .. } | Body::Refuse { .. } | Body::Withdraw => {}
            Body::Resign { cause } => self.on_resign(index, *cause, message.epoch, now),
            Body::Offer { to } => self.on_offer(index, *to, now),
            Body::Ready { passes_back } => self.on_ready(index, *passes_back, now),
            Body::Transfer {
                to,
                deadline,
                drain,
            } => {
                // No voter promises for longer, whatever the sender says of it.
                let left = deadline.since(sent).min(longest(&self.settings));
                let transfer = Transfer {
                    to: *to,
                    inherited: inherited(left, heard, now),
                    drain: *drain,
                };
                self.on_transfer(index, transfer, message.epoch, now);
            }
        }
        self.review(now);
    }

    /// The daemon of `from` is another run than the one that was heard before: its clock may have
    /// begun anew, so nothing of it was overtaken by what the earlier one said.
    pub fn on_peer_began(&mut self, from: &Name, now: BootTime) {
        self.turn(now);
        let member = self.members.iter_mut().find(|member| member.name == *from);
        if let Some(said) = member.and_then(|member| member.said.as_mut()) {
            said.sent = BootTime::default();
        }
    }

    fn on_resign(&mut self, from: usize, cause: Cause, epoch: Epoch, now: BootTime) {
        // Said several times, and perhaps overtaken by a heartbeat: the first one counts.
        let unexplained = matches!(
            self.state,
            State::Shadow(View::Vacant {
                cause: Cause::NoActive,
                ..
            })
        );
        if (self.follows(from) || unexplained) && epoch >= self.newest {
            self.vacant(cause, now);
        }
    }

    /// Takes down that the member lives, and what it says of itself.
    fn heard(&mut self, index: usize, sent: BootTime, body: &Body, now: BootTime) {
        let (listening, irregular) = (self.listening_since, self.irregular());
        let member = &mut self.members[index];
        if matches!(body, Body::Beat { .. }) {
            member.rhythm.beat(now, listening, irregular);
        }
        member.refused = 0;
        let before = member.said;
        let known = Said {
            heard: now,
            sent,
            ..before.unwrap_or_else(|| Said::first(now, sent))
        };
        let said = said(known, body);
        if let Body::Beat { policy, .. } = body {
            // 0: it does not say.
            let differs = ![0, self.policy.definition].contains(&policy.definition);
            self.note_definition(index, differs, now);
            self.learn_policy(index, policy, now);
        }
        let member = &mut self.members[index];
        let role = said.role;
        member.said = Some(said);
        let back = std::mem::replace(&mut member.suspected, false) || before.is_none();
        let settled = role != Role::Active && std::mem::replace(&mut member.contested, false);
        if back {
            let name = self.members[index].name.to_string();
            self.record(EventKind::PeerHeard, None, name, now);
        }
        // While two answered for the addresses, clients and switches may have learnt the loser.
        if settled && let Some(epoch) = self.active_epoch() {
            self.actions.push_back(Action::Announce { epoch });
        }
    }

    fn learn_epoch(&mut self, index: usize, epoch: Epoch, body: &Body, now: BootTime) {
        let asked = match body {
            // Wanted, or somebody else's.
            Body::Ask { .. } | Body::Promise { .. } | Body::Refuse { .. } | Body::Withdraw => true,
            Body::Beat { .. }
            | Body::Resign { .. }
            | Body::Transfer { .. }
            | Body::Offer { .. }
            | Body::Pause { .. }
            | Body::Ready { .. } => false,
        };
        if epoch <= self.newest || asked {
            return;
        }
        self.newest = epoch;
        if self.lease.is_some() {
            return self.learn_epoch_of_lease(epoch, now);
        }
        if let State::Active(active) = &self.state {
            let held = active.epoch;
            let says_it_left = match body {
                Body::Beat { role, .. } => *role != Role::Active,
                Body::Resign { .. } => true,
                // It has named another, who may be taking over right now.
                Body::Transfer { .. }
                | Body::Offer { .. }
                | Body::Pause { .. }
                | Body::Ready { .. }
                | Body::Ask { .. }
                | Body::Promise { .. }
                | Body::Refuse { .. }
                | Body::Withdraw => false,
            };
            let owner_left = epoch.owner == self.members[index].id && says_it_left;
            if owner_left || epoch.owner == self.me.id {
                // Nobody else owns the newer epoch any more: own the group anew, above it.
                self.claim(Cause::NoActive, now);
            } else {
                self.leave(held, Then::Yield, Cause::NewerEpoch, now);
            }
        }
    }

    /// Where leases protect the group, who holds one knows that nobody else does: a newer epoch was
    /// asked for in vain, or is an old owner's, and is risen above. An owner whose lease has lapsed
    /// knows nothing of the kind, and yields.
    fn learn_epoch_of_lease(&mut self, epoch: Epoch, now: BootTime) {
        if let State::Shadow(View::Asking(asking)) = self.state
            && epoch >= asking.epoch
        {
            // What is asked for is used up: ask again, above it.
            let claim_at = now.after(self.settings.heartbeat);
            let cause = asking.cause;
            self.enter(State::Shadow(View::Vacant { cause, claim_at }), cause, now);
        }
        self.raise_or_yield(epoch, now);
    }

    fn on_beat(&mut self, index: usize, role: Role, epoch: Epoch, now: BootTime) {
        // Only the owner of the newest epoch is believed to be active.
        let is_owner =
            role == Role::Active && epoch.owner == self.members[index].id && epoch == self.newest;
        match &self.state {
            State::Joining { .. } => {
                if is_owner {
                    self.follow(index, Cause::Joined, now);
                }
            }
            State::Shadow(View::Follows { member, .. }) => {
                if is_owner && *member != index {
                    self.follow(index, Cause::NewerEpoch, now);
                } else if *member == index && role != Role::Active {
                    // It left without a word that arrived: its last words may still come, and
                    // name another, so nobody takes its place at once.
                    self.vacant_after_grace(Cause::NoActive, now);
                }
            }
            State::Shadow(View::Vacant { .. } | View::Asking(_)) => {
                if is_owner {
                    self.follow(index, Cause::Joined, now);
                }
            }
            State::Active(_) => {
                if role == Role::Active {
                    self.members[index].contested = true;
                }
            }
            State::Leaving { .. } | State::Stopped => {}
        }
    }

    pub(super) fn follow(&mut self, member: usize, cause: Cause, now: BootTime) {
        self.last_words = None;
        self.enter(
            State::Shadow(View::Follows { member, since: now }),
            cause,
            now,
        );
    }

    pub(super) fn follows(&self, index: usize) -> bool {
        matches!(self.state, State::Shadow(View::Follows { member, .. }) if member == index)
    }
}

/// What a member says of itself with this, beside what is known of it.
fn said(known: Said, body: &Body) -> Said {
    match body {
        Body::Beat {
            role,
            priority,
            eligible,
            lease,
            policy,
            ..
        } => Said {
            role: *role,
            priority: *priority,
            eligible: *eligible,
            lease: *lease,
            reason: policy.reason,
            paused: Duration::ZERO,
            loan: policy.loan,
            ..known
        },
        Body::Pause { silent, .. } => Said {
            role: Role::Active,
            loan: None,
            paused: (*silent).min(PAUSE_MAX),
            ..known
        },
        Body::Resign { .. } | Body::Transfer { .. } => Said {
            role: Role::Shadow,
            eligible: false,
            reason: None,
            paused: Duration::ZERO,
            loan: None,
            ..known
        },
        Body::Offer { .. }
        | Body::Ready { .. }
        | Body::Ask { .. }
        | Body::Promise { .. }
        | Body::Refuse { .. }
        | Body::Withdraw => known,
    }
}
