//! One member's view of one group: its state, its timers and its inputs.
//!
//! ```text
//!            an active is heard
//!   Joining ---------------------> Shadow: follows <-----------+
//!      |                             |  ^                      |
//!      | join_wait over    active is |  | an active is heard   |
//!      |                 lost, gone  v  |                      |
//!      +-----------------------> Shadow: vacant                | virtual IPs are gone
//!                                    |                         |
//!            its turn, and eligible  |                         |
//!                                    v   trouble, handover,    |
//!                                 Active --------------------> Leaving ---> Stopped
//!                                        newer epoch, stop         (when the daemon stops)
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::action::{Action, Done, Record, Step};
use super::handover::Offer;
use super::member::Member;
use crate::config::settings::GroupSettings;
use crate::facts::{
    Body, BootTime, Cause, Epoch, EventKind, GroupStatus, HostId, MemberStatus, Name, Role,
    UnitMode,
};

/// After a step failed here, this member leaves the group to others for this long.
const HOLD_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// How often last words are said again, one heartbeat apart: datagrams get lost.
pub(super) const LAST_WORDS_REPEATS: u8 = 3;

/// A member's name and identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: Name,
    /// Its identity.
    pub id: HostId,
}

/// Where a member stands. The diagram is above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Joining { until: BootTime },
    Shadow(View),
    Active(Active),
    Leaving { epoch: Epoch, then: Then },
    Stopped,
}

/// What a shadow sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// A member is active.
    Follows { member: usize, since: BootTime },
    /// Nobody is; this member may claim from `claim_at`, once eligible.
    Vacant { cause: Cause, claim_at: BootTime },
}

/// An owner's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub epoch: Epoch,
    /// The lease's deadline; none while nothing limits it ([`crate::facts::Protection::None`]).
    pub deadline: Option<BootTime>,
    /// The cold units: they count for eligibility once they were seen to run.
    pub cold: Cold,
    pub offer: Option<Offer>,
}

/// How far an owner's cold units are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cold {
    /// Not started yet, or stopped for a handover.
    Down,
    /// Started; the report that each runs may still be on its way.
    Started,
    /// Each was seen to run: from now on one that does not run has died.
    Run,
}

/// What follows once the virtual IPs are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Resign(Cause),
    Transfer { to: usize },
    Yield,
    Stop,
}

/// Last words and how often they are still to be said.
#[derive(Clone, Debug)]
pub(super) struct LastWords {
    pub body: Body,
    pub epoch: Epoch,
    pub left: u8,
}

/// One member's view of one group.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: GroupSettings,
    pub(super) me: Peer,
    pub(super) members: Vec<Member>,
    pub(super) state: State,
    pub(super) since: BootTime,
    /// The newest epoch anybody was heard to know.
    pub(super) newest: Epoch,
    pub(super) last_words: Option<LastWords>,
    pub(super) actions: VecDeque<Action>,
    units: BTreeMap<Name, bool>,
    carrier: Option<bool>,
    /// Left-over cold units are being stopped.
    stopping: bool,
    held_until: BootTime,
    next_beat: BootTime,
    /// Silence is no evidence for the time in which this process itself did not run.
    listening_since: BootTime,
    last_run: BootTime,
}

impl Group {
    /// A member that just started. `newest` is what its store remembers, [`Epoch::NONE`] if nothing.
    pub fn new(
        settings: GroupSettings,
        me: Peer,
        others: Vec<Peer>,
        newest: Epoch,
        now: BootTime,
    ) -> Self {
        Self {
            state: State::Joining {
                until: now.after(settings.join_wait),
            },
            me,
            members: others
                .into_iter()
                .map(|peer| Member::new(peer.name, peer.id))
                .collect(),
            since: now,
            newest,
            last_words: None,
            actions: VecDeque::new(),
            units: BTreeMap::new(),
            carrier: None,
            stopping: false,
            held_until: BootTime::default(),
            next_beat: now,
            listening_since: now,
            last_run: now,
            settings,
        }
    }

    /// The link of the virtual IPs' interface came or went.
    pub fn on_carrier(&mut self, up: bool, now: BootTime) {
        if self.carrier.replace(up) != Some(up) {
            self.record(EventKind::LinkChanged, None, updown(up).to_owned(), now);
        }
        self.review(now);
    }

    /// A unit of the group came up or went down. Other units are ignored.
    pub fn on_unit(&mut self, unit: &Name, up: bool, now: BootTime) {
        if !self.settings.units.iter().any(|known| known.name == *unit) {
            return;
        }
        if self.units.insert(unit.clone(), up) != Some(up) {
            let kind = if up {
                EventKind::UnitUp
            } else {
                EventKind::UnitDown
            };
            self.record(kind, None, unit.to_string(), now);
        }
        self.review(now);
    }

    /// An action was carried out. A report of an epoch that is over changes nothing.
    pub fn on_done(&mut self, done: Done, now: BootTime) {
        match done {
            Done::VipsTaken { epoch } => self.vips_taken(epoch),
            Done::UnitsStarted { epoch } => {
                if let State::Active(active) = &mut self.state
                    && active.epoch == epoch
                    && active.cold == Cold::Down
                {
                    active.cold = Cold::Started;
                }
            }
            Done::VipsDropped { epoch } => self.vips_dropped(epoch, now),
            Done::UnitsStopped { epoch } => {
                self.stopping = false;
                self.units_stopped(epoch, now);
            }
            Done::Failed { epoch, step, why } => self.step_failed(epoch, step, why, now),
        }
        self.review(now);
    }

    fn step_failed(&mut self, epoch: Epoch, step: Step, why: String, now: BootTime) {
        self.record(
            EventKind::Failure,
            Some(Cause::StepFailed),
            format!("{step:?}: {why}"),
            now,
        );
        if self.owned() == Some(epoch) {
            self.held_until = now.after(HOLD_AFTER_FAILURE);
        }
    }

    /// The daemon is asked to stop: an owner gives the group up first.
    pub fn on_stop(&mut self, now: BootTime) {
        match &self.state {
            State::Active(active) => {
                let epoch = active.epoch;
                self.leave(epoch, Then::Stop, Cause::DaemonStopped, now);
            }
            State::Leaving { epoch, .. } => {
                self.state = State::Leaving {
                    epoch: *epoch,
                    then: Then::Stop,
                };
            }
            State::Joining { .. } | State::Shadow(_) => {
                self.enter(State::Stopped, Cause::DaemonStopped, now);
                self.beat();
            }
            State::Stopped => {}
        }
    }

    /// Time has passed. To be called no later than [`Self::next_deadline`], after every datagram
    /// that has arrived was handed in.
    pub fn on_timer(&mut self, now: BootTime) {
        if now.since(self.last_run) > self.stall() {
            self.listening_since = now;
        }
        self.last_run = now;
        self.review(now);
        if now >= self.next_beat {
            // On the beat, not after it, so that a late turn does not slow the rhythm down.
            self.next_beat = self.next_beat.after(self.settings.heartbeat).max(now);
            self.beat();
            self.repeat_last_words();
            self.repeat_offer();
        }
    }

    /// When [`Self::on_timer`] wants to be called next.
    pub fn next_deadline(&self) -> BootTime {
        let own = match &self.state {
            State::Joining { until } => Some(*until),
            State::Shadow(View::Follows { member, since }) => Some(
                self.silent_from(*member, *since)
                    .after(self.settings.suspect_after),
            ),
            State::Shadow(View::Vacant { claim_at, .. }) => {
                self.trouble(self.last_run).is_none().then_some(*claim_at)
            }
            State::Active(active) => active.offer.as_ref().map(|offer| offer.until),
            State::Leaving { .. } | State::Stopped => None,
        };
        own.map_or(self.next_beat, |own| own.min(self.next_beat))
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Looks at everything that is known and draws the consequences.
    pub(super) fn review(&mut self, now: BootTime) {
        self.suspect_the_silent(now);
        match self.state.clone() {
            State::Joining { until } => {
                if now >= until {
                    self.vacant(Cause::ColdStart, now);
                }
            }
            State::Shadow(View::Follows { member, since }) => {
                let silent = now.since(self.silent_from(member, since));
                if silent >= self.settings.suspect_after {
                    self.suspect(member, silent, now);
                    self.vacant(Cause::Silence, now);
                } else {
                    self.stop_leftovers();
                }
            }
            State::Shadow(View::Vacant { .. }) => {}
            State::Active(mut active) => {
                if active.cold == Cold::Started && self.cold_units().all(|unit| self.runs(unit)) {
                    active.cold = Cold::Run;
                    self.state = State::Active(active.clone());
                }
                self.review_ownership(&active, now);
            }
            State::Leaving { .. } | State::Stopped => {}
        }
        if let State::Shadow(View::Vacant { cause, claim_at }) = self.state
            && now >= claim_at
            && self.trouble(now).is_none()
        {
            self.claim(cause, now);
        }
    }

    /// Why this member could not own the group now. What is not known counts as trouble: missing
    /// data never promotes.
    pub(super) fn trouble(&self, now: BootTime) -> Option<Cause> {
        let cold_count = matches!(&self.state, State::Active(active) if active.cold == Cold::Run);
        let unit_down = self.settings.units.iter().any(|unit| {
            let counts = unit.mode == UnitMode::Warm || cold_count;
            counts && !self.runs(&unit.name)
        });
        if self.carrier != Some(true) {
            Some(Cause::LinkLost)
        } else if unit_down {
            Some(Cause::UnitDied)
        } else if now < self.held_until {
            Some(Cause::StepFailed)
        } else {
            None
        }
    }

    fn runs(&self, unit: &Name) -> bool {
        self.units.get(unit) == Some(&true)
    }

    fn cold_units(&self) -> impl Iterator<Item = &Name> {
        let cold = self
            .settings
            .units
            .iter()
            .filter(|unit| unit.mode == UnitMode::Cold);
        cold.map(|unit| &unit.name)
    }

    pub(super) fn has_cold_units(&self) -> bool {
        self.cold_units().next().is_some()
    }

    /// A cold unit runs on the active alone: what an earlier daemon or an operator left running
    /// beside another host's is stopped.
    fn stop_leftovers(&mut self) {
        if !self.stopping && self.cold_units().any(|unit| self.runs(unit)) {
            self.stopping = true;
            self.actions
                .push_back(Action::StopUnits { epoch: self.newest });
        }
    }

    /// How long this process may go without a turn before it distrusts the silence of others.
    fn stall(&self) -> Duration {
        self.settings.heartbeat.max(Duration::from_millis(5)) * 2
    }

    fn silent_from(&self, member: usize, since: BootTime) -> BootTime {
        let heard = self.members[member].said.map_or(since, |said| said.heard);
        heard.max(since).max(self.listening_since)
    }

    fn suspect_the_silent(&mut self, now: BootTime) {
        for member in 0..self.members.len() {
            let silent = now.since(self.silent_from(member, self.listening_since));
            if self.members[member].said.is_some() && silent >= self.settings.suspect_after {
                self.suspect(member, silent, now);
            }
        }
    }

    fn suspect(&mut self, member: usize, silent: Duration, now: BootTime) {
        if !std::mem::replace(&mut self.members[member].suspected, true) {
            let name = &self.members[member].name;
            let detail = format!("{name} silent for {:.1} ms", silent.as_secs_f64() * 1e3);
            self.record(EventKind::PeerSuspected, Some(Cause::Silence), detail, now);
        }
    }

    pub(super) fn role(&self) -> Role {
        match self.state {
            State::Joining { .. } => Role::Joining,
            State::Shadow(_) => Role::Shadow,
            // Whoever still has the addresses is no shadow to the others.
            State::Active(_) | State::Leaving { .. } => Role::Active,
            State::Stopped => Role::Stopped,
        }
    }

    /// The epoch this member owns the group in, if it does.
    pub(super) fn owned(&self) -> Option<Epoch> {
        match &self.state {
            State::Active(active) => Some(active.epoch),
            State::Leaving { epoch, .. } => Some(*epoch),
            State::Joining { .. } | State::Shadow(_) | State::Stopped => None,
        }
    }

    pub(super) fn enter(&mut self, state: State, cause: Cause, now: BootTime) {
        let from = self.role();
        self.state = state;
        let to = self.role();
        if from != to {
            self.since = now;
            self.record(
                EventKind::RoleChanged,
                Some(cause),
                format!("{from} -> {to}"),
                now,
            );
        }
    }

    /// Says this member's state to every other.
    pub(super) fn beat(&mut self) {
        let body = Body::Beat {
            role: self.role(),
            priority: self.settings.priority,
            eligible: self.trouble(self.last_run).is_none(),
        };
        self.send_to_all(&body, self.newest);
    }

    pub(super) fn send_to_all(&mut self, body: &Body, epoch: Epoch) {
        for member in &self.members {
            let to = member.name.clone();
            self.actions.push_back(Action::Send {
                to,
                epoch,
                body: body.clone(),
            });
        }
    }

    fn repeat_last_words(&mut self) {
        let Some(words) = self.last_words.take() else {
            return;
        };
        if self.owned().is_some() || words.left == 0 {
            return;
        }
        self.send_to_all(&words.body, words.epoch);
        self.last_words = Some(LastWords {
            left: words.left - 1,
            ..words
        });
    }

    pub(super) fn record(
        &mut self,
        kind: EventKind,
        cause: Option<Cause>,
        detail: String,
        at: BootTime,
    ) {
        let epoch = self.newest.counter;
        self.actions.push_back(Action::Record(Record {
            at,
            kind,
            epoch,
            cause,
            detail,
        }));
    }

    /// This member's settings.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Whether the daemon may end: the group was given up.
    pub fn stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// The newest epoch this member knows.
    pub fn newest_epoch(&self) -> Epoch {
        self.newest
    }

    /// The epoch this member owns the group in; none unless it is active.
    pub fn active_epoch(&self) -> Option<Epoch> {
        match &self.state {
            State::Active(active) => Some(active.epoch),
            State::Joining { .. } | State::Shadow(_) | State::Leaving { .. } | State::Stopped => {
                None
            }
        }
    }

    /// Who owns the group, as far as this member knows.
    pub fn active(&self) -> Option<&Name> {
        match &self.state {
            State::Active(_) | State::Leaving { .. } => Some(&self.me.name),
            State::Shadow(View::Follows { member, .. }) => Some(&self.members[*member].name),
            State::Shadow(View::Vacant { .. }) | State::Joining { .. } | State::Stopped => None,
        }
    }

    /// Whether an offer is open or the group is being given up.
    pub fn handing_over(&self) -> bool {
        match &self.state {
            State::Active(active) => active.offer.is_some(),
            State::Leaving { .. } => true,
            State::Joining { .. } | State::Shadow(_) | State::Stopped => false,
        }
    }

    /// The view for people. Virtual IPs and units are filled in by whoever can see them.
    pub fn status(&self, now: BootTime) -> GroupStatus {
        let deadline = match &self.state {
            State::Active(active) => active.deadline,
            State::Joining { .. } | State::Shadow(_) | State::Leaving { .. } | State::Stopped => {
                None
            }
        };
        let others = self.members.iter().map(|member| MemberStatus {
            host: member.name.clone(),
            role: member.role(),
            priority: member.priority(),
            eligible: member.can_own(),
            suspected: member.suspected,
        });
        let own = MemberStatus {
            host: self.me.name.clone(),
            role: Some(self.role()),
            priority: self.settings.priority,
            eligible: self.trouble(now).is_none(),
            suspected: false,
        };
        GroupStatus {
            group: self.settings.name.clone(),
            role: self.role(),
            since: self.since,
            epoch: self.newest,
            deadline,
            active: self.active().cloned(),
            protection: self.settings.protection,
            eligible: own.eligible,
            members: std::iter::once(own).chain(others).collect(),
            vips: Vec::new(),
            units: Vec::new(),
        }
    }
}

fn updown(up: bool) -> &'static str {
    if up { "link up" } else { "link down" }
}
