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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::action::{Action, Done, Record, Step};
use super::ballots::Lease;
use super::definition::definition;
use super::handover::Offer;
use super::health::Retry;
use super::lease::Asking;
use super::member::Member;
use super::pause::Pausing;
use super::policy::Policy;
use super::redundancy::Redundancy;
use crate::config::settings::GroupSettings;
use crate::facts::{Body, BootTime, Cause, Epoch, EventKind, HostId, Mac, Name, Role};

/// How often last words are said again, one heartbeat apart: datagrams get lost.
pub(super) const LAST_WORDS_REPEATS: u8 = 3;
/// A daemon that ends says its last words at least this often.
const LAST_WORDS_PAUSE: Duration = Duration::from_millis(20);

/// A member's name and identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: Name,
    /// Its identity.
    pub id: HostId,
}

/// Where a member stands. The diagram is above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    Joining { until: BootTime },
    Shadow(View),
    Active(Active),
    Leaving { epoch: Epoch, then: Then },
    Stopped,
}

/// What a shadow sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum View {
    /// A member is active.
    Follows { member: usize, since: BootTime },
    /// Nobody is; this member may claim from `claim_at`, once eligible.
    Vacant { cause: Cause, claim_at: BootTime },
    /// As `Vacant`, and this member asks the voters for the lease.
    Asking(Asking),
}

/// An owner's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Active {
    pub epoch: Epoch,
    /// The lease's deadline; none while nothing limits it ([`crate::facts::Protection::None`]).
    pub deadline: Option<BootTime>,
    /// The deadline has passed, which was recorded.
    pub lapsed: bool,
    /// The cold units: they count for eligibility once they were seen to run.
    pub cold: Cold,
    pub offer: Option<Offer>,
}

/// How far an owner's cold units are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Cold {
    /// Not started yet, or stopped for a handover.
    Down,
    /// Started; the report that each runs may still be on its way.
    Started,
    /// Each was seen to run: from now on one that does not run has died.
    Run,
}

/// What follows once the virtual IPs are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Then {
    Resign(Cause),
    /// `drain`: where the other is on the link, if connections are served to their end.
    Transfer {
        to: usize,
        drain: Option<Mac>,
    },
    Yield,
    Stop,
}

/// Last words and how often they are still to be said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LastWords {
    pub body: Body,
    pub epoch: Epoch,
    pub left: u8,
}

/// One member's view of one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    pub(super) units: BTreeMap<Name, bool>,
    /// Units whose clients wait and are not answered.
    pub(super) unanswered: BTreeSet<Name>,
    pub(super) carrier: Option<bool>,
    /// Left-over cold units are being stopped.
    pub(super) stopping: bool,
    pub(super) held_until: BootTime,
    pub(super) retry: Option<Retry>,
    pub(super) last_failure: Option<(String, BootTime)>,
    /// Silence is no evidence for the time in which this process itself did not run.
    pub(super) listening_since: BootTime,
    pub(super) last_run: BootTime,
    /// Threads of usual priority wait long for their turns on this host.
    pub(super) starved: bool,
    /// This host lacks something that the profile asks for.
    pub(super) unready: bool,
    /// Until then the last word that it lacks nothing is a proof of it.
    pub(super) proven_until: BootTime,
    /// Before then no kernel is asked again.
    pub(super) next_probe: BootTime,
    /// Addresses that something else removed are put back then.
    pub(super) put_back_at: Option<BootTime>,
    /// But not before then.
    pub(super) next_put_back: BootTime,
    /// None when nothing protects the group.
    pub(super) lease: Option<Lease>,
    /// Where this member is on the link of the addresses, while connections can outlast a handover.
    pub(super) mac: Option<Mac>,
    pub(super) policy: Policy,
    /// Idle unless this member is active.
    pub(super) redundancy: Redundancy,
    /// The daemon is to end and be back soon.
    pub(super) pausing: Option<Pausing>,
    pub(super) next_beat: BootTime,
}

impl Group {
    /// A member that just started; `others` are the other members and spares. `newest` is what its store remembers, [`Epoch::NONE`] if nothing.
    pub fn new(
        settings: GroupSettings,
        me: Peer,
        others: Vec<Peer>,
        witnesses: &[Peer],
        newest: Epoch,
        now: BootTime,
    ) -> Self {
        // Whoever votes first, as the ballots have it.
        let is_spare = |peer: &Peer| settings.spares.contains(&peer.name);
        let (spares, mut others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_spare);
        let voting = others.len();
        others.extend(spares);
        Self {
            lease: Lease::new(&settings, &me, &others, witnesses, newest, now),
            policy: Policy::new(
                definition(&settings, &me, &others),
                settings.policy.failback_window.is_none(),
            ),
            state: State::Joining {
                until: now.after(settings.join_wait),
            },
            me,
            members: others
                .into_iter()
                .enumerate()
                .map(|(index, peer)| Member::new(peer.name, peer.id, index >= voting))
                .collect(),
            redundancy: Redundancy::default(),
            since: now,
            newest,
            last_words: None,
            actions: VecDeque::new(),
            units: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            carrier: None,
            stopping: false,
            held_until: BootTime::default(),
            retry: None,
            last_failure: None,
            pausing: None,
            next_beat: now,
            listening_since: now,
            last_run: now,
            starved: false,
            unready: false,
            proven_until: BootTime::default(),
            next_probe: now,
            put_back_at: None,
            next_put_back: now,
            mac: None,
            settings,
        }
    }

    /// An action was carried out. A report of an epoch that is over changes nothing.
    pub fn on_done(&mut self, done: Done, now: BootTime) {
        self.turn(now);
        match done {
            Done::VipsTaken { epoch } => {
                self.step_succeeded(Step::TakeVips);
                self.vips_taken(epoch);
            }
            Done::UnitsStarted { epoch } => {
                self.step_succeeded(Step::StartUnits);
                if let State::Active(active) = &mut self.state
                    && active.epoch == epoch
                    && active.cold == Cold::Down
                {
                    active.cold = Cold::Started;
                }
            }
            Done::VipsDropped { epoch } => {
                self.step_succeeded(Step::DropVips);
                self.vips_dropped(epoch, now);
            }
            Done::UnitsStopped { epoch } => {
                self.stopping = false;
                self.units_stopped(epoch, now);
            }
            Done::PromiseKept(kept) => self.promise_kept(kept),
            Done::Provided {
                host,
                attempt,
                answer,
            } => self.provided(&host, attempt, &answer, now),
            Done::Failed { epoch, step, why } => self.step_failed(epoch, step, why, now),
        }
        self.review(now);
    }

    /// The daemon is asked to stop: an owner gives the group up first.
    pub fn on_stop(&mut self, now: BootTime) {
        self.pausing = None;
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
        self.turn(now);
        self.watch_silence(now);
        self.review(now);
        if now >= self.next_beat {
            let pause = match self.state {
                // Nothing is left but last words, and the service manager waits for them.
                State::Stopped => self.settings.heartbeat.min(LAST_WORDS_PAUSE),
                State::Active(_) if self.pausing.is_some() => {
                    self.settings.heartbeat.min(LAST_WORDS_PAUSE)
                }
                State::Joining { .. }
                | State::Shadow(_)
                | State::Active(_)
                | State::Leaving { .. } => self.settings.heartbeat,
            };
            // On the beat, not after it, so that a late turn does not slow the rhythm down.
            self.next_beat = self.next_beat.after(pause).max(now);
            self.beat();
            self.repeat_last_words();
            self.repeat_offer();
        }
    }

    /// When [`Self::on_timer`] wants to be called next.
    pub fn next_deadline(&self) -> BootTime {
        let own = match &self.state {
            State::Joining { until } => Some(*until),
            State::Shadow(View::Follows { member, since }) => {
                let silent = self.silent_until(*member, *since);
                Some(silent.min(self.ask_kernel_at(*member, *since)))
            }
            State::Shadow(View::Vacant { claim_at, .. }) => {
                self.claim_time(*claim_at, self.last_run)
            }
            State::Shadow(View::Asking(asking)) => Some(asking.until.min(asking.again)),
            State::Active(active) => {
                let offer = active.offer.as_ref().map(|offer| offer.until);
                let lapse = active.deadline.map(|deadline| match active.lapsed {
                    true => deadline.after(self.grace()),
                    false => deadline,
                });
                [offer, lapse].into_iter().flatten().min()
            }
            State::Leaving { .. } | State::Stopped => None,
        };
        let retry = self.retry.and_then(|retry| retry.at);
        [own, retry, self.put_back_at]
            .into_iter()
            .flatten()
            .fold(self.next_beat, BootTime::min)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Looks at everything that is known and draws the consequences.
    pub(super) fn review(&mut self, now: BootTime) {
        self.try_again(now);
        self.put_back(now);
        self.review_policy(now);
        match self.state.clone() {
            State::Joining { until } => {
                self.stop_forgotten();
                if now >= until {
                    self.vacant(Cause::ColdStart, now);
                }
            }
            State::Shadow(View::Follows { .. }) => self.stop_leftovers(),
            State::Shadow(View::Vacant { .. }) => self.stop_forgotten(),
            State::Shadow(View::Asking(asking)) => self.review_asking(asking, now),
            State::Active(active) => {
                self.note_running_units();
                self.review_ownership(&active, now);
                self.review_lease(now);
                self.review_handover(now);
            }
            State::Leaving { .. } | State::Stopped => {}
        }
        if let State::Shadow(View::Vacant { cause, claim_at }) = self.state
            && self.claim_time(claim_at, now).is_some_and(|at| now >= at)
        {
            self.claim(cause, now);
        }
        self.review_loan(now);
        self.review_pause(now);
        self.review_redundancy(now);
    }

    /// What this member is to the others.
    pub fn role(&self) -> Role {
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
        if let State::Shadow(View::Asking(asking)) = self.state {
            let won = matches!(&state, State::Active(active) if active.epoch == asking.epoch);
            let goes_on =
                matches!(&state, State::Shadow(View::Asking(again)) if again.epoch == asking.epoch);
            if !won && !goes_on {
                self.withdraw(asking);
            }
        }
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
        self.renew_own_vote(self.last_run);
        if let Some(body) = self.pause_body() {
            self.send_to_all(&body, self.newest);
            self.send_to_witnesses(&body, self.newest);
            return;
        }
        let body = Body::Beat {
            role: self.role(),
            priority: self.settings.priority,
            eligible: self.trouble(self.last_run).is_none(),
            lease: self.wanted_lease(),
            electorate: self.lease.as_ref().map_or(0, |lease| lease.electorate),
            policy: self.policy_word(self.last_run),
        };
        self.send_to_all(&body, self.newest);
        if self.owned().is_some() {
            self.send_to_witnesses(&body, self.newest);
        }
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
        if self.owned().is_some() {
            return;
        }
        self.send_to_all(&words.body, words.epoch);
        self.send_to_witnesses(&words.body, words.epoch);
        let left = words.left - 1;
        self.last_words = (left > 0).then_some(LastWords { left, ..words });
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
}
