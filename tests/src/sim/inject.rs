//! Begins and ends the faults of a plan.

use std::time::Duration;

use super::faults::Fault;
use super::host::{Input, name};
use super::world::{Event, World};

impl World {
    pub(super) fn begin(&mut self, index: usize) {
        let fault = self.plan.faults[index].2.clone();
        self.say(|| format!("begin {fault:?}"));
        self.touched = u32::MAX;
        match fault {
            Fault::Crash(host) => self.hosts[host].power_off(),
            Fault::Kill(host) => self.hosts[host].end_daemon(),
            Fault::Stall(host) => self.hosts[host].stalled = true,
            Fault::Stop(host) => self.stop(host),
            Fault::Reconfigure(host) => {
                self.hosts[host].configure(&self.plan, true);
                self.stop(host);
            }
            Fault::Pause(host) => {
                let now = self.now;
                self.hosts[host].paused.get_or_insert(now);
            }
            Fault::Unit(host) => self.warm(host, false),
            Fault::Link(host) => self.link(host, false),
            Fault::Isolate(_)
            | Fault::OneWay(..)
            | Fault::Deaf(_)
            | Fault::Mute(_)
            | Fault::Split(_) => self.cut(&fault, true),
            Fault::Loss(percent) => self.loss = percent,
            Fault::Late(percent) => self.late = percent,
            Fault::Handover => {
                for host in 0..self.hosts.len() {
                    self.input(host, Input::HandOver);
                }
            }
        }
    }

    pub(super) fn end(&mut self, index: usize) {
        let fault = self.plan.faults[index].2.clone();
        self.say(|| format!("end {fault:?}"));
        self.touched = u32::MAX;
        match fault {
            Fault::Crash(host) => {
                if !self.hosts[host].powered {
                    let now = self.now;
                    self.hosts[host].power_on(now);
                    self.restart(host);
                }
            }
            Fault::Kill(host) | Fault::Stop(host) | Fault::Reconfigure(host) => {
                let here = &self.hosts[host];
                let ended = here.core.as_ref().is_none_or(|core| core.stopped());
                if here.powered && ended {
                    self.restart(host);
                } else if !matches!(fault, Fault::Kill(_)) && here.powered {
                    // Still giving the group up: the service manager waits for that.
                    self.at(self.now + Duration::from_millis(10), Event::End(index));
                }
            }
            Fault::Stall(host) => {
                self.hosts[host].stalled = false;
                self.turn(host);
            }
            Fault::Pause(host) => {
                let now = self.now;
                self.hosts[host].resume(now);
                self.turn(host);
            }
            Fault::Unit(host) => self.warm(host, true),
            Fault::Link(host) => self.link(host, true),
            Fault::Isolate(_)
            | Fault::OneWay(..)
            | Fault::Deaf(_)
            | Fault::Mute(_)
            | Fault::Split(_) => self.cut(&fault, false),
            Fault::Loss(_) => self.loss = 0,
            Fault::Late(_) => self.late = 0,
            Fault::Handover => {}
        }
    }

    fn stop(&mut self, host: usize) {
        if self.hosts[host].member().is_some() {
            self.hosts[host].stopping = true;
            self.input(host, Input::Stop);
        } else {
            // A witness has nothing to give up.
            self.hosts[host].end_daemon();
        }
    }

    fn restart(&mut self, host: usize) {
        let now = self.now;
        self.hosts[host].start_daemon(now);
        self.turn(host);
    }

    fn warm(&mut self, host: usize, up: bool) {
        self.hosts[host].warm = up;
        self.input(
            host,
            Input::Unit {
                unit: name("warm.service"),
                up,
            },
        );
    }

    fn link(&mut self, host: usize, up: bool) {
        self.hosts[host].link = up;
        self.input(host, Input::Carrier { up });
    }

    fn cut(&mut self, fault: &Fault, begin: bool) {
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                let hit = match fault {
                    Fault::Isolate(host) => from != to && (from == *host || to == *host),
                    Fault::OneWay(first, second) => from == *first && to == *second,
                    Fault::Deaf(host) => from != to && to == *host,
                    Fault::Mute(host) => from != to && from == *host,
                    Fault::Split(set) => (set >> from) & 1 != (set >> to) & 1,
                    _ => false,
                };
                if hit {
                    let cuts = &mut self.cuts[from][to];
                    *cuts = if begin {
                        *cuts + 1
                    } else {
                        cuts.saturating_sub(1)
                    };
                }
            }
        }
    }
}
