//! One receiver: what waits for it, what it is being told, and when it may be told next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::levels::{State, Subject};
use crate::facts::{BootTime, Name, Notice, ReceiverCounts, Told, Topic};

/// A hook or an alert, as far as decisions about it go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Kind and name, such as `hook/dns`.
    pub id: String,
    /// What it wants to be told.
    pub events: Vec<Topic>,
    /// Of which groups.
    pub groups: Vec<Name>,
    /// How long a notice that did not arrive is tried again; for ever if none.
    pub retry_for: Option<Duration>,
    /// The same happening is told again after so long at the earliest.
    pub repeat_after: Duration,
    /// How many notices at once, and how long until one more.
    pub rate: Option<(u32, Duration)>,
}

/// What became of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told, and taken well.
    Delivered,
    /// It was told; the command ended badly. It is not told again.
    Failed,
    /// It was told; the command was killed at its deadline. It is not told again.
    TimedOut,
    /// It was not told; another try may help.
    Unreached,
    /// It was refused; another try would be as well.
    Refused,
}

/// The first wait after a notice that did not arrive, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

type Place = (Name, Subject);

/// A notice that waits.
#[derive(Clone, Debug)]
struct Waiting {
    notice: Notice,
    state: State,
    /// The order in which they came.
    order: u64,
    /// When it was first tried in vain.
    tried: Option<BootTime>,
}

#[derive(Debug, Default)]
struct Slot {
    told: Option<State>,
    /// A state that the receiver does not want, and that came while it was being told an older one.
    passed: Option<State>,
    /// A try in vain may have arrived all the same, so nothing is known to be told.
    unsure: bool,
    waiting: Option<Waiting>,
    skipped: u64,
    /// The last happening that was taken, for those that repeat.
    last: Option<(String, BootTime)>,
}

/// One receiver's state: idle -> telling -> idle, with a wait after what did not arrive.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) receiver: Receiver,
    slots: BTreeMap<Place, Slot>,
    telling: Option<(Option<Place>, Waiting)>,
    tests: Option<Notice>,
    failures: u32,
    not_before: BootTime,
    tokens: u32,
    refilled: BootTime,
    orders: u64,
    pub(super) counts: ReceiverCounts,
}

impl Mailbox {
    pub(super) fn new(receiver: Receiver, told: &[Told], now: BootTime) -> Self {
        let mut slots: BTreeMap<Place, Slot> = BTreeMap::new();
        for told in told.iter().filter(|told| told.receiver == receiver.id) {
            let Some(subject) = Subject::of(told.topic) else {
                continue;
            };
            if receiver.groups.contains(&told.group) {
                let slot = slots.entry((told.group.clone(), subject)).or_default();
                slot.told = Some(State {
                    topic: told.topic,
                    epoch: told.epoch,
                });
                slot.unsure = !told.sure;
            }
        }
        Self {
            tokens: receiver.rate.map_or(0, |(burst, _)| burst),
            receiver,
            slots,
            telling: None,
            tests: None,
            failures: 0,
            not_before: now,
            refilled: now,
            orders: 0,
            counts: ReceiverCounts::default(),
        }
    }

    /// A state has changed. Gives what is to be remembered when it is passed over.
    pub(super) fn state(
        &mut self,
        subject: Subject,
        state: State,
        notice: &Notice,
    ) -> Option<Told> {
        let group = notice.group.clone()?;
        if !self.receiver.groups.contains(&group) {
            return None;
        }
        let place = (group, subject);
        let telling = match &self.telling {
            Some((Some(at), waiting)) if *at == place => Some(waiting.state),
            _ => None,
        };
        let slot = self.slots.entry(place.clone()).or_default();
        let unsaid = subject.unsaid().map(|topic| State { topic, epoch: 0 });
        let sure = slot.told.or(unsaid).filter(|_| !slot.unsure);
        let known = slot.passed.or(telling).or(sure);
        if slot.waiting.take().is_some() {
            slot.skipped += 1;
            self.counts.skipped += 1;
        }
        if known == Some(state) {
            return None;
        }
        if self.receiver.events.contains(&state.topic) {
            self.orders += 1;
            slot.waiting = Some(Waiting {
                notice: notice.clone(),
                state,
                order: self.orders,
                tried: None,
            });
            return None;
        }
        if telling.is_some() {
            slot.passed = Some(state);
            return None;
        }
        slot.told = Some(state);
        slot.unsure = false;
        Some(told(&self.receiver.id, &place, state, true))
    }

    /// Something happened. The same within a while counts once.
    pub(super) fn happening(&mut self, subject: Subject, notice: &Notice, now: BootTime) {
        let Some(group) = notice.group.clone() else {
            return;
        };
        let wanted = self.receiver.events.contains(&notice.event);
        if !wanted || !self.receiver.groups.contains(&group) {
            return;
        }
        let slot = self.slots.entry((group, subject)).or_default();
        let again = slot.last.as_ref().is_some_and(|(detail, at)| {
            *detail == notice.detail && now.since(*at) < self.receiver.repeat_after
        });
        if again {
            self.counts.repeated += 1;
            return;
        }
        slot.last = Some((notice.detail.clone(), now));
        if slot.waiting.take().is_some() {
            slot.skipped += 1;
            self.counts.skipped += 1;
        }
        self.orders += 1;
        slot.waiting = Some(Waiting {
            notice: notice.clone(),
            state: State {
                topic: notice.event,
                epoch: 0,
            },
            order: self.orders,
            tried: None,
        });
    }

    /// A test goes before all else. False while another one waits.
    pub(super) fn test(&mut self, notice: Notice) -> bool {
        let free = self.tests.is_none();
        if free {
            self.tests = Some(notice);
        }
        free
    }

    pub(super) fn waiting(&self) -> usize {
        let slots = self.slots.values();
        let waiting = slots.filter(|slot| slot.waiting.is_some()).count();
        waiting + usize::from(self.tests.is_some())
    }

    pub(super) fn telling(&self) -> Option<Topic> {
        let (_, waiting) = self.telling.as_ref()?;
        Some(waiting.state.topic)
    }

    /// When [`Self::poll`] may have something to tell.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        if self.telling.is_some() || self.waiting() == 0 {
            return None;
        }
        if self.tests.is_some() {
            return Some(BootTime::default());
        }
        let token = match self.receiver.rate {
            Some((_, every)) if self.tokens == 0 => self.refilled.after(every),
            _ => BootTime::default(),
        };
        Some(self.not_before.max(token))
    }

    /// The next notice, if it may be told now; with it what is to be remembered before that.
    pub(super) fn poll(&mut self, now: BootTime) -> Option<(Notice, Option<Told>)> {
        self.refill(now);
        if self.next_deadline().is_none_or(|due| now < due) {
            return None;
        }
        if let Some(notice) = self.tests.take() {
            let state = State {
                topic: notice.event,
                epoch: 0,
            };
            let waiting = Waiting {
                notice: notice.clone(),
                state,
                order: 0,
                tried: None,
            };
            self.telling = Some((None, waiting));
            return Some((notice, None));
        }
        let order = |slot: &Slot| slot.waiting.as_ref().map(|waiting| waiting.order);
        let slots = self.slots.iter_mut();
        let waits = slots.filter(|(_, slot)| slot.waiting.is_some());
        let (place, slot) = waits.min_by_key(|(_, slot)| order(slot))?;
        let mut waiting = slot.waiting.take()?;
        waiting.notice.skipped = std::mem::take(&mut slot.skipped);
        self.tokens = self.tokens.saturating_sub(1);
        let notice = waiting.notice.clone();
        let lasts = Subject::STATES.contains(&place.1);
        let begun = lasts.then(|| told(&self.receiver.id, place, waiting.state, false));
        self.telling = Some((Some(place.clone()), waiting));
        Some((notice, begun))
    }

    fn refill(&mut self, now: BootTime) {
        let Some((burst, every)) = self.receiver.rate else {
            return;
        };
        while self.tokens < burst && self.refilled.after(every) <= now {
            self.tokens += 1;
            self.refilled = self.refilled.after(every);
        }
        if self.tokens >= burst {
            self.refilled = now;
        }
    }

    /// What was told has come to its end. Gives what is to be remembered; `dice` is any number.
    pub(super) fn done(&mut self, outcome: Outcome, now: BootTime, dice: u32) -> Option<Told> {
        let (place, mut waiting) = self.telling.take()?;
        match outcome {
            Outcome::Delivered => self.counts.delivered += 1,
            Outcome::Failed => self.counts.failed += 1,
            Outcome::TimedOut => self.counts.timed_out += 1,
            Outcome::Refused => self.counts.given_up += 1,
            Outcome::Unreached => {}
        }
        // A test is told once, whatever becomes of it.
        let place = place?;
        let slot = self.slots.entry(place.clone()).or_default();
        let passed = slot.passed.take();
        match outcome {
            Outcome::Delivered | Outcome::Failed | Outcome::TimedOut => {
                self.failures = 0;
                let state = passed.unwrap_or(waiting.state);
                slot.told = Some(state);
                slot.unsure = false;
                let lasts = Subject::STATES.contains(&place.1);
                return lasts.then(|| told(&self.receiver.id, &place, state, true));
            }
            Outcome::Refused | Outcome::Unreached => {}
        }
        slot.skipped += waiting.notice.skipped;
        slot.unsure = outcome == Outcome::Unreached;
        if outcome == Outcome::Unreached {
            self.failures = self.failures.saturating_add(1);
            self.not_before = now.after(wait(self.failures, dice));
            // What did not arrive has not used up anybody's patience.
            self.tokens = self.tokens.saturating_add(1);
        }
        let first = *waiting.tried.get_or_insert(now);
        let patience = self.receiver.retry_for;
        let over = patience.is_some_and(|patience| self.not_before > first.after(patience));
        if slot.waiting.is_some() || passed.is_some() {
            // Something newer is known already.
            slot.skipped += 1;
            self.counts.skipped += 1;
        } else if outcome == Outcome::Refused {
            slot.skipped += 1;
        } else if over {
            slot.skipped += 1;
            self.counts.given_up += 1;
        } else {
            self.counts.retried += 1;
            slot.waiting = Some(waiting);
        }
        None
    }
}

fn told(receiver: &str, (group, subject): &Place, state: State, sure: bool) -> Told {
    Told {
        receiver: receiver.to_owned(),
        group: group.clone(),
        subject: subject.word().to_owned(),
        topic: state.topic,
        epoch: state.epoch,
        sure,
    }
}

/// Doubles from the first wait to the longest, and takes a random quarter off it, so that many hosts
/// do not come at once.
fn wait(failures: u32, dice: u32) -> Duration {
    let doubled = RETRY.0 * 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let longest = doubled.min(RETRY.1);
    longest - longest / 4 * (dice % 1024) / 1024
}
