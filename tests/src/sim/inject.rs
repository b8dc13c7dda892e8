//! Begins and ends the faults of a plan.

use std::time::Duration;

use rand::RngExt;
use shadowd::facts::PolicyOrder;

use super::daemon::Input;
use super::faults::Fault;
use super::host::name;
use super::world::{Event, World};

impl World {
    pub(super) fn begin(&mut self, index: usize) {
        let fault = self.plan.faults[index].2.clone();
        self.say(|| format!("begin {fault:?}"));
        self.touched = u32::MAX;
        match fault {
            Fault::Crash(host) => self.hosts[host].power_off(self.now),
            Fault::Kill(host) => self.hosts[host].end_daemon(self.now),
            Fault::Stall(host) => self.hosts[host].stalled = true,
            Fault::Starve(host) => self.input(host, Input::Starved(true)),
            Fault::Unready(host) => self.input(host, Input::Readiness(false)),
            Fault::Stop(host) => self.stop(host),
            Fault::Reconfigure(host) => {
                self.hosts[host].configure(&self.plan, true);
                // An operator stops and starts it, or has it read its configuration again.
                if self.rng.random_bool(0.5) {
                    self.stop(host);
                } else {
                    self.begin_restart(host);
                }
            }
            Fault::Pause(host) => {
                let now = self.now;
                self.hosts[host].paused.get_or_insert(now);
            }
            Fault::Restart(host) => self.begin_restart(host),
            Fault::Unit(host) => self.warm(host, false),
            Fault::Link(host) => self.link(host, false),
            Fault::Isolate(_)
            | Fault::OneWay(..)
            | Fault::Deaf(_)
            | Fault::Mute(_)
            | Fault::Split(_) => self.cut(&fault, true),
            Fault::Loss(percent) => self.loss = percent,
            Fault::Late(percent) => self.late = percent,
            Fault::Maintenance(host) => {
                let order = PolicyOrder::MaintenanceOn {
                    span: None,
                    reason: String::new(),
                    force: true,
                };
                self.input(host, Input::Order(order));
            }
            Fault::Freeze(host) => {
                let span = self.plan.faults[index].1;
                let reason = String::new();
                self.input(host, Input::Order(PolicyOrder::Freeze { span, reason }));
            }
            Fault::Handover => self.all_hear(&Input::HandOver),
            Fault::Lend => {
                let span = self.plan.faults[index].1;
                let patience = Duration::from_millis(self.rng.random_range(20..400));
                let tag = index as u64;
                let to = None;
                self.all_hear(&Input::Order(PolicyOrder::Lend {
                    tag,
                    to,
                    span,
                    patience,
                }));
            }
        }
    }

    /// Who does not own the group refuses what only an owner can do.
    fn all_hear(&mut self, input: &Input) {
        for host in 0..self.hosts.len() {
            self.input(host, input.clone());
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
            Fault::Kill(host)
            | Fault::Stop(host)
            | Fault::Restart(host)
            | Fault::Reconfigure(host) => {
                let here = &self.hosts[host];
                let ended = here.core.as_ref().is_none_or(|core| core.stopped());
                if here.powered && ended {
                    if !matches!(fault, Fault::Kill(_)) {
                        let now = self.now;
                        self.hosts[host].end_cleanly(now);
                    }
                    self.restart(host);
                } else if !matches!(fault, Fault::Kill(_))
                    && here.powered
                    && (here.stopping || here.restarting)
                {
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
            Fault::Starve(host) => self.input(host, Input::Starved(false)),
            Fault::Unready(host) => self.input(host, Input::Readiness(true)),
            Fault::Unit(host) => self.warm(host, true),
            Fault::Link(host) => self.link(host, true),
            Fault::Isolate(_)
            | Fault::OneWay(..)
            | Fault::Deaf(_)
            | Fault::Mute(_)
            | Fault::Split(_) => self.cut(&fault, false),
            Fault::Loss(_) => self.loss = 0,
            Fault::Late(_) => self.late = 0,
            Fault::Maintenance(host) => self.order(host, PolicyOrder::MaintenanceOff),
            Fault::Freeze(host) => self.order(host, PolicyOrder::Unfreeze),
            // Its time is over as well; some operators say so.
            Fault::Lend if self.rng.random_bool(0.5) => {
                self.all_hear(&Input::Order(PolicyOrder::Recall));
            }
            Fault::Lend | Fault::Handover => {}
        }
    }

    fn stop(&mut self, host: usize) {
        if self.hosts[host].member().is_some() {
            self.hosts[host].stopping = true;
            self.input(host, Input::Stop);
        } else {
            // A witness has nothing to give up.
            let now = self.now;
            self.hosts[host].end_cleanly(now);
        }
    }

    /// An operator waits for a daemon that does not run, if ever it will.
    pub(super) fn order(&mut self, host: usize, order: PolicyOrder) {
        if self.hosts[host].core.is_some() {
            self.input(host, Input::Order(order));
        } else if self.hosts[host].configured {
            self.at(
                self.now + Duration::from_millis(20),
                Event::Order(host, order),
            );
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
