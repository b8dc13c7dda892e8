//! What a daemon keeps for the one after it ([`Kept`]), and promises that outlive both.
//!
//! What was kept at the end of a daemon is for one start in the same boot: [`Store::take_memory`]
//! deletes it in the same step, so that a daemon that crashes later does not find what was true
//! before. A kernel that crashes may forget either step, and then the boot is another one.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Store, StoreError};
use crate::facts::{BootTime, Kept, KeptPromise, Memory, Name};

impl Store {
    /// Keeps what the daemon that ends leaves, in the boot `boot`, in place of anything kept.
    ///
    /// # Errors
    /// [`StoreError::Keep`]: nothing is kept.
    pub fn keep(&mut self, boot: &str, groups: &[(Name, Kept)]) -> Result<(), StoreError> {
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute("DELETE FROM kept", [])?;
            for (group, kept) in groups {
                transaction.execute(
                    "INSERT INTO kept (group_name, boot, body) VALUES (?1, ?2, ?3)",
                    params![group.as_str(), boot, json(kept)?],
                )?;
            }
            transaction.commit()
        };
        write().map_err(StoreError::Keep)
    }

    /// What is known of each group at `now` in the boot `boot`. What was kept is gone afterwards; a
    /// promise of an earlier boot, whose clock is gone, holds from now on for as long as it was.
    ///
    /// # Errors
    /// [`StoreError::Memory`]: all is as it was, and the daemon must not vote.
    pub fn take_memory(
        &mut self,
        boot: &str,
        now: BootTime,
    ) -> Result<Vec<(Name, Memory)>, StoreError> {
        let mut take = || -> rusqlite::Result<Vec<(Name, Memory)>> {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut memory = Vec::new();
            for (group, here, body) in bodies(&transaction, "kept", boot)? {
                if here {
                    entry(&mut memory, group).kept = from_json(&body)?;
                }
            }
            transaction.execute("DELETE FROM kept", [])?;
            for (group, here, body) in bodies(&transaction, "promises", boot)? {
                let mut promise: KeptPromise = from_json(&body)?;
                if !here {
                    promise.until = now.after(Duration::from_nanos(promise.length_ns));
                    put_promise(&transaction, boot, &group, &promise)?;
                }
                if promise.until > now {
                    entry(&mut memory, group).promise = Some(promise);
                } else {
                    let over = "DELETE FROM promises WHERE group_name = ?1";
                    transaction.execute(over, [group.as_str()])?;
                }
            }
            transaction.commit()?;
            Ok(memory)
        };
        take().map_err(StoreError::Memory)
    }

    /// Keeps a promise, on the disk before it returns, in place of an older one of the group.
    ///
    /// # Errors
    /// [`StoreError::KeepPromise`]: it must not be given.
    pub fn keep_promise(
        &mut self,
        boot: &str,
        group: &Name,
        promise: &KeptPromise,
    ) -> Result<(), StoreError> {
        self.synchronously(|store| put_promise(&store.connection, boot, group, promise))
            .map_err(|source| StoreError::KeepPromise {
                group: group.clone(),
                source,
            })
    }
}

/// Each row's group, whether it is of this boot, and what it says.
fn bodies(
    connection: &Connection,
    table: &str,
    boot: &str,
) -> rusqlite::Result<Vec<(Name, bool, String)>> {
    let query = format!("SELECT group_name, boot = ?1, body FROM {table} ORDER BY group_name");
    let mut statement = connection.prepare(&query)?;
    let rows = statement.query_map([boot], |row| {
        let group = row.get::<_, String>(0)?.parse().map_err(other)?;
        Ok((group, row.get(1)?, row.get(2)?))
    })?;
    rows.collect()
}

fn put_promise(
    connection: &Connection,
    boot: &str,
    group: &Name,
    promise: &KeptPromise,
) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO promises (group_name, boot, body) VALUES (?1, ?2, ?3)
         ON CONFLICT (group_name) DO UPDATE SET boot = ?2, body = ?3",
        params![group.as_str(), boot, json(promise)?],
    )?;
    Ok(())
}

fn entry(memory: &mut Vec<(Name, Memory)>, group: Name) -> &mut Memory {
    let known = memory.iter().position(|(known, _)| *known == group);
    let index = known.unwrap_or_else(|| {
        memory.push((group, Memory::default()));
        memory.len() - 1
    });
    &mut memory[index].1
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(other)
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(other)
}

fn other(source: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Epoch, HostId, KeptPause, KeptVote};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn epoch(counter: u64) -> Epoch {
        let owner = HostId::from_bytes([7; 32]);
        Epoch { counter, owner }
    }

    fn kept() -> Kept {
        let at = BootTime::from_nanos;
        Kept {
            vote: Some(KeptVote {
                electorate: 8,
                quiet_until: at(5),
                promise: Some((epoch(3), at(u64::MAX - 1))),
                newest: epoch(4),
                asked: 9,
            }),
            pause: Some(KeptPause {
                epoch: epoch(3),
                deadline: at(77),
                electorate: u64::MAX,
                interface: "eth0".to_owned(),
                vips: vec!["192.0.2.10/24".parse().unwrap()],
            }),
        }
    }

    fn promise(length_ns: u64) -> KeptPromise {
        KeptPromise {
            epoch: epoch(3),
            until: BootTime::from_nanos(99),
            length_ns,
        }
    }

    fn scratch() -> std::path::PathBuf {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("shadowd-kept-{}-{number}", std::process::id());
        std::env::temp_dir().join(name)
    }

    #[test]
    fn what_is_kept_is_found_once_and_in_its_boot_only() {
        let (dir, now) = (scratch(), BootTime::from_nanos(10));
        let mut store = Store::open(&dir).unwrap();
        store.keep("one", &[(name("web"), kept())]).unwrap();
        drop(store);
        let mut store = Store::open(&dir).unwrap();
        let found = store.take_memory("one", now).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].0, &found[0].1.kept), (&name("web"), &kept()));
        assert_eq!(store.take_memory("one", now).unwrap(), vec![]);
        store.keep("one", &[(name("web"), kept())]).unwrap();
        assert_eq!(store.take_memory("two", now).unwrap(), vec![]);
        assert_eq!(store.take_memory("one", now).unwrap(), vec![]);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_promise_stays_until_it_is_over_and_begins_anew_after_a_reboot() {
        let (dir, at) = (scratch(), BootTime::from_nanos);
        let mut store = Store::open(&dir).unwrap();
        let until = |found: Vec<(Name, Memory)>| {
            let first = found.into_iter().next();
            first.and_then(|(_, memory)| Some(memory.promise?.until.as_nanos()))
        };
        store
            .keep_promise("one", &name("web"), &promise(50))
            .unwrap();
        for _ in 0..2 {
            assert_eq!(until(store.take_memory("one", at(98)).unwrap()), Some(99));
        }
        for now in [3, 4] {
            let found = store.take_memory("two", at(now)).unwrap();
            assert_eq!(until(found), Some(53), "from the first start on");
        }
        assert_eq!(until(store.take_memory("two", at(53)).unwrap()), None);
        assert_eq!(until(store.take_memory("three", at(1)).unwrap()), None);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
