//! A pause: an owner's daemon ends and will be back at once, so the group stays where it is.
//!
//! ```text
//!   Active --on_pause--> Active, pausing --a majority keeps others out--> paused: the daemon ends
//!                          |        for long enough                          |
//!                          | not in time, or trouble                         | starts again in time
//!                          v                                                 v
//!                        as on a stop                                     Active, same epoch
//! ```
//!
//! Addresses, units and the kernel's guard stay as they are. The owner asks the voters to keep
//! others out for as long as it will be away, and tells the members that its silence is no evidence
//! for as long. A daemon that does not come back in time is what any silent owner is: the guard's
//! deadline passes, and then that of the promises.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::ballots::longest;
use super::group::{Active, Cold, Group, State};
use crate::facts::{Body, BootTime, EventKind, KeptPause};

/// No pause is longer.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The voters have so long to agree, disks included; meanwhile the owner serves as ever.
const AGREE_WITHIN: Duration = Duration::from_secs(3);
/// Members that live but do not answer are not waited for any longer.
const MEMBERS_WITHIN: Duration = Duration::from_millis(1_500);
/// More is asked for than is needed, by this and by 2 %: for drifting clocks, and for the time that
/// asking takes.
const MARGIN: Duration = Duration::from_millis(300);
/// Where nobody answers it is said so often: datagrams get lost.
const SAID: u8 = 3;

/// A pause that is being prepared.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Pausing {
    /// The daemon may be away for so long.
    away: Duration,
    /// What is asked for: a little more, for the time that asking takes.
    pub silent: Duration,
    since: BootTime,
    said: u8,
    /// The daemon may end.
    agreed: bool,
}

impl Group {
    /// The daemon is asked to end and will be back within `away`, at most 30 s: an owner keeps the
    /// group if the voters agree in time; else this is [`Self::on_stop`].
    pub fn on_pause(&mut self, away: Duration, now: BootTime) {
        self.turn(now);
        let State::Active(active) = &self.state else {
            return self.on_stop(now);
        };
        let well = active.offer.is_none()
            && !active.lapsed
            && self.retry.is_none()
            && self.trouble(now).is_none();
        let started = active.cold != Cold::Down || !self.has_cold_units();
        // Without the guard nothing would silence the addresses if the daemon stays away.
        let guarded = self.lease.is_none() || self.settings.guard;
        if !(well && started && guarded) {
            return self.on_stop(now);
        }
        let away = away.min(PAUSE_MAX / 2);
        self.pausing = Some(Pausing {
            away,
            silent: away + away / 50 + MARGIN,
            since: now,
            said: 0,
            agreed: false,
        });
        self.next_beat = now;
        self.review(now);
    }

    /// Whether the daemon may end, and the next one go on with [`Self::pause_at_rest`].
    pub fn paused(&self) -> bool {
        self.pausing.is_some_and(|pausing| pausing.agreed)
    }

    /// The ownership that the next daemon goes on with, if this one may end.
    pub fn pause_at_rest(&self, now: BootTime) -> Option<KeptPause> {
        let pausing = self.pausing.filter(|pausing| pausing.agreed)?;
        let State::Active(active) = &self.state else {
            return None;
        };
        Some(KeptPause {
            epoch: active.epoch,
            deadline: active.deadline.unwrap_or_else(|| now.after(pausing.away)),
            electorate: self.electorate(),
            interface: self.settings.interface.clone(),
            vips: self.settings.vips.clone(),
        })
    }

    /// Goes on where the daemon before this one paused; whether it can. The link and the units are
    /// as they were until somebody says otherwise: the pause began with all of them well.
    pub(super) fn resume(&mut self, pause: &KeptPause, now: BootTime) -> bool {
        let same = pause.epoch.owner == self.me.id
            && pause.epoch >= self.newest
            && pause.electorate == self.electorate()
            && pause.interface == self.settings.interface
            && pause.vips == self.settings.vips;
        let guarded = self.lease.is_none() || self.settings.guard;
        if !same || !guarded || now >= pause.deadline {
            return false;
        }
        let epoch = pause.epoch;
        let deadline = self.lease.is_some().then_some(pause.deadline);
        self.newest = epoch;
        self.carrier = Some(true);
        let units = self.settings.units.iter();
        self.units = units.map(|unit| (unit.name.clone(), true)).collect();
        self.state = State::Active(Active {
            epoch,
            deadline,
            lapsed: false,
            cold: Cold::Run,
            offer: None,
        });
        if let Some(lease) = &mut self.lease {
            lease.asked = lease.asked.max(epoch.counter);
        }
        let left = pause.deadline.since(now).as_secs_f64() * 1e3;
        let detail = format!("{left:.0} ms before the others would take over");
        self.record(EventKind::Resumed, None, detail, now);
        self.actions.push_back(Action::TakeVips { epoch, deadline });
        self.beat();
        true
    }

    /// What an owner that pauses says in place of a heartbeat.
    pub(super) fn pause_body(&mut self) -> Option<Body> {
        self.active_epoch()?;
        let electorate = self.electorate();
        let pausing = self.pausing.as_mut()?;
        pausing.said = pausing.said.saturating_add(1);
        let silent = pausing.silent;
        Some(Body::Pause { silent, electorate })
    }

    /// Looks whether the daemon may end, or whether the pause has to be given up.
    pub(super) fn review_pause(&mut self, now: BootTime) {
        let Some(pausing) = self.pausing else { return };
        let State::Active(active) = &self.state else {
            return self.on_stop(now);
        };
        let waited = now.since(pausing.since);
        let back = now.after(pausing.away);
        let agreed = match active.deadline {
            Some(deadline) if self.lease.is_some() => {
                let told = self.members_keep_out(back) || waited >= MEMBERS_WITHIN;
                deadline >= back && told && !active.lapsed
            }
            Some(_) | None => self.lease.is_none() && pausing.said >= SAID,
        };
        if !agreed && waited >= AGREE_WITHIN {
            let detail = "the daemon is to be restarted, and the voters do not agree".to_owned();
            self.failure(detail, now);
            return self.on_stop(now);
        }
        if agreed && !pausing.agreed {
            let detail = format!("for up to {:.1} s", pausing.away.as_secs_f64());
            self.record(EventKind::Paused, None, detail, now);
        }
        self.pausing = Some(Pausing { agreed, ..pausing });
    }

    /// Whether every member that lives keeps others out until then: it will not ask for the lease.
    fn members_keep_out(&self, until: BootTime) -> bool {
        let ballots = || self.lease.iter().flat_map(|lease| &lease.ballots);
        self.members.iter().all(|member| {
            let keeps = || ballots().any(|one| one.id == member.id && one.until >= until);
            member.spare || !member.alive() || keeps()
        })
    }

    /// The longest promise that this member may have been given.
    pub(super) fn longest_promise(&self) -> Duration {
        let pause = self.pausing.map_or(Duration::ZERO, |_| PAUSE_MAX);
        longest(&self.settings).max(pause)
    }

    fn electorate(&self) -> u64 {
        self.lease.as_ref().map_or(0, |lease| lease.electorate)
    }
}
