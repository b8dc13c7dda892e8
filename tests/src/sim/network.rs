//! The network between the simulated hosts.

use std::time::Duration;

use rand::RngExt;
use shadowd::decide::cluster::Echo;
use shadowd::facts::{BootTime, GroupMessage, Name};

use super::daemon::Input;
use super::world::{Event, World};

/// A late datagram takes up to so long: several leases and heartbeats overtake it.
const LATEST_MICROS: u64 = 250_000;

impl World {
    /// A daemon reads what arrives at once; one that does not run, or is stalled, later or never.
    pub(super) fn note_heard(&mut self, to: usize, from: usize, sent: BootTime) {
        let host = &mut self.hosts[to];
        if host.responsive() {
            let at = host.clock(self.now);
            host.echoes[from].on_datagram(sent, at);
        }
    }

    /// Whether `to` can read what this run of the daemon of `from` said: the keys of an earlier run
    /// are gone once it has met a later one.
    pub(super) fn has_keys(&mut self, to: usize, from: usize, run: u32) -> bool {
        let met = self.hosts[to].met[from];
        if run > met && self.hosts[to].core.is_some() {
            self.hosts[to].met[from] = run;
            self.hosts[to].echoes[from] = Echo::default();
            let from = self.hosts[from].peer.name.clone();
            self.input(to, Input::PeerBegan { from });
        }
        run >= met
    }

    /// Hosts are named by their numbers.
    pub(super) fn number_of(&self, name: &Name) -> Option<usize> {
        let number = name.as_str().strip_prefix('h')?.parse().ok()?;
        (number < self.hosts.len()).then_some(number)
    }

    pub(super) fn send(&mut self, from: usize, to: &Name, message: GroupMessage) {
        let Some(to) = self.number_of(to) else { return };
        self.say(|| {
            format!(
                "h{from} -> h{to} epoch {} {:?}",
                message.epoch.counter, message.body
            )
        });
        self.note_sent(from, to, &message);
        let copies = 1 + u32::from(self.rng.random_range(0..100) < self.plan.duplicated);
        for _ in 0..copies {
            if self.is_lost(from, to) || !self.hosts[from].link {
                continue;
            }
            let micros = u64::try_from(self.plan.max_delay.as_micros()).unwrap_or(u64::MAX);
            let late = self.late > 0 && self.rng.random_range(0..100) < self.late;
            let micros = if late { LATEST_MICROS } else { micros };
            let delay = Duration::from_micros(self.rng.random_range(50..=micros));
            let sent = self.hosts[from].clock(self.now);
            let heard = self.hosts[from].echoes[to].at(sent);
            let message = message.clone();
            self.at(
                self.now + delay,
                Event::Deliver {
                    to,
                    from,
                    run: self.hosts[from].incarnation,
                    sent,
                    heard,
                    message,
                },
            );
        }
    }

    /// The kernel of a host that is up answers, whatever its daemon does.
    pub(super) fn probe(&mut self, from: usize, member: &Name) {
        let Some(to) = self.number_of(member) else {
            return;
        };
        let lost = self.is_lost(from, to) || self.is_lost(to, from);
        let running = self.hosts[to].powered && self.hosts[to].paused.is_none();
        let up = running && self.hosts[to].link && self.hosts[from].link;
        if !lost && up {
            let member = member.clone();
            self.kernel_says(from, 2, Input::KernelAnswers { from: member });
        }
    }

    /// The kernel of a host that is up refuses what is sent to a daemon that is not there.
    pub(super) fn refuse(&mut self, host: usize, sender: usize) {
        let refuses = self.hosts[host].powered && self.hosts[host].core.is_none();
        if refuses && !self.is_lost(host, sender) {
            let from = self.hosts[host].peer.name.clone();
            self.kernel_says(sender, 1, Input::KernelRefuses { from });
        }
    }

    fn is_lost(&mut self, from: usize, to: usize) -> bool {
        self.rng.random_range(0..100) < self.loss || self.cuts[from][to] > 0
    }

    /// After a way of so many datagrams.
    fn kernel_says(&mut self, host: usize, ways: u64, word: Input) {
        let delay = ways * u64::try_from(self.plan.max_delay.as_micros()).unwrap_or(u64::MAX);
        let delay = Duration::from_micros(self.rng.random_range(100..=delay));
        let incarnation = self.hosts[host].incarnation;
        self.at(
            self.now + delay,
            Event::KernelSays {
                host,
                incarnation,
                word,
            },
        );
    }

    /// Whether datagrams pass between two hosts in both directions, none lost.
    pub(super) fn connected(&self, one: usize, other: usize) -> bool {
        let linked = self.hosts[one].link && self.hosts[other].link;
        linked
            && self.loss + self.late == 0
            && self.cuts[one][other] == 0
            && self.cuts[other][one] == 0
    }
}
