//! The planned handover: offer, ready, stop cold units, drop addresses, transfer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::group::{Cold, Group, State, Then};
use crate::facts::{Body, BootTime, Cause, Drain, Epoch, EventKind, HostId, Mac, Name, Role};

/// An offer under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Offer {
    pub to: usize,
    /// Given up after this.
    pub until: BootTime,
    /// The other is ready: the cold units are being stopped.
    pub ready: bool,
    /// Where it is on the link, if connections are to outlast the handover.
    pub successor: Option<Mac>,
}

/// What a former owner leaves to the next one.
pub(super) struct Transfer {
    pub to: HostId,
    /// Until when what is left of its lease lasts.
    pub inherited: Option<BootTime>,
    pub drain: Option<Drain>,
}

/// Why a handover was not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This member does not own the group; `active` does, if anybody.
    NotActive {
        /// The owner.
        active: Option<Name>,
    },
    /// Another handover is under way.
    Busy,
    /// No member of this name, or it is this one.
    NoSuchMember(Name),
    /// The member is silent, or says that its units or its link are down or that it lacks something.
    NotReady(Name),
    /// No other member could own the group now.
    NobodyReady,
    /// No live drill while the group is frozen or this member is in maintenance.
    Ordered,
    /// The group is here for a live drill of another member.
    Borrowed(Name),
    /// No live drill goes on that this member could end.
    NoDrill,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotActive {
                active: Some(active),
            } => {
                write!(f, "this host is not active; ask {active}, which is")
            }
            Self::NotActive { active: None } => f.write_str("this host is not active; no host is"),
            Self::Busy => f.write_str("another handover of this group is under way"),
            Self::NoSuchMember(name) => write!(f, "{name} is not another member of this group"),
            Self::NotReady(name) => {
                write!(
                    f,
                    "{name} could not own the group now: it is silent, its units or its link are down, or it \
                     lacks something of the profile"
                )
            }
            Self::NobodyReady => f.write_str("no other member could own the group now"),
            Self::Ordered => f.write_str("the group is frozen, or this host is in maintenance"),
            Self::Borrowed(from) => write!(f, "the group is here for a live drill of {from}"),
            Self::NoDrill => f.write_str("no live drill of this group goes on here"),
        }
    }
}

impl std::error::Error for Refusal {}

impl Group {
    /// Begins to hand the group over to `to`, or to the member with the highest priority.
    /// Returns who it is. The handover ends with that member active, or with an event that says
    /// why it was given up.
    pub fn hand_over(&mut self, to: Option<&Name>, now: BootTime) -> Result<Name, Refusal> {
        self.turn(now);
        self.offer(to, Cause::Handover, now)
    }

    /// As [`Self::hand_over`]; `cause` says whose idea it was.
    pub(super) fn offer(
        &mut self,
        to: Option<&Name>,
        cause: Cause,
        now: BootTime,
    ) -> Result<Name, Refusal> {
        let State::Active(active) = &self.state else {
            return Err(Refusal::NotActive {
                active: self.active().cloned(),
            });
        };
        if active.offer.is_some() || self.pausing.is_some() {
            return Err(Refusal::Busy);
        }
        let to = self.successor(to)?;
        let name = self.members[to].name.clone();
        let offer = Offer {
            to,
            until: now.after(self.grace()),
            ready: false,
            successor: None,
        };
        if let State::Active(active) = &mut self.state {
            active.offer = Some(offer);
        }
        self.policy.offered_for = Some(cause);
        self.record(
            EventKind::Handover,
            Some(cause),
            format!("offered to {name}"),
            now,
        );
        self.repeat_offer();
        Ok(name)
    }

    /// Sends the offer again while it is not answered: datagrams get lost.
    pub(super) fn repeat_offer(&mut self) {
        if let State::Active(active) = &self.state
            && let Some(offer) = &active.offer
            && !offer.ready
        {
            let member = &self.members[offer.to];
            let (to, body) = (member.name.clone(), Body::Offer { to: member.id });
            self.actions.push_back(Action::Send {
                to,
                epoch: self.newest,
                body,
            });
        }
    }

    fn successor(&self, to: Option<&Name>) -> Result<usize, Refusal> {
        if let Some(name) = to {
            let index = self.members.iter().position(|member| member.name == *name);
            let index = index.ok_or_else(|| Refusal::NoSuchMember(name.clone()))?;
            // An operator may overrule the flap penalty.
            let ready = self.members[index].ready() || self.members[index].holds_back();
            return if ready {
                Ok(index)
            } else {
                Err(Refusal::NotReady(name.clone()))
            };
        }
        (0..self.members.len())
            .filter(|index| self.members[*index].ready())
            .min_by_key(|index| self.key_of(*index))
            .ok_or(Refusal::NobodyReady)
    }

    /// Where this member is on the link of the virtual IPs, as long as the kernel here can pass
    /// packets on to another member; none while it cannot, which ends connections at a handover.
    pub fn on_link_address(&mut self, mac: Option<Mac>) {
        self.mac = mac;
    }

    /// Where this member is, if it takes part in serving connections to their end.
    pub(super) fn passes_back(&self) -> Option<Mac> {
        self.mac.filter(|_| !self.settings.drain.is_zero())
    }

    /// The owner asks `to` to get ready.
    pub(super) fn on_offer(&mut self, from: usize, to: HostId, now: BootTime) {
        if to == self.me.id && self.follows(from) && self.may_take(now) {
            let to = self.members[from].name.clone();
            let epoch = self.newest;
            let body = Body::Ready {
                passes_back: self.passes_back(),
            };
            self.actions.push_back(Action::Send { to, epoch, body });
        }
    }

    /// The offered member said that it is ready.
    pub(super) fn on_ready(&mut self, from: usize, successor: Option<Mac>, now: BootTime) {
        let cold = self.has_cold_units();
        let drain = self.passes_back().and(successor);
        let State::Active(active) = &mut self.state else {
            return;
        };
        let epoch = active.epoch;
        let Some(offer) = &mut active.offer else {
            return;
        };
        if offer.to != from || std::mem::replace(&mut offer.ready, true) {
            return;
        }
        if cold {
            // Stopping may take as long as the units need; the offer no longer lapses.
            offer.until = BootTime::from_nanos(u64::MAX);
            offer.successor = drain;
            active.cold = Cold::Down;
            self.actions.push_back(Action::StopUnits { epoch });
        } else {
            let then = Then::Transfer { to: from, drain };
            self.leave(epoch, then, Cause::Handover, now);
        }
    }

    pub(super) fn units_stopped(&mut self, stopped: Epoch, now: BootTime) {
        let State::Active(active) = &self.state else {
            return;
        };
        if let Some(offer) = &active.offer
            && offer.ready
            && active.epoch == stopped
        {
            let then = Then::Transfer {
                to: offer.to,
                drain: offer.successor,
            };
            self.leave(stopped, then, Cause::Handover, now);
        }
    }

    /// Gives a handover up; cold units that were stopped for it are started again.
    pub(super) fn withdraw_offer(&mut self, now: BootTime) {
        let cold = self.has_cold_units();
        if let State::Active(active) = &mut self.state
            && let Some(offer) = active.offer.take()
        {
            let to = &self.members[offer.to].name;
            let detail = if offer.ready {
                format!("not handed to {to}: the units here do not stop")
            } else {
                format!("not handed to {to}: it did not answer the offer")
            };
            if offer.ready && cold {
                let epoch = active.epoch;
                self.actions.push_back(Action::StartUnits { epoch });
            }
            self.record(EventKind::Handover, Some(Cause::StepFailed), detail, now);
        }
    }

    /// Whether this member takes what another hands it: also with a flap penalty.
    pub(super) fn may_take(&self, now: BootTime) -> bool {
        matches!(self.trouble(now), None | Some(Cause::Flapping))
    }

    /// The owner's addresses are gone and `to` is to own the group.
    pub(super) fn on_transfer(
        &mut self,
        from: usize,
        transfer: Transfer,
        epoch: Epoch,
        now: BootTime,
    ) {
        // Nobody gives away what is another's.
        let owns = epoch.owner == self.members[from].id;
        if !owns || epoch < self.newest || self.role() != Role::Shadow {
            return;
        }
        if transfer.to != self.me.id {
            if self.follows(from) {
                self.reserved(now);
            }
        } else if self.may_take(now) {
            if let Some(drain) = transfer.drain.filter(|_| self.passes_back().is_some()) {
                self.actions.push_back(Action::PassBack {
                    predecessor: drain.at,
                    until: now.after(drain.lasts.min(Drain::LONGEST)),
                });
            }
            if !self.inherit(epoch, transfer.inherited, now) {
                self.claim(Cause::Handover, now);
            }
        }
    }
}
