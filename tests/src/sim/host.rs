//! One simulated host: a daemon's core, and the parts of the machine that outlive the daemon.

use std::collections::VecDeque;
use std::time::Duration;

use shadowd::config::settings::{GroupSettings, ProviderRules, RedundancySettings, UnitSettings};
use shadowd::decide::cluster::{Echo, Group, Journaled, Peer, Witness};
use shadowd::facts::{BootTime, Epoch, HostId, Name, PolicyMemory, UnitMode};

use super::broken::Broken;
use super::daemon::{Core, Input};
use super::faults::Plan;
use super::journal;
use super::restart::Disk;

/// Between heartbeats.
pub const HEARTBEAT: Duration = Duration::from_millis(10);
/// Silence that makes suspect.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(30);
/// How long a starting member listens.
pub const JOIN_WAIT: Duration = Duration::from_millis(300);

/// A host.
pub struct Host {
    pub peer: Peer,
    pub settings: GroupSettings,
    others: Vec<Peer>,
    witnesses: Vec<Peer>,
    is_witness: bool,
    /// Its configuration has the voters of after the change.
    pub changed: bool,
    /// So has the daemon that runs.
    pub runs_changed: bool,
    /// It is a voter, by its own configuration.
    pub configured: bool,
    /// The running daemon's core; none while it does not run.
    pub core: Option<Core>,
    /// By how much this host's clock is fast, in millionths.
    pub drift_ppm: i64,
    /// Until when the kernel lets it answer for the addresses, on its own clock. Outlives the
    /// daemon.
    pub guard: BootTime,
    /// Whether the kernel minds the guard.
    guarded: bool,
    /// A witness starts as if it had been silent for long.
    no_quiet: bool,
    /// What the daemon keeps of each host's clock, to echo it.
    pub echoes: Vec<Echo>,
    /// The newest run of each host's daemon that it has met.
    pub met: Vec<u32>,
    /// Counts starts of the daemon: what was under way for an earlier one is void.
    pub incarnation: u32,
    /// Counts starts of the machine: unit jobs of an earlier one are void.
    pub boots: u32,
    /// Simulated time at which the host booted: its boot clock's zero.
    pub booted: Duration,
    /// Simulated time at which the daemon started.
    pub started: Duration,
    pub powered: bool,
    pub stalled: bool,
    /// Since when the virtual machine is paused.
    pub paused: Option<Duration>,
    /// The daemon was asked to stop.
    pub stopping: bool,
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
    /// The epoch it asked for last, and until when it has promised another host to keep out all
    /// others: what broken rules need to know.
    pub asked: Epoch,
    pub vote_given_until: BootTime,
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

/// Hosts of a run, at most.
const HOSTS_MAX: usize = 16;

thread_local! {
    /// Names that are shared compare quickly, and nothing is compared more often.
    static NAMES: [Name; HOSTS_MAX] = std::array::from_fn(|index| name(&format!("h{index}")));
}

fn peer(index: usize) -> Peer {
    Peer {
        name: NAMES.with(|names| names[index].clone()),
        id: HostId::from_bytes([u8::try_from(index + 1).unwrap_or(u8::MAX); 32]),
    }
}

fn names(peers: &[Peer]) -> Vec<Name> {
    peers.iter().map(|peer| peer.name.clone()).collect()
}

/// All but the voters.
fn settings(index: usize, plan: &Plan) -> GroupSettings {
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
    GroupSettings {
        name: group(),
        members: Vec::new(),
        priority: u8::try_from(if plan.equal { 100 } else { 100 - index }).unwrap_or(1),
        protection: plan.protection,
        heartbeat: HEARTBEAT,
        suspect_after: SUSPECT_AFTER,
        join_wait: JOIN_WAIT,
        interface: "eth0".to_owned(),
        vips: vec!["192.0.2.10/24".parse().expect("a legal address")],
        units,
        witnesses: Vec::new(),
        lease: plan.lease,
        guard: true,
        drain: Duration::from_secs(60),
        unanswered_after: None,
        promote_unready: true,
        policy: plan.policy,
        spares: Vec::new(),
        spare: false,
        redundancy: RedundancySettings {
            rejoin_within: plan.missed,
            release_after: plan.missed,
            provider: Some(ProviderRules {
                deadline: Duration::from_secs(1),
                ready_within: plan.missed * 2,
                retry: plan.missed,
                attempts: 3,
            }),
            ..RedundancySettings::of(u8::try_from(plan.members - 1).unwrap_or(1))
        },
    }
}

impl Host {
    /// Host number `index` of the plan's members and witnesses.
    pub fn new(index: usize, plan: &Plan) -> Self {
        let mut host = Self {
            peer: peer(index),
            settings: settings(index, plan),
            others: Vec::new(),
            witnesses: Vec::new(),
            is_witness: (plan.members..plan.voters()).contains(&index),
            changed: false,
            runs_changed: false,
            configured: true,
            core: None,
            drift_ppm: plan.drift_ppm[index],
            guard: BootTime::default(),
            guarded: plan.is_leased() && plan.broken != Some(Broken::NoGuard),
            no_quiet: plan.broken == Some(Broken::NoQuiet),
            echoes: vec![Echo::default(); plan.hosts()],
            met: vec![0; plan.hosts()],
            incarnation: 0,
            boots: 0,
            booted: Duration::ZERO,
            started: Duration::ZERO,
            powered: true,
            stalled: false,
            paused: None,
            stopping: false,
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
            asked: Epoch::NONE,
            vote_given_until: BootTime::default(),
            replays: plan.replays,
            unlike: None,
        };
        host.configure(plan, false);
        host
    }

    /// Writes the configuration with the voters of before or after the change. A daemon that runs
    /// goes on with what it has read.
    pub fn configure(&mut self, plan: &Plan, changed: bool) {
        let outside = plan.outside(changed);
        let but_me = |range: std::ops::Range<usize>| -> Vec<Peer> {
            let mut peers: Vec<Peer> = range
                .filter(|other| Some(*other) != outside)
                .map(peer)
                .collect();
            peers.retain(|other| other.id != self.peer.id);
            peers
        };
        self.others = but_me(0..plan.members);
        self.witnesses = but_me(plan.members..plan.voters());
        self.settings.members = names(&self.others);
        let spares = but_me(plan.voters()..plan.hosts());
        self.settings.spares = names(&spares);
        self.settings.spare = (plan.voters()..plan.hosts()).any(|it| peer(it) == self.peer);
        self.others.extend(spares);
        self.settings.witnesses = names(&self.witnesses);
        self.configured = outside.map(peer).as_ref() != Some(&self.peer);
        self.changed = changed;
    }

    /// This host's boot clock at simulated time `now`. Hosts' clocks differ by design.
    pub fn clock(&self, now: Duration) -> BootTime {
        let now = self.paused.map_or(now, |since| now.min(since));
        let nanos = now.saturating_sub(self.booted).as_nanos();
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        // Runs take seconds and clocks are off by some per cent: nowhere near the end of the numbers.
        let drifted = nanos + nanos * self.drift_ppm / 1_000_000 + 1_000_000;
        BootTime::from_nanos(u64::try_from(drifted).unwrap_or_default())
    }

    /// Starts the daemon: it removes left-over addresses before anything else, as `run` does, but
    /// not those that the daemon before it paused with.
    pub fn start_daemon(&mut self, now: Duration) {
        if !self.configured {
            return;
        }
        self.incarnation += 1;
        self.started = now;
        self.runs_changed = self.changed;
        self.stopping = false;
        self.restarting = false;
        self.busy = false;
        self.inbox.clear();
        self.timer = None;
        self.echoes.fill(Echo::default());
        self.met.fill(0);
        let clock = self.clock(now);
        let memory = self.take_memory(clock);
        let settings = self.settings.clone();
        let (me, others) = (self.peer.clone(), self.others.clone());
        self.core = Some(if self.is_witness {
            let before = u64::try_from(self.quiet().as_nanos()).unwrap_or_default();
            let before = if self.no_quiet { before } else { 0 };
            let clock = BootTime::from_nanos(clock.as_nanos().saturating_sub(before));
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
            match self.replays {
                true => Core::Journaled(Box::new(Journaled::new(group, clock))),
                false => Core::Member(Box::new(group)),
            }
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
    pub fn end_daemon(&mut self, now: Duration) {
        if let Some(group) = self.member() {
            self.remembered = Some((now, group.remembered(self.clock(now))));
        }
        self.replay();
        self.core = None;
        self.incarnation += 1;
        self.busy = false;
        self.stalled = false;
        self.stopping = false;
        self.inbox.clear();
        self.timer = None;
    }

    /// The machine stops: everything volatile is gone.
    pub fn power_off(&mut self, now: Duration) {
        self.end_daemon(now);
        self.powered = false;
        self.paused = None;
        self.vips = false;
        self.cold = false;
        self.guard = BootTime::default();
    }

    /// The machine is switched on.
    pub fn power_on(&mut self, now: Duration) {
        self.powered = true;
        self.boots += 1;
        self.booted = now;
    }

    /// The virtual machine goes on, and so does its clock.
    pub fn resume(&mut self, now: Duration) {
        if let Some(since) = self.paused.take() {
            self.booted += now - since;
        }
    }

    /// Whether its kernel answers for the addresses.
    pub fn answers(&self, now: Duration) -> bool {
        let open = !self.guarded || self.clock(now) < self.guard;
        self.vips && self.powered && self.paused.is_none() && open
    }

    /// For how long it will, if nothing changes.
    pub fn answers_for(&self, now: Duration) -> Duration {
        if !self.guarded {
            return Duration::MAX;
        }
        let left = self.guard.since(self.clock(now)).as_nanos();
        let rate = u128::from((1_000_000 + self.drift_ppm).unsigned_abs());
        Duration::from_nanos_u128(left * 1_000_000 / rate)
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

    /// How long its daemon promises nothing after it started: 16 leases (`lease.rs`).
    pub fn quiet(&self) -> Duration {
        self.settings.lease * 16
    }

    /// What its daemon did since its journal begins has to come out of it once more.
    pub fn replay(&mut self) {
        if let Some(Core::Journaled(core)) = &mut self.core
            && let Err(why) = journal::replays(core)
        {
            self.unlike = Some(format!("{}: {why}", self.peer.name));
        }
    }

    /// Whether its daemon can act now.
    pub fn responsive(&self) -> bool {
        self.core.is_some() && !self.stalled && self.powered && self.paused.is_none()
    }
}
