//! One group on this host: its core, and what carries out what the core asks for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use super::drain::Drain;
use super::guards::GroupGuard;
use super::jobs::Job;
use super::provider::ProviderQueue;
use super::readings::unit_statuses;
use super::record::Recorder;
use crate::act::announce::{Announcer, Repeats};
use crate::act::vip::{VipError, Vips};
use crate::decide::cluster::{Action, Done, Group, Journaled, Step};
use crate::facts::{
    BootTime, Epoch, EventKind, GroupMessage, GroupStatus, Mac, Name, UnitMode, Vip, VipStatus,
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
    vips: Vips,
    announcer: Announcer,
    /// The running series of announcements; none while this host does not hold the addresses.
    repeats: Option<Repeats>,
    held: Vec<Vip>,
    units: Vec<UnitReading>,
    jobs: mpsc::Sender<Job>,
    recorder: Recorder,
    guard: Option<GroupGuard>,
    /// Who had the addresses that are about to be taken, and serves its connections until then.
    predecessor: Option<(Mac, BootTime)>,
    /// Connections of an ownership that was handed on.
    drain: Option<Drain>,
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
        vips: Vips,
        announcer: Announcer,
        jobs: mpsc::Sender<Job>,
        recorder: Recorder,
        guard: Option<GroupGuard>,
        (kernels, probes): (BTreeMap<Name, IpAddr>, mpsc::Sender<IpAddr>),
    ) -> Self {
        Self {
            stored: core.newest_epoch(),
            remembered: 0,
            core: Journaled::new(core, boot_time()),
            vips,
            announcer,
            repeats: None,
            held: Vec::new(),
            units: Vec::new(),
            jobs,
            recorder,
            guard,
            predecessor: None,
            drain: None,
            kernels,
            probes,
            provider: ProviderQueue::default(),
            changed: true,
        }
    }

    /// The addresses are there already: the daemon before this one paused.
    pub fn holding(self, held: Vec<Vip>) -> Self {
        Self { held, ..self }
    }

    /// Spares can be created.
    pub fn with_provider(self, provider: ProviderQueue) -> Self {
        Self { provider, ..self }
    }

    /// Whether the daemon may end, as far as this group goes.
    pub fn may_end(&self) -> bool {
        self.core.stopped() || self.core.paused()
    }

    /// The group's name.
    pub fn name(&self) -> &Name {
        &self.core.settings().name
    }

    /// When [`Self::on_timer`] wants to be called next.
    pub fn next_deadline(&self) -> BootTime {
        let repeats = self.repeats.as_ref().map(Repeats::next_deadline);
        let drain = self.drain.as_ref().map(Drain::next_deadline);
        let others = repeats.into_iter().chain(drain);
        others.fold(self.core.next_deadline(), BootTime::min)
    }

    /// Time has passed.
    pub fn on_timer(&mut self, now: BootTime) {
        if now >= self.core.next_deadline() {
            self.core.on_timer(now);
        }
        if let Some(repeats) = &mut self.repeats
            && repeats.poll(now)
        {
            self.announce();
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

    /// Carries out everything the core wants; gives what it says to peers.
    pub async fn carry_out(&mut self) -> Vec<Outgoing> {
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
                    let done = self.take_vips(epoch).await;
                    self.core.on_done(done, boot_time());
                    self.set_guard();
                }
                Action::DropVips { epoch } => {
                    let done = self.drop_vips(epoch).await;
                    self.core.on_done(done, boot_time());
                }
                Action::HandOn {
                    epoch,
                    successor,
                    until,
                } => {
                    let done = self.hand_on(epoch, successor, until).await;
                    self.core.on_done(done, boot_time());
                }
                Action::PassBack { predecessor, until } => {
                    self.predecessor = Some((predecessor, until));
                }
                Action::Probe { member } => self.probe(&member),
                Action::Announce { .. } => self.repeats = Some(Repeats::new(boot_time())),
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
        self.end_drain(boot_time()).await;
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
            Heard::Claim(claim) if self.held.iter().any(|vip| vip.address == claim.vip.address) => {
                self.core.on_claim(claim.vip, &printed(claim.mac), now);
                self.changed = true;
            }
            Heard::Claim(_) => {}
        }
    }

    /// An address of this group's interface came or went.
    pub fn on_address(&mut self, address: IpAddr, present: bool, now: BootTime) {
        let lost = self.held.iter().position(|vip| vip.address == address);
        if let Some(lost) = lost.filter(|_| !present) {
            let vip = self.held.remove(lost);
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

    /// Addresses first, announcement at once, everything else later: this is the path that clients
    /// wait for.
    async fn take_vips(&mut self, epoch: Epoch) -> Done {
        let wanted = self.core.settings().vips.clone();
        // They are all this host's again, and so are the connections.
        self.drain = None;
        let result = self.vips.add(&wanted, epoch).await;
        let added = boot_time();
        let held = match &result {
            Ok(()) => wanted,
            // Some may be there all the same, and whoever has an address answers for it.
            Err(_) => self.vips.held(&wanted).await.unwrap_or_default(),
        };
        let before = std::mem::replace(&mut self.held, held);
        let mut repeats = Repeats::new(added);
        repeats.poll(added);
        self.repeats = Some(repeats);
        let frames = self.announce();
        let announced = boot_time();
        let group = Some((&self.core.settings().name, epoch));
        for vip in self.held.iter().filter(|vip| !before.contains(vip)) {
            self.recorder
                .note(EventKind::VipAdded, group, added, vip.to_string());
        }
        self.recorder.note(
            EventKind::Announced,
            group,
            announced,
            format!("{frames} frames"),
        );
        self.changed = true;
        match result {
            Ok(()) => Done::VipsTaken { epoch },
            Err(error) => failed(epoch, Step::TakeVips, error),
        }
    }

    /// Silent at once for all but its connections; without a guard for all.
    async fn hand_on(&mut self, epoch: Epoch, successor: Mac, until: BootTime) -> Done {
        let guard = self.guard.as_mut();
        if !guard.is_some_and(|guard| guard.hand_on(successor, until)) {
            return self.drop_vips(epoch).await;
        }
        self.repeats = None;
        self.changed = true;
        let now = boot_time();
        let group = Some((&self.core.settings().name, epoch));
        // To the rest of the daemon they are gone: nobody puts them back or defends them.
        for vip in std::mem::take(&mut self.held) {
            let detail = format!("{vip}, but for its connections");
            self.recorder
                .note(EventKind::VipRemoved, group, now, detail);
        }
        self.drain = Some(Drain::new(epoch, until, now));
        Done::VipsDropped { epoch }
    }

    /// Removes addresses that were kept for connections which have ended.
    async fn end_drain(&mut self, now: BootTime) {
        let vips = &self.core.settings().vips;
        let Some(drain) = &mut self.drain else { return };
        if !self.core.stopped() && !drain.ended(vips, now).await {
            return;
        }
        let (epoch, left) = (drain.epoch, drain.left);
        self.drain = None;
        if let Some(guard) = &mut self.guard {
            guard.end_connections();
        }
        if let Err(error) = self.vips.remove(vips, epoch).await {
            let why = format!("{:#}", anyhow::Error::from(error));
            warn!(group = %self.name(), why, "addresses of an earlier epoch stay, silent");
            self.drain = Some(Drain::new(epoch, now.after(REMOVE_AGAIN), now));
            return;
        }
        let left = match left {
            Some(0) => "no connection left".to_owned(),
            Some(left) => format!("{left} connections were left"),
            None => "its time is over".to_owned(),
        };
        let group = Some((&self.core.settings().name, epoch));
        self.recorder.note(EventKind::Drained, group, now, left);
        self.changed = true;
    }

    /// Only what is known to be gone is reported as dropped: the others wait for that word.
    async fn drop_vips(&mut self, epoch: Epoch) -> Done {
        self.repeats = None;
        self.changed = true;
        let vips = self.core.settings().vips.clone();
        if let Err(error) = self.vips.remove(&vips, epoch).await {
            return failed(epoch, Step::DropVips, error);
        }
        let now = boot_time();
        let group = Some((&self.core.settings().name, epoch));
        for vip in std::mem::take(&mut self.held) {
            self.recorder
                .note(EventKind::VipRemoved, group, now, vip.to_string());
        }
        Done::VipsDropped { epoch }
    }

    fn announce(&mut self) -> usize {
        match self.announcer.announce(&self.held) {
            Ok(frames) => frames,
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::from(error));
                warn!(group = %self.name(), why, "not announced; the next repeat tries again");
                0
            }
        }
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
                held: self.held.contains(vip),
            })
            .collect();
        status.guard = self
            .guard
            .as_ref()
            .map_or_else(Vec::new, GroupGuard::readings);
        status.drain = self.drain.as_ref().map(Drain::status);
        status.units = unit_statuses(&settings.units, &self.units);
        status
    }
}

fn printed(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn failed(epoch: Epoch, step: Step, error: VipError) -> Done {
    let why = format!("{:#}", anyhow::Error::from(error));
    Done::Failed { epoch, step, why }
}
