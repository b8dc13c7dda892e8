//! Values that have to last before they are believed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Output;

/// A value that changed so often without lasting is restless.
const RESTLESS: u32 = 8;
/// What is restless has to last for so many times what it takes: then it is followed as before.
const CALM: u64 = 4;

/// What became of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is as it was believed to be.
    Same,
    /// It differs, for less than it takes.
    Pending,
    /// It differed and is back.
    Passing {
        /// For how long it differed, seconds.
        after: u64,
    },
    /// It differs for long enough.
    Lasting,
    /// It changes all the time; told once.
    Restless,
    /// The same, told already: it is left out until it is calm.
    Given,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Track<V> {
    value: V,
    /// Since when it has this value.
    since: u64,
    /// Since when it is not the one that is believed.
    differs_since: u64,
    changes: u32,
}

/// Follows values by key: those that are not as believed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Settling<K: Ord, V> {
    tracks: BTreeMap<K, Track<V>>,
}

impl<K: Ord, V> Default for Settling<K, V> {
    fn default() -> Self {
        Self {
            tracks: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> Settling<K, V> {
    /// At `now` the value of `key` is `value`, and `believed` is believed.
    pub fn note(&mut self, key: &K, value: &V, believed: &V, settle: u64, now: u64) -> Settled {
        let differs = value != believed;
        let track = match self.tracks.get_mut(key) {
            Some(track) => track,
            None if !differs => return Settled::Same,
            None => self.tracks.entry(key.clone()).or_insert(Track {
                value: value.clone(),
                since: now,
                differs_since: now,
                changes: 0,
            }),
        };
        if track.value != *value {
            track.value = value.clone();
            track.since = now;
            track.changes = track.changes.saturating_add(1);
            if track.changes == RESTLESS {
                return Settled::Restless;
            }
        }
        let lasted = now.saturating_sub(track.since);
        let restless = track.changes >= RESTLESS;
        if restless && lasted < CALM.saturating_mul(settle) {
            return Settled::Given;
        }
        if differs && lasted < settle {
            return Settled::Pending;
        }
        let after = now.saturating_sub(track.differs_since);
        self.tracks.remove(key);
        match differs {
            true => Settled::Lasting,
            // That it differs all the time was told.
            false if restless => Settled::Same,
            false => Settled::Passing { after },
        }
    }

    /// Whether some value is on its way: for less than it takes, and not restless.
    pub fn is_moving(&self) -> bool {
        self.tracks.values().any(|track| track.changes < RESTLESS)
    }

    /// Follows nothing of which `keep` is false any more.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.tracks.retain(|key, _| keep(key));
    }
}

/// What became of the entries of several maps.
#[derive(Default)]
pub(super) struct Said {
    pub told: Vec<Output>,
    pub lasting: bool,
}

impl Said {
    pub fn settle<V: Clone + PartialEq>(
        &mut self,
        settling: &mut Settling<String, Option<V>>,
        believed: &mut BTreeMap<String, V>,
        picture: &BTreeMap<String, V>,
        settle: u64,
        now: u64,
    ) {
        let keys: BTreeSet<String> = believed.keys().chain(picture.keys()).cloned().collect();
        settling.retain(|key| keys.contains(key));
        for key in keys {
            let (value, was) = (picture.get(&key).cloned(), believed.get(&key).cloned());
            match settling.note(&key, &value, &was, settle, now) {
                Settled::Same | Settled::Pending | Settled::Given => {}
                Settled::Passing { after } => {
                    let text = format!("{key} was different for {after} s");
                    self.told.push(Output::Passed(text));
                }
                Settled::Restless => self.told.push(Output::Restless(key)),
                Settled::Lasting => {
                    self.lasting = true;
                    match value {
                        Some(value) => drop(believed.insert(key, value)),
                        None => drop(believed.remove(&key)),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(settling: &mut Settling<u8, u32>, value: u32, now: u64) -> Settled {
        settling.note(&1, &value, &0, 60, now)
    }

    #[test]
    fn what_lasts_is_believed_and_what_passes_is_told() {
        let mut settling = Settling::default();
        assert_eq!(note(&mut settling, 0, 0), Settled::Same);
        assert_eq!(note(&mut settling, 5, 10), Settled::Pending);
        assert!(settling.is_moving());
        assert_eq!(note(&mut settling, 0, 40), Settled::Passing { after: 30 });
        assert_eq!(note(&mut settling, 0, 50), Settled::Same);
        assert_eq!(note(&mut settling, 5, 100), Settled::Pending);
        assert_eq!(
            note(&mut settling, 6, 150),
            Settled::Pending,
            "another one begins anew"
        );
        assert_eq!(note(&mut settling, 6, 209), Settled::Pending);
        assert_eq!(note(&mut settling, 6, 210), Settled::Lasting);
        assert!(!settling.is_moving());
    }

    #[test]
    fn what_never_rests_is_told_once() {
        let mut settling = Settling::default();
        let mut told = 0;
        for now in 0..1_000 {
            match note(&mut settling, 1 + now as u32, now) {
                Settled::Restless => told += 1,
                Settled::Pending | Settled::Given => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, 1);
        assert!(!settling.is_moving());
        assert_eq!(note(&mut settling, 0, 2_000), Settled::Given);
    }

    /// After so many changes, the last at 8.
    fn restless() -> Settling<u8, u32> {
        let mut settling = Settling::default();
        let told: Vec<Settled> = (0..=8)
            .map(|now| note(&mut settling, 1 + now as u32, now))
            .collect();
        assert_eq!(told.last(), Some(&Settled::Restless), "{told:?}");
        settling
    }

    #[test]
    fn what_was_restless_is_believed_once_it_lasts_for_longer() {
        let mut settling = restless();
        assert_eq!(note(&mut settling, 9, 8 + 239), Settled::Given);
        assert_eq!(note(&mut settling, 9, 8 + 240), Settled::Lasting);
        assert_eq!(note(&mut settling, 9, 250), Settled::Pending, "from anew");
    }

    #[test]
    fn what_was_restless_and_stays_as_believed_is_followed_again() {
        let mut settling = restless();
        assert_eq!(note(&mut settling, 0, 10), Settled::Given);
        assert_eq!(note(&mut settling, 0, 10 + 239), Settled::Given);
        assert_eq!(note(&mut settling, 0, 10 + 240), Settled::Same);
        assert_eq!(note(&mut settling, 5, 260), Settled::Pending);
        assert!(settling.is_moving());
    }
}
