//! One simulated host: a daemon's core, and the parts of the machine that outlive the daemon.

use std::collections::VecDeque;
use std::time::Duration;

use shadowd::config::settings::{GroupSettings, UnitSettings};
use shadowd::decide::cluster::{Action, Done, Group, Journaled, Peer, Witness};
use shadowd::facts::{
    Body, BootTime, Epoch, GroupMessage, HostId, Name, PolicyMemory, PolicyOrder, Protection,
    UnitMode,
};

use super::faults::Plan;
use super::journal;
use super::restart::Disk;

/// Between heartbeats.
pub const HEARTBEAT: Duration = Duration::from_millis(10);
/// Silence that makes suspect.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(30);
/// How long a starting member listens.
pub const JOIN_WAIT: Duration = Duration::from_millis(300);

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

    /// Breaks the rule on purpose: whoever asks a witness finds that nobody was promised anything.
    /// Giving back what another member holds is a message like any other, which only he may send.
    pub fn break_promise(&mut self, input: &Input, now: BootTime) {
        if let Self::Witness(witness) = self
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

/// What a host heard of another: for the echo of its clock.
#[derive(Clone, Copy)]
pub struct Heard {
    pub at: BootTime,
    pub sent: BootTime,
}

/// A host.
pub struct Host {
    pub peer: Peer,
    pub settings: GroupSettings,
    others: Vec<Peer>,
    witnesses: Vec<Peer>,
    is_witness: bool,
    /// The running daemon's core; none while it does not run.
    pub core: Option<Core>,
    /// By how much this host's clock is fast, in millionths.
    pub drift_ppm: i64,
    /// Until when the kernel lets it answer for the addresses, on its own clock. Outlives the
    /// daemon.
    pub guard: BootTime,
    /// What the daemon last heard of each host.
    pub heard: Vec<Option<Heard>>,
    /// Counts starts of the daemon: what was under way for an earlier one is void.
    pub incarnation: u32,
    /// Simulated time at which the host booted: its boot clock's zero.
    pub booted: Duration,
    pub powered: bool,
    pub stalled: bool,
    pub link: bool,
    /// Whether the virtual IPs are on the interface.
    pub vips: bool,
    pub warm: bool,
    pub cold: bool,
    /// What the store would hand a new daemon.
    pub stored: Epoch,
    /// And of what bounds failover: from when, in simulated time.
    pub remembered: Option<(Duration, PolicyMemory)>,
    /// What the store keeps for restarts.
    pub disk: Disk,
    /// The daemon was asked to end, and is started again.
    pub restarting: bool,
    /// Until when the service manager works on unit jobs: it takes them one after the other.
    pub jobs_until: Duration,
    /// An address action is under way; inputs wait.
    pub busy: bool,
    pub inbox: VecDeque<Input>,
    /// When the armed timer fires.
    pub timer: Option<Duration>,
    /// Whether the journals of its daemons are replayed.
    replays: bool,
    /// A replay that was not like the daemon.
    pub unlike: Option<String>,
}

/// The group's name.
pub fn group() -> Name {
    name("web")
}

/// A name that is known to be legal.
pub fn name(text: &str) -> Name {
    text.parse().expect("the simulation uses legal names")
}

impl Host {
    /// Host number `index` of the plan's members and witnesses.
    pub fn new(index: usize, plan: &Plan) -> Self {
        let peer = |index: usize| Peer {
            name: name(&format!("h{index}")),
            id: HostId::from_bytes([u8::try_from(index + 1).unwrap_or(u8::MAX); 32]),
        };
        let but_me = |range: std::ops::Range<usize>| -> Vec<Peer> {
            range.filter(|other| *other != index).map(peer).collect()
        };
        let others = but_me(0..plan.members);
        let witnesses = but_me(plan.members..plan.hosts());
        let mut units = vec![UnitSettings {
            name: name("warm.service"),
            mode: UnitMode::Warm,
        }];
        if plan.cold_unit {
            units.push(UnitSettings {
                name: name("cold.service"),
                mode: UnitMode::Cold,
            });
        }
        let settings = GroupSettings {
            name: group(),
            members: others.iter().map(|other| other.name.clone()).collect(),
            priority: u8::try_from(if plan.equal { 100 } else { 100 - index }).unwrap_or(1),
            protection: plan.protection,
            heartbeat: HEARTBEAT,
            suspect_after: SUSPECT_AFTER,
            join_wait: JOIN_WAIT,
            interface: "eth0".to_owned(),
            vips: vec!["192.0.2.10/24".parse().expect("a legal address")],
            units,
            witnesses: witnesses.iter().map(|peer| peer.name.clone()).collect(),
            lease: SUSPECT_AFTER,
            guard: true,
            drain: Duration::from_secs(60),
            unanswered_after: None,
            policy: plan.policy,
        };
        Self {
            peer: peer(index),
            settings,
            others,
            witnesses,
            is_witness: index >= plan.members,
            core: None,
            drift_ppm: 0,
            guard: BootTime::default(),
            heard: vec![None; plan.hosts()],
            incarnation: 0,
            booted: Duration::ZERO,
            powered: true,
            stalled: false,
            link: true,
            vips: false,
            warm: true,
            cold: false,
            stored: Epoch::NONE,
            remembered: None,
            disk: Disk::default(),
            restarting: false,
            jobs_until: Duration::ZERO,
            busy: false,
            inbox: VecDeque::new(),
            timer: None,
            replays: plan.replays,
            unlike: None,
        }
    }

    /// This host's boot clock at simulated time `now`. Hosts' clocks differ by design.
    pub fn clock(&self, now: Duration) -> BootTime {
        let nanos = now.saturating_sub(self.booted).as_nanos();
        let nanos = i128::try_from(nanos).unwrap_or(i128::MAX);
        let drifted = nanos + nanos * i128::from(self.drift_ppm) / 1_000_000 + 1_000_000;
        BootTime::from_nanos(u64::try_from(drifted).unwrap_or(u64::MAX))
    }

    /// Starts the daemon: it removes left-over addresses before anything else, as `run` does, but
    /// not those that the daemon before it paused with.
    pub fn start_daemon(&mut self, now: Duration) {
        self.incarnation += 1;
        self.restarting = false;
        self.busy = false;
        self.inbox.clear();
        self.timer = None;
        self.heard.fill(None);
        let clock = self.clock(now);
        let memory = self.take_memory(clock);
        let settings = self.settings.clone();
        let (me, others) = (self.peer.clone(), self.others.clone());
        self.core = Some(if self.is_witness {
            let mut witness =
                Witness::new(settings, &me, others, &self.witnesses, self.stored, clock);
            witness.remember(&memory);
            Core::Witness(Box::new(witness))
        } else {
            let mut group = Group::new(settings, me, others, &self.witnesses, self.stored, clock);
            if let Some((at, memory)) = self.remembered.clone() {
                group.restore(memory, now.saturating_sub(at), clock);
            }
            let resumed = group.remember(&memory, clock);
            self.vips &= resumed;
            Core::Member(Box::new(Journaled::new(group, clock)))
        });
        self.inbox.push_back(Input::Carrier { up: self.link });
        self.inbox.push_back(Input::Unit {
            unit: name("warm.service"),
            up: self.warm,
        });
        self.inbox.push_back(Input::Unit {
            unit: name("cold.service"),
            up: self.cold,
        });
    }

    /// The daemon is gone; the machine stays as it is.
    pub fn end_daemon(&mut self) {
        self.replay();
        self.core = None;
        self.incarnation += 1;
        self.busy = false;
        self.stalled = false;
        self.inbox.clear();
        self.timer = None;
    }

    /// The machine stops: everything volatile is gone.
    pub fn power_off(&mut self) {
        self.end_daemon();
        self.powered = false;
        self.vips = false;
        self.cold = false;
        self.guard = BootTime::default();
    }

    /// Whether its kernel answers for the addresses.
    pub fn answers(&self, now: Duration) -> bool {
        let open = self.settings.protection == Protection::None || self.clock(now) < self.guard;
        self.vips && self.powered && open
    }

    /// The group's core, if it is a member and runs.
    pub fn member(&self) -> Option<&Group> {
        self.core.as_ref().and_then(Core::member)
    }

    /// The daemon sets the guard after each of its turns.
    pub fn set_guard(&mut self) {
        if let Some(until) = self.member().and_then(Group::may_answer_until) {
            self.guard = until;
        }
    }

    /// What its daemon did since its journal begins has to come out of it once more.
    pub fn replay(&mut self) {
        if self.replays
            && let Some(Core::Member(core)) = &mut self.core
            && let Err(why) = journal::replays(core)
        {
            self.unlike = Some(format!("{}: {why}", self.peer.name));
        }
    }

    /// Whether its daemon can act now.
    pub fn responsive(&self) -> bool {
        self.core.is_some() && !self.stalled && self.powered
    }
}
