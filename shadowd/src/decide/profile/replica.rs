//! Which versions this host has, which it wants, and what it says to the other members.
//!
//! The version in use is the one with the highest number, and of two with one number the one with
//! the larger identity: whoever has the same versions uses the same one, in whatever order they
//! came. Whoever is behind is told the head, asks for it, and then for what came before it. Words
//! get lost; they are said again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::facts::{BootTime, Name, Place, VersionId};

/// The head is told again after this.
const TELL_EVERY: Duration = Duration::from_secs(30);
/// What does not come is asked for again after this.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Versions that are wanted at once; more are wanted later.
const WANTED_MAX: usize = 16;
/// Of these, what one member alone told of: others are to find room.
const SHARE_MAX: usize = 4;
/// What one told of and nobody sends in so many tries, ten minutes, is wanted no longer.
const ASKS_MAX: u32 = 120;
/// So many versions before the head are fetched.
const HISTORY: u64 = 64;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell a member which version is in use here.
    TellHead {
        /// Whom.
        to: Name,
        /// Which.
        head: Place,
    },
    /// Ask a member for a version.
    Ask {
        /// Whom.
        to: Name,
        /// Which.
        id: VersionId,
    },
    /// Send a version to a member that asked.
    Send {
        /// Whom.
        to: Name,
        /// Which.
        id: VersionId,
    },
    /// This version is in use from now on.
    Use(VersionId),
}

#[derive(Clone, Debug)]
struct Want {
    number: u64,
    /// Who has it, the one to be asked next first.
    from: VecDeque<Name>,
    /// Who told of it first; none if this host had it before.
    by: Option<Name>,
    /// How often it was asked for.
    asked: u32,
    ask_at: BootTime,
}

/// One group's versions on this host.
#[derive(Clone, Debug)]
pub struct Replica {
    members: Vec<Name>,
    have: BTreeMap<VersionId, u64>,
    head: Option<Place>,
    wants: BTreeMap<VersionId, Want>,
    tell_at: BootTime,
    actions: VecDeque<Action>,
}

impl Replica {
    /// A host that has these versions, and uses one of them.
    pub fn new(members: Vec<Name>, have: impl IntoIterator<Item = Place>, now: BootTime) -> Self {
        let have: BTreeMap<VersionId, u64> = have
            .into_iter()
            .map(|place| (place.id, place.number))
            .collect();
        let places = have.iter().map(|(id, number)| Place {
            number: *number,
            id: *id,
        });
        Self {
            head: places.max(),
            members,
            have,
            wants: BTreeMap::new(),
            tell_at: now,
            actions: VecDeque::new(),
        }
    }

    /// How many versions are wanted and not here yet.
    pub fn awaited(&self) -> usize {
        self.wants.len()
    }

    /// The version in use.
    pub fn head(&self) -> Option<Place> {
        self.head
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::on_timer`] wants to be called next.
    pub fn next_deadline(&self) -> BootTime {
        let asks = self.wants.values().map(|want| want.ask_at);
        asks.fold(self.tell_at, BootTime::min)
    }

    /// Time has passed.
    pub fn on_timer(&mut self, now: BootTime) {
        if now >= self.tell_at {
            self.tell_at = now.after(TELL_EVERY);
            for to in self.members.clone() {
                self.tell(to);
            }
        }
        self.wants
            .retain(|_, want| want.by.is_none() || want.asked < ASKS_MAX);
        for (id, want) in &mut self.wants {
            if now >= want.ask_at {
                want.ask_at = now.after(ASK_EVERY);
                want.asked = want.asked.saturating_add(1);
                if let Some(to) = want.from.front().cloned() {
                    self.actions.push_back(Action::Ask { to, id: *id });
                }
                want.from.rotate_left(1);
            }
        }
    }

    /// This host has a version: it made it, or it came and is what it says it is. `parent` is the
    /// one before it.
    pub fn on_version(&mut self, place: Place, parent: Option<VersionId>, now: BootTime) {
        let want = self.wants.remove(&place.id);
        self.have.insert(place.id, place.number);
        let is_newer = self.head.is_none_or(|head| place > head);
        if is_newer {
            self.head = Some(place);
            self.actions.push_back(Action::Use(place.id));
            for to in self.members.clone() {
                self.tell(to);
            }
        }
        let newest = self.head.map_or(0, |head| head.number);
        let before = place.number.saturating_sub(1);
        let wanted = parent.filter(|_| newest.saturating_sub(before) < HISTORY);
        if let (Some(parent), Some(want)) = (wanted, want) {
            let by = want.by.as_ref();
            for from in want.from {
                self.want(parent, before, (from, by), now);
            }
        }
    }

    /// A version that was kept is not whole any more: it is wanted again.
    pub fn on_damage(&mut self, id: VersionId, now: BootTime) {
        let number = self.have.remove(&id).unwrap_or_default();
        for from in self.members.clone() {
            self.want(id, number, (from, None), now);
        }
    }

    /// Versions that are kept no longer, but for these: nobody is asked for them.
    pub fn retain(&mut self, kept: &BTreeSet<VersionId>) {
        let head = self.head.map(|head| head.id);
        self.have
            .retain(|id, _| kept.contains(id) || Some(*id) == head);
    }

    /// How many versions are here.
    pub fn count(&self) -> usize {
        self.have.len()
    }

    /// A member said which version it uses.
    pub fn on_head(&mut self, from: &Name, head: Place, now: BootTime) {
        if !self.members.contains(from) {
            return;
        }
        let mine = self.head;
        if self.have.contains_key(&head.id) {
            if mine.is_some_and(|mine| mine > head) {
                self.tell(from.clone());
            }
        } else if mine.is_none_or(|mine| head > mine) {
            self.want(head.id, head.number, (from.clone(), Some(from)), now);
        } else {
            self.tell(from.clone());
        }
    }

    /// A member asks for a version.
    pub fn on_ask(&mut self, from: &Name, id: VersionId) {
        if self.members.contains(from) && self.have.contains_key(&id) {
            let to = from.clone();
            self.actions.push_back(Action::Send { to, id });
        }
    }

    fn tell(&mut self, to: Name) {
        if let Some(head) = self.head {
            self.actions.push_back(Action::TellHead { to, head });
        }
    }

    /// `from` has it, and `by` told of it.
    fn want(
        &mut self,
        id: VersionId,
        number: u64,
        (from, by): (Name, Option<&Name>),
        now: BootTime,
    ) {
        if self.have.contains_key(&id) {
            return;
        }
        if let Some(want) = self.wants.get_mut(&id) {
            if !want.from.contains(&from) {
                want.from.push_back(from);
            }
            return;
        }
        if !self.has_room(number, by) {
            return;
        }
        self.actions.push_back(Action::Ask {
            to: from.clone(),
            id,
        });
        let want = Want {
            number,
            from: VecDeque::from([from]),
            by: by.cloned(),
            asked: 1,
            ask_at: now.after(ASK_EVERY),
        };
        self.wants.insert(id, want);
    }

    /// Makes room for one more, in the share of who told of it and among all. The newest first; what is
    /// older is found again on the way back.
    fn has_room(&mut self, number: u64, by: Option<&Name>) -> bool {
        let of = |want: &Want| by.is_some() && want.by.as_ref() == by;
        let shared = self.wants.values().filter(|want| of(want)).count();
        let full = shared >= SHARE_MAX;
        if !full && self.wants.len() < WANTED_MAX {
            return true;
        }
        let wants = self.wants.iter().filter(|(_, want)| !full || of(want));
        let oldest = wants.min_by_key(|(_, want)| want.number);
        let oldest = oldest.filter(|(_, want)| want.number < number);
        let oldest = oldest.map(|(id, _)| *id);
        oldest.is_some_and(|id| self.wants.remove(&id).is_some())
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
