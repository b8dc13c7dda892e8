//! What the failover loop and the record let hooks and alerts know; never waits.
//!
//! Events that find the queue full are dropped and counted. What a group *is* cannot be lost: it is
//! offered again with each look at the group until the queue has taken it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::decide::notify::Sighting;
use crate::facts::{Event, EventKind, GroupStatus, LastNotice, Name};
use crate::serve::protocol::Refusal;

/// Words that wait to be heard.
const QUEUE: usize = 1024;

/// Where the answer to a test goes.
pub type TestAnswer = oneshot::Sender<Result<LastNotice, Refusal>>;

/// What is heard.
#[derive(Debug)]
pub enum Word {
    /// Something was recorded.
    Event(Box<Event>),
    /// A group is something else than before.
    Sighting(Sighting),
    /// An operator tries a receiver.
    Test(Name, TestAnswer),
}

/// Speaks to whoever tells hooks and alerts.
#[derive(Clone, Debug)]
pub struct Tap {
    queue: mpsc::Sender<Word>,
    seen: Arc<Mutex<BTreeMap<Name, Sighting>>>,
    dropped: Arc<AtomicU64>,
}

impl Tap {
    /// A tap, and where its words arrive.
    pub fn new() -> (Self, mpsc::Receiver<Word>) {
        let (queue, words) = mpsc::channel(QUEUE);
        let tap = Self {
            queue,
            seen: Arc::default(),
            dropped: Arc::default(),
        };
        (tap, words)
    }

    /// Lets know what was recorded, if anybody may want to be told.
    pub fn event(&self, event: &Event) {
        let matters = matches!(
            event.kind,
            EventKind::RoleChanged
                | EventKind::VipClaimed
                | EventKind::Handover
                | EventKind::Failure
                | EventKind::DrillPassed
                | EventKind::DrillFailed
        );
        let word = || Word::Event(Box::new(event.clone()));
        if matters && self.queue.try_send(word()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets know what groups are, if that has changed.
    pub fn groups(&self, groups: &[GroupStatus]) {
        // Only the failover thread comes here: nobody else holds this.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for group in groups {
            let sighting = Sighting::of(group);
            if seen.get(&group.group) == Some(&sighting) {
                continue;
            }
            if self
                .queue
                .try_send(Word::Sighting(sighting.clone()))
                .is_ok()
            {
                seen.insert(group.group.clone(), sighting);
            }
        }
    }

    /// Asks for a test; false when too much waits.
    pub fn test(&self, receiver: Name, answer: TestAnswer) -> bool {
        self.queue.try_send(Word::Test(receiver, answer)).is_ok()
    }

    /// Events that nobody was told of.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootTime, Epoch, PolicyStatus, Protection, Role};

    fn group(counter: u64) -> GroupStatus {
        GroupStatus {
            group: "web".parse().unwrap(),
            role: Role::Shadow,
            since: BootTime::default(),
            epoch: Epoch {
                counter,
                ..Epoch::NONE
            },
            deadline: None,
            active: None,
            protection: Protection::None,
            eligible: true,
            members: Vec::new(),
            vips: Vec::new(),
            units: Vec::new(),
            lease: None,
            guard: Vec::new(),
            drain: None,
            policy: PolicyStatus::default(),
            redundancy: None,
            lost_paths: Vec::new(),
        }
    }

    #[test]
    fn a_full_queue_loses_events_with_a_count_and_no_state() {
        let (tap, mut words) = Tap::new();
        let event = Event {
            seq: 0,
            boot_ns: BootTime::default(),
            wall_ms: 0,
            kind: EventKind::Failure,
            group: None,
            epoch: None,
            cause: None,
            detail: String::new(),
        };
        for _ in 0..QUEUE + 3 {
            tap.event(&event);
        }
        tap.groups(&[group(1)]);
        tap.groups(&[group(2)]);
        assert_eq!(tap.dropped(), 3);
        while words.try_recv().is_ok() {}
        for _ in 0..2 {
            tap.groups(&[group(2)]);
        }
        let heard = words.try_recv();
        assert!(matches!(heard, Ok(Word::Sighting(seen)) if seen.epoch == 2));
        assert!(words.try_recv().is_err(), "once");
    }
}
