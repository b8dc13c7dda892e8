//! A simulated daemon: its core, and what reaches it.

use std::time::Duration;

use shadowd::decide::cluster::{Action, Done, Group, Journaled, Witness};
use shadowd::facts::{BootTime, Epoch, GroupMessage, Name, PolicyOrder};

/// What reaches a daemon.
#[derive(Clone, Debug)]
pub enum Input {
    Message {
        from: Name,
        sent: BootTime,
        heard: Option<BootTime>,
        message: GroupMessage,
    },
    Done(Done),
    Unit {
        unit: Name,
        up: bool,
    },
    Carrier {
        up: bool,
    },
    KernelAnswers {
        from: Name,
    },
    HandOver,
    Order(PolicyOrder),
    Pause(Duration),
    Stop,
}

/// A daemon's core.
pub enum Core {
    Member(Box<Journaled>),
    Witness(Box<Witness>),
}

impl Core {
    pub fn member(&self) -> Option<&Group> {
        match self {
            Self::Member(group) => Some(group),
            Self::Witness(_) => None,
        }
    }

    pub fn on_timer(&mut self, now: BootTime) {
        match self {
            Self::Member(group) => group.on_timer(now),
            Self::Witness(witness) => witness.on_timer(now),
        }
    }

    pub fn next_deadline(&self) -> BootTime {
        match self {
            Self::Member(group) => group.next_deadline(),
            Self::Witness(witness) => witness.next_deadline(),
        }
    }

    pub fn newest_epoch(&self) -> Epoch {
        match self {
            Self::Member(group) => group.newest_epoch(),
            Self::Witness(witness) => witness.newest_epoch(),
        }
    }

    /// Until when its vote keeps others out; none if it does not.
    pub fn promised_until(&self) -> Option<BootTime> {
        let vote = match self {
            Self::Member(group) => group.vote_at_rest()?,
            Self::Witness(witness) => witness.vote_at_rest(),
        };
        vote.promise.map(|(_, until)| until)
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        match self {
            Self::Member(group) => group.poll_action(),
            Self::Witness(witness) => witness.poll_action(),
        }
    }

    /// A witness has nothing to give up: it ends at once.
    pub fn stopped(&self) -> bool {
        self.member().is_none_or(Group::stopped)
    }

    pub fn input(&mut self, input: Input, now: BootTime) {
        match (self, input) {
            (
                Self::Member(group),
                Input::Message {
                    from,
                    sent,
                    heard,
                    message,
                },
            ) => group.on_message(&from, sent, &message, heard, now),
            (
                Self::Witness(witness),
                Input::Message {
                    from,
                    sent,
                    message,
                    ..
                },
            ) => witness.on_message(&from, sent, &message, now),
            (Self::Member(group), Input::Done(done)) => group.on_done(done, now),
            (Self::Member(group), Input::Unit { unit, up }) => group.on_unit(&unit, up, now),
            (Self::Member(group), Input::Carrier { up }) => {
                group.on_link_address(Some([2; 6]), now);
                group.on_carrier(up, now);
            }
            (Self::Member(group), Input::KernelAnswers { from }) => {
                group.on_kernel_answer(&from, now);
            }
            (Self::Member(group), Input::HandOver) => drop(group.hand_over(None, now)),
            (Self::Member(group), Input::Order(order)) => drop(group.on_order(order, now)),
            (Self::Member(group), Input::Pause(away)) => group.on_pause(away, now),
            (Self::Member(group), Input::Stop) => group.on_stop(now),
            (Self::Witness(witness), Input::Done(Done::PromiseKept(kept))) => {
                witness.on_promise_kept(kept);
            }
            (Self::Witness(_), _) => {}
        }
    }
}
