//! Versions of profiles, by group and identity, the contents that they name, and what was learned
//! since. Bytes that have changed are found, and are as good as absent.

mod contents;

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{StoreError, schema};
use crate::facts::{Name, Signed, Version, VersionId};
pub use contents::{CONTENT_BYTES_MAX, CONTENTS_BYTES_MAX, CONTENTS_MAX};

/// So many versions of a group are kept; the oldest go that are neither in use nor golden.
pub const MAX_VERSIONS: u32 = 256;
/// Packed a little: a version is text for the most part.
const LEVEL: i32 = 3;
/// A stored version is no longer (bytes): what is signed, key, signature.
const STORED_MAX: usize = Version::BYTES_MAX + 1_024;
/// What was learned is no longer (bytes).
const LEARNED_MAX: usize = 16 << 20;

/// Name of the file in the state directory.
pub const FILE: &str = "profiles.sqlite";

/// Versions of profiles, and what is learned, in a file of their own: nothing that failover waits
/// for waits behind it.
#[derive(Debug)]
pub struct ProfileStore {
    connection: Connection,
}

impl ProfileStore {
    /// Opens it in the state directory, which is there.
    ///
    /// # Errors
    /// A file that is foreign, damaged or of a newer schema is refused and left untouched.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let connection = schema::open(&dir.join(FILE), &schema::PROFILES)?;
        // A version is acknowledged to other hosts: it outlasts a power cut.
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(StoreError::Profiles)?;
        Ok(Self { connection })
    }

    /// Keeps a version; one that is kept already is written again, whole. Of more than
    /// [`MAX_VERSIONS`] the oldest go, but none of `pinned`.
    ///
    /// # Errors
    /// [`StoreError::KeepProfile`]: it is not kept.
    pub fn keep_version(
        &mut self,
        group: &Name,
        signed: &Signed,
        pinned: &[VersionId],
    ) -> Result<VersionId, StoreError> {
        let id = VersionId::of(&signed.bytes);
        let mut write = || -> rusqlite::Result<()> {
            let packed = packed(signed).map_err(refused)?;
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(
                "INSERT INTO versions (group_name, id, packed) VALUES (?1, ?2, ?3)
                 ON CONFLICT (group_name, id) DO UPDATE SET packed = ?3",
                params![group.as_str(), id.as_bytes(), packed],
            )?;
            let oldest = "SELECT id FROM versions WHERE group_name = ?1
                          ORDER BY number DESC LIMIT -1 OFFSET ?2";
            let too_many: Vec<[u8; 32]> = transaction
                .prepare_cached(oldest)?
                .query_map(params![group.as_str(), MAX_VERSIONS], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for id in too_many {
                if !pinned.contains(&VersionId::from_bytes(id)) {
                    let delete = "DELETE FROM versions WHERE group_name = ?1 AND id = ?2";
                    transaction.execute(delete, params![group.as_str(), id])?;
                }
            }
            transaction.commit()
        };
        write().map_err(|source| StoreError::KeepProfile {
            group: group.clone(),
            source,
        })?;
        Ok(id)
    }

    /// A version; none when it is not kept, or its bytes have changed since.
    ///
    /// # Errors
    /// [`StoreError::Profiles`] when the file cannot be read.
    pub fn version(&self, group: &Name, id: &VersionId) -> Result<Option<Signed>, StoreError> {
        let read = || {
            self.connection
                .prepare_cached("SELECT packed FROM versions WHERE group_name = ?1 AND id = ?2")?
                .query_row(params![group.as_str(), id.as_bytes()], |row| row.get(0))
                .optional()
        };
        let packed: Option<Vec<u8>> = read().map_err(StoreError::Profiles)?;
        Ok(packed.and_then(|packed| unpacked(&packed, id)))
    }

    /// The identities of all versions that are kept, oldest first; some may be damaged.
    ///
    /// # Errors
    /// [`StoreError::Profiles`] when the file cannot be read.
    pub fn versions(&self, group: &Name) -> Result<Vec<VersionId>, StoreError> {
        let read = || -> rusqlite::Result<Vec<VersionId>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT id FROM versions WHERE group_name = ?1 ORDER BY number")?;
            let rows = statement.query_map([group.as_str()], |row| row.get(0))?;
            rows.map(|id| Ok(VersionId::from_bytes(id?))).collect()
        };
        read().map_err(StoreError::Profiles)
    }

    /// The key under which values of the group are hashed.
    ///
    /// # Errors
    /// [`StoreError::Profiles`] when the file cannot be read.
    pub fn key(&self, group: &Name) -> Result<Option<[u8; 32]>, StoreError> {
        let read = || {
            self.connection
                .prepare_cached("SELECT value FROM group_keys WHERE group_name = ?1")?
                .query_row([group.as_str()], |row| row.get(0))
                .optional()
        };
        read().map_err(StoreError::Profiles)
    }

    /// Keeps it.
    ///
    /// # Errors
    /// [`StoreError::KeepProfile`]: the one before stands.
    pub fn keep_key(&mut self, group: &Name, key: &[u8; 32]) -> Result<(), StoreError> {
        self.connection
            .execute(
                "INSERT INTO group_keys (group_name, value) VALUES (?1, ?2)
                 ON CONFLICT (group_name) DO UPDATE SET value = ?2",
                params![group.as_str(), key],
            )
            .map(drop)
            .map_err(|source| StoreError::KeepProfile {
                group: group.clone(),
                source,
            })
    }

    /// Keeps what a learner knows.
    ///
    /// # Errors
    /// [`StoreError::KeepProfile`]: what was kept before stands.
    pub fn keep_learned(&mut self, group: &Name, learned: &[u8]) -> Result<(), StoreError> {
        let write = || -> rusqlite::Result<()> {
            if learned.len() > LEARNED_MAX {
                return Err(refused("it is too long"));
            }
            let packed = zstd::bulk::compress(learned, LEVEL).map_err(refused)?;
            let digest = blake3::hash(&packed);
            self.connection.execute(
                "INSERT INTO learned (group_name, digest, packed) VALUES (?1, ?2, ?3)
                 ON CONFLICT (group_name) DO UPDATE SET digest = ?2, packed = ?3",
                params![group.as_str(), digest.as_bytes(), packed],
            )?;
            Ok(())
        };
        write().map_err(|source| StoreError::KeepProfile {
            group: group.clone(),
            source,
        })
    }

    /// What a learner knew; none when nothing is kept, or its bytes have changed since.
    ///
    /// # Errors
    /// [`StoreError::Profiles`] when the file cannot be read.
    pub fn learned(&self, group: &Name) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || {
            self.connection
                .prepare_cached("SELECT digest, packed FROM learned WHERE group_name = ?1")?
                .query_row([group.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        };
        let row: Option<([u8; 32], Vec<u8>)> = read().map_err(StoreError::Profiles)?;
        Ok(row.and_then(|(digest, packed)| {
            let same = *blake3::hash(&packed).as_bytes() == digest;
            same.then(|| zstd::bulk::decompress(&packed, LEARNED_MAX).ok())?
        }))
    }
}

/// The bytes that a version is kept as: [postcard](https://postcard.jamesmunns.com/wire-format) of
/// what is signed, key and signature, packed with zstd.
///
/// # Errors
/// It is too long.
pub fn packed(signed: &Signed) -> Result<Vec<u8>, Source> {
    let body = postcard::to_stdvec(signed)?;
    if body.len() > STORED_MAX {
        return Err("it is too long".into());
    }
    Ok(zstd::bulk::compress(&body, LEVEL)?)
}

/// The version in bytes from anywhere, if it is the one with this identity. Who signed it is not
/// looked at.
pub fn unpacked(packed: &[u8], id: &VersionId) -> Option<Signed> {
    let body = zstd::bulk::decompress(packed, STORED_MAX).ok()?;
    let (signed, rest): (Signed, _) = postcard::take_from_bytes(&body).ok()?;
    (rest.is_empty() && VersionId::of(&signed.bytes) == *id).then_some(signed)
}

/// Why something was refused.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

fn refused(source: impl Into<Source>) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(source.into())
}

#[cfg(test)]
mod tests;
