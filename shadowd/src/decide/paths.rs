//! Which of the paths to one peer carry what it says.
//!
//! ```text
//!   Unknown ----> Up <----> Lost          10 datagrams in a row came over others and not over it;
//!      \___________________/              back: 10 came over it, and a second is over
//! ```
//! A path is judged by the others: what came over none of them says nothing of any, so a peer that
//! is dead or says nothing loses no path. Nothing here decides who owns a group: a member is silent
//! when it is silent on all paths, which is what the cores hear.
//!
//! Pure: it counts what arrives, and time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use crate::facts::{BootTime, Cause, PathNumber, PathState};

/// So many datagrams in a row that came over others only: the path is lost.
const LOST_AFTER: u32 = 10;
/// So many have to come over a lost path before it is back.
const BACK_AFTER: u32 = 10;
/// Of which no more than so many in a row may be missing.
const BACK_MISSING: u32 = 2;
/// And so long it stays lost at least: what flaps is told once a second.
const BACK_SETTLES: Duration = Duration::from_secs(1);
/// The peer says something each second: one that was not heard for so long over any path is silent.
const SILENT_AFTER: Duration = Duration::from_millis(3_500);
/// The loss is counted over so many datagrams.
const LOSS_OVER: u64 = 200;
/// And is told from so many on.
const LOSS_FROM: u64 = 20;

/// A path that is another than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing comes over it any more.
    Lost {
        /// The path.
        path: PathNumber,
        /// [`Cause::LinkLost`] when this host's interface has no carrier, else [`Cause::Silence`].
        cause: Cause,
        /// What came over others and not over it, in a row.
        missed: u32,
    },
    /// It carries again.
    Back {
        /// The path.
        path: PathNumber,
        /// How long it was lost.
        lost_for: Duration,
    },
}

/// The paths to one peer.
#[derive(Clone, Debug)]
pub struct Paths {
    each: Vec<Path>,
    /// Datagrams that came, over whichever path.
    news: u64,
    heard: Option<BootTime>,
    changes: VecDeque<Change>,
}

#[derive(Clone, Debug, Default)]
struct Path {
    arrived: u64,
    heard: Option<BootTime>,
    /// This host's end has no carrier.
    unlinked: bool,
    /// In a row.
    missed: u32,
    lost: Option<BootTime>,
    lost_because: Option<Cause>,
    /// Since it was lost.
    returned: u32,
    /// Both counts when the one under way began.
    began: (u64, u64),
    /// The one before it.
    loss: Option<f64>,
}

impl Path {
    fn loss_of(&self, news: u64) -> f64 {
        let (news_before, arrived_before) = self.began;
        let (all, here) = (news - news_before, self.arrived - arrived_before);
        all.saturating_sub(here) as f64 / all.max(1) as f64
    }
}

impl Paths {
    /// So many paths, at most [`PathNumber::COUNT`], none heard yet.
    pub fn new(count: usize) -> Self {
        Self {
            each: vec![Path::default(); count.min(PathNumber::COUNT)],
            news: 0,
            heard: None,
            changes: VecDeque::new(),
        }
    }

    /// An authentic datagram came over `path`; a `copy` of what came over another before, or news.
    pub fn on_arrival(&mut self, path: PathNumber, copy: bool, now: BootTime) {
        self.heard = Some(now);
        if !copy {
            self.news += 1;
            for (place, other) in self.each.iter_mut().enumerate() {
                if place == path.place() {
                    continue;
                }
                other.missed = other.missed.saturating_add(1);
                if other.missed > BACK_MISSING {
                    other.returned = 0;
                }
            }
            for place in 0..self.each.len() {
                if self.each[place].missed >= LOST_AFTER {
                    self.lost(place, now);
                }
            }
        }
        let news = self.news;
        let Some(here) = self.each.get_mut(path.place()) else {
            return;
        };
        here.arrived += 1;
        here.heard = Some(now);
        here.missed = 0;
        if news - here.began.0 >= LOSS_OVER {
            here.loss = Some(here.loss_of(news));
            here.began = (news, here.arrived);
        }
        let Some(since) = here.lost else { return };
        here.returned = here.returned.saturating_add(1);
        let lost_for = now.since(since);
        if here.returned >= BACK_AFTER && lost_for >= BACK_SETTLES {
            (here.lost, here.lost_because) = (None, None);
            self.changes.push_back(Change::Back { path, lost_for });
        }
    }

    /// The interface of this host's end of `path` got its carrier, or lost it.
    pub fn on_carrier(&mut self, path: PathNumber, up: bool, now: BootTime) {
        if let Some(here) = self.each.get_mut(path.place()) {
            let before = std::mem::replace(&mut here.unlinked, !up);
            if !up && !before {
                self.lost(path.place(), now);
            }
        }
    }

    fn lost(&mut self, place: usize, now: BootTime) {
        // The only path is the peer itself, and its silence is for others to judge.
        if self.each.len() < 2 {
            return;
        }
        let here = &mut self.each[place];
        // Lost for want of a word, before the carrier's own came: that says why.
        let explains = here.unlinked && here.lost_because == Some(Cause::Silence);
        let news = here.lost.is_none() || explains;
        let Some(path) = PathNumber::new(place).filter(|_| news) else {
            return;
        };
        here.lost = here.lost.or(Some(now));
        here.returned = 0;
        here.began = (self.news, here.arrived);
        let cause = match here.unlinked {
            true => Cause::LinkLost,
            false => Cause::Silence,
        };
        here.lost_because = Some(cause);
        let missed = here.missed;
        let change = Change::Lost {
            path,
            cause,
            missed,
        };
        self.changes.push_back(change);
    }

    /// What has changed since it was last asked for, oldest first.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// What is known of `path`.
    pub fn state(&self, path: PathNumber, now: BootTime) -> PathState {
        let (Some(here), Some(heard)) = (self.each.get(path.place()), self.heard) else {
            return PathState::Unknown;
        };
        if now.since(heard) > SILENT_AFTER {
            PathState::Silent
        } else if here.lost.is_some() {
            PathState::Lost
        } else if here.heard.is_some() {
            PathState::Up
        } else {
            PathState::Unknown
        }
    }

    /// When something last came over `path`.
    pub fn last_heard(&self, path: PathNumber) -> Option<BootTime> {
        self.each.get(path.place())?.heard
    }

    /// What came over `path`, and what came over others and not over it.
    pub fn counts(&self, path: PathNumber) -> (u64, u64) {
        let arrived = self.each.get(path.place()).map_or(0, |here| here.arrived);
        (arrived, self.news.saturating_sub(arrived))
    }

    /// The share, 0 to 1, of the newest datagrams that came over others and not over `path`.
    pub fn loss(&self, path: PathNumber) -> Option<f64> {
        let here = self.each.get(path.place())?;
        let counted = self.news - here.began.0;
        match here.loss {
            // One that is lost ends no count of its own.
            Some(known) if here.lost.is_none() || counted < LOSS_FROM => Some(known),
            _ => (counted >= LOSS_FROM).then(|| here.loss_of(self.news)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(10);

    struct Two {
        paths: Paths,
        now: BootTime,
    }

    fn path(place: usize) -> PathNumber {
        PathNumber::new(place).unwrap()
    }

    impl Two {
        fn new() -> Self {
            Self {
                paths: Paths::new(2),
                now: BootTime::from_nanos(1_000_000_000),
            }
        }

        /// The peer says something so many times; `over` says which paths carry it.
        fn beats(&mut self, count: u32, over: [bool; 2]) -> Vec<Change> {
            for _ in 0..count {
                self.now = self.now.after(BEAT);
                let mut copy = false;
                for place in (0..2).filter(|place| over[*place]) {
                    self.paths.on_arrival(path(place), copy, self.now);
                    copy = true;
                }
            }
            std::iter::from_fn(|| self.paths.poll_change()).collect()
        }

        fn states(&self) -> [PathState; 2] {
            [0, 1].map(|place| self.paths.state(path(place), self.now))
        }
    }

    fn lost(place: usize, cause: Cause, missed: u32) -> Change {
        Change::Lost {
            path: path(place),
            cause,
            missed,
        }
    }

    #[test]
    fn a_path_is_lost_when_others_carry_what_it_does_not() {
        let mut two = Two::new();
        assert_eq!(two.states(), [PathState::Unknown; 2]);
        assert_eq!(two.beats(100, [true, true]), []);
        assert_eq!(two.states(), [PathState::Up; 2]);
        assert_eq!(two.beats(9, [false, true]), []);
        assert_eq!(two.beats(50, [false, true]), [lost(0, Cause::Silence, 10)]);
        assert_eq!(two.states(), [PathState::Lost, PathState::Up]);
        // It flaps: no more than once a second is told.
        assert_eq!(two.beats(20, [true, true]), []);
        assert_eq!(two.beats(20, [false, true]), []);
        let back = two.beats(150, [true, true]);
        assert!(
            matches!(back[..], [Change::Back { path, lost_for }]
                if path.place() == 0 && lost_for >= BACK_SETTLES),
            "{back:?}"
        );
        assert_eq!(two.states(), [PathState::Up; 2]);
    }

    #[test]
    fn a_silent_peer_loses_no_path() {
        let mut two = Two::new();
        two.beats(100, [true, true]);
        assert_eq!(two.beats(1_000, [false, false]), []);
        assert_eq!(two.states(), [PathState::Silent; 2]);
        // It comes back over one.
        assert_eq!(two.beats(9, [true, false]), []);
        assert_eq!(two.beats(1, [true, false]), [lost(1, Cause::Silence, 10)]);
    }

    #[test]
    fn a_path_that_never_carried_anything_is_lost_too() {
        let mut two = Two::new();
        assert_eq!(two.beats(10, [true, false]), [lost(1, Cause::Silence, 10)]);
        assert_eq!(two.states(), [PathState::Up, PathState::Lost]);
        assert_eq!(two.paths.last_heard(path(1)), None);
    }

    #[test]
    fn a_lost_carrier_loses_the_path_at_once_and_says_why() {
        let mut two = Two::new();
        two.beats(100, [true, true]);
        two.paths.on_carrier(path(0), false, two.now);
        assert_eq!(two.beats(20, [false, true]), [lost(0, Cause::LinkLost, 0)]);
        two.paths.on_carrier(path(0), true, two.now);
        assert_eq!(two.states(), [PathState::Lost, PathState::Up]);
        assert_eq!(two.beats(200, [true, true]).len(), 1);
    }

    #[test]
    fn a_carrier_that_is_told_of_late_still_says_why() {
        let mut two = Two::new();
        two.beats(100, [true, true]);
        assert_eq!(two.beats(10, [false, true]), [lost(0, Cause::Silence, 10)]);
        two.paths.on_carrier(path(0), false, two.now);
        two.paths.on_carrier(path(0), false, two.now);
        assert_eq!(two.beats(1, [false, true]), [lost(0, Cause::LinkLost, 10)]);
    }

    #[test]
    fn the_only_path_is_never_lost() {
        let mut paths = Paths::new(1);
        let now = BootTime::from_nanos(1);
        paths.on_arrival(PathNumber::FIRST, false, now);
        paths.on_carrier(PathNumber::FIRST, false, now);
        assert_eq!(paths.poll_change(), None);
        assert_eq!(paths.state(PathNumber::FIRST, now), PathState::Up);
    }

    #[test]
    fn loss_is_the_share_that_came_over_others_only() {
        let mut two = Two::new();
        assert_eq!(two.paths.loss(path(0)), None);
        for _ in 0..200 {
            two.beats(3, [true, true]);
            two.beats(1, [true, false]);
        }
        let loss = |two: &Two, place: usize| two.paths.loss(path(place)).unwrap();
        assert!(loss(&two, 0) < 0.01, "{}", loss(&two, 0));
        assert!((0.24..0.26).contains(&loss(&two, 1)), "{}", loss(&two, 1));
        assert_eq!(two.paths.counts(path(1)), (600, 200));
        two.beats(1_000, [true, false]);
        assert!(loss(&two, 1) > 0.95, "{}", loss(&two, 1));
        two.beats(1_000, [true, true]);
        assert!(loss(&two, 1) < 0.01, "{}", loss(&two, 1));
    }

    #[test]
    fn what_came_from_elsewhere_is_nobodys_path() {
        let mut paths = Paths::new(1);
        paths.on_arrival(path(3), false, BootTime::from_nanos(1));
        assert_eq!(paths.counts(path(3)), (0, 1));
        assert_eq!(paths.poll_change(), None);
    }
}
