//! Contents of files that versions name, by their hash: what was replaced everywhere since is needed
//! to go back. Only of files whose content may leave its host.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{ProfileStore, refused};
use crate::facts::{Name, ValueHash};
use crate::store::StoreError;

/// Packed contents of a group take so many bytes at most, and each so many unpacked.
pub const CONTENTS_BYTES_MAX: i64 = 64 << 20;
/// A longer content (bytes) is not kept: it is not read either.
pub const CONTENT_BYTES_MAX: usize = 16 << 20;
/// And there are so many at most.
pub const CONTENTS_MAX: i64 = 4_096;
const LEVEL: i32 = 3;

impl ProfileStore {
    /// Keeps a content; one that is kept already is written again, whole. Where there is no room those
    /// go that were kept first, but none of `needed`; false when that does not make enough.
    ///
    /// # Errors
    /// [`StoreError::KeepProfile`]: it is not kept.
    pub fn keep_content(
        &mut self,
        group: &Name,
        bytes: &[u8],
        needed: &BTreeSet<ValueHash>,
    ) -> Result<bool, StoreError> {
        let hash = ValueHash::from(blake3::hash(bytes));
        let mut write = || -> rusqlite::Result<bool> {
            if bytes.len() > CONTENT_BYTES_MAX {
                return Ok(false);
            }
            let packed = zstd::bulk::compress(bytes, LEVEL).map_err(refused)?;
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO contents (group_name, hash, packed) VALUES (?1, ?2, ?3)
                 ON CONFLICT (group_name, hash) DO UPDATE SET packed = ?3",
                params![group.as_str(), hash.as_bytes(), packed],
            )?;
            let fits = make_room(&transaction, group, (&hash, needed))?;
            match fits {
                true => transaction.commit()?,
                false => transaction.rollback()?,
            }
            Ok(fits)
        };
        write().map_err(|source| StoreError::KeepProfile {
            group: group.clone(),
            source,
        })
    }

    /// A content; none when it is not kept, or its bytes have changed since.
    ///
    /// # Errors
    /// [`StoreError::Profiles`] when the file cannot be read.
    pub fn content(&self, group: &Name, hash: &ValueHash) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            self.connection
                .prepare_cached("SELECT packed FROM contents WHERE group_name = ?1 AND hash = ?2")?
                .query_row(params![group.as_str(), hash.as_bytes()], |row| row.get(0))
                .optional()
        };
        let packed: Option<Vec<u8>> = read().map_err(StoreError::Profiles)?;
        Ok(packed.and_then(|packed| {
            let bytes = zstd::bulk::decompress(&packed, CONTENT_BYTES_MAX).ok()?;
            (ValueHash::from(blake3::hash(&bytes)) == *hash).then_some(bytes)
        }))
    }

    /// The hashes of all contents that are kept; some may be damaged.
    ///
    /// # Errors
    /// [`StoreError::Profiles`] when the file cannot be read.
    pub fn contents(&self, group: &Name) -> Result<BTreeSet<ValueHash>, StoreError> {
        let read = || -> rusqlite::Result<BTreeSet<ValueHash>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT hash FROM contents WHERE group_name = ?1")?;
            let rows = statement.query_map([group.as_str()], |row| row.get(0))?;
            rows.map(|hash| Ok(ValueHash::from_bytes(hash?))).collect()
        };
        read().map_err(StoreError::Profiles)
    }
}

/// Takes the oldest away until the rest is within the bounds; false when what is needed is not.
fn make_room(
    transaction: &Transaction<'_>,
    group: &Name,
    (fresh, needed): (&ValueHash, &BTreeSet<ValueHash>),
) -> rusqlite::Result<bool> {
    let sums =
        "SELECT count(*), coalesce(sum(length(packed)), 0) FROM contents WHERE group_name = ?1";
    let (mut count, mut bytes): (i64, i64) = transaction
        .prepare_cached(sums)?
        .query_row([group.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let within = |count: i64, bytes: i64| count <= CONTENTS_MAX && bytes <= CONTENTS_BYTES_MAX;
    if within(count, bytes) {
        return Ok(true);
    }
    let all = "SELECT hash, length(packed) FROM contents WHERE group_name = ?1 ORDER BY number";
    let oldest: Vec<([u8; 32], i64)> = transaction
        .prepare_cached(all)?
        .query_map([group.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (hash, length) in oldest {
        let id = ValueHash::from_bytes(hash);
        if within(count, bytes) {
            break;
        }
        if id != *fresh && !needed.contains(&id) {
            let delete = "DELETE FROM contents WHERE group_name = ?1 AND hash = ?2";
            transaction.execute(delete, params![group.as_str(), hash])?;
            count -= 1;
            bytes -= length;
        }
    }
    Ok(within(count, bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Folder, web};
    use super::*;

    fn hash(bytes: &[u8]) -> ValueHash {
        blake3::hash(bytes).into()
    }

    /// Bytes that do not pack: BLAKE3's own stream.
    fn noise(seed: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new()
            .update(&[seed])
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_content_comes_back_after_a_restart_and_a_damaged_one_is_none_until_it_is_kept_again() {
        let folder = Folder::new("contents");
        let none = BTreeSet::new();
        let mut store = folder.open();
        for bytes in [&b"one"[..], b"", b"two"] {
            assert!(store.keep_content(&web(), bytes, &none).unwrap());
        }
        drop(store);
        let mut store = folder.open();
        assert_eq!(store.contents(&web()).unwrap().len(), 3);
        let kept =
            |store: &ProfileStore, bytes: &[u8]| store.content(&web(), &hash(bytes)).unwrap();
        for bytes in [&b"one"[..], b"", b"two"] {
            assert_eq!(kept(&store, bytes), Some(bytes.to_vec()));
        }
        assert_eq!(kept(&store, b"three"), None);
        let other: Name = "db".parse().unwrap();
        assert_eq!(store.content(&other, &hash(b"one")).unwrap(), None);
        // Another content in its place, and no content at all.
        for spoiled in [zstd::bulk::compress(b"two", LEVEL).unwrap(), vec![0; 9]] {
            let spoil = "UPDATE contents SET packed = ?1 WHERE hash = ?2";
            let one = hash(b"one");
            let place = params![spoiled, one.as_bytes()];
            store.connection.execute(spoil, place).unwrap();
            assert_eq!(kept(&store, b"one"), None);
            assert!(store.keep_content(&web(), b"one", &none).unwrap());
            assert_eq!(kept(&store, b"one"), Some(b"one".to_vec()));
        }
    }

    #[test]
    fn the_oldest_go_but_none_that_is_needed_and_what_finds_no_room_is_refused() {
        let folder = Folder::new("room");
        let mut store = folder.open();
        let mut needed = BTreeSet::new();
        let all: Vec<Vec<u8>> = (0..7)
            .map(|seed| noise(seed, CONTENT_BYTES_MAX - 9))
            .collect();
        needed.insert(hash(&all[0]));
        for bytes in &all[..5] {
            assert!(store.keep_content(&web(), bytes, &needed).unwrap());
        }
        let kept = store.contents(&web()).unwrap();
        assert!(kept.contains(&hash(&all[0])), "it is needed");
        assert!(!kept.contains(&hash(&all[1])), "the oldest of the others");
        needed.extend(all.iter().map(|bytes| hash(bytes)));
        let before = store.contents(&web()).unwrap();
        assert!(!store.keep_content(&web(), &all[5], &needed).unwrap());
        assert_eq!(
            store.contents(&web()).unwrap(),
            before,
            "nothing has changed"
        );
        let long = vec![0; CONTENT_BYTES_MAX + 1];
        assert!(!store.keep_content(&web(), &long, &needed).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn whatever_is_kept_comes_back(
            all in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2_000), 1..12),
        ) {
            let folder = Folder::new("any");
            let none = BTreeSet::new();
            let mut store = folder.open();
            for bytes in &all {
                prop_assert!(store.keep_content(&web(), bytes, &none).unwrap());
            }
            let store = folder.open();
            let wanted: BTreeSet<ValueHash> = all.iter().map(|bytes| hash(bytes)).collect();
            prop_assert_eq!(store.contents(&web()).unwrap(), wanted);
            for bytes in &all {
                prop_assert_eq!(store.content(&web(), &hash(bytes)).unwrap(), Some(bytes.clone()));
            }
        }
    }
}
