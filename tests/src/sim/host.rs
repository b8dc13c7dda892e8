//! One simulated host: a daemon's core, and the parts of the machine that outlive the daemon.

use std::collections::VecDeque;
use std::time::Duration;

use shadowd::config::settings::{GroupSettings, UnitSettings};
use shadowd::decide::cluster::{Done, Group, Peer};
use shadowd::facts::{BootTime, Epoch, GroupMessage, HostId, Name, Protection, UnitMode};

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
    HandOver,
    Stop,
}

/// A host.
pub struct Host {
    pub peer: Peer,
    pub settings: GroupSettings,
    others: Vec<Peer>,
    /// The running daemon's core; none while it does not run.
    pub core: Option<Group>,
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
    /// Until when the service manager works on unit jobs: it takes them one after the other.
    pub jobs_until: Duration,
    /// An address action is under way; inputs wait.
    pub busy: bool,
    pub inbox: VecDeque<Input>,
    /// When the armed timer fires.
    pub timer: Option<Duration>,
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
    /// Host number `index` of `hosts`.
    pub fn new(index: usize, hosts: usize, cold_unit: bool) -> Self {
        let peer = |index: usize| Peer {
            name: name(&format!("h{index}")),
            id: HostId::from_bytes([u8::try_from(index + 1).unwrap_or(u8::MAX); 32]),
        };
        let others: Vec<Peer> = (0..hosts)
            .filter(|other| *other != index)
            .map(peer)
            .collect();
        let mut units = vec![UnitSettings {
            name: name("warm.service"),
            mode: UnitMode::Warm,
        }];
        if cold_unit {
            units.push(UnitSettings {
                name: name("cold.service"),
                mode: UnitMode::Cold,
            });
        }
        let settings = GroupSettings {
            name: group(),
            members: others.iter().map(|other| other.name.clone()).collect(),
            priority: u8::try_from(100 - index).unwrap_or(1),
            protection: Protection::None,
            heartbeat: HEARTBEAT,
            suspect_after: SUSPECT_AFTER,
            join_wait: JOIN_WAIT,
            interface: "eth0".to_owned(),
            vips: vec!["192.0.2.10/24".parse().expect("a legal address")],
            units,
        };
        Self {
            peer: peer(index),
            settings,
            others,
            core: None,
            incarnation: 0,
            booted: Duration::ZERO,
            powered: true,
            stalled: false,
            link: true,
            vips: false,
            warm: true,
            cold: false,
            stored: Epoch::NONE,
            jobs_until: Duration::ZERO,
            busy: false,
            inbox: VecDeque::new(),
            timer: None,
        }
    }

    /// This host's boot clock at simulated time `now`. Hosts' clocks differ by design.
    pub fn clock(&self, now: Duration) -> BootTime {
        let nanos = now.saturating_sub(self.booted).as_nanos() + 1_000_000;
        BootTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Starts the daemon: it removes left-over addresses before anything else, as `run` does.
    pub fn start_daemon(&mut self, now: Duration) {
        self.incarnation += 1;
        self.vips = false;
        self.busy = false;
        self.inbox.clear();
        self.timer = None;
        let clock = self.clock(now);
        let settings = self.settings.clone();
        let core = Group::new(
            settings,
            self.peer.clone(),
            self.others.clone(),
            self.stored,
            clock,
        );
        self.core = Some(core);
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
    }

    /// Whether its daemon can act now.
    pub fn responsive(&self) -> bool {
        self.core.is_some() && !self.stalled && self.powered
    }
}
