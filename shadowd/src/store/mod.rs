//! What this host must remember: events and the newest epoch of each group, in one SQLite file.
//!
//! An append is one transaction and an acknowledged append survives the death of the process at
//! any instant. Events may lose the last moments to a power cut (`synchronous = NORMAL`); an epoch
//! may not (`FULL`), because a claim rests on it. The store never repairs, renames or deletes a
//! file that it does not understand, and it decides nothing.

mod decisions;
pub mod drills;
#[cfg(test)]
pub(crate) mod fuzz;
pub mod history;
mod pause;
mod policy;
pub mod profiles;
pub mod repository;
mod rows;
mod schema;
mod told;

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::facts::{Epoch, Event, Name};

pub use decisions::{MAX_DECISION_BYTES, MAX_DECISIONS};

/// Name of the file in the state directory.
pub const FILE: &str = "store.sqlite";

/// So many events are kept; older ones go in the transaction that adds newer ones.
pub const MAX_EVENTS: u64 = 100_000;

/// A longer detail (bytes) is cut at a character and marked with `…`.
pub const MAX_DETAIL_BYTES: usize = 4096;

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory could not be made.
    #[error("cannot create the state directory {}: check the path and its owner", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be read at all.
    #[error("cannot read {}: check its owner, its mode and the disk", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A new file could not be put in place.
    #[error("cannot create {}: check free space and the directory's owner", .path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is no SQLite database, or one of another program.
    #[error(
        "{} is not a shadowd store and was left as it is: move it away and start shadowd again",
        .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is a shadowd store, but damaged.
    #[error(
        "{} is damaged ({finding}) and was left as it is: keep a copy of it and of its -wal file, \
         move both away and start shadowd again; it starts an empty record and learns the epochs \
         from its peers",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        finding: String,
    },
    /// A newer shadowd wrote the file.
    #[error(
        "{} has schema {found}, this shadowd knows {known} and older: start the newer shadowd, or \
         move the file away",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's schema.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// SQLite refused to open or to migrate the file.
    #[error("cannot open {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Events could not be added; none of the batch was.
    #[error("cannot record events")]
    Append(#[source] rusqlite::Error),
    /// Events could not be read.
    #[error("cannot read events")]
    Events(#[source] rusqlite::Error),
    /// What hooks and alerts were told could not be read or recorded.
    #[error("cannot read or record what hooks and alerts were told")]
    Told(#[source] rusqlite::Error),
    /// A version of a profile, or what was learned, could not be kept.
    #[error("cannot keep the profile of group {group}")]
    KeepProfile {
        /// The group.
        group: Name,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Versions of profiles could not be read.
    #[error("cannot read the versions of profiles")]
    Profiles(#[source] rusqlite::Error),
    /// An epoch could not be read.
    #[error("cannot read the epoch of group {group}")]
    Epoch {
        /// The group.
        group: Name,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// What bounds failover of a group could not be read.
    #[error("cannot read the policy of group {group}")]
    Policy {
        /// The group.
        group: Name,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// What bounds failover of a group could not be recorded; what was there stands.
    #[error("cannot record the policy of group {group}")]
    SetPolicy {
        /// The group.
        group: Name,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// What this daemon leaves to the next could not be kept.
    #[error("cannot keep what the next daemon needs")]
    Keep(#[source] rusqlite::Error),
    /// What the daemon before this one left could not be taken.
    #[error("cannot take what the last daemon kept")]
    Memory(#[source] rusqlite::Error),
    /// A promise could not be kept.
    #[error("cannot keep a promise of group {group}")]
    KeepPromise {
        /// The group.
        group: Name,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// Decisions could not be read.
    #[error("cannot read the recorded decisions")]
    Decisions(#[source] rusqlite::Error),
    /// A decision could not be kept.
    #[error("cannot keep a decision of group {group}")]
    KeepDecision {
        /// The group.
        group: Name,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// An epoch could not be recorded; the older one stands.
    #[error("cannot record the epoch of group {group}")]
    SetEpoch {
        /// The group.
        group: Name,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

/// The store of one host. `Send`, not `Sync`: one thread owns it, or a mutex does.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// The file.
    path: PathBuf,
}

impl Store {
    /// Opens the store in the state directory `dir`; makes both when they are missing.
    ///
    /// # Errors
    /// A file that is foreign, damaged or of a newer schema is refused and left untouched; the
    /// error names the file and what to do.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(|source| StoreError::Directory {
                path: dir.to_owned(),
                source,
            })?;
        let path = dir.join(FILE);
        let connection = schema::open(&path, &schema::STORE)?;
        Ok(Self { connection, path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records `events` in this order, all or none, and numbers them; their `seq` is ignored.
    ///
    /// Keeps the newest [`MAX_EVENTS`].
    ///
    /// # Errors
    /// [`StoreError::Append`]: nothing of the batch was recorded.
    pub fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        self.append_keeping(events, MAX_EVENTS)
            .map_err(StoreError::Append)
    }

    fn append_keeping(&mut self, events: &[Event], keep: u64) -> rusqlite::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut newest: i64 =
            transaction.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| {
                row.get(0)
            })?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO events (seq, boot_ns, wall_ms, kind, group_name, epoch, cause, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for event in events {
                newest = newest.saturating_add(1);
                insert.execute(params![
                    newest,
                    event.boot_ns.as_nanos().cast_signed(),
                    event.wall_ms.cast_signed(),
                    rows::code(&event.kind)?,
                    event.group.as_ref().map(Name::as_str),
                    event.epoch.map(u64::cast_signed),
                    event.cause.as_ref().map(rows::code).transpose()?,
                    rows::bounded(&event.detail, MAX_DETAIL_BYTES),
                ])?;
            }
        }
        let oldest_dropped = newest.saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
        transaction.execute("DELETE FROM events WHERE seq <= ?1", [oldest_dropped])?;
        transaction.commit()
    }

    /// The newest `limit` events with a number above `since_seq`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Events`] when the file cannot be read or a row is not an event.
    pub fn events(&self, since_seq: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let since = i64::try_from(since_seq).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<Event>> {
            let mut statement = self.connection.prepare_cached(
                "SELECT seq, boot_ns, wall_ms, kind, group_name, epoch, cause, detail FROM events
                 WHERE seq > ?1 ORDER BY seq DESC LIMIT ?2",
            )?;
            let mut events = statement
                .query_map(params![since, limit], rows::event)?
                .collect::<rusqlite::Result<Vec<Event>>>()?;
            events.reverse();
            Ok(events)
        };
        read().map_err(StoreError::Events)
    }

    /// The newest epoch recorded for `group`.
    ///
    /// # Errors
    /// [`StoreError::Epoch`] when the file cannot be read or the row is not an epoch.
    pub fn epoch(&self, group: &Name) -> Result<Option<Epoch>, StoreError> {
        read_epoch(&self.connection, group).map_err(|source| StoreError::Epoch {
            group: group.clone(),
            source,
        })
    }

    /// Records `epoch` for `group`, on the disk before it returns, unless a larger one is there.
    /// Returns the epoch that now stands.
    ///
    /// # Errors
    /// [`StoreError::SetEpoch`]: the older epoch stands.
    pub fn set_epoch(&mut self, group: &Name, epoch: Epoch) -> Result<Epoch, StoreError> {
        let wrap = |source| StoreError::SetEpoch {
            group: group.clone(),
            source,
        };
        self.synchronously(|store| store.raise_epoch(group, epoch))
            .map_err(wrap)
    }

    /// Whatever `write` commits is on the disk before this returns.
    fn synchronously<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        let result = write(self);
        // A failure here leaves FULL on: slower, never less safe.
        let _ = self.connection.pragma_update(None, "synchronous", "NORMAL");
        result
    }

    fn raise_epoch(&mut self, group: &Name, epoch: Epoch) -> rusqlite::Result<Epoch> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(known) = read_epoch(&transaction, group)?
            && known >= epoch
        {
            return Ok(known);
        }
        transaction.execute(
            "INSERT INTO epochs (group_name, counter, owner) VALUES (?1, ?2, ?3)
             ON CONFLICT (group_name) DO UPDATE SET counter = ?2, owner = ?3",
            params![
                group.as_str(),
                epoch.counter.cast_signed(),
                epoch.owner.as_bytes()
            ],
        )?;
        transaction.commit()?;
        Ok(epoch)
    }
}

fn read_epoch(connection: &Connection, group: &Name) -> rusqlite::Result<Option<Epoch>> {
    connection
        .prepare_cached("SELECT counter, owner FROM epochs WHERE group_name = ?1")?
        .query_row([group.as_str()], rows::epoch)
        .optional()
}

#[cfg(test)]
mod tests;
