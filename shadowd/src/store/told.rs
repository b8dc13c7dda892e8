//! What hooks and alerts were told last: the part of the store that lets a daemon which starts tell
//! what changed while there was none.

use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::{Store, StoreError, rows};
use crate::facts::Told;

/// More rows than receivers, groups and subjects can make are not ours.
const MAX_TOLD: u32 = 16_384;

impl Store {
    /// Everything that was told last.
    ///
    /// # Errors
    /// [`StoreError::Told`] when the file cannot be read or a row does not decode.
    pub fn told(&self) -> Result<Vec<Told>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Told>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT receiver, group_name, subject, topic, epoch, sure FROM told
                 ORDER BY receiver, group_name, subject LIMIT ?1",
            )?;
            let told = statement.query_map([MAX_TOLD], rows::told)?;
            told.collect()
        };
        read().map_err(StoreError::Told)
    }

    /// Remembers what was told; replaces what was told before of the same.
    ///
    /// # Errors
    /// [`StoreError::Told`]: the older word stands, and is corrected at the next start.
    pub fn set_told(&mut self, told: &Told) -> Result<(), StoreError> {
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO told (receiver, group_name, subject, topic, epoch, sure)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (receiver, group_name, subject)
                 DO UPDATE SET topic = ?4, epoch = ?5, sure = ?6",
                params![
                    told.receiver,
                    told.group.as_str(),
                    told.subject,
                    rows::code(&told.topic)?,
                    told.epoch.cast_signed(),
                    told.sure,
                ],
            )?;
            transaction.commit()
        };
        write().map_err(StoreError::Told)
    }

    /// Forgets receivers that the configuration no longer has.
    ///
    /// # Errors
    /// [`StoreError::Told`]: they stay, and harm nobody.
    pub fn forget_told(&mut self, keep: &[String]) -> Result<(), StoreError> {
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut last = String::new();
            let next = "SELECT min(receiver) FROM told WHERE receiver > ?1";
            while let Some(receiver) = transaction
                .query_row(next, [&last], |row| row.get::<_, Option<String>>(0))
                .optional()?
                .flatten()
            {
                if !keep.contains(&receiver) {
                    transaction.execute("DELETE FROM told WHERE receiver = ?1", [&receiver])?;
                }
                last = receiver;
            }
            transaction.commit()
        };
        write().map_err(StoreError::Told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Topic;

    #[test]
    fn the_last_word_is_kept_across_a_reopen_and_old_receivers_are_forgotten() {
        let dir = std::env::temp_dir().join(format!("shadowd-told-{}", std::process::id()));
        let told = |receiver: &str, topic, epoch| Told {
            receiver: receiver.to_owned(),
            group: "web".parse().unwrap(),
            subject: "role".to_owned(),
            topic,
            epoch,
            sure: epoch > 0,
        };
        let mut store = Store::open(&dir).unwrap();
        for one in [
            told("hook/a", Topic::Active, 1),
            told("hook/b", Topic::Shadow, 0),
            told("hook/a", Topic::Active, u64::MAX),
        ] {
            store.set_told(&one).unwrap();
        }
        drop(store);
        let mut store = Store::open(&dir).unwrap();
        let first = told("hook/a", Topic::Active, u64::MAX);
        assert_eq!(
            store.told().unwrap(),
            [first.clone(), told("hook/b", Topic::Shadow, 0)]
        );
        store.forget_told(&["hook/a".to_owned()]).unwrap();
        assert_eq!(store.told().unwrap(), [first]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
