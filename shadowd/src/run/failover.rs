//! The failover loop: one thread that hears the peers, runs the cores and moves the addresses.
//!
//! Every turn: take one input, let the timers that are due run, carry out what the cores want,
//! send what they say. Datagrams that wait are always read before a timer may find a peer silent.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::addresses::Outcome;
use super::board::{Board, FailoverView};
use super::group::{GroupRunner, Outgoing};
use super::handovers::{HandoverReply, Handovers};
use super::links::Links;
use super::policy::{self, OrderAnswer};
use super::starved::StarvedWatch;
use super::watchdog::Watchdog;
use super::witness::WitnessRunner;
use crate::decide::cluster::{Done, Group};
use crate::facts::{BootTime, GroupStatus, Kept, KeptPromise, Name, PathNumber, PolicyOrder};
use crate::link::{Arrival, Datagrams, Heard as FromPeer};
use crate::observe::addresses::AddressReading;
use crate::observe::alarm::Alarm;
use crate::observe::carrier::CarrierReading;
use crate::observe::neighbours::Heard;
use crate::observe::sys::boot_time;
use crate::observe::units::UnitReading;
use crate::serve::protocol::{Code, Refusal};

/// The view for people is renewed at least this often.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// What reaches the loop beside datagrams and time.
#[derive(Debug)]
pub enum Input {
    /// systemd's word on a unit.
    Unit(UnitReading),
    /// A process of this host ended.
    Exit(u32),
    /// Whether clients of a unit are answered.
    Serving {
        /// The unit.
        unit: String,
        /// Whether they are.
        serves: bool,
    },
    /// An interface's link.
    Carrier(CarrierReading),
    /// A neighbour on an interface said something.
    Neighbour(String, Heard),
    /// A virtual IP came to an interface or went.
    Address(AddressReading),
    /// Unit jobs of the group with this number are done.
    Done {
        /// The group's number.
        group: usize,
        /// What came of them.
        done: Done,
    },
    /// An operator wants a handover.
    HandOver {
        /// The group.
        group: Name,
        /// The member that shall take over; the best if none.
        to: Option<Name>,
        /// Where the answer goes.
        reply: HandoverReply,
    },
    /// An operator's order for a group.
    Order {
        /// The group.
        group: Name,
        /// What is wanted.
        order: PolicyOrder,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<OrderAnswer, Refusal>>,
    },
    /// Somebody wants to see the core of a group as it is.
    Core {
        /// The group.
        group: Name,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<(BootTime, Box<Group>), Refusal>>,
    },
    /// Whether this host has what the profile of a group asks for.
    Readiness {
        /// The group.
        group: Name,
        /// It has.
        ready: bool,
    },
    /// The minute of the day, local time.
    Minute(u16),
    /// A promise of this group is on the disk.
    PromiseKept(Name, KeptPromise),
    /// The daemon is to stop, and the next one is to start at once.
    Pause {
        /// Within so long.
        away: Duration,
        /// It goes on with these groups.
        kept: Vec<Name>,
    },
    /// The daemon is to stop.
    Stop,
}

/// The loop and all it holds.
pub struct Failover {
    groups: Vec<GroupRunner>,
    witnessed: Vec<WitnessRunner>,
    links: Links,
    datagrams: Datagrams,
    inputs: mpsc::Receiver<Input>,
    board: Arc<Board>,
    handovers: Handovers,
    published: BootTime,
    unpublished: bool,
    starved: StarvedWatch,
    watchdog: Option<Watchdog>,
}

impl Failover {
    /// Puts the loop together.
    pub fn new(
        groups: Vec<GroupRunner>,
        witnessed: Vec<WitnessRunner>,
        links: Links,
        datagrams: Datagrams,
        inputs: mpsc::Receiver<Input>,
        board: Arc<Board>,
        starved: StarvedWatch,
    ) -> Self {
        Self {
            groups,
            witnessed,
            links,
            datagrams,
            inputs,
            board,
            handovers: Handovers::default(),
            published: BootTime::default(),
            unpublished: false,
            starved,
            watchdog: Watchdog::of_systemd(),
        }
    }

    /// Runs until it was told to stop and every group was given up, or paused; gives what the next
    /// daemon is to know. Nothing was promised since.
    ///
    /// # Errors
    /// When the datagram socket or the timer fails for good.
    pub async fn run(mut self) -> std::io::Result<Vec<(Name, Kept)>> {
        let mut stopping = false;
        let mut alarm = Alarm::new()?;
        loop {
            alarm.set(self.next_deadline())?;
            tokio::select! {
                biased;
                (group, outcome) = changed_addresses(&mut self.groups) => {
                    self.groups[group].on_addresses(outcome);
                }
                received = self.datagrams.recv() => {
                    match received? {
                        FromPeer::Arrival(arrival) => self.on_arrival(&arrival, boot_time()),
                        FromPeer::Refusal(peer, path) => {
                            self.on_refusal(&peer, path, boot_time());
                        }
                    }
                }
                input = self.inputs.recv(), if !self.inputs.is_closed() => match input {
                    Some(Input::Stop) | None => {
                        stopping = true;
                        self.stop(boot_time());
                    }
                    Some(Input::Pause { away, kept }) => {
                        stopping = true;
                        self.pause(away, &kept, boot_time());
                    }
                    Some(input) => self.on_input(input, boot_time()),
                },
                rung = alarm.rings() => {
                    rung?;
                    self.on_timers(boot_time());
                }
            }
            self.look_for_starvation(boot_time());
            let changing = self.changing();
            self.carry_out();
            let began = self.changing() && !changing;
            self.handovers.answer(&self.groups, boot_time());
            // Clients wait for addresses that are about to come, and people for the view of it.
            if !began {
                self.publish(boot_time());
            }
            if let Some(watchdog) = &mut self.watchdog {
                let now = boot_time();
                watchdog.feed(self.board.main_silent(now), now);
            }
            if stopping && self.groups.iter().all(GroupRunner::may_end) {
                return Ok(self.at_rest(boot_time()));
            }
        }
    }

    fn next_deadline(&self) -> BootTime {
        let publish = self.published.after(PUBLISH_EVERY);
        self.groups
            .iter()
            .map(GroupRunner::next_deadline)
            .chain(self.witnessed.iter().map(|one| one.core.next_deadline()))
            .chain(self.links.next_deadline())
            .fold(publish, BootTime::min)
    }

    fn on_timers(&mut self, now: BootTime) {
        for group in &mut self.groups {
            group.on_timer(now);
        }
        for witness in &mut self.witnessed {
            witness.core.on_timer(now);
        }
    }

    fn look_for_starvation(&mut self, now: BootTime) {
        if let Some(starved) = self.starved.look(now) {
            for group in &mut self.groups {
                group.core.on_starved(starved, now);
            }
        }
    }

    fn on_arrival(&mut self, arrival: &Arrival, now: BootTime) {
        let (from, datagram) = (&arrival.from, &arrival.datagram);
        let Some(began) = self.links.on_arrival(arrival, now) else {
            return;
        };
        if began {
            for group in &mut self.groups {
                group.core.on_peer_began(from, now);
            }
        }
        // What it says reaches the groups once, whichever path is the first.
        if arrival.copy {
            return;
        }
        for message in &datagram.messages {
            for group in &mut self.groups {
                let (sent, heard) = (datagram.sent, datagram.heard);
                group.core.on_message(from, sent, message, heard, now);
            }
            for witness in &mut self.witnessed {
                witness.core.on_message(from, datagram.sent, message, now);
            }
        }
    }

    fn on_refusal(&mut self, peer: &Name, path: PathNumber, now: BootTime) {
        if !self.links.on_refusal(peer, path, now) {
            return;
        }
        for group in &mut self.groups {
            group.core.on_kernel_refusal(peer, now);
        }
    }

    fn on_input(&mut self, input: Input, now: BootTime) {
        match input {
            Input::Unit(reading) => {
                for group in &mut self.groups {
                    group.on_unit(reading.clone(), now);
                }
            }
            Input::Exit(pid) => {
                for group in &mut self.groups {
                    group.on_exit(pid, now);
                }
            }
            Input::Serving { unit, serves } => {
                for group in &mut self.groups {
                    group.core.on_serving(&unit, serves, now);
                }
            }
            Input::Carrier(reading) => {
                let (interface, up) = (&reading.interface, reading.up);
                self.links.on_carrier(interface, up, now);
                for group in self.groups_on(&reading.interface) {
                    group.on_carrier(reading.up, reading.mac, now);
                }
            }
            Input::Neighbour(interface, heard) => {
                for group in self.groups_on(&interface) {
                    group.on_neighbour(&heard, now);
                }
            }
            Input::Address(reading) => {
                for group in self.groups_on(&reading.interface) {
                    group.on_address(reading.address, reading.present, now);
                }
            }
            Input::Done { group, done } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.core.on_done(done, now);
                }
            }
            Input::HandOver { group, to, reply } => self.hand_over(&group, to, reply, now),
            Input::Order {
                group,
                order,
                reply,
            } => drop(reply.send(self.order(&group, order, now))),
            Input::Core { group, reply } => {
                let group = self.group_named(&group);
                let core = group.map(|group| (now, self.groups[group].core.checkpoint()));
                let _ = reply.send(core);
            }
            Input::Readiness { group, ready } => {
                let mut groups = self.groups.iter_mut();
                let group = groups.find(|one| one.core.settings().name == group);
                if let Some(group) = group {
                    group.core.on_readiness(ready, now);
                }
            }
            Input::Minute(minute) => {
                for group in &mut self.groups {
                    group.on_minute(minute, now);
                }
            }
            Input::PromiseKept(name, promise) => self.promise_kept(&name, promise, now),
            Input::Pause { .. } | Input::Stop => {}
        }
    }

    fn promise_kept(&mut self, name: &Name, promise: KeptPromise, now: BootTime) {
        for group in self.groups.iter_mut().filter(|group| group.name() == name) {
            group.core.on_done(Done::PromiseKept(promise), now);
        }
        let witnessed = self.witnessed.iter_mut();
        for witness in witnessed.filter(|witness| witness.name() == name) {
            witness.core.on_promise_kept(promise);
        }
    }

    fn groups_on(&mut self, interface: &str) -> impl Iterator<Item = &mut GroupRunner> {
        let groups = self.groups.iter_mut();
        groups.filter(move |group| group.core.settings().interface == interface)
    }

    fn stop(&mut self, now: BootTime) {
        for group in &mut self.groups {
            group.core.on_stop(now);
        }
    }

    fn group_named(&self, name: &Name) -> Result<usize, Refusal> {
        let position = self.groups.iter().position(|group| group.name() == name);
        position.ok_or_else(|| {
            let message = format!("this host is not a member of a group {name}");
            let remedy = "see `shadowctl status` for its groups";
            Refusal::new(Code::UnknownGroup, message, remedy)
        })
    }

    fn order(
        &mut self,
        name: &Name,
        order: PolicyOrder,
        now: BootTime,
    ) -> Result<OrderAnswer, Refusal> {
        let group = self.group_named(name)?;
        let core = &mut self.groups[group].core;
        let forcible = matches!(order, PolicyOrder::MaintenanceOn { .. });
        let to = core
            .on_order(order, now)
            .map_err(|refusal| match forcible {
                true => policy::unforced(&refusal),
                false => policy::refused(&refusal),
            })?;
        let owner = core.active_epoch().is_some();
        let handover = to.clone().map(|to| {
            let (reply, ended) = oneshot::channel();
            self.handovers.begun(group, to, reply, now);
            ended
        });
        Ok(OrderAnswer {
            owner,
            to,
            handover,
        })
    }

    fn pause(&mut self, away: Duration, kept: &[Name], now: BootTime) {
        for group in &mut self.groups {
            if kept.contains(group.name()) {
                group.core.on_pause(away, now);
            } else {
                group.core.on_stop(now);
            }
        }
    }

    fn at_rest(&self, now: BootTime) -> Vec<(Name, Kept)> {
        let groups = self.groups.iter().map(|group| {
            let kept = Kept {
                vote: group.core.vote_at_rest(),
                pause: group.core.pause_at_rest(now),
            };
            (group.name().clone(), kept)
        });
        let witnessed = self.witnessed.iter().map(|witness| {
            let kept = Kept {
                vote: Some(witness.core.vote_at_rest()),
                pause: None,
            };
            (witness.name().clone(), kept)
        });
        groups.chain(witnessed).collect()
    }

    fn hand_over(&mut self, name: &Name, to: Option<Name>, reply: HandoverReply, now: BootTime) {
        let group = match self.group_named(name) {
            Ok(group) => group,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        match self.groups[group].core.hand_over(to.as_ref(), now) {
            Ok(to) => self.handovers.begun(group, to, reply, now),
            Err(refusal) => {
                let _ = reply.send(Err(policy::refused(&refusal)));
            }
        }
    }

    fn changing(&self) -> bool {
        self.groups.iter().any(GroupRunner::is_changing)
    }

    fn carry_out(&mut self) {
        let groups = self.groups.iter_mut();
        let mut outgoing: Vec<Outgoing> = groups.flat_map(GroupRunner::carry_out).collect();
        outgoing.extend(self.witnessed.iter_mut().flat_map(WitnessRunner::carry_out));
        self.links.send(outgoing, &mut self.datagrams);
    }

    fn publish(&mut self, now: BootTime) {
        let changed = self
            .groups
            .iter_mut()
            .fold(self.unpublished, |any, group| group.take_changed() | any);
        if !changed && now.since(self.published) < PUBLISH_EVERY {
            return;
        }
        self.published = now;
        let view = FailoverView {
            at: now,
            groups: self
                .groups
                .iter()
                .map(|group| self.status(group, now))
                .collect(),
            witnessed: self.witnessed.iter().map(|one| one.status(now)).collect(),
            peers: self.links.readings(now),
        };
        self.unpublished = !self.board.publish_failover(view);
    }

    fn status(&self, group: &GroupRunner, now: BootTime) -> GroupStatus {
        GroupStatus {
            lost_paths: self.links.lost(group.core.settings(), now),
            ..group.status(now)
        }
    }
}

/// What came of the next change of the addresses, and of which group.
async fn changed_addresses(groups: &mut [GroupRunner]) -> (usize, Outcome) {
    poll_fn(|context| {
        for (number, group) in groups.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = group.poll_addresses(context) {
                return Poll::Ready((number, outcome));
            }
        }
        Poll::Pending
    })
    .await
}
