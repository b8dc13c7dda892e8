//! Silence: which members are silent for too long, and when silence is no evidence.

use std::time::Duration;

use super::group::{Group, State, View};
use super::neighbours::KERNEL_ANSWERS;
use super::stretch::STRETCH_MAX;
use crate::facts::{BootTime, EventKind};

/// Irregular heartbeats stretch the bound of silence so many times at most.
const IRREGULAR_MAX: u32 = 4;
/// A host that is starved itself allows silence of so many times the usual: services would fare
/// worse here, and what starves it often starves its peer.
const STARVED: u32 = 8;

impl Group {
    /// Whether threads of usual priority wait long for their turns on this host. Heartbeats do not
    /// where they are real-time, so nothing else here would show it.
    pub fn on_starved(&mut self, starved: bool, now: BootTime) {
        self.turn(now);
        self.starved = starved;
    }

    /// Every input begins with this: it notices that this process itself did not run.
    pub(super) fn turn(&mut self, now: BootTime) {
        let stall = self.settings.heartbeat.max(Duration::from_millis(5)) * 2;
        let late = now.since(self.last_run);
        if late > stall {
            self.listening_since = now;
            // Who did not run has not listened either.
            if let State::Joining { until } = &mut self.state {
                *until = until.after(late.saturating_sub(stall));
            }
            self.ran_late(late, now);
        }
        self.last_run = now;
    }

    /// Finds who is silent. Only for the timer, which runs once all that has arrived was taken in:
    /// between two messages that arrived together the one that clears a member may still wait.
    pub(super) fn watch_silence(&mut self, now: BootTime) {
        self.ask_kernel(now);
        self.suspect_the_silent(now);
        if let State::Shadow(View::Follows { member, since }) = self.state {
            let silent = now.since(self.silent_from(member, since));
            if now >= self.silent_until(member, since) {
                self.suspect(member, silent, now);
                self.vacant(self.silence_is(member), now);
            }
        }
    }

    /// Until when `member`, watched since `since`, may be silent. Its kernel's answers make patient
    /// for as long as they go on, and not for ever: a host that answered just before it died is
    /// found as soon as it answers no more. When it says that the daemon is not there they do not.
    pub(super) fn silent_until(&self, member: usize, since: BootTime) -> BootTime {
        let from = self.silent_from(member, since);
        let permitted = self.permitted(member);
        let said = self.members[member].said;
        let paused = said.map(|said| said.paused).unwrap_or_default();
        let least = self.unless_refused(member, permitted).max(paused);
        let answered = self.members[member].kernel_answered;
        let answered = answered.filter(|at| said.is_none_or(|said| *at > said.heard));
        let indulged = match answered {
            Some(at) if !self.refused(member) => {
                let longest = from.after(permitted * KERNEL_ANSWERS);
                longest.min(at.after(self.settings.suspect_after))
            }
            Some(_) | None => from,
        };
        from.after(least).max(indulged)
    }

    /// How long `member` may be silent, as far as is known now.
    pub(super) fn patience(&self, member: usize) -> Duration {
        let since = BootTime::default();
        let until = self.silent_until(member, since);
        until.since(self.silent_from(member, since))
    }

    /// How long `member` may be silent by its word and its habit: an owner for as long as it asked
    /// to be kept alone, and whoever is heard irregularly for as long as was learned; for longer
    /// while this host is starved.
    pub(super) fn permitted(&self, member: usize) -> Duration {
        let asked = self.members[member]
            .said
            .map_or(Duration::ZERO, |said| said.lease);
        let longest = self.settings.lease * STRETCH_MAX;
        let learned = self.members[member].rhythm.expected();
        let told = asked.min(longest).max(learned.min(self.irregular()));
        let usual = self.settings.suspect_after;
        let least = if self.starved { usual * STARVED } else { usual };
        least.max(told)
    }

    /// No rhythm makes more patient than this, and what is longer is an outage.
    pub(super) fn irregular(&self) -> Duration {
        self.settings.suspect_after * IRREGULAR_MAX
    }

    /// Since when `member`, watched since `since`, says nothing that this process could hear.
    pub(super) fn silent_from(&self, member: usize, since: BootTime) -> BootTime {
        let heard = self.members[member].said.map_or(since, |said| said.heard);
        heard.max(since).max(self.listening_since)
    }

    fn suspect_the_silent(&mut self, now: BootTime) {
        for member in 0..self.members.len() {
            let since = self.listening_since;
            let silent = now.since(self.silent_from(member, since));
            if self.members[member].said.is_some() && now >= self.silent_until(member, since) {
                self.suspect(member, silent, now);
            }
        }
    }

    fn suspect(&mut self, member: usize, silent: Duration, now: BootTime) {
        if !std::mem::replace(&mut self.members[member].suspected, true) {
            let name = &self.members[member].name;
            let detail = format!("{name} silent for {:.1} ms", silent.as_secs_f64() * 1e3);
            let cause = self.silence_is(member);
            self.record(EventKind::PeerSuspected, Some(cause), detail, now);
        }
    }
}
