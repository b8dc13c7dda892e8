//! What was seen, since when, and how often: members of sets that only show while they are used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// It takes so many sightings to belong.
const BELONGS_AFTER: u32 = 3;

/// One member's sightings, in seconds of local time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sighting {
    first: u64,
    last: u64,
    count: u32,
}

/// The members of a set, bounded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Sightings<T: Ord> {
    seen: BTreeMap<T, Sighting>,
    most: usize,
    /// Members that found no room.
    refused: u64,
}

impl<T: Ord + Clone> Sightings<T> {
    pub fn new(most: usize) -> Self {
        Self {
            seen: BTreeMap::new(),
            most,
            refused: 0,
        }
    }

    /// It was seen at `now`.
    pub fn see(&mut self, member: &T, now: u64) {
        if let Some(sighting) = self.seen.get_mut(member) {
            sighting.last = sighting.last.max(now);
            sighting.count = sighting.count.saturating_add(1);
        } else if self.seen.len() < self.most {
            let sighting = Sighting {
                first: now,
                last: now,
                count: 1,
            };
            self.seen.insert(member.clone(), sighting);
        } else {
            self.refused += 1;
        }
    }

    /// Members that belong: seen several times, over at least `settle` seconds.
    pub fn belonging(&self, settle: u64) -> impl Iterator<Item = &T> {
        let belongs = move |sighting: &Sighting| {
            sighting.count >= BELONGS_AFTER && sighting.last - sighting.first >= settle
        };
        let seen = self.seen.iter();
        seen.filter(move |(_, sighting)| belongs(sighting))
            .map(|(member, _)| member)
    }

    /// The same, and when there is no room the member goes that was not seen for longest.
    pub fn see_newest(&mut self, member: &T, now: u64) {
        if !self.seen.contains_key(member) && self.seen.len() >= self.most {
            let oldest = self.seen.iter().min_by_key(|(_, sighting)| sighting.last);
            if let Some((oldest, _)) = oldest {
                let oldest = oldest.clone();
                self.seen.remove(&oldest);
                self.refused += 1;
            }
        }
        self.see(member, now);
    }

    /// All members, however often they were seen.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.seen.keys()
    }

    /// Forgets who was not seen since `since`.
    pub fn forget(&mut self, since: u64) {
        self.seen.retain(|_, sighting| sighting.last >= since);
    }

    /// How often there was no room.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_seen_often_and_for_long_belongs_until_it_is_forgotten() {
        let mut sightings = Sightings::new(2);
        let belonging = |sightings: &Sightings<&'static str>| -> Vec<&'static str> {
            sightings.belonging(60).copied().collect()
        };
        for now in [0, 10, 20] {
            sightings.see(&"quick", now);
        }
        for now in [0, 100] {
            sightings.see(&"rare", now);
        }
        sightings.see(&"third", 100);
        assert_eq!(sightings.refused(), 1);
        assert!(belonging(&sightings).is_empty());
        sightings.see(&"rare", 101);
        assert_eq!(belonging(&sightings), ["rare"]);
        sightings.see(&"quick", 90);
        assert_eq!(belonging(&sightings), ["quick", "rare"]);
        sightings.forget(95);
        assert_eq!(belonging(&sightings), ["rare"]);
        sightings.see_newest(&"newer", 200);
        sightings.see_newest(&"newest", 300);
        let all: Vec<&str> = sightings.all().copied().collect();
        assert_eq!(all, ["newer", "newest"], "the oldest goes");
        assert_eq!(sightings.refused(), 2);
    }
}
