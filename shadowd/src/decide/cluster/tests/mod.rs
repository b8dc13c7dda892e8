//! Transitions of [`Group`], one by one. What emerges from many of them is tested by simulation.

mod handover;
mod journal;
mod lease;
mod lend;
mod ownership;
mod pause;
mod policy;
mod readiness;
mod refused;
mod spares;

use std::time::Duration;

use super::{Action, Done, Group, Peer, Refusal, Step};
use crate::config::settings::{GroupSettings, PolicySettings, RedundancySettings, UnitSettings};
use crate::facts::{
    Body, BootTime, Cause, Drain, Epoch, EventKind, GroupMessage, HostId, Mac, Name, PolicyWord,
    Protection, Role, UnitMode,
};

const HEARTBEAT: Duration = Duration::from_millis(10);
const SUSPECT: Duration = Duration::from_millis(30);
const JOIN: Duration = Duration::from_millis(300);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn id(number: u8) -> HostId {
    HostId::from_bytes([number; 32])
}

fn epoch(counter: u64, owner: u8) -> Epoch {
    Epoch {
        counter,
        owner: id(owner),
    }
}

/// A group on host `a` (number 1, priority 100) with the other member `b` (number 2), and a clock.
struct Bench {
    group: Group,
    now: BootTime,
    sent: u64,
    actions: Vec<Action>,
}

impl Bench {
    fn new(cold: bool) -> Self {
        let mut units = vec![UnitSettings {
            name: name("warm.service"),
            mode: UnitMode::Warm,
        }];
        if cold {
            units.push(UnitSettings {
                name: name("cold.service"),
                mode: UnitMode::Cold,
            });
        }
        let settings = GroupSettings {
            name: name("web"),
            members: vec![name("b")],
            priority: 100,
            protection: Protection::None,
            heartbeat: HEARTBEAT,
            suspect_after: SUSPECT,
            join_wait: JOIN,
            interface: "eth0".to_owned(),
            vips: vec!["192.0.2.10/24".parse().unwrap()],
            units,
            witnesses: Vec::new(),
            lease: SUSPECT,
            guard: false,
            drain: Duration::from_secs(60),
            unanswered_after: None,
            promote_unready: true,
            policy: PolicySettings::default(),
            spares: Vec::new(),
            spare: false,
            redundancy: RedundancySettings::of(1),
        };
        let now = BootTime::from_nanos(5_000_000_000);
        let me = Peer {
            name: name("a"),
            id: id(1),
        };
        let other = Peer {
            name: name("b"),
            id: id(2),
        };
        let group = Group::new(settings, me, vec![other], &[], Epoch::NONE, now);
        let mut bench = Self {
            group,
            now,
            sent: 1,
            actions: Vec::new(),
        };
        bench.group.on_carrier(true, now);
        bench.group.on_unit(&name("warm.service"), true, now);
        bench.take();
        bench
    }

    fn take(&mut self) {
        while let Some(action) = self.group.poll_action() {
            self.actions.push(action);
        }
    }

    /// Lets time pass heartbeat by heartbeat; `b` says `body` at each, or nothing.
    fn pass(&mut self, span: Duration, heard: Option<(Epoch, Body)>) {
        let end = self.now.after(span);
        while self.now < end {
            self.now = self
                .group
                .next_deadline()
                .min(end)
                .max(self.now.after(Duration::from_micros(1)));
            if let Some((epoch, body)) = &heard {
                self.hear(*epoch, body.clone());
            }
            self.group.on_timer(self.now);
            self.take();
        }
    }

    fn hear(&mut self, epoch: Epoch, body: Body) {
        self.sent += 1_000_000;
        self.hear_sent(self.sent, epoch, body);
    }

    fn hear_sent(&mut self, sent: u64, epoch: Epoch, body: Body) {
        let message = GroupMessage {
            group: name("web"),
            epoch,
            body,
        };
        let sent = BootTime::from_nanos(sent);
        self.group
            .on_message(&name("b"), sent, &message, None, self.now);
        self.take();
    }

    fn done(&mut self, done: Done) {
        self.group.on_done(done, self.now);
        self.take();
    }

    fn role(&self) -> Role {
        self.group.status(self.now).role
    }

    fn took(&self) -> Option<Epoch> {
        self.actions.iter().find_map(|action| match action {
            Action::TakeVips { epoch, .. } => Some(*epoch),
            _ => None,
        })
    }

    fn said(&self, wanted: impl Fn(&Body) -> bool) -> bool {
        self.actions
            .iter()
            .any(|action| matches!(action, Action::Send { body, .. } if wanted(body)))
    }

    fn recorded(&self, wanted: EventKind) -> bool {
        self.actions
            .iter()
            .any(|action| matches!(action, Action::Record(record) if record.kind == wanted))
    }

    /// A shadow that follows `b`, active in epoch 1.
    fn shadow(cold: bool) -> Self {
        let mut bench = Self::new(cold);
        bench.hear(epoch(1, 2), active());
        assert_eq!(bench.role(), Role::Shadow);
        bench.actions.clear();
        bench
    }

    /// The active in epoch 1, with `b` as a shadow that could take over.
    fn active(cold: bool) -> Self {
        let mut bench = Self::new(cold);
        bench.pass(JOIN, Some((Epoch::NONE, shadow(true))));
        assert_eq!(bench.took(), Some(epoch(1, 1)));
        bench.done(Done::VipsTaken { epoch: epoch(1, 1) });
        bench.actions.clear();
        bench
    }
}

fn active() -> Body {
    Body::Beat {
        role: Role::Active,
        priority: 90,
        eligible: true,
        lease: Duration::ZERO,
        electorate: 0,
        policy: PolicyWord::default(),
    }
}

fn shadow(eligible: bool) -> Body {
    Body::Beat {
        role: Role::Shadow,
        priority: 90,
        eligible,
        lease: Duration::ZERO,
        electorate: 0,
        policy: PolicyWord::default(),
    }
}
