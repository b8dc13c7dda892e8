//! A member's own vote, and what the other voters say.

use std::time::Duration;

use super::action::Action;
use super::group::{Group, State};
use super::voter::{Refused, is_absurd};
use crate::facts::{Body, BootTime, Epoch, GroupMessage, Name, Role};

impl Group {
    /// At each heartbeat, before it leaves: the vote of this member is its own while it owns.
    pub(super) fn renew_own_vote(&mut self, now: BootTime) {
        if self.starved && self.owned().is_some() {
            self.expect_to_run_late(now);
        }
        if let Some(lease) = &mut self.lease {
            lease.length.beat(now);
            match self.state {
                State::Active(_) => lease.answers.beat(now),
                _ => lease.answers.end(),
            }
        }
        let Some(epoch) = self.owned() else { return };
        let wanted = self.wanted_lease();
        let Some(lease) = &mut self.lease else { return };
        let renewed = match &self.pausing {
            Some(pausing) => lease.own.promise_self(epoch, pausing.silent, now),
            None => lease.own.promise(epoch, wanted, now),
        };
        // It went to somebody who gave it back: free again, but only above that epoch.
        if let Err(refused) = renewed
            && refused.wait.is_zero()
        {
            self.raise_or_yield(refused.epoch, now);
        }
    }

    /// A member asks for a lease, or as an owner for its own to go on.
    pub(super) fn on_ask(
        &mut self,
        voter: usize,
        epoch: Epoch,
        (wanted, electorate): (Duration, u64),
        sent: BootTime,
        now: BootTime,
    ) {
        if self.counts_others(voter, epoch, electorate, now) {
            return;
        }
        let Some(lease) = &mut self.lease else { return };
        let answer = lease.own.promise(epoch, wanted, now);
        self.answer(voter, epoch, sent, answer);
    }

    /// As [`Self::on_ask`], by an owner whose daemon is about to be silent.
    fn on_pause_ask(
        &mut self,
        voter: usize,
        epoch: Epoch,
        (silent, electorate): (Duration, u64),
        sent: BootTime,
        now: BootTime,
    ) {
        if self.counts_others(voter, epoch, electorate, now) {
            return;
        }
        let Some(lease) = &mut self.lease else { return };
        let (answer, keep) = lease.own.promise_pause(epoch, silent, now);
        self.actions.extend(keep.map(Action::KeepPromise));
        self.answer(voter, epoch, sent, answer);
    }

    /// Whether a request is none: not a member's own, or for another set of voters.
    fn counts_others(
        &mut self,
        voter: usize,
        epoch: Epoch,
        electorate: u64,
        now: BootTime,
    ) -> bool {
        let Some(lease) = &self.lease else {
            return true;
        };
        let ballot = &lease.ballots[voter];
        if ballot.witness || epoch.owner != ballot.id || self.settings.spare {
            return true;
        }
        let others = electorate != lease.electorate;
        if others {
            let to = &ballot.name;
            let detail = format!("{to} counts other members or witnesses: no vote for it");
            self.failure(detail, now);
        }
        others
    }

    fn answer(
        &mut self,
        voter: usize,
        epoch: Epoch,
        sent: BootTime,
        answer: Result<Duration, Refused>,
    ) {
        let Some(lease) = &self.lease else { return };
        let to = lease.ballots[voter].name.clone();
        let (epoch, body) = match answer {
            Ok(lease) => (epoch, Body::Promise { sent, lease }),
            Err(Refused { wait, epoch }) => (epoch, Body::Refuse { wait }),
        };
        self.actions.push_back(Action::Send { to, epoch, body });
    }

    /// What a member's message means to this voter, and what it answers to this member's requests.
    pub(super) fn vote(
        &mut self,
        voter: usize,
        sent: BootTime,
        message: &GroupMessage,
        now: BootTime,
    ) {
        let epoch = message.epoch;
        // Who has another group of this name neither gets nor gives a vote for a claim.
        if let Body::Ask { .. } | Body::Promise { .. } = &message.body
            && self.members.get(voter).is_some_and(|member| member.differs)
            && self.owned().is_none()
        {
            return;
        }
        match &message.body {
            Body::Beat {
                role: Role::Active,
                lease,
                electorate,
                ..
            }
            | Body::Ask { lease, electorate } => {
                self.on_ask(voter, epoch, (*lease, *electorate), sent, now);
            }
            Body::Pause { silent, electorate } => {
                self.on_pause_ask(voter, epoch, (*silent, *electorate), sent, now);
            }
            // A spare has no vote to give.
            Body::Promise { .. } | Body::Refuse { .. }
                if self.members.get(voter).is_some_and(|member| member.spare) => {}
            Body::Promise { sent, lease } => self.on_promise(voter, epoch, *sent, *lease, now),
            Body::Refuse { wait } => self.on_refusal(voter, epoch, *wait, now),
            // Only who holds a promise may give it back or away.
            Body::Withdraw | Body::Resign { .. } => {
                if let Some(lease) = &mut self.lease
                    && epoch.owner == lease.ballots[voter].id
                {
                    lease.own.release(epoch);
                }
            }
            Body::Transfer { to, .. } => {
                if let Some(lease) = &mut self.lease
                    && epoch.owner == lease.ballots[voter].id
                {
                    lease.own.transfer(epoch, *to, now);
                }
            }
            Body::Beat { .. } | Body::Offer { .. } | Body::Ready { .. } => {}
        }
    }

    /// A witness answers; anybody else is a stranger.
    pub(super) fn on_witness(&mut self, from: &Name, message: &GroupMessage, now: BootTime) {
        let ballots = self.lease.iter().flat_map(|lease| &lease.ballots);
        let position = ballots
            .clone()
            .position(|ballot| ballot.witness && ballot.name == *from);
        let Some(voter) = position else { return };
        if message.group != self.settings.name {
            return;
        }
        self.turn(now);
        if is_absurd(message.epoch, self.newest) {
            let detail = format!("{from} says epoch {}: not believed", message.epoch.counter);
            self.failure(detail, now);
            return;
        }
        if let Some(lease) = &mut self.lease {
            lease.ballots[voter].heard = Some(now);
        }
        match &message.body {
            Body::Promise { sent, lease } => {
                self.on_promise(voter, message.epoch, *sent, *lease, now);
            }
            Body::Refuse { wait } => self.on_refusal(voter, message.epoch, *wait, now),
            Body::Beat { .. }
            | Body::Resign { .. }
            | Body::Offer { .. }
            | Body::Ready { .. }
            | Body::Transfer { .. }
            | Body::Ask { .. }
            | Body::Pause { .. }
            | Body::Withdraw => {}
        }
        self.review(now);
    }
}
