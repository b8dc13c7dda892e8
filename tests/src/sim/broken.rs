//! Rules that are broken on purpose, from outside of the core under test: each check must be worth
//! something.
//!
//! Most bend a message on its last step into the daemon, so that the core does what one without
//! the rule would do.

use std::time::Duration;

use shadowd::config::settings::PolicySettings;
use shadowd::facts::{Body, BootTime, Epoch, GroupMessage, HostId, Protection, Role};

use super::daemon::{Core, Input};
use super::faults::{Fault, Faults, Plan};
use super::host::group;
use super::world::World;

/// A rule that does not hold in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A witness grants before what it promised has run out.
    EarlyGrant,
    /// A holder's deadline has no margin for drifting clocks.
    NoMargin,
    /// A witness that starts promises at once.
    NoQuiet,
    /// A holder counts from when the promise arrived, not from when it asked.
    FromReceipt,
    /// One vote less than a majority is enough.
    FewerVotes,
    /// The kernel does not mind the deadline.
    NoGuard,
    /// A successor inherits the whole of what was left.
    InheritAll,
    /// An answer to an earlier ask counts for the one under way.
    EpochAgain,
    /// The own vote counts also after it was given to another.
    OwnVoteTwice,
}

impl Broken {
    /// Each of them.
    pub const ALL: [Self; 9] = [
        Self::EarlyGrant,
        Self::NoMargin,
        Self::NoQuiet,
        Self::FromReceipt,
        Self::FewerVotes,
        Self::NoGuard,
        Self::InheritAll,
        Self::EpochAgain,
        Self::OwnVoteTwice,
    ];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EarlyGrant => "early-grant",
            Self::NoMargin => "no-margin",
            Self::NoQuiet => "no-quiet",
            Self::FromReceipt => "from-receipt",
            Self::FewerVotes => "fewer-votes",
            Self::NoGuard => "no-guard",
            Self::InheritAll => "inherit-all",
            Self::EpochAgain => "epoch-again",
            Self::OwnVoteTwice => "own-vote-twice",
        }
    }

    /// Whether any run was ever seen to find it (docs/testing.md).
    pub fn can_be_found(self) -> bool {
        self != Self::InheritAll
    }

    /// Makes a random plan one in which this rule matters.
    pub fn direct(self, plan: &mut Plan) {
        plan.broken = Some(self);
        plan.change = None;
        plan.spares = 0;
        plan.protection = Protection::Lease;
        plan.failing = 0;
        // Nothing but what is directed moves the group.
        plan.policy = PolicySettings::default();
        plan.equal = false;
        (plan.members, plan.witnesses) = match self {
            Self::FewerVotes => (2, 3),
            _ => (2, 1),
        };
        plan.drift_ppm.resize(plan.hosts(), 0);
        let begin = Duration::from_millis(900);
        // What differs from seed to seed, 0 to 19.
        let seeded = u32::from(plan.duplicated);
        let length = Duration::from_millis(300) + Duration::from_millis(7) * seeded;
        plan.faults = match self {
            Self::EarlyGrant | Self::NoGuard => vec![(begin, length, Fault::Split(1))],
            Self::FromReceipt => {
                let before = Duration::from_millis(150);
                vec![
                    (begin - before, before, Fault::Late(40)),
                    (begin, length, Fault::Split(1)),
                ]
            }
            Self::NoMargin | Self::InheritAll => self.drifting(plan, seeded),
            Self::NoQuiet => {
                let kill = |number: u32| {
                    let at = begin + Duration::from_millis(45) * number;
                    (at, Duration::from_millis(1), Fault::Kill(2))
                };
                let cut = [Fault::OneWay(0, 1), Fault::OneWay(1, 0)];
                let cut = cut.map(|fault| (begin, length, fault));
                cut.into_iter().chain((1..8).map(kill)).collect()
            }
            Self::FewerVotes => vec![(begin, length, Fault::Split(0b00101))],
            Self::EpochAgain => {
                // Two that do not hear each other ask the same witness again and again, and its
                // answers are late.
                plan.lease = Duration::from_millis(400);
                let (begin, length) = (plan.lease * 16 - length, length * 6);
                let cut = [Fault::OneWay(0, 1), Fault::OneWay(1, 0), Fault::Late(60)];
                cut.map(|fault| (begin, length, fault)).to_vec()
            }
            Self::OwnVoteTwice => {
                let stall = length / 2;
                vec![
                    (begin, stall, Fault::Stall(0)),
                    (begin, stall * 2, Fault::OneWay(1, 2)),
                ]
            }
        };
        plan.heal();
    }

    /// The longer the lease, the more a drift of 0.1 % comes to: a slow owner, handed the group by a
    /// fast one, is cut off.
    fn drifting(self, plan: &mut Plan, seeded: u32) -> Faults {
        plan.lease = Duration::from_secs(2);
        plan.max_delay = Duration::from_micros(60);
        plan.slowest = Duration::from_micros(120);
        plan.cold_unit = false;
        plan.duplicated = 0;
        plan.drift_ppm = vec![-1_000, 1_000, 1_000];
        let handed = plan.lease * 16 + Duration::from_secs(2) + Duration::from_millis(3) * seeded;
        let cut = if self == Self::InheritAll {
            // As its predecessor's last word is under way.
            Duration::from_micros(200) + Duration::from_micros(5) * seeded
        } else {
            Duration::from_millis(100)
        };
        vec![
            (handed, Duration::from_millis(1), Fault::Handover),
            (handed + cut, plan.lease * 2, Fault::Split(1)),
        ]
    }
}

/// Whoever asks a witness finds that nobody was promised anything. Giving back what another member
/// holds is a message like any other, which only he may send.
pub fn grant_early(core: &mut Core, input: &Input, now: BootTime) {
    if let Core::Witness(witness) = core
        && let Input::Message { message, .. } = input
        && matches!(message.body, Body::Ask { .. })
        && let Some((name, _)) = witness.holder(now)
    {
        let (name, epoch) = (name.clone(), witness.newest_epoch());
        let withdrawn = GroupMessage {
            group: group(),
            epoch,
            body: Body::Withdraw,
        };
        witness.on_message(&name, now, &withdrawn, now);
    }
}

/// As long as it has to be for the holder's margin to leave `span` of it.
fn before_margin(span: Duration) -> Duration {
    span * 500 / 499
}

impl World {
    /// Takes down what broken rules need to know.
    pub(super) fn note_sent(&mut self, from: usize, to: usize, message: &GroupMessage) {
        if self.plan.broken.is_none() {
            return;
        }
        let now = self.hosts[from].clock(self.now);
        let here = &mut self.hosts[from];
        match &message.body {
            Body::Ask { .. } => here.asked = message.epoch,
            Body::Beat {
                role: Role::Active, ..
            } if message.epoch.owner == here.peer.id => {
                here.asked = message.epoch;
            }
            Body::Promise { lease, .. } if to != from => here.vote_given_until = now.after(*lease),
            _ => {}
        }
    }

    /// A datagram reaches the daemon, bent by the rule that is broken.
    pub(super) fn hand_in(
        &mut self,
        to: usize,
        from: usize,
        (sent, heard): (BootTime, Option<BootTime>),
        mut message: GroupMessage,
    ) {
        let bend = |broken| self.bend(broken, to, from, sent, &mut message);
        if let Some(other) = self.plan.broken.and_then(bend) {
            let message = message.clone();
            self.hand_on(to, other, (sent, heard), message);
        }
        self.hand_on(to, from, (sent, heard), message);
    }

    fn hand_on(
        &mut self,
        to: usize,
        from: usize,
        (sent, heard): (BootTime, Option<BootTime>),
        message: GroupMessage,
    ) {
        let from = self.hosts[from].peer.name.clone();
        let input = Input::Message {
            from,
            sent,
            heard,
            message,
        };
        self.input(to, input);
    }

    /// Bends a message; returns the voter whose word it is also taken for.
    fn bend(
        &self,
        broken: Broken,
        to: usize,
        from: usize,
        sent: BootTime,
        message: &mut GroupMessage,
    ) -> Option<usize> {
        let here = &self.hosts[to];
        let now = here.clock(self.now);
        let another = || (0..self.hosts.len()).find(|other| *other != to && *other != from);
        match (broken, &mut message.body) {
            (Broken::NoMargin, Body::Promise { lease, .. }) => *lease = before_margin(*lease),
            (Broken::FromReceipt, Body::Promise { sent, .. }) => *sent = now,
            (Broken::FewerVotes, Body::Promise { .. }) => return another(),
            (Broken::OwnVoteTwice, Body::Promise { .. }) if now < here.vote_given_until => {
                return another();
            }
            (Broken::EpochAgain, Body::Promise { .. })
                if self.answers_earlier(to, message.epoch) =>
            {
                message.epoch = here.asked;
            }
            (Broken::InheritAll, Body::Transfer { deadline, .. }) => {
                let left = deadline.since(sent) + Duration::from_millis(2);
                *deadline = sent.after(before_margin(left));
            }
            _ => {}
        }
        None
    }

    /// It is the promise of an earlier epoch of the host.
    fn answers_earlier(&self, to: usize, epoch: Epoch) -> bool {
        let (asked, me): (Epoch, HostId) = (self.hosts[to].asked, self.hosts[to].peer.id);
        epoch.owner == me && asked.owner == me && epoch < asked
    }
}
