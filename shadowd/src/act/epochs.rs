//! The newest epoch seen for each thing that is acted on.
//!
//! A decision may reach its action late: behind a slow job, or from a task that was already
//! running when ownership changed. This is the last place where such an action can be refused.
//! It never remembers across a restart; the store does.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use crate::facts::Epoch;

/// Why an action was refused before it touched anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EpochError {
    /// Ownership has changed since the action was decided.
    #[error("epoch {} is stale, {} was seen", .asked.counter, .newest.counter)]
    Stale {
        /// The action's epoch.
        asked: Epoch,
        /// The newest epoch seen for the same thing.
        newest: Epoch,
    },
    /// More things than [`Epochs::MAX`] were acted on.
    #[error("more than {} addresses or units are in use", Epochs::<()>::MAX)]
    Full,
}

/// The newest epoch for each key: an address, or the name of a unit.
#[derive(Debug)]
pub struct Epochs<K> {
    newest: Mutex<BTreeMap<K, Epoch>>,
}

impl<K> Epochs<K> {
    /// At most this many keys; configurations are far smaller.
    pub const MAX: usize = 4096;
}

impl<K> Default for Epochs<K> {
    fn default() -> Self {
        Self {
            newest: Mutex::new(BTreeMap::new()),
        }
    }
}

impl<K: Ord + Clone> Epochs<K> {
    /// Lets `asked` pass for all `keys`, or for none: an equal epoch passes again, an older one is
    /// refused.
    ///
    /// # Errors
    /// [`EpochError::Stale`] if a newer epoch was seen for one of the keys, [`EpochError::Full`] if
    /// there is no room for a new key.
    pub fn admit<'a>(
        &self,
        keys: impl Iterator<Item = &'a K> + Clone,
        asked: Epoch,
    ) -> Result<(), EpochError>
    where
        K: 'a,
    {
        // The map is valid after every single operation, so a panic elsewhere cannot spoil it.
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = keys
            .clone()
            .filter_map(|key| newest.get(key))
            .max()
            .copied();
        if let Some(seen) = seen.filter(|seen| *seen > asked) {
            return Err(EpochError::Stale {
                asked,
                newest: seen,
            });
        }
        for key in keys {
            if newest.len() >= Self::MAX && !newest.contains_key(key) {
                return Err(EpochError::Full);
            }
            newest.insert(key.clone(), asked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::HostId;

    fn epoch(counter: u64, owner: u8) -> Epoch {
        Epoch {
            counter,
            owner: HostId::from_bytes([owner; 32]),
        }
    }

    #[test]
    fn an_older_epoch_is_refused_for_the_same_key_only() {
        let epochs = Epochs::default();
        assert_eq!(epochs.admit(["a"].iter(), epoch(5, 1)), Ok(()));
        assert_eq!(epochs.admit(["a"].iter(), epoch(5, 1)), Ok(()));
        let stale = EpochError::Stale {
            asked: epoch(4, 9),
            newest: epoch(5, 1),
        };
        assert_eq!(epochs.admit(["a"].iter(), epoch(4, 9)), Err(stale));
        assert_eq!(epochs.admit(["b"].iter(), epoch(4, 9)), Ok(()));
        assert_eq!(epochs.admit(["a"].iter(), epoch(5, 2)), Ok(()));
        assert!(epochs.admit(["a"].iter(), epoch(5, 1)).is_err());
    }

    #[test]
    fn a_refusal_leaves_every_key_as_it_was() {
        let epochs = Epochs::default();
        assert_eq!(epochs.admit([1].iter(), epoch(7, 1)), Ok(()));
        assert!(epochs.admit([0, 1].iter(), epoch(6, 1)).is_err());
        assert_eq!(epochs.admit([0].iter(), epoch(1, 1)), Ok(()));
    }

    #[test]
    fn the_table_is_bounded() {
        let epochs = Epochs::default();
        for key in 0..Epochs::<usize>::MAX {
            assert_eq!(epochs.admit([key].iter(), epoch(1, 1)), Ok(()));
        }
        assert_eq!(
            epochs.admit([usize::MAX].iter(), epoch(1, 1)),
            Err(EpochError::Full)
        );
        assert_eq!(epochs.admit([0].iter(), epoch(2, 1)), Ok(()));
    }
}
