//! A simulated daemon: its core, and what reaches it.

use std::time::Duration;

use shadowd::decide::cluster::{Action, Done, Group, Journaled, Witness};
use shadowd::facts::{BootTime, Epoch, GroupMessage, KeptVote, Name, PolicyOrder};

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
    KernelRefuses {
        from: Name,
    },
    PeerBegan {
        from: Name,
    },
    Starved(bool),
    Readiness(bool),
    HandOver,
    Order(PolicyOrder),
    Pause(Duration),
    Stop,
}

impl Input {
    /// It tells of the host itself.
    pub const fn is_local(&self) -> bool {
        matches!(
            self,
            Self::Unit { .. } | Self::Carrier { .. } | Self::Order(_)
        )
    }
}

/// A daemon's core.
pub enum Core {
    Member(Box<Group>),
    /// A member whose journal is replayed: keeping one takes a fifth of a run.
    Journaled(Box<Journaled>),
    Witness(Box<Witness>),
}

/// The same of each kind of core.
macro_rules! each {
    ($core:expr, $it:ident => $of_it:expr) => {
        match $core {
            Core::Member($it) => $of_it,
            Core::Journaled($it) => $of_it,
            Core::Witness($it) => $of_it,
        }
    };
}

/// What a member hears.
macro_rules! member_input {
    ($group:expr, $input:expr, $now:expr) => {
        match $input {
            Input::Message {
                from,
                sent,
                heard,
                message,
            } => $group.on_message(&from, sent, &message, heard, $now),
            Input::Done(done) => $group.on_done(done, $now),
            Input::Unit { unit, up } => $group.on_unit(&unit, up, $now),
            Input::Carrier { up } => $group.on_carrier(up, $now),
            Input::KernelAnswers { from } => $group.on_kernel_answer(&from, $now),
            Input::KernelRefuses { from } => $group.on_kernel_refusal(&from, $now),
            Input::PeerBegan { from } => $group.on_peer_began(&from, $now),
            Input::Starved(starved) => $group.on_starved(starved, $now),
            Input::Readiness(ready) => $group.on_readiness(ready, $now),
            Input::HandOver => drop($group.hand_over(None, $now)),
            Input::Order(order) => drop($group.on_order(order, $now)),
            Input::Pause(away) => $group.on_pause(away, $now),
            Input::Stop => $group.on_stop($now),
        }
    };
}

/// Where every host is on its link.
const MAC: Option<[u8; 6]> = Some([2; 6]);

impl Core {
    pub fn member(&self) -> Option<&Group> {
        match self {
            Self::Member(group) => Some(group),
            Self::Journaled(group) => Some(group),
            Self::Witness(_) => None,
        }
    }

    pub fn on_timer(&mut self, now: BootTime) {
        each!(self, core => core.on_timer(now));
    }

    pub fn next_deadline(&self) -> BootTime {
        each!(self, core => core.next_deadline())
    }

    pub fn newest_epoch(&self) -> Epoch {
        each!(self, core => core.newest_epoch())
    }

    /// What it keeps of its vote; none if it has none.
    pub fn vote(&self) -> Option<KeptVote> {
        match self {
            Self::Member(group) => group.vote_at_rest(),
            Self::Journaled(group) => group.vote_at_rest(),
            Self::Witness(witness) => Some(witness.vote_at_rest()),
        }
    }

    /// Until when its vote keeps others out; none if it does not.
    pub fn promised_until(&self) -> Option<BootTime> {
        self.vote()?.promise.map(|(_, until)| until)
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        each!(self, core => core.poll_action())
    }

    /// A witness has nothing to give up: it ends at once.
    pub fn stopped(&self) -> bool {
        self.member().is_none_or(Group::stopped)
    }

    pub fn input(&mut self, input: Input, now: BootTime) {
        match self {
            Self::Member(group) => {
                if let Input::Carrier { .. } = input {
                    group.on_link_address(MAC);
                }
                member_input!(group, input, now);
            }
            Self::Journaled(group) => {
                if let Input::Carrier { .. } = input {
                    group.on_link_address(MAC, now);
                }
                member_input!(group, input, now);
            }
            Self::Witness(witness) => witness_input(witness, input, now),
        }
    }
}

fn witness_input(witness: &mut Witness, input: Input, now: BootTime) {
    match input {
        Input::Message {
            from,
            sent,
            message,
            ..
        } => witness.on_message(&from, sent, &message, now),
        Input::Done(Done::PromiseKept(kept)) => witness.on_promise_kept(kept),
        _ => {}
    }
}
