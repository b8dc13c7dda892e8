//! Spares: who of them is enlisted, and what an owner does to get its shadows back.
//!
//! A spare hears and is heard as a member is, but does not vote, and could own the group only while
//! it is enlisted: the owner says with each heartbeat which spares are. Whoever hears that says it
//! on, with the epoch of the owner, so that one who missed it learns it from others and the next
//! owner goes on with it. A spare believes the word of the newest epoch alone.

use super::action::{Action, Wish};
use super::group::Group;
use super::redundancy::{Loss, Redundancy, State, Step, View, Want, only};
use crate::facts::{
    Body, BootTime, Cause, Enlistment, Epoch, EventKind, GroupMessage, HostId, Name,
    ProviderAnswer, RedundancyStatus, Restoration, RestoreStep, Role,
};

impl Group {
    /// What stands for a spare in an [`Enlistment`]; 0 for who is none.
    fn spare_bit(&self, id: HostId) -> u8 {
        let spares = self.members.iter().filter(|member| member.spare);
        let own = self.settings.spare.then_some(self.me.id);
        let ids = || spares.clone().map(|member| member.id).chain(own);
        if !ids().any(|known| known == id) {
            return 0;
        }
        let place = ids().filter(|known| *known < id).count();
        u32::try_from(place)
            .ok()
            .and_then(|place| 1_u8.checked_shl(place))
            .unwrap_or_default()
    }

    fn is_enlisted(&self, member: usize) -> bool {
        self.policy.enlisted.spares & self.spare_bit(self.members[member].id) != 0
    }

    /// Whether this host may own the group by what it is: a member, or an enlisted spare.
    pub(super) fn may_serve(&self) -> bool {
        let word = &self.policy.enlisted;
        let enlisted =
            word.epoch == self.newest.counter && word.spares & self.spare_bit(self.me.id) != 0;
        !self.settings.spare || enlisted || self.owned().is_some()
    }

    /// A member tells the newest word of an owner that it knows.
    pub(super) fn learn_enlistment(&mut self, from: usize, message: &GroupMessage, now: BootTime) {
        let Body::Beat { policy, .. } = &message.body else {
            return;
        };
        let word = policy.enlisted;
        // Nobody can tell of an owner whose epoch he does not know.
        let known = word.epoch <= message.epoch.counter && !self.members[from].differs;
        if !known || word <= self.policy.enlisted {
            return;
        }
        let before = self.may_serve();
        let changed = word.spares != self.policy.enlisted.spares;
        self.policy.enlisted = word;
        if changed || self.settings.spare {
            self.policy.changes += 1;
        }
        if self.may_serve() != before {
            let name = &self.members[from].name;
            let detail = match before {
                true => format!("this spare was released, by the word of {name}"),
                false => format!("this spare was enlisted, by the word of {name}"),
            };
            self.record(EventKind::Redundancy, None, detail, now);
        }
    }

    /// A new owner goes on with what the one before it said. A spare that owns the group counts.
    pub(super) fn carry_enlistment(&mut self, epoch: Epoch) {
        self.policy.enlisted = Enlistment {
            epoch: epoch.counter,
            change: 0,
            spares: self.policy.enlisted.spares | self.spare_bit(self.me.id),
        };
    }

    /// This member is about to own the group, because of `cause`.
    pub(super) fn begin_redundancy(&mut self, cause: Cause, now: BootTime) {
        if self.active_epoch().is_some() {
            return;
        }
        let mut members = self.members.iter();
        let who = members.position(|member| member.id == self.newest.owner);
        let cause = Some(cause);
        let rules = self.settings.redundancy;
        let again = self.newest.owner == self.me.id;
        self.redundancy
            .begin(Loss { who, cause }, again, &rules, now);
    }

    /// Looks whether there are as many shadows as are wanted, and does something about it.
    pub(super) fn review_redundancy(&mut self, now: BootTime) {
        if self.active_epoch().is_none() {
            return self.redundancy.end();
        }
        let rules = self.settings.redundancy;
        if self.redundancy.state == State::Idle {
            // It goes on where an earlier daemon paused.
            self.redundancy.begin(Loss::default(), true, &rules, now);
        }
        let view = self.shadows(now);
        let wants = self.redundancy.review(&view, &rules, now);
        if let State::Lost(lost) = &self.redundancy.state
            && lost.loss.cause.is_none()
        {
            let cause = lost.loss.who.and_then(|who| self.why_missed(who));
            self.redundancy.note_cause(cause);
        }
        self.carry_out(wants, now);
    }

    fn shadows(&self, now: BootTime) -> View {
        let mut view = View {
            held: self.frozen(now) || self.pausing.is_some(),
            suspect_after: self.settings.suspect_after,
            ..View::default()
        };
        for (index, member) in self.members.iter().enumerate() {
            let set = |wanted: bool| if wanted { only(index) } else { 0 };
            let enlisted = member.spare && self.is_enlisted(index);
            view.spares |= set(member.spare);
            view.enlisted |= set(enlisted);
            view.alive |= set(member.alive() && member.role() != Some(Role::Stopped));
            view.ready |= set(member.ready() && (!member.spare || enlisted));
            let waits = member
                .said
                .is_some_and(|it| it.reason == Some(Cause::Spare));
            let shadow = member.role() == Some(Role::Shadow) && member.alive() && !member.differs;
            if member.spare && !enlisted && shadow && waits {
                view.pool.push(index);
            }
        }
        view.pool.sort_by_key(|index| self.key_of(*index));
        view
    }

    fn why_missed(&self, member: usize) -> Option<Cause> {
        let member = self.members.get(member)?;
        match member.said {
            Some(_) if member.suspected => Some(Cause::Silence),
            Some(said) if said.role == Role::Stopped => Some(Cause::DaemonStopped),
            Some(said) => said.reason,
            None => None,
        }
    }

    /// The provider's command has ended.
    pub(super) fn provided(
        &mut self,
        host: &Name,
        attempt: u32,
        answer: &ProviderAnswer,
        now: BootTime,
    ) {
        let mut members = self.members.iter();
        let Some(host) = members.position(|member| member.name == *host) else {
            return;
        };
        let rules = self.settings.redundancy;
        let wants = self
            .redundancy
            .on_answer((host, attempt), answer, &rules, now);
        self.carry_out(wants, now);
    }

    fn carry_out(&mut self, wants: Vec<Want>, now: BootTime) {
        for want in wants {
            let detail = match want {
                Want::Enlist(spare) => {
                    self.enlist(spare, true);
                    format!("enlisted {}", self.named(spare))
                }
                Want::Release(spare, why) => {
                    self.enlist(spare, false);
                    format!("released {}: {why}", self.named(spare))
                }
                Want::Provide { host, attempt } => {
                    self.provide(host, attempt);
                    format!(
                        "asks the provider for {}, attempt {attempt}",
                        self.named(host)
                    )
                }
                Want::TellLost => format!("lost: {}", self.why_lost()),
                Want::TellRestored => self.how_restored(),
                Want::TellFailed { host, why } => {
                    format!("the provider did not bring {}: {why}", self.named(host))
                }
                Want::TellExhausted => {
                    "no spare is there, and none can be provided: waits for members and spares"
                        .to_owned()
                }
            };
            self.record(EventKind::Redundancy, None, detail, now);
        }
    }

    fn enlist(&mut self, spare: usize, enlisted: bool) {
        let Some(member) = self.members.get(spare) else {
            return;
        };
        let bit = self.spare_bit(member.id);
        let word = &mut self.policy.enlisted;
        match enlisted {
            true => word.spares |= bit,
            false => word.spares &= !bit,
        }
        word.change = word.change.saturating_add(1);
        self.policy.changes += 1;
        // It knows at once.
        self.beat();
    }

    fn provide(&mut self, host: usize, attempt: u32) {
        let State::Lost(lost) = &self.redundancy.state else {
            return;
        };
        let (reason, host) = (lost.loss.cause, self.named(host));
        if let (Some(epoch), Ok(host)) = (self.active_epoch(), host.parse()) {
            self.actions.push_back(Action::Provide(Wish {
                host,
                attempt,
                epoch,
                reason,
            }));
        }
    }

    fn named(&self, member: usize) -> String {
        let member = self.members.get(member);
        member.map_or_else(String::new, |member| member.name.to_string())
    }

    fn why_lost(&self) -> String {
        let State::Lost(lost) = &self.redundancy.state else {
            return String::new();
        };
        let ready = self.redundancy.ready();
        let wanted = self.settings.redundancy.shadows;
        let count = format!("{ready} of {wanted} shadows ready");
        let who = lost.loss.who.map(|who| self.named(who));
        match (who, lost.loss.cause) {
            (Some(who), Some(cause)) => format!("{count}; {who} is missed ({cause})"),
            (Some(who), None) => format!("{count}; {who} is missed"),
            (None, Some(cause)) => format!("{count} ({cause})"),
            (None, None) => count,
        }
    }

    fn how_restored(&self) -> String {
        let last = self.redundancy.last;
        last.map_or_else(String::new, |last| {
            let (host, took) = (self.named(last.host), last.took.as_secs_f64());
            format!("restored after {took:.1} s: {host}, {}", last.by)
        })
    }

    /// For people; none unless this member is active.
    pub(super) fn redundancy_status(&self) -> Option<RedundancyStatus> {
        let Redundancy { state, last, .. } = &self.redundancy;
        let name = |member: usize| Some(self.members.get(member)?.name.clone());
        let (full, since, why, step) = match state {
            State::Idle => return None,
            State::Full { since } => (true, *since, None, None),
            State::Lost(lost) => {
                let step = shown(lost.step, name);
                (false, lost.since, Some(self.why_lost()), step)
            }
        };
        let enlisted = self.members.iter().enumerate();
        let enlisted = enlisted.filter(|(index, it)| it.spare && self.is_enlisted(*index));
        Some(RedundancyStatus {
            wanted: self.settings.redundancy.shadows,
            ready: self.redundancy.ready(),
            full,
            since,
            why,
            step,
            enlisted: enlisted.map(|(_, member)| member.name.clone()).collect(),
            last: last.and_then(|last| {
                Some(Restoration {
                    by: last.by,
                    host: name(last.host)?,
                    took_ns: u64::try_from(last.took.as_nanos()).unwrap_or(u64::MAX),
                    at: last.at,
                })
            }),
        })
    }
}

fn shown(step: Step, name: impl Fn(usize) -> Option<Name>) -> Option<RestoreStep> {
    Some(match step {
        Step::Rejoin { until } => RestoreStep::Rejoin { until },
        Step::Spare { host, .. } => RestoreStep::Spare { host: name(host)? },
        Step::Provider { host, attempt, .. } => RestoreStep::Provider {
            host: name(host)?,
            attempt,
        },
        Step::Coming { host, attempt, .. } => RestoreStep::Coming {
            host: name(host)?,
            attempt,
        },
        Step::Again { at } => RestoreStep::Again { at },
        Step::Exhausted => RestoreStep::Exhausted,
    })
}
