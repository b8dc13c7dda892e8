//! A witness's view of one group: it votes, and never owns.
//!
//! It answers each request at once, sends nothing by itself but a heartbeat that tells the members
//! that it is there, and keeps nothing but its promise.

use std::collections::VecDeque;
use std::time::Duration;

use super::action::{Action, Record};
use super::ballots::{electorate_of, longest};
use super::group::Peer;
use super::voter::{Refused, Voter, is_absurd};
use crate::config::settings::GroupSettings;
use crate::facts::{
    Body, BootTime, Cause, Epoch, EventKind, GroupMessage, HostId, Name, PolicyWord, Role,
};

/// What a member says cannot be: told once in this time.
const RECORD_AGAIN: Duration = Duration::from_secs(60);

/// One witness of one group.
#[derive(Debug)]
pub struct Witness {
    settings: GroupSettings,
    members: Vec<Peer>,
    pub(super) voter: Voter,
    pub(super) electorate: u64,
    holder: Option<Epoch>,
    next_beat: BootTime,
    recorded: Option<BootTime>,
    actions: VecDeque<Action>,
}

impl Witness {
    /// A witness that just started. `members` are the members, and the spares, which do not vote.
    /// `newest` is what its store remembers.
    pub fn new(
        settings: GroupSettings,
        me: &Peer,
        members: Vec<Peer>,
        other_witnesses: &[Peer],
        newest: Epoch,
        now: BootTime,
    ) -> Self {
        let voting = |peer: &&Peer| !settings.spares.contains(&peer.name);
        let voting = members.iter().filter(voting);
        let peers = voting.chain(other_witnesses).chain([me]);
        let ids: Vec<HostId> = peers.map(|peer| peer.id).collect();
        Self {
            voter: Voter::new(longest(&settings), newest, now),
            electorate: electorate_of(&ids),
            settings,
            members,
            holder: None,
            next_beat: now,
            recorded: None,
            actions: VecDeque::new(),
        }
    }

    /// A member sent `message` at `sent`, on its own clock. A stranger's changes nothing.
    pub fn on_message(
        &mut self,
        from: &Name,
        sent: BootTime,
        message: &GroupMessage,
        now: BootTime,
    ) {
        let Some(member) = self.members.iter().find(|member| member.name == *from) else {
            return;
        };
        if message.group != self.settings.name {
            return;
        }
        let (member, epoch) = (member.clone(), message.epoch);
        if is_absurd(epoch, self.voter.newest()) {
            let detail = format!("{from} says epoch {}: not believed", epoch.counter);
            return self.failure(detail, now);
        }
        match &message.body {
            Body::Beat {
                role: Role::Active,
                lease,
                electorate,
                ..
            }
            | Body::Ask { lease, electorate } => {
                let asked = (*lease, *electorate);
                self.on_ask(&member, epoch, asked, sent, now);
            }
            Body::Pause { silent, electorate } => {
                let asked = (*silent, *electorate);
                self.on_pause_ask(&member, epoch, asked, sent, now);
            }
            // Only who holds a promise may give it back or away.
            Body::Resign { .. } | Body::Withdraw if epoch.owner == member.id => {
                self.voter.release(epoch);
            }
            Body::Transfer { to, .. } if epoch.owner == member.id => {
                self.voter.transfer(epoch, *to, now);
            }
            Body::Resign { .. }
            | Body::Withdraw
            | Body::Transfer { .. }
            | Body::Beat { .. }
            | Body::Offer { .. }
            | Body::Ready { .. }
            | Body::Promise { .. }
            | Body::Refuse { .. } => {}
        }
    }

    fn on_ask(
        &mut self,
        member: &Peer,
        epoch: Epoch,
        (wanted, electorate): (Duration, u64),
        sent: BootTime,
        now: BootTime,
    ) {
        if self.counts_others(member, epoch, electorate, now) {
            return;
        }
        let answer = self.voter.promise(epoch, wanted, now);
        self.answer(member, epoch, sent, answer, now);
    }

    /// As [`Self::on_ask`], for an owner whose daemon is about to be silent.
    fn on_pause_ask(
        &mut self,
        member: &Peer,
        epoch: Epoch,
        (silent, electorate): (Duration, u64),
        sent: BootTime,
        now: BootTime,
    ) {
        if self.counts_others(member, epoch, electorate, now) {
            return;
        }
        let (answer, keep) = self.voter.promise_pause(epoch, silent, now);
        self.actions.extend(keep.map(Action::KeepPromise));
        self.answer(member, epoch, sent, answer, now);
    }

    /// Whether a request is none: not the sender's own, or for another set of voters.
    fn counts_others(
        &mut self,
        member: &Peer,
        epoch: Epoch,
        electorate: u64,
        now: BootTime,
    ) -> bool {
        let others = electorate != self.electorate;
        if others && epoch.owner == member.id {
            let name = &member.name;
            let detail = format!("{name} counts other members or witnesses: no vote for it");
            self.failure(detail, now);
        }
        others || epoch.owner != member.id
    }

    fn answer(
        &mut self,
        member: &Peer,
        epoch: Epoch,
        sent: BootTime,
        answer: Result<Duration, Refused>,
        now: BootTime,
    ) {
        let to = member.name.clone();
        let (epoch, body) = match answer {
            Ok(lease) => {
                self.note_holder(epoch, &to, now);
                (epoch, Body::Promise { sent, lease })
            }
            Err(Refused { wait, epoch }) => (epoch, Body::Refuse { wait }),
        };
        self.actions.push_back(Action::Send { to, epoch, body });
    }

    fn note_holder(&mut self, epoch: Epoch, name: &Name, now: BootTime) {
        let before = self.holder.replace(epoch);
        if before.map(|epoch| epoch.owner) != Some(epoch.owner) {
            let detail = format!("voted for {name}");
            self.record(EventKind::Voted, None, detail, now);
        }
    }

    fn failure(&mut self, detail: String, now: BootTime) {
        if self.recorded.is_none_or(|at| now.since(at) >= RECORD_AGAIN) {
            self.recorded = Some(now);
            self.record(EventKind::Failure, Some(Cause::StepFailed), detail, now);
        }
    }

    fn record(&mut self, kind: EventKind, cause: Option<Cause>, detail: String, at: BootTime) {
        let epoch = self.voter.newest().counter;
        self.actions.push_back(Action::Record(Record {
            at,
            kind,
            epoch,
            cause,
            detail,
        }));
    }

    /// Time has passed. To be called no later than [`Self::next_deadline`].
    pub fn on_timer(&mut self, now: BootTime) {
        if now < self.next_beat {
            return;
        }
        self.next_beat = self.next_beat.after(self.settings.heartbeat).max(now);
        let body = Body::Beat {
            role: Role::Witness,
            priority: 0,
            eligible: false,
            lease: Duration::ZERO,
            electorate: self.electorate,
            policy: PolicyWord::default(),
        };
        let epoch = self.voter.newest();
        for member in &self.members {
            let (to, body) = (member.name.clone(), body.clone());
            self.actions.push_back(Action::Send { to, epoch, body });
        }
    }

    /// When [`Self::on_timer`] wants to be called next.
    pub fn next_deadline(&self) -> BootTime {
        self.next_beat
    }

    /// The next thing to do: it only ever sends and records.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The newest epoch it promised anything in.
    pub fn newest_epoch(&self) -> Epoch {
        self.voter.newest()
    }

    /// Whom it keeps the others out for, and until when.
    pub fn holder(&self, now: BootTime) -> Option<(&Name, BootTime)> {
        let (epoch, until) = self.voter.held(now)?;
        let member = self
            .members
            .iter()
            .find(|member| member.id == epoch.owner)?;
        Some((&member.name, until))
    }

    /// The group's settings.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }
}
