//! What bounds failover of a group, over a restart of the daemon.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};
use crate::facts::{Name, PolicyMemory};

impl Store {
    /// What was recorded for `group`, and when, in ms since 1970.
    ///
    /// # Errors
    /// [`StoreError::Policy`] when the file cannot be read or the row is not a policy.
    pub fn policy(&self, group: &Name) -> Result<Option<(u64, PolicyMemory)>, StoreError> {
        let read = || {
            self.connection
                .prepare_cached("SELECT wall_ms, memory FROM policies WHERE group_name = ?1")?
                .query_row([group.as_str()], |row| {
                    let at = row.get::<_, i64>(0)?.cast_unsigned();
                    let text: String = row.get(1)?;
                    let memory = serde_json::from_str(&text).map_err(|source| {
                        rusqlite::Error::FromSqlConversionFailure(1, Type::Text, Box::new(source))
                    })?;
                    Ok((at, memory))
                })
                .optional()
        };
        read().map_err(|source| StoreError::Policy {
            group: group.clone(),
            source,
        })
    }

    /// Records `memory` for `group`, as of `wall_ms`.
    ///
    /// # Errors
    /// [`StoreError::SetPolicy`]: what was there stands.
    pub fn set_policy(
        &mut self,
        group: &Name,
        wall_ms: u64,
        memory: &PolicyMemory,
    ) -> Result<(), StoreError> {
        let write = || {
            let memory = serde_json::to_string(memory)
                .map_err(|source| rusqlite::Error::ToSqlConversionFailure(Box::new(source)))?;
            self.connection.execute(
                "INSERT INTO policies (group_name, wall_ms, memory) VALUES (?1, ?2, ?3)
                 ON CONFLICT (group_name) DO UPDATE SET wall_ms = ?2, memory = ?3",
                params![group.as_str(), wall_ms.cast_signed(), memory],
            )
        };
        let wrap = |source| StoreError::SetPolicy {
            group: group.clone(),
            source,
        };
        write().map(drop).map_err(wrap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::RememberedOrder;

    #[test]
    fn a_policy_comes_back_as_it_was_and_an_unreadable_one_is_an_error() {
        let name = format!("shadowd-policy-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let mut store = Store::open(&dir).unwrap();
        let group: Name = "web".parse().unwrap();
        assert_eq!(store.policy(&group).unwrap(), None);
        let memory = PolicyMemory {
            maintenance: Some(RememberedOrder {
                left_ms: None,
                reason: "new disk".to_owned(),
            }),
            freeze_order: u64::MAX,
            penalty: 1_234.5,
            ..PolicyMemory::default()
        };
        store
            .set_policy(&group, 5, &PolicyMemory::default())
            .unwrap();
        store.set_policy(&group, 7, &memory).unwrap();
        drop(store);
        let store = Store::open(&dir).unwrap();
        assert_eq!(store.policy(&group).unwrap(), Some((7, memory)));
        let spoil = "UPDATE policies SET memory = 'x'";
        store.connection.execute(spoil, []).unwrap();
        assert!(store.policy(&group).is_err());
        let _ = std::fs::remove_dir_all(&dir);
    }
}
