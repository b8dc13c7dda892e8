//! The newest decisions of each group, each with all that led to it as packed bytes, which this
//! module does not understand.

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, TransactionBehavior, params};

use super::{Store, StoreError};
use crate::facts::{Decision, Name};

/// So many decisions of a group are kept; older ones go in the transaction that adds one.
pub const MAX_DECISIONS: u32 = 64;

/// More bytes of one decision are refused.
pub const MAX_DECISION_BYTES: usize = 4 << 20;

/// Fast, and a journal is packed to a tenth all the same.
const LEVEL: i32 = 3;

impl Store {
    /// Keeps a decision of `group` and what led to it, and numbers it; its own number is ignored.
    ///
    /// # Errors
    /// [`StoreError::KeepDecision`]: it is not kept.
    pub fn keep_decision(
        &mut self,
        group: &Name,
        decision: &Decision,
        window: &[u8],
    ) -> Result<(), StoreError> {
        let mut write = || -> rusqlite::Result<()> {
            if window.len() > MAX_DECISION_BYTES {
                return Err(refused("it is too long"));
            }
            let body = serde_json::to_string(decision).map_err(refused)?;
            let packed = zstd::bulk::compress(window, LEVEL).map_err(refused)?;
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO decisions (group_name, body, digest, packed) VALUES (?1, ?2, ?3, ?4)",
                params![
                    group.as_str(),
                    body,
                    blake3::hash(&packed).as_bytes(),
                    packed
                ],
            )?;
            transaction.execute(
                "DELETE FROM decisions WHERE group_name = ?1 AND number NOT IN (
                     SELECT number FROM decisions WHERE group_name = ?1
                     ORDER BY number DESC LIMIT ?2)",
                params![group.as_str(), MAX_DECISIONS],
            )?;
            transaction.commit()
        };
        write().map_err(|source| StoreError::KeepDecision {
            group: group.clone(),
            source,
        })
    }

    /// The kept decisions of `group`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Decisions`] when the file cannot be read or a row is not a decision.
    pub fn decisions(&self, group: &Name) -> Result<Vec<Decision>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Decision>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT number, body FROM decisions WHERE group_name = ?1 ORDER BY number",
            )?;
            let rows = statement.query_map([group.as_str()], decision)?;
            rows.collect()
        };
        read().map_err(StoreError::Decisions)
    }

    /// One of them, with what led to it; none when there is no such decision of `group`.
    ///
    /// # Errors
    /// [`StoreError::Decisions`] when the file cannot be read or the row was damaged.
    pub fn decision(
        &self,
        group: &Name,
        number: u64,
    ) -> Result<Option<(Decision, Vec<u8>)>, StoreError> {
        let read = || {
            self.connection
                .prepare_cached(
                    "SELECT number, body, digest, packed FROM decisions
                     WHERE group_name = ?1 AND number = ?2",
                )?
                .query_row(params![group.as_str(), number.cast_signed()], |row| {
                    let (digest, packed): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
                    if blake3::hash(&packed).as_bytes().as_slice() != digest {
                        return Err(damaged(3, "its bytes have changed"));
                    }
                    let window = zstd::bulk::decompress(&packed, MAX_DECISION_BYTES);
                    let window = window.map_err(|source| damaged(3, source))?;
                    Ok((decision(row)?, window))
                })
                .optional()
        };
        read().map_err(StoreError::Decisions)
    }
}

/// A decision from `number, body`.
fn decision(row: &Row<'_>) -> rusqlite::Result<Decision> {
    let body: String = row.get(1)?;
    let decision: Decision = serde_json::from_str(&body).map_err(|source| damaged(1, source))?;
    Ok(Decision {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        ..decision
    })
}

type Source = Box<dyn std::error::Error + Send + Sync>;

fn refused(source: impl Into<Source>) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(source.into())
}

fn damaged(column: usize, source: impl Into<Source>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, source.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootTime, Cause, EventKind};

    fn decided(epoch: u64) -> Decision {
        Decision {
            number: 0,
            at: BootTime::from_nanos(epoch),
            wall_ms: 7,
            kind: EventKind::Claimed,
            epoch,
            first_epoch: epoch,
            last_epoch: epoch,
            cause: Some(Cause::Silence),
        }
    }

    #[test]
    fn the_newest_decisions_of_each_group_come_back_and_a_changed_byte_is_found() {
        let name = format!("shadowd-decisions-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let mut store = Store::open(&dir).unwrap();
        let (web, other): (Name, Name) = ("web".parse().unwrap(), "db".parse().unwrap());
        let window = vec![7; 10_000];
        store.keep_decision(&other, &decided(1), &window).unwrap();
        for epoch in 0..70 {
            store.keep_decision(&web, &decided(epoch), &window).unwrap();
        }
        drop(store);
        let store = Store::open(&dir).unwrap();
        let kept = store.decisions(&web).unwrap();
        let epochs: Vec<u64> = kept.iter().map(|decision| decision.epoch).collect();
        assert_eq!(epochs, (6..70).collect::<Vec<u64>>());
        let newest = kept.last().unwrap();
        let read = store.decision(&web, newest.number).unwrap();
        assert_eq!(read, Some((newest.clone(), window)));
        assert_eq!(store.decision(&other, newest.number).unwrap(), None);
        assert_eq!(store.decisions(&other).unwrap().len(), 1);
        let spoil = "UPDATE decisions SET packed = zeroblob(9)";
        store.connection.execute(spoil, []).unwrap();
        assert!(store.decision(&web, newest.number).is_err());
        let _ = std::fs::remove_dir_all(&dir);
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let name = format!("shadowd-decisions-long-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let mut store = Store::open(&dir).unwrap();
        let web: Name = "web".parse().unwrap();
        let long = vec![0; MAX_DECISION_BYTES + 1];
        assert!(store.keep_decision(&web, &decided(1), &long).is_err());
        assert_eq!(store.decisions(&web).unwrap(), []);
        let _ = std::fs::remove_dir_all(&dir);
    }
}
