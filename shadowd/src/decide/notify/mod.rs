//! Who is told what, and when: what groups are and what happens to them in, notices out.
//!
//! Of a **state** (role, owner, redundancy, lease, paths) only the newest is told: what a receiver has no
//! time for is skipped and counted, and the last one always comes through, also after a restart of
//! the daemon, because what was told is remembered. A **happening** (a claim, a handover, a failed
//! step) is told once, with the number of those before it that were skipped.
//!
//! ```text
//! sighting -> settling -> state ----> slot of each receiver -> being told -> told, remembered
//! event ----------------> happening ->  (the newest only)          |
//!                                              ^---- in vain: wait, doubled, with jitter
//! ```
//! This module reaches nobody: `run` carries a [`Delivery`] out and reports the [`Outcome`].

mod levels;
mod receiver;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

pub use levels::{Sighting, Subject};
pub use receiver::{Outcome, Receiver};

use crate::facts::{BootTime, Cause, Event, EventKind, Name, Notice, ReceiverCounts, Told, Topic};
use levels::Settling;
use receiver::Mailbox;

/// A longer detail (characters) is cut: it travels in an environment.
const MAX_DETAIL: usize = 1024;

/// Now, on both clocks; the wall clock is only passed on to people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// What decisions use.
    pub boot: BootTime,
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

/// Tell this receiver that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Number of the receiver.
    pub receiver: usize,
    /// What it is told.
    pub notice: Notice,
}

/// What one receiver is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is being told.
    pub running: Option<Topic>,
    /// How many notices wait.
    pub waiting: usize,
    /// What became of the others.
    pub counts: ReceiverCounts,
}

/// What is known of one group.
#[derive(Debug, Default)]
struct Watched {
    sighting: Option<Sighting>,
    settling: BTreeMap<Subject, Settling>,
    cause: Option<Cause>,
}

/// The core. Receivers are known by their number, from 0.
#[derive(Debug)]
pub struct Notifier {
    host: Name,
    mailboxes: Vec<Mailbox>,
    groups: BTreeMap<Name, Watched>,
    told: VecDeque<Told>,
}

impl Notifier {
    /// A core that knows what was `told` before this daemon started.
    pub fn new(host: Name, receivers: Vec<Receiver>, told: &[Told], now: BootTime) -> Self {
        let mailboxes = receivers.into_iter();
        Self {
            host,
            mailboxes: mailboxes
                .map(|receiver| Mailbox::new(receiver, told, now))
                .collect(),
            groups: BTreeMap::new(),
            told: VecDeque::new(),
        }
    }

    /// What a group is now.
    pub fn on_sighting(&mut self, sighting: Sighting, now: Now) {
        let group = self.groups.entry(sighting.group.clone()).or_default();
        for subject in Subject::STATES {
            let topic = sighting.level(subject);
            let state = topic.map(|topic| sighting.identity(topic));
            let settling = group.settling.entry(subject).or_default();
            settling.see(state, now.boot);
        }
        group.sighting = Some(sighting);
        self.on_timer(now);
    }

    /// Something was recorded.
    pub fn on_event(&mut self, event: &Event, now: Now) {
        let Some(name) = &event.group else { return };
        let topic = match event.kind {
            EventKind::RoleChanged => {
                self.groups.entry(name.clone()).or_default().cause = event.cause;
                return;
            }
            EventKind::VipClaimed => Topic::VipClaimed,
            EventKind::Handover => Topic::Handover,
            EventKind::Failure => Topic::Failure,
            EventKind::DrillPassed => Topic::DrillPassed,
            EventKind::DrillFailed => Topic::DrillFailed,
            EventKind::DaemonStarted
            | EventKind::DaemonStopped
            | EventKind::PeerSuspected
            | EventKind::PeerHeard
            | EventKind::Claimed
            | EventKind::VipAdded
            | EventKind::Announced
            | EventKind::VipRemoved
            | EventKind::Released
            | EventKind::UnitUp
            | EventKind::UnitDown
            | EventKind::UnitAction
            | EventKind::LinkChanged
            | EventKind::LeaseLapsed
            | EventKind::LeaseHeld
            | EventKind::Serving
            | EventKind::Drained
            | EventKind::Maintenance
            | EventKind::Freeze
            | EventKind::FlapPenalty
            | EventKind::Voted
            | EventKind::Paused
            | EventKind::Resumed
            | EventKind::Drill
            | EventKind::Redundancy
            | EventKind::PathLost
            | EventKind::PathBack
            | EventKind::Starved
            | EventKind::ProfileVersion
            | EventKind::Provisioned
            | EventKind::Repository
            | EventKind::Deviation
            | EventKind::NotReady
            | EventKind::Ready
            | EventKind::Notified
            | EventKind::NoticeFailed => return,
        };
        let Some(subject) = Subject::of(topic) else {
            return;
        };
        let mut notice = self.notice(name, topic, now);
        notice.cause = event.cause;
        notice.detail = event.detail.chars().take(MAX_DETAIL).collect();
        notice.epoch = event.epoch.unwrap_or(notice.epoch);
        for mailbox in &mut self.mailboxes {
            mailbox.happening(subject, &notice, now.boot);
        }
    }

    /// Time has passed: states that lasted are told.
    pub fn on_timer(&mut self, now: Now) {
        let mut settled = Vec::new();
        for (name, group) in &mut self.groups {
            for (subject, settling) in &mut group.settling {
                if let Some(state) = settling.settle(*subject, now.boot) {
                    settled.push((name.clone(), *subject, state));
                }
            }
        }
        for (name, subject, state) in settled {
            let mut notice = self.notice(&name, state.topic, now);
            if subject == Subject::Role {
                notice.cause = self.groups.get(&name).and_then(|group| group.cause);
            }
            let seen = self.groups.get(&name);
            let seen = seen.and_then(|group| group.sighting.as_ref());
            if subject == Subject::Redundancy {
                notice.detail = seen.map_or_else(String::new, |seen| seen.redundancy.clone());
            }
            if subject == Subject::Paths {
                notice.detail = seen.map_or_else(String::new, |seen| seen.lost_paths.join(", "));
            }
            for mailbox in &mut self.mailboxes {
                self.told.extend(mailbox.state(subject, state, &notice));
            }
        }
    }

    /// When [`Self::on_timer`] or [`Self::poll`] wants to be called next.
    pub fn next_deadline(&self) -> Option<BootTime> {
        let settling = self.groups.values().flat_map(|group| {
            let settling = group.settling.iter();
            settling.filter_map(|(subject, settling)| settling.next_deadline(*subject))
        });
        let mailboxes = self.mailboxes.iter().filter_map(Mailbox::next_deadline);
        settling.chain(mailboxes).min()
    }

    /// The next notice that may be told now; each receiver is told one at a time. What
    /// [`Self::poll_told`] gives after it is to be remembered before it is told: a daemon that dies
    /// meanwhile would not know that it may have been.
    pub fn poll(&mut self, now: BootTime) -> Option<Delivery> {
        for (receiver, mailbox) in self.mailboxes.iter_mut().enumerate() {
            if let Some((notice, begun)) = mailbox.poll(now) {
                self.told.extend(begun);
                return Some(Delivery { receiver, notice });
            }
        }
        None
    }

    /// What is to be remembered, oldest first.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.told.pop_front()
    }

    /// What became of the notice that `receiver` was told. `dice` is any random number.
    pub fn on_done(&mut self, receiver: usize, outcome: Outcome, now: BootTime, dice: u32) {
        if let Some(mailbox) = self.mailboxes.get_mut(receiver) {
            self.told.extend(mailbox.done(outcome, now, dice));
        }
    }

    /// Tells `receiver` a test before all else. False when another test waits.
    pub fn test(&mut self, receiver: usize, now: Now) -> bool {
        let notice = Notice {
            host: self.host.clone(),
            group: None,
            event: Topic::Test,
            severity: Topic::Test.severity(),
            resolved: false,
            key: format!("{}/test", self.host),
            role: "-".to_owned(),
            epoch: 0,
            active: None,
            cause: None,
            detail: "an operator tries whether this works".to_owned(),
            skipped: 0,
            boot_ns: now.boot,
            wall_ms: now.wall_ms,
        };
        let mailbox = self.mailboxes.get_mut(receiver);
        mailbox.is_some_and(|mailbox| mailbox.test(notice))
    }

    /// What `receiver` is at.
    pub fn progress(&self, receiver: usize) -> Option<Progress> {
        let mailbox = self.mailboxes.get(receiver)?;
        Some(Progress {
            running: mailbox.telling(),
            waiting: mailbox.waiting(),
            counts: mailbox.counts,
        })
    }

    /// Whether nobody is being told anything and nothing may be told now.
    pub fn is_idle(&self, now: BootTime) -> bool {
        self.mailboxes.iter().all(|mailbox| {
            mailbox.telling().is_none() && mailbox.next_deadline().is_none_or(|due| due > now)
        })
    }

    fn notice(&self, group: &Name, topic: Topic, now: Now) -> Notice {
        let seen = self.groups.get(group);
        let seen = seen.and_then(|group| group.sighting.as_ref());
        let subject = Subject::of(topic).map_or("test", Subject::word);
        Notice {
            host: self.host.clone(),
            group: Some(group.clone()),
            event: topic,
            severity: topic.severity(),
            resolved: topic.resolves(),
            key: format!("{}/{group}/{subject}", self.host),
            role: seen.map_or_else(|| "-".to_owned(), |seen| seen.role.to_string()),
            epoch: seen.map_or(0, |seen| seen.epoch),
            active: seen.and_then(|seen| seen.active.clone()),
            cause: None,
            detail: String::new(),
            skipped: 0,
            boot_ns: now.boot,
            wall_ms: now.wall_ms,
        }
    }
}
