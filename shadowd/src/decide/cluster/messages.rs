//! What the other members say.

use super::action::Action;
use super::group::{Group, State, Then, View};
use super::member::Said;
use crate::facts::{Body, BootTime, Cause, Epoch, EventKind, GroupMessage, Name, Role};

/// Nobody owns a group so often between two heartbeats, not even after years apart.
const EPOCH_LEAP: u64 = 1 << 32;

impl Group {
    /// A member sent `message` at `sent`, on its own clock. A stranger's message, another group's
    /// and one that a newer message of the same member overtook change nothing.
    pub fn on_message(
        &mut self,
        from: &Name,
        sent: BootTime,
        message: &GroupMessage,
        now: BootTime,
    ) {
        let Some(index) = self.members.iter().position(|member| member.name == *from) else {
            return;
        };
        if message.group != self.settings.name || self.members[index].overtaken(sent) {
            return;
        }
        self.turn(now);
        if message.epoch.counter > self.newest.counter.saturating_add(EPOCH_LEAP) {
            // Adopting it could leave no epoch for anybody to claim, and no restart would mend it.
            let from = &self.members[index].name;
            let detail = format!("{from} says epoch {}: not believed", message.epoch.counter);
            self.failure(detail, now);
            return;
        }
        self.heard(index, sent, &message.body, now);
        self.learn_epoch(index, message.epoch, &message.body, now);
        match &message.body {
            Body::Beat { role, .. } => self.on_beat(index, *role, message.epoch, now),
            Body::Resign { cause } => {
                // Said several times, and perhaps overtaken by a heartbeat: the first one counts.
                let unexplained = matches!(
                    self.state,
                    State::Shadow(View::Vacant {
                        cause: Cause::NoActive,
                        ..
                    })
                );
                if (self.follows(index) || unexplained) && message.epoch >= self.newest {
                    self.vacant(*cause, now);
                }
            }
            Body::Offer { to } => {
                if *to == self.me.id && self.follows(index) && self.trouble(now).is_none() {
                    let to = self.members[index].name.clone();
                    let (epoch, body) = (self.newest, Body::Ready);
                    self.actions.push_back(Action::Send { to, epoch, body });
                }
            }
            Body::Ready => self.on_ready(index, now),
            Body::Transfer { to } => self.on_transfer(index, *to, message.epoch, now),
        }
        self.review(now);
    }

    /// Takes down that the member lives, and what it says of itself.
    fn heard(&mut self, index: usize, sent: BootTime, body: &Body, now: BootTime) {
        let member = &mut self.members[index];
        let before = member.said;
        let (role, priority, eligible) = match (body, before) {
            (
                Body::Beat {
                    role,
                    priority,
                    eligible,
                },
                _,
            ) => (*role, *priority, *eligible),
            (Body::Resign { .. } | Body::Transfer { .. }, before) => {
                (Role::Shadow, before.map_or(0, |said| said.priority), false)
            }
            (Body::Offer { .. } | Body::Ready, Some(said)) => {
                (said.role, said.priority, said.eligible)
            }
            (Body::Offer { .. } | Body::Ready, None) => (Role::Shadow, 0, false),
        };
        member.said = Some(Said {
            heard: now,
            sent,
            role,
            priority,
            eligible,
        });
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
        if epoch <= self.newest {
            return;
        }
        self.newest = epoch;
        if let State::Active(active) = &self.state {
            let held = active.epoch;
            let says_it_left = match body {
                Body::Beat { role, .. } => *role != Role::Active,
                Body::Resign { .. } => true,
                // It has named another, who may be taking over right now.
                Body::Transfer { .. } | Body::Offer { .. } | Body::Ready => false,
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
            State::Shadow(View::Vacant { .. }) => {
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
