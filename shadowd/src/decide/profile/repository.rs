//! What this host puts into the central repository of a group's versions, and what it takes from
//! there.
//!
//! The repository is a place that others write to as well, that may be away for days and may give
//! back anything. One operation goes on at a time; each is a [`Task`], whose end is told with its
//! token, and one that nobody tells of is over after [`OVER_AFTER`]. What does not answer is asked
//! again by listing alone, less and less often; what was refused for one object waits by itself, so
//! that it holds up no other.
//!
//! ```text
//!              listed, put                       read: whole, a member's
//! [not there] ------------> [unproven] --------------------------------> [good]
//!      ^                    read: not |  ^ written again from here, or a      | its stamp changed:
//!      |                              v  | day has passed                     v  [changed]
//!      +-- gone from a listing       [bad] <------- read: not ------- read again, and once a day
//! ```

mod task;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::facts::{BootTime, Listing, Place, RepositoryStatus, StoredObject, VersionId};

pub use task::{Failure, Found, Note, Operation, Task};

/// So many of the newest versions are fetched when they are not here.
pub const WINDOW: usize = 128;
/// So many of the newest versions of this host are put there.
pub const KEPT: usize = 256;
/// Versions that are wanted although they are old: damaged here, or golden.
const NEEDED_MAX: usize = 64;
/// An operation that nobody told the end of is over.
pub const OVER_AFTER: Duration = Duration::from_secs(120);
/// After the first thing that went wrong; doubled for each further one.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// An object that was found good is read again after this.
const PROVEN_FOR: Duration = Duration::from_secs(24 * 3_600);
/// An object that is bad, and that this host cannot mend, is read again after this.
const BAD_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Objects that are there are read one by one, so many between two listings.
const READ_BETWEEN: u32 = 4;
/// So many bad objects are told of in so long; all are counted.
const BAD_TOLD: (u32, Duration) = (16, Duration::from_secs(3_600));
/// When nothing happens, what is due is looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Notes that nobody takes.
const NOTES_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is listed, and that is all.
    Unproven,
    /// It was read, and somebody wrote it again since.
    Changed,
    /// It was read and is good.
    Good {
        /// When that is looked at again.
        again_at: BootTime,
    },
    /// It was read, or is too long, and is not.
    Bad {
        /// When it is read again, if that is all that can be done.
        again_at: BootTime,
    },
}

#[derive(Clone, Copy, Debug)]
struct Object {
    /// None: it was put from here, and not listed since.
    stamp: Option<u64>,
    state: State,
}

/// How often something went wrong in a row, and until when it rests.
#[derive(Clone, Copy, Debug)]
struct Rest {
    times: u32,
    until: BootTime,
}

/// One group's versions in the repository, as this host sees them.
#[derive(Clone, Debug)]
pub struct Repository {
    every: Duration,
    have: BTreeSet<Place>,
    needed: BTreeSet<VersionId>,
    there: BTreeMap<Place, Object>,
    rests: BTreeMap<Place, Rest>,
    busy: Option<(Task, BootTime)>,
    token: u64,
    list_at: BootTime,
    read_at: BootTime,
    /// Before that nothing is due, unless something happens.
    look_at: BootTime,
    pause: Rest,
    /// That it does not answer was told.
    told: bool,
    /// Since when bad objects are counted that were told of, and how many.
    bad_told: (BootTime, u32),
    notes: VecDeque<Note>,
    shown: RepositoryStatus,
}

impl Repository {
    /// One that is listed each `every`, and was not reached yet.
    pub fn new(url: String, every: Duration, now: BootTime) -> Self {
        Self {
            every,
            have: BTreeSet::new(),
            needed: BTreeSet::new(),
            there: BTreeMap::new(),
            rests: BTreeMap::new(),
            busy: None,
            token: 0,
            list_at: now,
            read_at: now,
            look_at: now,
            pause: Rest {
                times: 0,
                until: now,
            },
            told: false,
            bad_told: (now, 0),
            notes: VecDeque::new(),
            shown: RepositoryStatus {
                url,
                silent_since: Some(now),
                ..RepositoryStatus::default()
            },
        }
    }

    /// Whether this host has a version.
    pub fn has(&self, place: Place) -> bool {
        self.have.contains(&place)
    }

    /// Whether something is being done.
    pub fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// This host has a version.
    pub fn on_version(&mut self, place: Place) {
        self.look_at = BootTime::default();
        self.needed.remove(&place.id);
        self.have.insert(place);
        if self.have.len() > KEPT {
            self.have.pop_first();
        }
    }

    /// A version is wanted however old it is: it is damaged here, or the golden one.
    pub fn on_need(&mut self, id: VersionId, now: BootTime) {
        self.have.retain(|place| place.id != id);
        if self.needed.len() < NEEDED_MAX && self.needed.insert(id) {
            (self.list_at, self.look_at) = (now, now);
        }
    }

    /// What is there.
    pub fn on_listing(&mut self, token: u64, listing: &Listing, now: BootTime) {
        let Some(Operation::List { .. }) = self.ended(token) else {
            return;
        };
        self.reached(now);
        self.list_at = now.after(self.every);
        let objects = &listing.objects[listing.objects.len().saturating_sub(Listing::MAX)..];
        // Of a listing that was cut off only what it shows is known.
        let from = match (objects.first(), objects.len() < Listing::MAX) {
            (Some(first), false) => first.place.number,
            _ => listing.from,
        };
        let before = std::mem::take(&mut self.there).into_iter();
        let (older, known): (BTreeMap<_, _>, BTreeMap<_, _>) =
            before.partition(|(place, _)| place.number < from);
        let have = &self.have;
        let ours = older.into_iter().filter(|(place, _)| have.contains(place));
        self.there = ours.collect();
        for object in objects {
            let seen = self.seen(object, known.get(&object.place), now);
            self.there.insert(object.place, seen);
        }
        let (have, there) = (&self.have, &self.there);
        self.rests
            .retain(|place, _| have.contains(place) || there.contains_key(place));
        self.shown.listed = Some(now);
        self.shown.foreign = listing.foreign;
    }

    fn seen(&mut self, object: &StoredObject, known: Option<&Object>, now: BootTime) -> Object {
        let stamp = Some(object.stamp);
        let is_same = known.is_none_or(|known| known.stamp.is_none() || known.stamp == stamp);
        let state = match known.map_or(State::Unproven, |known| known.state) {
            State::Bad { again_at } if now >= again_at => State::Unproven,
            state if is_same => state,
            _ => State::Changed,
        };
        let known_bad = matches!(state, State::Bad { .. });
        let state = match object.fits || known_bad {
            true => state,
            false => self.bad(object.place, "it is too long".to_owned(), now),
        };
        Object { stamp, state }
    }

    /// A version was put, or somebody had put it before.
    pub fn on_put_done(&mut self, token: u64, now: BootTime) {
        let Some(Operation::Put { place, replace }) = self.ended(token) else {
            return;
        };
        self.reached(now);
        if replace {
            // Should it be bad again, it rests.
            self.rest(place, now);
            self.shown.mended += 1;
            self.note(Note::Mended(place));
        } else {
            self.rests.remove(&place);
        }
        self.shown.put += 1;
        let object = Object {
            stamp: None,
            state: State::Unproven,
        };
        self.there.insert(place, object);
    }

    /// An object was read. Of a good one [`Self::on_version`] tells too, once this host has it.
    pub fn on_got(&mut self, token: u64, found: Found, now: BootTime) {
        let Some(Operation::Get(place)) = self.ended(token) else {
            return;
        };
        self.reached(now);
        match found {
            Found::Gone => {
                self.there.remove(&place);
                self.rests.remove(&place);
            }
            Found::Bad(why) => {
                if !self.have.contains(&place) {
                    self.rests.remove(&place);
                }
                let state = self.bad(place, why, now);
                self.prove(place, state);
            }
            Found::Good => {
                let again_at = now.after(PROVEN_FOR);
                self.prove(place, State::Good { again_at });
                if self.have.contains(&place) {
                    self.rests.remove(&place);
                } else {
                    // It could not be kept.
                    self.rest(place, now);
                }
            }
        }
    }

    /// A version that was missing here came with [`Self::on_got`].
    pub fn on_taken(&mut self) {
        self.shown.got += 1;
    }

    /// An operation did not end well.
    pub fn on_failure(&mut self, token: u64, failure: Failure, why: String, now: BootTime) {
        let Some(operation) = self.ended(token) else {
            return;
        };
        match operation {
            Operation::Put { place, .. } | Operation::Get(place) => self.rest(place, now),
            Operation::List { .. } => {}
        }
        if failure == Failure::Unreached || matches!(operation, Operation::List { .. }) {
            // Whether it is back is asked by the one question that costs little.
            self.list_at = now;
            self.pause = longer(self.pause, now);
            self.shown.silent_since.get_or_insert(now);
            // Once is nothing, and one object alone may take too long.
            if self.pause.times > 1 && !self.told {
                self.told = true;
                self.note(Note::Unreached(why.clone()));
            }
        } else if self.shown.error.is_none() {
            self.note(Note::Refused(why.clone()));
        }
        self.shown.error = Some(why);
    }

    /// The bytes of a version that was to be put are not here any more.
    pub fn on_lost(&mut self, token: u64) {
        if let Some(Operation::Put { place, .. }) = self.ended(token) {
            self.have.remove(&place);
        }
    }

    /// Time has passed.
    pub fn on_timer(&mut self, now: BootTime) {
        if let Some((task, over_at)) = self.busy
            && now >= over_at
        {
            let why = "nobody told how it ended".to_owned();
            self.on_failure(task.token, Failure::Unreached, why, now);
        }
    }

    /// The next thing to do; none while something is being done.
    pub fn poll_action(&mut self, now: BootTime) -> Option<Task> {
        if self.busy.is_some() || now < self.pause.until || now < self.look_at {
            return None;
        }
        let Some(operation) = self.next(now) else {
            self.look_at = now.after(LOOK_EVERY).min(self.list_at);
            return None;
        };
        self.token += 1;
        let task = Task {
            token: self.token,
            operation,
        };
        self.busy = Some((task, now.after(OVER_AFTER)));
        Some(task)
    }

    /// The next thing to tell.
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// How it stands.
    pub fn status(&self) -> RepositoryStatus {
        let bad = |object: &&Object| matches!(object.state, State::Bad { .. });
        RepositoryStatus {
            there: self.there.len() - self.there.values().filter(bad).count(),
            bad: self.there.values().filter(bad).count(),
            to_put: self.to_put().count(),
            to_get: self.wanted().len(),
            ..self.shown.clone()
        }
    }

    fn next(&mut self, now: BootTime) -> Option<Operation> {
        if now >= self.list_at {
            return Some(Operation::List { from: self.from() });
        }
        let rests = |place: &Place| self.rests.get(place).is_some_and(|rest| now < rest.until);
        // The newest is in use, or will be.
        let put = self.to_put().rev().find(|place| !rests(place)).copied();
        if let Some(place) = put {
            let replace = self.there.contains_key(&place);
            return Some(Operation::Put { place, replace });
        }
        let wanted = self.wanted();
        // The newest first for the same reason, then the oldest, so that they come to be kept in
        // their order.
        let newest = wanted.last().filter(|place| !rests(place));
        let get = newest.filter(|place| self.have.last() < Some(place));
        let get = get.or_else(|| wanted.iter().find(|place| !rests(place)));
        if let Some(place) = get {
            return Some(Operation::Get(*place));
        }
        self.due_to_read(now).map(Operation::Get)
    }

    /// What this host has and the repository lacks, or has damaged.
    fn to_put(&self) -> impl DoubleEndedIterator<Item = &Place> {
        let lacks = |place: &&Place| {
            let there = self.there.get(place);
            there.is_none_or(|object| matches!(object.state, State::Bad { .. }))
        };
        self.have.iter().filter(lacks)
    }

    /// What the repository has and this host lacks, of the newest, and what is needed; in order.
    fn wanted(&self) -> Vec<Place> {
        let there = self.there.iter();
        let there = there.filter(|(_, object)| !matches!(object.state, State::Bad { .. }));
        let there: BTreeSet<Place> = there.map(|(place, _)| *place).collect();
        let all: BTreeSet<Place> = there.union(&self.have).copied().collect();
        // None: there are not so many, and every one is wanted.
        let least = all.iter().rev().nth(WINDOW - 1).copied();
        let is_wanted = |place: &Place| {
            let wanted = Some(*place) >= least || self.needed.contains(&place.id);
            wanted && !self.have.contains(place)
        };
        there.into_iter().filter(is_wanted).collect()
    }

    /// The next object that this host has too and that nobody has read for long. Once a day is
    /// enough for each; what was written again is read soon.
    fn due_to_read(&mut self, now: BootTime) -> Option<Place> {
        if now < self.read_at {
            return None;
        }
        let due = |object: &Object| match object.state {
            State::Unproven | State::Changed => object.stamp.is_some(),
            State::Good { again_at } => now >= again_at,
            State::Bad { .. } => false,
        };
        let rests = |place| self.rests.get(place).is_some_and(|rest| now < rest.until);
        let there = self.there.iter().rev();
        let due = there
            .filter(|(place, object)| due(object) && self.have.contains(place) && !rests(place));
        let (place, _) = due.max_by_key(|(_, object)| object.state == State::Changed)?;
        let place = *place;
        self.read_at = now.after(self.every / READ_BETWEEN);
        Some(place)
    }

    /// Older versions are not listed again, unless one of them is needed.
    fn from(&self) -> u64 {
        let head = self.have.last().map_or(0, |place| place.number);
        match self.needed.is_empty() {
            true => head.saturating_sub(KEPT as u64),
            false => 0,
        }
    }

    /// What was being done, if it is what has ended.
    fn ended(&mut self, token: u64) -> Option<Operation> {
        let (task, _) = self.busy.take_if(|(task, _)| task.token == token)?;
        self.look_at = BootTime::default();
        Some(task.operation)
    }

    fn reached(&mut self, now: BootTime) {
        if std::mem::take(&mut self.told) || self.shown.reached.is_none() {
            self.note(Note::Reached);
        }
        self.shown.silent_since = None;
        self.shown.reached = Some(now);
        self.pause.times = 0;
        if self.rests.is_empty() {
            self.shown.error = None;
        }
    }

    fn bad(&mut self, place: Place, why: String, now: BootTime) -> State {
        self.shown.refused += 1;
        let (since, told) = &mut self.bad_told;
        let (most, span) = BAD_TOLD;
        if now.since(*since) >= span {
            (*since, *told) = (now, 0);
        }
        *told += 1;
        if *told <= most {
            self.note(Note::Bad(place, why));
        }
        let again_at = now.after(BAD_FOR);
        State::Bad { again_at }
    }

    fn prove(&mut self, place: Place, state: State) {
        if let Some(object) = self.there.get_mut(&place) {
            object.state = state;
        }
    }

    fn rest(&mut self, place: Place, now: BootTime) {
        let rest = self.rests.entry(place).or_insert(Rest {
            times: 0,
            until: now,
        });
        *rest = longer(*rest, now);
    }

    fn note(&mut self, note: Note) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }
}

/// Twice as long as the last time, within bounds.
fn longer(rest: Rest, now: BootTime) -> Rest {
    let (least, most) = PAUSE;
    let span = least.saturating_mul(1 << rest.times.min(16));
    Rest {
        times: rest.times.saturating_add(1),
        until: now.after(span.min(most)),
    }
}

#[cfg(test)]
mod tests;
