//! How an owner gets back the shadows that its group wants: first members come back by themselves,
//! then spares are enlisted, then a provider is asked to create one.
//!
//! ```text
//!   not the owner --owns--> Lost --as many ready as wanted--> Full --one is gone--> Lost
//!
//!   Lost:  Rejoin --time is over--> enough in the pool? --yes--> Spare --not ready in time--+
//!                                      | no        ^  \                                     |
//!                                      v           |   +------------------------------------+
//!                                   Provider --heard, or its time is over, or failed--> Again
//!                                                  (no attempt is left: Exhausted)
//! ```
//!
//! It owns nothing, moves nothing and changes neither members nor voters: a spare that is enlisted
//! may claim as a member may, by the word of the same voters. What a provider says is not believed:
//! a host counts when it is heard as a shadow that could own the group.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::settings::{ProviderRules, RedundancySettings};
use crate::facts::{BootTime, Cause, ProviderAnswer, ProviderState, RestoredBy};

/// A loss that is over before is told to nobody: every takeover leaves a moment without a shadow.
pub(super) const SETTLES: Duration = Duration::from_secs(3);
/// An enlisted spare has so many suspicion times to say that it is ready, and this at least.
const READY_AFTER: u32 = 20;
const READY_MIN: Duration = Duration::from_secs(5);
/// A provider that is at it is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// A run of the provider's command whose end is not told by then has come to nothing.
const LATE: Duration = Duration::from_secs(60);
/// The pause between two attempts is doubled so often at most.
const DOUBLED_MAX: u32 = 4;

/// A set of other members, a bit each.
pub(super) type Set = u32;

/// What the owner sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Who counts as a shadow and could own the group now.
    pub ready: Set,
    /// All spares.
    pub spares: Set,
    /// Those that are enlisted.
    pub enlisted: Set,
    /// Who is heard.
    pub alive: Set,
    /// Spares that could own the group if they were enlisted, the best first.
    pub pool: Vec<usize>,
    /// Nothing is to be done now: somebody works on the group.
    pub held: bool,
    /// How long a member may be silent.
    pub suspect_after: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// The spare counts as a shadow from now on.
    Enlist(usize),
    /// It does not any more.
    Release(usize, &'static str),
    /// Ask the provider for the spare.
    Provide { host: usize, attempt: u32 },
    /// Fewer are ready than are wanted, for long enough to say so.
    TellLost,
    /// As many are ready as are wanted.
    TellRestored,
    /// An attempt of the provider came to nothing.
    TellFailed { host: usize, why: String },
    /// There is nothing left to try.
    TellExhausted,
}

/// How redundancy was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loss {
    /// Who is missed, if that is known.
    pub who: Option<usize>,
    /// Why.
    pub cause: Option<Cause>,
}

/// How a loss ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Restored {
    pub by: RestoredBy,
    /// Who was ready last.
    pub host: usize,
    pub took: Duration,
    pub at: BootTime,
}

/// How far a restoration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    /// Members may come back until then.
    Rejoin { until: BootTime },
    /// An enlisted spare is to be ready until then.
    Spare { host: usize, until: BootTime },
    /// The command runs; it has ended by then.
    Provider {
        host: usize,
        attempt: u32,
        late: BootTime,
        until: BootTime,
    },
    /// The command has answered; the spare is to be heard until then, and the provider is asked again
    /// before if it said that it was not done.
    Coming {
        host: usize,
        attempt: u32,
        again: Option<BootTime>,
        until: BootTime,
    },
    /// The next attempt begins then.
    Again { at: BootTime },
    /// Nothing is left to try.
    Exhausted,
}

/// A loss that lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    pub since: BootTime,
    pub loss: Loss,
    pub step: Step,
    told: bool,
    /// Spares that were enlisted and did not become ready.
    refused: Set,
    /// Attempts for each.
    attempts: BTreeMap<usize, u32>,
}

/// Where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// This member does not own the group.
    #[default]
    Idle,
    /// Enough are ready.
    Full { since: BootTime },
    /// Too few are.
    Lost(Box<Lost>),
}

/// The redundancy of a group as its owner looks after it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Redundancy {
    pub state: State,
    pub last: Option<Restored>,
    /// Who was ready at the last look.
    seen: Set,
    /// Spares that a provider was asked for, and that were not ready since.
    provided: Set,
    /// A loss that lasted when this member did not own the group any more.
    parked: Option<Box<Lost>>,
    /// Since when there are enough without one of the enlisted spares.
    surplus_since: Option<BootTime>,
}

fn bit(member: usize) -> Set {
    1_u32
        .checked_shl(u32::try_from(member).unwrap_or(u32::MAX))
        .unwrap_or_default()
}

/// The members in a set, in order.
pub(super) fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..Set::BITS as usize).filter(move |member| set & bit(*member) != 0)
}

/// The set of one member.
pub(super) fn only(member: usize) -> Set {
    bit(member)
}

impl Redundancy {
    /// This member owns the group from now on; `loss` says why the one before does not. One that
    /// owns it again, and nobody did meanwhile, goes on where it was.
    pub fn begin(&mut self, loss: Loss, again: bool, rules: &RedundancySettings, now: BootTime) {
        self.surplus_since = None;
        self.seen = 0;
        let parked = self.parked.take().filter(|_| again);
        let lost = parked.unwrap_or_else(|| Box::new(Lost::new(loss, rules, now)));
        self.state = State::Lost(lost);
    }

    /// How many shadows were ready at the last look.
    pub fn ready(&self) -> u8 {
        u8::try_from(self.seen.count_ones()).unwrap_or(u8::MAX)
    }

    /// Why the one who is missed is missed.
    pub fn note_cause(&mut self, cause: Option<Cause>) {
        if let State::Lost(lost) = &mut self.state {
            lost.loss.cause = cause;
        }
    }

    /// This member does not own the group.
    pub fn end(&mut self) {
        if let State::Lost(lost) = std::mem::take(&mut self.state) {
            self.parked = Some(lost);
        }
        self.surplus_since = None;
    }

    /// Looks at what is there and says what is to be done, in order.
    pub fn review(&mut self, view: &View, rules: &RedundancySettings, now: BootTime) -> Vec<Want> {
        let mut wants = Vec::new();
        let before = std::mem::replace(&mut self.seen, view.ready);
        let enough = view.ready.count_ones() >= u32::from(rules.shadows);
        match &mut self.state {
            State::Idle => {}
            State::Full { .. } if enough => self.look_for_surplus(view, rules, now, &mut wants),
            State::Full { .. } => {
                self.surplus_since = None;
                let who = members(before & !view.ready).next();
                let loss = Loss { who, cause: None };
                self.state = State::Lost(Box::new(Lost::new(loss, rules, now)));
            }
            State::Lost(lost) if enough => {
                if let Some(restored) = lost.restored(view, (before, self.provided), now) {
                    self.provided &= !bit(restored.host);
                    self.last = Some(restored);
                    wants.push(Want::TellRestored);
                }
                self.state = State::Full { since: now };
            }
            State::Lost(lost) => {
                if !lost.told && now.since(lost.since) >= SETTLES {
                    lost.told = true;
                    wants.push(Want::TellLost);
                }
                if !view.held {
                    lost.go_on(view, rules, now, &mut wants);
                }
                for want in &wants {
                    if let Want::Provide { host, .. } = want {
                        self.provided |= bit(*host);
                    }
                }
            }
        }
        wants
    }

    /// The provider's command has ended.
    pub fn on_answer(
        &mut self,
        (host, attempt): (usize, u32),
        answer: &ProviderAnswer,
        rules: &RedundancySettings,
        now: BootTime,
    ) -> Vec<Want> {
        let (State::Lost(lost), Some(provider)) = (&mut self.state, rules.provider) else {
            return Vec::new();
        };
        let Step::Provider {
            host: asked,
            attempt: current,
            until,
            ..
        } = lost.step
        else {
            return Vec::new();
        };
        // An answer to an attempt that was given up is late.
        if (asked, current) != (host, attempt) {
            return Vec::new();
        }
        let again = match answer.state {
            ProviderState::Failed => return lost.failed(&provider, answer.detail.clone(), now),
            ProviderState::Creating => Some(now.after(ASK_AGAIN)),
            ProviderState::Ready => None,
        };
        lost.step = Step::Coming {
            host,
            attempt,
            again,
            until,
        };
        Vec::new()
    }

    /// Releases spares that are not needed, one at a time.
    fn look_for_surplus(
        &mut self,
        view: &View,
        rules: &RedundancySettings,
        now: BootTime,
        wants: &mut Vec<Want>,
    ) {
        let enough_without =
            |spare: &usize| (view.ready & !bit(*spare)).count_ones() >= u32::from(rules.shadows);
        let mut surplus: Vec<usize> = members(view.enlisted).filter(enough_without).collect();
        // One that is gone first, then the one that was listed last.
        surplus.sort_by_key(|spare| (view.alive & bit(*spare) == 0, *spare));
        let Some(spare) = surplus.pop() else {
            self.surplus_since = None;
            return;
        };
        let since = *self.surplus_since.get_or_insert(now);
        if now.since(since) >= rules.release_after && !view.held {
            self.surplus_since = None;
            wants.push(Want::Release(spare, "enough members are ready"));
        }
    }
}

impl Lost {
    fn new(loss: Loss, rules: &RedundancySettings, now: BootTime) -> Self {
        Self {
            since: now,
            loss,
            step: Step::Rejoin {
                until: now.after(rules.rejoin_within),
            },
            told: false,
            refused: 0,
            attempts: BTreeMap::new(),
        }
    }

    /// How it ended, if anybody was told that it began.
    fn restored(
        &self,
        view: &View,
        (before, provided): (Set, Set),
        now: BootTime,
    ) -> Option<Restored> {
        if !self.told {
            return None;
        }
        let newly = members(view.ready & !before).next();
        let host = newly.or_else(|| members(view.ready).last())?;
        let by = if view.spares & bit(host) == 0 {
            RestoredBy::Rejoined
        } else if provided & bit(host) == 0 {
            RestoredBy::Spare
        } else {
            RestoredBy::Provided
        };
        Some(Restored {
            by,
            host,
            took: now.since(self.since),
            at: now,
        })
    }

    fn go_on(
        &mut self,
        view: &View,
        rules: &RedundancySettings,
        now: BootTime,
        wants: &mut Vec<Want>,
    ) {
        let in_pool = view.pool.iter().any(|host| self.refused & bit(*host) == 0);
        match self.step {
            Step::Rejoin { until } if now < until => {}
            Step::Spare { host, until } if view.ready & bit(host) == 0 => {
                if now >= until {
                    self.refused |= bit(host);
                    wants.push(Want::Release(host, "it did not become ready"));
                    self.next(view, rules, now, wants);
                }
            }
            Step::Provider { late, .. } if !in_pool => {
                if let Some(provider) = rules.provider.filter(|_| now >= late) {
                    let why = "how the command ended is not known".to_owned();
                    wants.extend(self.failed(&provider, why, now));
                }
            }
            Step::Coming {
                host,
                attempt,
                again,
                until,
            } if !in_pool => {
                let Some(provider) = rules.provider else {
                    return;
                };
                if now >= until {
                    let why = "it was not heard as a spare that is ready in time".to_owned();
                    wants.extend(self.failed(&provider, why, now));
                } else if again.is_some_and(|again| now >= again) {
                    self.ask((host, attempt), until, &provider, now, wants);
                }
            }
            Step::Again { at } if now < at && !in_pool => {}
            Step::Exhausted if !in_pool => {}
            Step::Rejoin { .. }
            | Step::Spare { .. }
            | Step::Provider { .. }
            | Step::Coming { .. }
            | Step::Again { .. }
            | Step::Exhausted => self.next(view, rules, now, wants),
        }
    }

    /// What to try next.
    fn next(
        &mut self,
        view: &View,
        rules: &RedundancySettings,
        now: BootTime,
        wants: &mut Vec<Want>,
    ) {
        // One that died while it was enlisted is to be created anew, or replaced.
        for gone in members(view.enlisted & !view.alive) {
            wants.push(Want::Release(gone, "it is silent"));
        }
        let mut pool = view.pool.iter();
        if let Some(host) = pool.find(|host| self.refused & bit(**host) == 0) {
            let patience = (view.suspect_after * READY_AFTER).max(READY_MIN);
            let (host, until) = (*host, now.after(patience));
            self.step = Step::Spare { host, until };
            wants.push(Want::Enlist(host));
            return;
        }
        let tried = |host: &usize| self.attempts.get(host).copied().unwrap_or_default();
        let absent = members(view.spares & !view.alive);
        let provider = rules.provider;
        let mut left: Vec<(u32, usize)> = absent.map(|host| (tried(&host), host)).collect();
        left.retain(|(tried, _)| provider.is_some_and(|rules| *tried < rules.attempts));
        let (Some((tried, host)), Some(provider)) = (left.into_iter().min(), provider) else {
            if std::mem::replace(&mut self.step, Step::Exhausted) != Step::Exhausted {
                wants.push(Want::TellExhausted);
            }
            return;
        };
        self.attempts.insert(host, tried + 1);
        let until = now.after(provider.ready_within);
        self.ask((host, tried + 1), until, &provider, now, wants);
    }

    fn ask(
        &mut self,
        (host, attempt): (usize, u32),
        until: BootTime,
        provider: &ProviderRules,
        now: BootTime,
        wants: &mut Vec<Want>,
    ) {
        self.step = Step::Provider {
            host,
            attempt,
            late: now.after(provider.deadline + LATE),
            until,
        };
        wants.push(Want::Provide { host, attempt });
    }

    fn failed(&mut self, provider: &ProviderRules, why: String, now: BootTime) -> Vec<Want> {
        let (Step::Provider { host, attempt, .. } | Step::Coming { host, attempt, .. }) = self.step
        else {
            return Vec::new();
        };
        let doubled = attempt.saturating_sub(1).min(DOUBLED_MAX);
        self.step = Step::Again {
            at: now.after(provider.retry * 2_u32.pow(doubled)),
        };
        vec![Want::TellFailed { host, why }]
    }
}

#[cfg(test)]
mod tests;
