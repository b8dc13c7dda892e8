//! The journal: everything that reached the core of a group lately, and everything it wanted done.
//!
//! It is written where the core is called, so nothing can reach the core beside it: a
//! [`Journaled`] core is read through `Deref`, and changed through its inputs alone. It keeps two
//! halves, each a checkpoint (the core as it was) and what followed; when the newer half is full
//! the older one goes. A decision that was taken is handed out as a [`Window`] a moment later, so
//! that what became of it is in there too.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Done, Record};
use super::group::Group;
use super::handover::Refusal;
use crate::facts::Vip;
use crate::facts::{BootTime, Decision, EventKind, GroupMessage, Mac, Name, PolicyOrder};

/// A half holds at most so many inputs.
const INPUTS: u32 = 2_048;
/// And so many bytes, give or take one entry.
const BYTES: usize = 256 * 1024;
/// And so much time.
const SPAN: Duration = Duration::from_secs(30);
/// A decision is handed out so long after it was taken.
const SETTLE: Duration = Duration::from_millis(500);

/// Everything that can reach the core of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input<'a> {
    /// [`Group::on_timer`].
    Timer,
    /// [`Group::on_message`].
    Message {
        /// Who sent it.
        from: Cow<'a, Name>,
        /// When, on the sender's clock.
        sent: BootTime,
        /// What it says.
        message: Cow<'a, GroupMessage>,
        /// What of this member the sender had heard, on this member's clock.
        heard: Option<BootTime>,
    },
    /// [`Group::on_done`].
    Done(Done),
    /// [`Group::on_unit`].
    Unit {
        /// The unit.
        unit: Cow<'a, Name>,
        /// Whether it runs.
        up: bool,
    },
    /// [`Group::on_serving`].
    Serving {
        /// The unit.
        unit: Cow<'a, str>,
        /// Whether its clients are answered.
        serves: bool,
    },
    /// [`Group::on_carrier`].
    Carrier(bool),
    /// [`Group::on_link_address`].
    LinkAddress(Option<Mac>),
    /// [`Group::on_kernel_answer`].
    KernelAnswer(Cow<'a, Name>),
    /// [`Group::on_kernel_refusal`].
    KernelRefusal(Cow<'a, Name>),
    /// [`Group::on_peer_began`].
    PeerBegan(Cow<'a, Name>),
    /// [`Group::on_starved`].
    Starved(bool),
    /// [`Group::on_readiness`].
    Readiness(bool),
    /// [`Group::on_address_lost`].
    AddressLost(Vip),
    /// [`Group::on_claim`].
    Claim {
        /// The address.
        vip: Vip,
        /// Who says that it has it.
        mac: Cow<'a, str>,
    },
    /// [`Group::on_failback_window`].
    FailbackWindow(bool),
    /// [`Group::on_order`].
    Order(PolicyOrder),
    /// [`Group::hand_over`].
    HandOver(Option<Cow<'a, Name>>),
    /// [`Group::on_pause`].
    Pause(Duration),
    /// [`Group::on_stop`].
    Stop,
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// Something reached the core.
    Input(BootTime, Input<'a>),
    /// The core wanted something done.
    Action(Cow<'a, Action>),
}

/// A core as it was, and what reached it and what it wanted since.
#[derive(Clone, Debug)]
pub struct Window {
    /// What was decided.
    pub decision: Decision,
    /// The core as it was.
    pub checkpoint: Box<Group>,
    /// [`Entry`] after entry.
    pub log: Vec<u8>,
}

#[derive(Debug)]
struct Half {
    checkpoint: Box<Group>,
    began: BootTime,
    inputs: u32,
    log: Vec<u8>,
}

impl Half {
    fn new(core: &Group, now: BootTime, mut log: Vec<u8>) -> Self {
        log.clear();
        Self {
            checkpoint: Box::new(core.clone()),
            began: now,
            inputs: 0,
            log,
        }
    }

    fn is_full(&self, now: BootTime) -> bool {
        self.inputs >= INPUTS || self.log.len() >= BYTES || now.since(self.began) >= SPAN
    }
}

/// A core with its journal.
#[derive(Debug)]
pub struct Journaled {
    core: Group,
    older: Option<Half>,
    newer: Half,
    /// A decision that is to be handed out.
    decided: Option<Decision>,
}

impl Deref for Journaled {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.core
    }
}

impl Journaled {
    /// A journal that begins with `core` as it is.
    pub fn new(core: Group, now: BootTime) -> Self {
        Self {
            newer: Half::new(&core, now, Vec::new()),
            older: None,
            decided: None,
            core,
        }
    }

    fn note(&mut self, input: Input<'_>, now: BootTime) {
        if self.newer.is_full(now) {
            let unused = self.older.take().map(|half| half.log).unwrap_or_default();
            let fresh = Half::new(&self.core, now, unused);
            self.older = Some(std::mem::replace(&mut self.newer, fresh));
        }
        self.newer.inputs += 1;
        self.write(&Entry::Input(now, input));
    }

    fn write(&mut self, entry: &Entry<'_>) {
        let log = std::mem::take(&mut self.newer.log);
        match postcard::to_extend(entry, log) {
            Ok(log) => self.newer.log = log,
            // Entries are data alone, so this does not happen; if it did, a replay would show it.
            Err(_) => {
                self.older = None;
                self.newer = Half::new(&self.core, self.newer.began, Vec::new());
            }
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.core.poll_action()?;
        self.write(&Entry::Action(Cow::Borrowed(&action)));
        if let Action::Record(record) = &action {
            self.note_decision(record);
        }
        Some(action)
    }

    fn note_decision(&mut self, record: &Record) {
        let Some(weight) = weight(record.kind) else {
            return;
        };
        let known = self.decided.as_mut();
        match known {
            Some(decision) => {
                decision.last_epoch = decision.last_epoch.max(record.epoch);
                decision.first_epoch = decision.first_epoch.min(record.epoch);
                if self::weight(decision.kind) >= Some(weight) {
                    return;
                }
                decision.at = record.at;
                decision.kind = record.kind;
                decision.epoch = record.epoch;
                decision.cause = record.cause;
            }
            None => {
                self.decided = Some(Decision {
                    number: 0,
                    at: record.at,
                    wall_ms: 0,
                    kind: record.kind,
                    epoch: record.epoch,
                    first_epoch: record.epoch,
                    last_epoch: record.epoch,
                    cause: record.cause,
                });
            }
        }
    }

    /// A decision that has settled, with all that led to it; `now` or at the daemon's end. To be
    /// asked for when no action waits.
    pub fn take_decision(&mut self, now: BootTime, ending: bool) -> Option<Window> {
        let settled = |decision: &mut Decision| ending || now.since(decision.at) >= SETTLE;
        let decision = self.decided.take_if(settled)?;
        Some(self.window(decision))
    }

    /// All that the journal has, for `decision`.
    pub fn window(&self, decision: Decision) -> Window {
        let older = self.older.iter();
        let logs = || older.clone().map(|half| &half.log).chain([&self.newer.log]);
        let mut log = Vec::with_capacity(logs().map(Vec::len).sum());
        logs().for_each(|half| log.extend_from_slice(half));
        let first = self.older.as_ref().unwrap_or(&self.newer);
        Window {
            decision,
            checkpoint: first.checkpoint.clone(),
            log,
        }
    }

    /// The core as it is.
    pub fn checkpoint(&self) -> Box<Group> {
        Box::new(self.core.clone())
    }
}

/// What is a decision, and which of several at once is the one to tell of.
fn weight(kind: EventKind) -> Option<u8> {
    match kind {
        EventKind::Claimed => Some(4),
        EventKind::Released => Some(3),
        EventKind::LeaseLapsed => Some(2),
        EventKind::RoleChanged => Some(1),
        _ => None,
    }
}

/// The inputs of [`Group`], each written down before the core hears of it.
#[allow(missing_docs)]
impl Journaled {
    pub fn on_timer(&mut self, now: BootTime) {
        self.note(Input::Timer, now);
        self.core.on_timer(now);
    }

    pub fn on_message(
        &mut self,
        from: &Name,
        sent: BootTime,
        message: &GroupMessage,
        heard: Option<BootTime>,
        now: BootTime,
    ) {
        // What the core would not look at would only push out what it did.
        if message.group != self.core.settings().name {
            return;
        }
        let input = Input::Message {
            from: Cow::Borrowed(from),
            sent,
            message: Cow::Borrowed(message),
            heard,
        };
        self.note(input, now);
        self.core.on_message(from, sent, message, heard, now);
    }

    pub fn on_done(&mut self, done: Done, now: BootTime) {
        self.note(Input::Done(done.clone()), now);
        self.core.on_done(done, now);
    }

    pub fn on_unit(&mut self, unit: &Name, up: bool, now: BootTime) {
        let name = Cow::Borrowed(unit);
        self.note(Input::Unit { unit: name, up }, now);
        self.core.on_unit(unit, up, now);
    }

    pub fn on_serving(&mut self, unit: &str, serves: bool, now: BootTime) {
        let name = Cow::Borrowed(unit);
        self.note(Input::Serving { unit: name, serves }, now);
        self.core.on_serving(unit, serves, now);
    }

    pub fn on_carrier(&mut self, up: bool, now: BootTime) {
        self.note(Input::Carrier(up), now);
        self.core.on_carrier(up, now);
    }

    /// `now` is for the journal alone.
    pub fn on_link_address(&mut self, mac: Option<Mac>, now: BootTime) {
        self.note(Input::LinkAddress(mac), now);
        self.core.on_link_address(mac);
    }

    pub fn on_kernel_answer(&mut self, from: &Name, now: BootTime) {
        self.note(Input::KernelAnswer(Cow::Borrowed(from)), now);
        self.core.on_kernel_answer(from, now);
    }

    pub fn on_kernel_refusal(&mut self, from: &Name, now: BootTime) {
        // A stranger's changes nothing, and would only push out what did.
        if self.core.members.iter().any(|member| member.name == *from) {
            self.note(Input::KernelRefusal(Cow::Borrowed(from)), now);
            self.core.on_kernel_refusal(from, now);
        }
    }

    pub fn on_peer_began(&mut self, from: &Name, now: BootTime) {
        self.note(Input::PeerBegan(Cow::Borrowed(from)), now);
        self.core.on_peer_began(from, now);
    }

    pub fn on_starved(&mut self, starved: bool, now: BootTime) {
        self.note(Input::Starved(starved), now);
        self.core.on_starved(starved, now);
    }

    pub fn on_readiness(&mut self, ready: bool, now: BootTime) {
        self.note(Input::Readiness(ready), now);
        self.core.on_readiness(ready, now);
    }

    pub fn on_address_lost(&mut self, vip: Vip, now: BootTime) {
        self.note(Input::AddressLost(vip), now);
        self.core.on_address_lost(vip, now);
    }

    pub fn on_claim(&mut self, vip: Vip, mac: &str, now: BootTime) {
        let claim = Input::Claim {
            vip,
            mac: Cow::Borrowed(mac),
        };
        self.note(claim, now);
        self.core.on_claim(vip, mac, now);
    }

    pub fn on_failback_window(&mut self, open: bool, now: BootTime) {
        self.note(Input::FailbackWindow(open), now);
        self.core.on_failback_window(open, now);
    }

    pub fn on_order(&mut self, order: PolicyOrder, now: BootTime) -> Result<Option<Name>, Refusal> {
        self.note(Input::Order(order.clone()), now);
        self.core.on_order(order, now)
    }

    pub fn hand_over(&mut self, to: Option<&Name>, now: BootTime) -> Result<Name, Refusal> {
        self.note(Input::HandOver(to.map(Cow::Borrowed)), now);
        self.core.hand_over(to, now)
    }

    pub fn on_pause(&mut self, away: Duration, now: BootTime) {
        self.note(Input::Pause(away), now);
        self.core.on_pause(away, now);
    }

    pub fn on_stop(&mut self, now: BootTime) {
        self.note(Input::Stop, now);
        self.core.on_stop(now);
    }
}

impl Group {
    /// Hands an input in again, as it was written down.
    pub(super) fn hear(&mut self, input: Input<'_>, now: BootTime) {
        match input {
            Input::Timer => self.on_timer(now),
            Input::Message {
                from,
                sent,
                message,
                heard,
            } => self.on_message(&from, sent, &message, heard, now),
            Input::Done(done) => self.on_done(done, now),
            Input::Unit { unit, up } => self.on_unit(&unit, up, now),
            Input::Serving { unit, serves } => self.on_serving(&unit, serves, now),
            Input::Carrier(up) => self.on_carrier(up, now),
            Input::LinkAddress(mac) => self.on_link_address(mac),
            Input::KernelAnswer(from) => self.on_kernel_answer(&from, now),
            Input::KernelRefusal(from) => self.on_kernel_refusal(&from, now),
            Input::PeerBegan(from) => self.on_peer_began(&from, now),
            Input::Starved(starved) => self.on_starved(starved, now),
            Input::Readiness(ready) => self.on_readiness(ready, now),
            Input::AddressLost(vip) => self.on_address_lost(vip, now),
            Input::Claim { vip, mac } => self.on_claim(vip, &mac, now),
            Input::FailbackWindow(open) => self.on_failback_window(open, now),
            Input::Order(order) => drop(self.on_order(order, now)),
            Input::HandOver(to) => drop(self.hand_over(to.as_deref(), now)),
            Input::Pause(away) => self.on_pause(away, now),
            Input::Stop => self.on_stop(now),
        }
    }
}
