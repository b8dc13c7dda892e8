//! One group on this host: its core, and what carries out what the core asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use super::addresses::{Addresses, Change, Outcome};
use super::drain::Drain;
use super::guards::GroupGuard;
use super::jobs::Job;
use super::provider::ProviderQueue;
use super::readings::unit_statuses;
use super::record::Recorder;
use crate::act::announce::AnnounceError;
use crate::act::vip::VipError;
use crate::decide::cluster::{Action, Done, Group, Journaled, Step};
use crate::facts::{
    BootTime, Epoch, EventKind, GroupMessage, GroupStatus, Mac, Name, UnitMode, VipStatus,
};
use crate::observe::neighbours::Heard;
use crate::observe::sys::boot_time;
use crate::observe::units::UnitReading;

/// Before addresses that no connection needs any more, and that would not go, are removed again.
const REMOVE_AGAIN: Duration = Duration::from_secs(1);

/// A message for a peer.
pub struct Outgoing {
    /// The peer.
    pub to: Name,
    /// The message.
    pub message: GroupMessage,
}

/// A group and its hands.
pub struct GroupRunner {
    /// Its core, and the journal of what reaches it.
    pub core: Journaled,
    addresses: Addresses,
    units: Vec<UnitReading>,
    jobs: mpsc::Sender<Job>,
    recorder: Recorder,
    guard: Option<GroupGuard>,
    /// Who had the addresses that are about to be taken, and serves its connections until then.
    predecessor: Option<(Mac, BootTime)>,
    /// Where the members on the same link are, and the way to ask their kernels.
    kernels: BTreeMap<Name, IpAddr>,
    probes: mpsc::Sender<IpAddr>,
    provider: ProviderQueue,
    stored: Epoch,
    /// The changes of the policy that were stored.
    remembered: u64,
    /// Something worth showing has changed since it was last asked for.
    changed: bool,
}

impl GroupRunner {
    /// Puts a group together.
    pub fn new(
        core: Group,
        addresses: Addresses,
        jobs: mpsc::Sender<Job>,
        recorder: Recorder,
        guard: Option<GroupGuard>,
        (kernels, probes): (BTreeMap<Name, IpAddr>, mpsc::Sender<IpAddr>),
    ) -> Self {
        Self {
            stored: core.newest_epoch(),
            remembered: 0,
            core: Journaled::new(core, boot_time()),
            addresses,
            units: Vec::new(),
            jobs,
            recorder,
            guard,
            predecessor: None,
            kernels,
            probes,
            provider: ProviderQueue::default(),
            changed: true,
        }
    }

    /// Spares can be created.
    pub fn with_provider(self, provider: ProviderQueue) -> Self {
        Self { provider, ..self }
    }

    /// Whether the daemon may end, as far as this group goes.
    pub fn may_end(&self) -> bool {
        (self.core.stopped() || self.core.paused()) && !self.addresses.is_busy()
    }

    /// The group's name.
    pub fn name(&self) -> &Name {
        &self.core.settings().name
    }

    /// When [`Self::on_timer`] wants to be called next.
    pub fn next_deadline(&self) -> BootTime {
        let addresses = self.addresses.next_deadline().into_iter();
        addresses.fold(self.core.next_deadline(), BootTime::min)
    }

    /// Time has passed.
    pub fn on_timer(&mut self, now: BootTime) {
        if now >= self.core.next_deadline() {
            self.core.on_timer(now);
        }
        if let Err(error) = self.addresses.announce_if_due(now) {
            self.frames(Err(error));
        }
    }

    /// systemd said something of a unit.
    pub fn on_unit(&mut self, reading: UnitReading, now: BootTime) {
        if !self
            .core
            .settings()
            .units
            .iter()
            .any(|unit| unit.name == reading.unit)
        {
            return;
        }
        self.core.on_unit(&reading.unit, reading.is_up(), now);
        self.units.retain(|known| known.unit != reading.unit);
        self.units.push(reading);
        self.changed = true;
    }

    /// A process ended. If it is the main process of one of the group's units, the unit is down
    /// before systemd has said so.
    pub fn on_exit(&mut self, pid: u32, now: BootTime) {
        let main = self
            .units
            .iter_mut()
            .find(|unit| unit.main_pid == Some(pid));
        if let Some(unit) = main {
            unit.main_pid = None;
            let name = unit.unit.clone();
            self.core.on_unit(&name, false, now);
            self.changed = true;
        }
    }

    /// What came of the change of the addresses that is under way; begins the next one.
    pub fn poll_addresses(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        self.addresses.poll(context)
    }

    /// Whether a change of the addresses is under way or about to be.
    pub fn is_changing(&self) -> bool {
        self.addresses.is_busy()
    }

    /// Carries out everything the core wants, or begins to; gives what it says to peers. Never waits.
    pub fn carry_out(&mut self) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        self.set_guard();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send { to, epoch, body } => {
                    let message = GroupMessage {
                        group: self.name().clone(),
                        epoch,
                        body,
                    };
                    outgoing.push(Outgoing { to, message });
                }
                Action::TakeVips { epoch, .. } => {
                    self.open_guard();
                    self.addresses.change(Change::Take(epoch));
                }
                Action::DropVips { epoch } => self.addresses.change(Change::Drop(epoch)),
                Action::HandOn {
                    epoch,
                    successor,
                    until,
                } => self.addresses.change(Change::HandOn {
                    epoch,
                    successor,
                    until,
                }),
                Action::PassBack { predecessor, until } => {
                    self.predecessor = Some((predecessor, until));
                }
                Action::Probe { member } => self.probe(&member),
                Action::Announce { .. } => self.addresses.announce_anew(boot_time()),
                Action::StartUnits { epoch } => self.unit_job(epoch, true),
                Action::StopUnits { epoch } => self.unit_job(epoch, false),
                Action::KeepPromise(promise) => {
                    let group = self.name().clone();
                    self.recorder.promise(&group, promise);
                }
                // It is never waited for.
                Action::Provide(wish) => {
                    if let Some(done) = self.provider.ask(wish) {
                        self.core.on_done(done, boot_time());
                    }
                }
                Action::Record(record) => {
                    let group = self.name().clone();
                    self.recorder.decision(&group, record);
                    self.changed = true;
                }
            }
        }
        self.set_guard();
        self.end_drain(boot_time());
        self.remember_epoch();
        self.remember_policy();
        self.remember_decision();
        outgoing
    }

    /// The kernel answers for the addresses for as long as the core may, and no longer, whatever
    /// becomes of this process. What is closed is opened by [`Self::open_guard`].
    fn set_guard(&mut self) {
        if let (Some(guard), Some(until)) = (&mut self.guard, self.core.may_answer_until())
            && !guard.is_closed()
        {
            guard.let_answer(until);
        }
    }

    /// Before the first packet is answered it must be known whose connections are whose.
    fn open_guard(&mut self) {
        let predecessor = self.predecessor.take();
        if let (Some(guard), Some(until)) = (&mut self.guard, self.core.may_answer_until()) {
            if guard.is_closed() {
                guard.take_over(predecessor);
            }
            guard.let_answer(until);
        }
    }

    /// Without an answer the peer's own silence decides, so a probe that finds no room is no loss.
    fn probe(&self, member: &Name) {
        if let Some(address) = self.kernels.get(member) {
            let _ = self.probes.try_send(*address);
        }
    }

    /// A neighbour on this group's interface said something.
    pub fn on_neighbour(&mut self, heard: &Heard, now: BootTime) {
        match heard {
            Heard::Answer(answer) => {
                let asked = self.kernels.iter().find(|(_, at)| **at == answer.address);
                if let Some((name, _)) = asked {
                    self.core.on_kernel_answer(name, now);
                }
            }
            Heard::Claim(claim) if self.is_held(claim.vip.address) => {
                self.core.on_claim(claim.vip, &printed(claim.mac), now);
                self.changed = true;
            }
            Heard::Claim(_) => {}
        }
    }

    fn is_held(&self, address: IpAddr) -> bool {
        let mut held = self.addresses.held().iter();
        held.any(|vip| vip.address == address)
    }

    /// Removes addresses that were kept for connections which have ended.
    fn end_drain(&mut self, now: BootTime) {
        if self.addresses.end_drain(self.core.stopped(), now)
            && let Some(guard) = &mut self.guard
        {
            guard.end_connections();
        }
    }

    /// An address of this group's interface came or went.
    pub fn on_address(&mut self, address: IpAddr, present: bool, now: BootTime) {
        if let Some(vip) = self.addresses.on_address(address, present) {
            self.core.on_address_lost(vip, now);
            self.changed = true;
        }
    }

    /// The link of the interface came or went.
    pub fn on_carrier(&mut self, up: bool, mac: Option<Mac>, now: BootTime) {
        // An interface that cannot be guarded is as good as none.
        let guarded = !up || self.guard.as_mut().is_none_or(GroupGuard::reattach);
        // Without the guard nothing passes connections on.
        let mac = mac.filter(|_| self.guard.is_some());
        self.core.on_link_address(mac, now);
        self.core.on_carrier(up && guarded, now);
    }

    /// What came of a change of the addresses. Only what is known to be gone is reported as dropped:
    /// the others wait for that word.
    pub fn on_addresses(&mut self, outcome: Outcome) {
        self.changed = true;
        let done = match (&outcome.change, &outcome.result) {
            (Change::Take(epoch), _) => Some(self.taken(*epoch, outcome)),
            (Change::HandOn { .. }, _) => self.hand_on(outcome.change),
            (Change::EndDrain { .. }, _) => {
                self.drained(outcome);
                None
            }
            (Change::Drop(epoch), Ok(())) => {
                let epoch = *epoch;
                for vip in self.addresses.given_up() {
                    self.note(EventKind::VipRemoved, epoch, outcome.at, vip.to_string());
                }
                Some(Done::VipsDropped { epoch })
            }
            (Change::Drop(epoch), Err(_)) => Some(ended(*epoch, Step::DropVips, outcome.result)),
        };
        if let Some(done) = done {
            self.core.on_done(done, boot_time());
        }
    }

    /// Addresses first, announcement at once, everything else later: this is the path that clients
    /// wait for.
    fn taken(&mut self, epoch: Epoch, outcome: Outcome) -> Done {
        let (new, announced) = self.addresses.taken(&outcome);
        let announced_at = boot_time();
        for vip in new {
            self.note(EventKind::VipAdded, epoch, outcome.at, vip.to_string());
        }
        let frames = self.frames(announced);
        let detail = format!("{frames} frames");
        self.note(EventKind::Announced, epoch, announced_at, detail);
        ended(epoch, Step::TakeVips, outcome.result)
    }

    /// Silent at once for all but its connections; without a guard for all.
    fn hand_on(&mut self, change: Change) -> Option<Done> {
        let Change::HandOn {
            epoch,
            successor,
            until,
        } = change
        else {
            return None;
        };
        let guard = self.guard.as_mut();
        if !guard.is_some_and(|guard| guard.hand_on(successor, until)) {
            self.addresses.change_first(Change::Drop(epoch));
            return None;
        }
        let now = boot_time();
        // To the rest of the daemon they are gone: nobody puts them back or defends them.
        for vip in self.addresses.given_up() {
            let detail = format!("{vip}, but for its connections");
            self.note(EventKind::VipRemoved, epoch, now, detail);
        }
        let drain = Drain::new(epoch, until, now);
        self.addresses.keep_for_connections(drain);
        Some(Done::VipsDropped { epoch })
    }

    fn drained(&mut self, outcome: Outcome) {
        let Change::EndDrain { epoch, left } = outcome.change else {
            return;
        };
        if let Err(error) = outcome.result {
            let why = format!("{:#}", anyhow::Error::from(error));
            warn!(group = %self.name(), why, "addresses of an earlier epoch stay, silent");
            if !self.core.stopped() {
                let now = boot_time();
                let again = Drain::new(epoch, now.after(REMOVE_AGAIN), now);
                self.addresses.keep_for_connections(again);
            }
            return;
        }
        let left = match left {
            Some(0) => "no connection left".to_owned(),
            Some(left) => format!("{left} connections were left"),
            None => "its time is over".to_owned(),
        };
        self.note(EventKind::Drained, epoch, boot_time(), left);
    }

    fn note(&mut self, kind: EventKind, epoch: Epoch, at: BootTime, detail: String) {
        let group = Some((&self.core.settings().name, epoch));
        self.recorder.note(kind, group, at, detail);
    }

    /// How many frames announced the addresses.
    fn frames(&self, announced: Result<usize, AnnounceError>) -> usize {
        announced.unwrap_or_else(|error| {
            let why = format!("{:#}", anyhow::Error::from(error));
            warn!(group = %self.name(), why, "not announced; the next repeat tries again");
            0
        })
    }

    fn unit_job(&mut self, epoch: Epoch, start: bool) {
        let units = &self.core.settings().units;
        let cold = units.iter().filter(|unit| unit.mode == UnitMode::Cold);
        let job = Job {
            epoch,
            units: cold.map(|unit| unit.name.clone()).collect(),
            start,
        };
        if self.jobs.try_send(job).is_err() {
            let step = if start {
                Step::StartUnits
            } else {
                Step::StopUnits
            };
            let why = "the unit jobs have ended or are too many".to_owned();
            self.core
                .on_done(Done::Failed { epoch, step, why }, boot_time());
        }
    }

    fn remember_epoch(&mut self) {
        let newest = self.core.newest_epoch();
        if newest > self.stored && self.recorder.epoch(self.name(), newest) {
            self.stored = newest;
        }
    }

    fn remember_policy(&mut self) {
        let changes = self.core.policy_changes();
        if changes != self.remembered {
            let memory = self.core.remembered(boot_time());
            if self.recorder.remember_policy(self.name(), memory) {
                self.remembered = changes;
            }
        }
    }

    /// A decision is kept with what led to it, a moment after it was carried out.
    fn remember_decision(&mut self) {
        let ending = self.may_end();
        if let Some(window) = self.core.take_decision(boot_time(), ending) {
            self.recorder.window(self.name(), window);
        }
    }

    /// The minute of the day, local time.
    pub fn on_minute(&mut self, minute: u16, now: BootTime) {
        if let Some(window) = self.core.settings().policy.failback_window {
            self.core.on_failback_window(window.is_open(minute), now);
        }
    }

    /// Whether something worth showing has changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The view for people.
    pub fn status(&self, now: BootTime) -> GroupStatus {
        let settings = self.core.settings();
        let mut status = self.core.status(now);
        status.vips = settings
            .vips
            .iter()
            .map(|vip| VipStatus {
                vip: *vip,
                interface: settings.interface.clone(),
                held: self.addresses.held().contains(vip),
            })
            .collect();
        status.guard = self
            .guard
            .as_ref()
            .map_or_else(Vec::new, GroupGuard::readings);
        status.drain = self.addresses.drain().map(Drain::status);
        status.units = unit_statuses(&settings.units, &self.units);
        status
    }
}

fn printed(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What the core is told of addresses that came or went, or did not.
fn ended(epoch: Epoch, step: Step, result: Result<(), VipError>) -> Done {
    match (result, step) {
        (Ok(()), Step::TakeVips) => Done::VipsTaken { epoch },
        (Ok(()), _) => Done::VipsDropped { epoch },
        (Err(error), step) => {
            let why = format!("{:#}", anyhow::Error::from(error));
            Done::Failed { epoch, step, why }
        }
    }
}
