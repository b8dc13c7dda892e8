//! A table that is bounded: when it is full, the entry that was used longest ago makes room.

use std::collections::HashMap;
use std::hash::Hash;

/// No slot.
const NONE: usize = usize::MAX;

/// A bounded table in the order of last use. Every operation takes constant time.
#[derive(Debug)]
pub struct Recent<K, V> {
    slots: Vec<Slot<K, V>>,
    places: HashMap<K, usize>,
    newest: usize,
    oldest: usize,
    limit: usize,
    evicted: u64,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    newer: usize,
    older: usize,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty table for at most `limit` entries, at least one.
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            places: HashMap::new(),
            newest: NONE,
            oldest: NONE,
            limit: limit.max(1),
            evicted: 0,
        }
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Entries at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Entries that made room for others since the table was made.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The value at `key`, which counts as used now.
    pub fn touch(&mut self, key: &K) -> Option<&mut V> {
        let place = *self.places.get(key)?;
        self.move_to_front(place);
        Some(&mut self.slots[place].value)
    }

    /// The value at `key`, made by `make` when there is none, which counts as used now; and what
    /// had to make room for it.
    pub fn entry(&mut self, key: &K, make: impl FnOnce() -> V) -> (&mut V, Option<(K, V)>) {
        if let Some(&place) = self.places.get(key) {
            self.move_to_front(place);
            return (&mut self.slots[place].value, None);
        }
        let slot = Slot {
            key: key.clone(),
            value: make(),
            newer: NONE,
            older: NONE,
        };
        let (place, gone) = if self.slots.len() < self.limit {
            self.slots.push(slot);
            (self.slots.len() - 1, None)
        } else {
            let place = self.oldest;
            self.unlink(place);
            let gone = std::mem::replace(&mut self.slots[place], slot);
            self.places.remove(&gone.key);
            self.evicted += 1;
            (place, Some((gone.key, gone.value)))
        };
        self.places.insert(key.clone(), place);
        self.link_front(place);
        (&mut self.slots[place].value, gone)
    }

    /// Every entry, the one used last first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut place = self.newest;
        std::iter::from_fn(move || {
            let slot = self.slots.get(place)?;
            place = slot.older;
            Some((&slot.key, &slot.value))
        })
    }

    /// Hands entries to `change`, the one used last first, while it returns true.
    pub fn change_while(&mut self, mut change: impl FnMut(&K, &mut V) -> bool) {
        let mut place = self.newest;
        while let Some(slot) = self.slots.get_mut(place) {
            if !change(&slot.key, &mut slot.value) {
                return;
            }
            place = slot.older;
        }
    }

    fn move_to_front(&mut self, place: usize) {
        if self.newest != place {
            self.unlink(place);
            self.link_front(place);
        }
    }

    fn unlink(&mut self, place: usize) {
        let (newer, older) = (self.slots[place].newer, self.slots[place].older);
        match self.slots.get_mut(newer) {
            Some(slot) => slot.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_front(&mut self, place: usize) {
        let older = self.newest;
        self.slots[place].newer = NONE;
        self.slots[place].older = older;
        match self.slots.get_mut(older) {
            Some(slot) => slot.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list that is searched: the same entries in the same order, the same evicted.
        #[test]
        fn it_holds_what_was_used_last(
            limit in 1_usize..6,
            steps in prop::collection::vec((0_u8..12, any::<bool>()), 0..80),
        ) {
            let mut table = Recent::new(limit);
            let mut model: Vec<(u8, usize)> = Vec::new();
            let mut gone = 0;
            for (step, (key, only_touch)) in steps.into_iter().enumerate() {
                let known = model.iter().position(|(other, _)| *other == key);
                if only_touch {
                    prop_assert_eq!(table.touch(&key).copied(), known.map(|at| model[at].1));
                } else {
                    let (value, evicted) = table.entry(&key, || step);
                    prop_assert_eq!(*value, known.map_or(step, |at| model[at].1));
                    let full = known.is_none() && model.len() == limit;
                    prop_assert_eq!(evicted, full.then(|| model.pop()).flatten());
                    gone += u64::from(full);
                    if known.is_none() {
                        model.insert(0, (key, step));
                    }
                }
                if let Some(at) = known {
                    let entry = model.remove(at);
                    model.insert(0, entry);
                }
                let seen: Vec<(u8, usize)> = table.iter().map(|(k, v)| (*k, *v)).collect();
                prop_assert_eq!(&seen, &model);
                prop_assert_eq!((table.len(), table.evicted()), (model.len(), gone));
            }
        }
    }
}
