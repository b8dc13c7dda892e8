//! Cores of members and witnesses among themselves, in virtual time: nothing is lost, and what they
//! want done is done.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::{Action, Done, Record};
use super::group::{Group, Peer};
use super::witness::Witness;
use crate::facts::{BootTime, Cause, EventKind, GroupMessage};

/// One way.
const TRANSIT: Duration = Duration::from_micros(200);
/// An action on addresses.
const ACT: Duration = Duration::from_micros(500);
/// No more turns of the cores are taken.
const TURNS_MAX: u32 = 400_000;

pub(super) enum Core {
    Member(Box<Group>),
    Witness(Box<Witness>),
}

pub(super) struct Node {
    pub peer: Peer,
    pub core: Core,
}

enum Delivery {
    Message(usize, GroupMessage),
    Done(Done),
}

pub(super) struct World {
    pub nodes: Vec<Node>,
    pub now: BootTime,
    /// By time and number: to whom, and what.
    queue: BTreeMap<(BootTime, u64), (usize, Delivery)>,
    number: u64,
    /// The first that takes the group over, and its word.
    pub claimed: Option<(usize, Record)>,
    /// When an owner's lease ran out.
    pub lapsed: Option<BootTime>,
}

impl World {
    pub fn new(nodes: Vec<Node>, now: BootTime) -> Self {
        Self {
            nodes,
            now,
            queue: BTreeMap::new(),
            number: 0,
            claimed: None,
            lapsed: None,
        }
    }

    /// Lets time pass until somebody takes the group over, to `end` at the latest.
    pub fn run(&mut self, end: BootTime) {
        for node in 0..self.nodes.len() {
            self.carry_out(node);
        }
        for _ in 0..TURNS_MAX {
            let deadlines = self.nodes.iter().map(|node| match &node.core {
                Core::Member(group) => group.next_deadline(),
                Core::Witness(witness) => witness.next_deadline(),
            });
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let Some(next) = deadlines.chain(queued).min() else {
                return;
            };
            // At least a little later, so that it ends.
            let next = next.max(self.now.after(Duration::from_micros(1)));
            if next > end || self.claimed.is_some() {
                return;
            }
            self.now = next;
            self.turn();
        }
    }

    fn turn(&mut self) {
        let now = self.now;
        while let Some(entry) = self
            .queue
            .first_entry()
            .filter(|entry| entry.key().0 <= now)
        {
            let (to, delivery) = entry.remove();
            self.deliver(to, delivery);
            self.carry_out(to);
        }
        for node in 0..self.nodes.len() {
            match &mut self.nodes[node].core {
                Core::Member(group) if group.next_deadline() <= now => group.on_timer(now),
                Core::Witness(witness) if witness.next_deadline() <= now => witness.on_timer(now),
                Core::Member(_) | Core::Witness(_) => continue,
            }
            self.carry_out(node);
        }
    }

    fn deliver(&mut self, to: usize, delivery: Delivery) {
        let now = self.now;
        match (delivery, &mut self.nodes[to].core) {
            (Delivery::Done(done), Core::Member(group)) => group.on_done(done, now),
            (Delivery::Done(Done::PromiseKept(kept)), Core::Witness(witness)) => {
                witness.on_promise_kept(kept);
            }
            (Delivery::Done(_), Core::Witness(_)) => {}
            (Delivery::Message(from, message), _) => {
                let from = self.nodes[from].peer.name.clone();
                match &mut self.nodes[to].core {
                    Core::Member(group) => group.on_message(&from, now, &message, Some(now), now),
                    Core::Witness(witness) => witness.on_message(&from, now, &message, now),
                }
            }
        }
    }

    fn carry_out(&mut self, node: usize) {
        loop {
            let core = &mut self.nodes[node].core;
            let (action, group) = match core {
                Core::Member(member) => (member.poll_action(), &member.settings.name),
                Core::Witness(witness) => (witness.poll_action(), &witness.settings().name),
            };
            let Some(action) = action else { return };
            let group = group.clone();
            match action {
                Action::Send { to, epoch, body } => {
                    let to = self.nodes.iter().position(|node| node.peer.name == to);
                    let message = GroupMessage { group, epoch, body };
                    if let Some(to) = to {
                        self.later(TRANSIT, to, Delivery::Message(node, message));
                    }
                }
                Action::Record(record) => self.note(node, record),
                Action::TakeVips { epoch, .. } => self.did(node, Done::VipsTaken { epoch }),
                Action::DropVips { epoch } | Action::HandOn { epoch, .. } => {
                    self.did(node, Done::VipsDropped { epoch });
                }
                Action::StartUnits { epoch } => self.did(node, Done::UnitsStarted { epoch }),
                Action::StopUnits { epoch } => self.did(node, Done::UnitsStopped { epoch }),
                Action::KeepPromise(kept) => self.did(node, Done::PromiseKept(kept)),
                // The dead host's kernel does not answer, and the others are heard.
                Action::Probe { .. }
                | Action::PassBack { .. }
                | Action::Provide(_)
                | Action::Announce { .. } => {}
            }
        }
    }

    fn did(&mut self, node: usize, done: Done) {
        self.later(ACT, node, Delivery::Done(done));
    }

    fn later(&mut self, span: Duration, to: usize, delivery: Delivery) {
        self.number += 1;
        let key = (self.now.after(span), self.number);
        self.queue.insert(key, (to, delivery));
    }

    fn note(&mut self, node: usize, record: Record) {
        match record.kind {
            // An owner that only rises above an epoch goes on as it was.
            EventKind::Claimed if record.cause != Some(Cause::NoActive) => {
                self.claimed.get_or_insert((node, record));
            }
            EventKind::LeaseLapsed => {
                self.lapsed.get_or_insert(record.at);
            }
            _ => {}
        }
    }
}
