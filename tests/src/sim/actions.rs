//! What comes of the actions that a daemon asks for, and when.

use std::ops::Range;
use std::time::Duration;

use rand::RngExt;
use shadowd::decide::cluster::{Action, Done, Record, Step};
use shadowd::facts::{Epoch, EventKind, GroupMessage, ProviderAnswer, ProviderState};

use super::daemon::Input;
use super::world::{Event, START, World};

impl World {
    pub(super) fn carry_out(&mut self, index: usize) {
        while self.hosts[index].responsive() && !self.hosts[index].busy {
            let Some(action) = self.hosts[index]
                .core
                .as_mut()
                .and_then(|core| core.poll_action())
            else {
                break;
            };
            match action {
                Action::Send { to, epoch, body } => {
                    let message = GroupMessage {
                        group: self.group.clone(),
                        epoch,
                        body,
                    };
                    self.send(index, &to, message);
                }
                Action::TakeVips { epoch, .. } => {
                    self.outcome.claims += 1;
                    self.outcome.spare_claims += u64::from(self.hosts[index].settings.spare);
                    self.hosts[index].busy = true;
                    self.later(index, self.slow(), Done::VipsTaken { epoch });
                }
                Action::DropVips { epoch } => {
                    self.hosts[index].busy = true;
                    self.later(index, self.slow(), Done::VipsDropped { epoch });
                }
                // Silent but for its connections, which are nothing new to anybody.
                Action::HandOn { epoch, .. } => {
                    self.hosts[index].busy = true;
                    self.later(index, 1..100, Done::VipsDropped { epoch });
                }
                // Its word is worth nothing: hosts come back or do not as the plan has it.
                Action::Provide(wish) => {
                    let answer = ProviderAnswer {
                        state: self.provider_says(),
                        detail: String::new(),
                    };
                    let done = Done::Provided {
                        host: wish.host,
                        attempt: wish.attempt,
                        answer,
                    };
                    self.later(index, 1_000..200_000, done);
                }
                Action::PassBack { .. } => {}
                Action::StartUnits { epoch } => self.cold(index, epoch, true),
                Action::StopUnits { epoch } => self.cold(index, epoch, false),
                Action::Probe { member } => self.probe(index, &member),
                Action::Announce { .. } => {}
                Action::KeepPromise(promise) => self.keep_promise(index, promise),
                Action::Record(record) => {
                    self.check_suspicion(index, &record);
                    self.say(|| format!("h{index} {record:?}"));
                }
            }
        }
    }

    /// Nobody is silent whose word has arrived and only waits to be read.
    fn check_suspicion(&mut self, index: usize, record: &Record) {
        let unread = |name: &str| {
            self.hosts[index]
                .inbox
                .iter()
                .any(|input| matches!(input, Input::Message { from, .. } if from.as_str() == name))
        };
        if record.kind == EventKind::PeerSuspected
            && let Some(name) = record.detail.split(' ').next()
            && unread(name)
        {
            self.unjust = Some(format!(
                "h{index} suspects {name}, whose word it has not read"
            ));
        }
    }

    /// The service manager goes on with a job also when the daemon that asked for it has died.
    fn cold(&mut self, index: usize, epoch: Epoch, start: bool) {
        let done = if start {
            Done::UnitsStarted { epoch }
        } else {
            Done::UnitsStopped { epoch }
        };
        let done = self.perhaps_failed(done);
        let micros = self.rng.random_range(2_000..40_000);
        let host = &mut self.hosts[index];
        host.jobs_until = host.jobs_until.max(self.now) + Duration::from_micros(micros);
        let (at, boots, incarnation) = (host.jobs_until, host.boots, host.incarnation);
        self.at(
            at,
            Event::Job {
                host: index,
                boots,
                incarnation,
                done,
            },
        );
    }

    /// What is to come of an action, or that it failed and changed nothing.
    fn perhaps_failed(&mut self, done: Done) -> Done {
        let healed = self.now >= START + self.plan.healed_at;
        if healed || self.rng.random_range(0..100) >= self.plan.failing {
            return done;
        }
        let (step, epoch) = match done {
            Done::VipsTaken { epoch } => (Step::TakeVips, epoch),
            Done::VipsDropped { epoch } => (Step::DropVips, epoch),
            Done::UnitsStarted { epoch } => (Step::StartUnits, epoch),
            Done::UnitsStopped { epoch } => (Step::StopUnits, epoch),
            Done::PromiseKept(_) | Done::Provided { .. } | Done::Failed { .. } => return done,
        };
        let why = "simulated".to_owned();
        Done::Failed { epoch, step, why }
    }

    fn provider_says(&mut self) -> ProviderState {
        match self.rng.random_range(0..3) {
            0 => ProviderState::Ready,
            1 => ProviderState::Creating,
            _ => ProviderState::Failed,
        }
    }

    /// How long an address action takes, in microseconds.
    fn slow(&self) -> Range<u64> {
        100..u64::try_from(self.plan.slowest.as_micros()).unwrap_or(u64::MAX)
    }

    fn later(&mut self, host: usize, micros: Range<u64>, done: Done) {
        let done = self.perhaps_failed(done);
        let delay = Duration::from_micros(self.rng.random_range(micros));
        let incarnation = self.hosts[host].incarnation;
        self.at(
            self.now + delay,
            Event::Done {
                host,
                incarnation,
                done,
            },
        );
    }
}
