//! Opens the store's file: is it ours, is it whole, is its schema one we know.
//!
//! Whose file it is, is read from the 100 bytes of SQLite's header before SQLite may touch it
//! (<https://sqlite.org/fileformat2.html#the_database_header>). A new store is made beside its
//! place and renamed into it, so the file is either absent or complete.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::StoreError;

/// What a file of shadowd is.
pub(super) struct Schema {
    /// SQLite's application id: whose file it is.
    application_id: u32,
    /// Step by step; entry `n` leads from `user_version` n to n + 1. Append only.
    migrations: &'static [&'static str],
}

impl Schema {
    /// The newest that this build knows.
    pub(super) const fn version(&self) -> i64 {
        self.migrations.len() as i64
    }
}

/// Events, epochs and all that failover remembers: "shdw".
pub(super) const STORE: Schema = Schema {
    application_id: 0x7368_6477,
    migrations: &MIGRATIONS,
};

/// Versions of profiles, and what is learned: "shdp".
pub(super) const PROFILES: Schema = Schema {
    application_id: 0x7368_6470,
    migrations: &[
        "
    CREATE TABLE versions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        group_name TEXT NOT NULL,
        id BLOB NOT NULL,
        packed BLOB NOT NULL,
        UNIQUE (group_name, id)
    ) STRICT;
    CREATE TABLE group_keys (
        group_name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE learned (
        group_name TEXT PRIMARY KEY,
        digest BLOB NOT NULL,
        packed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
",
        "
    CREATE TABLE contents (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        group_name TEXT NOT NULL,
        hash BLOB NOT NULL,
        packed BLOB NOT NULL,
        UNIQUE (group_name, hash)
    ) STRICT;
",
    ],
};

/// The steps of [`STORE`].
const MIGRATIONS: [&str; 5] = [
    "
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        boot_ns INTEGER NOT NULL,
        wall_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        group_name TEXT,
        epoch INTEGER,
        cause TEXT,
        detail TEXT NOT NULL
    ) STRICT;
    CREATE TABLE epochs (
        group_name TEXT PRIMARY KEY,
        counter INTEGER NOT NULL,
        owner BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE policies (
        group_name TEXT PRIMARY KEY,
        wall_ms INTEGER NOT NULL,
        memory TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE told (
        receiver TEXT NOT NULL,
        group_name TEXT NOT NULL,
        subject TEXT NOT NULL,
        topic TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        sure INTEGER NOT NULL,
        PRIMARY KEY (receiver, group_name, subject)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE kept (
        group_name TEXT PRIMARY KEY,
        boot TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE promises (
        group_name TEXT PRIMARY KEY,
        boot TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE decisions (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        group_name TEXT NOT NULL,
        body TEXT NOT NULL,
        digest BLOB NOT NULL,
        packed BLOB NOT NULL
    ) STRICT;
    CREATE INDEX decisions_of_group ON decisions (group_name, number);
",
];

/// How long a statement waits for another process that reads the file.
const BUSY: Duration = Duration::from_secs(2);

/// Opens the file at `path`, makes it when it is missing, migrates it when it is older.
pub(super) fn open(path: &Path, schema: &Schema) -> Result<Connection, StoreError> {
    let absent = match fs::metadata(path) {
        Ok(meta) => meta.is_file() && meta.len() == 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(source) => {
            return Err(StoreError::Unreadable {
                path: path.to_owned(),
                source,
            });
        }
    };
    if absent {
        create(path, schema).map_err(|source| StoreError::Create {
            path: path.to_owned(),
            source,
        })?;
    }
    examine_header(path, schema)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|source| explain(path, source))?;
    connection
        .busy_timeout(BUSY)
        .map_err(|source| explain(path, source))?;
    examine_content(path, &connection, schema)?;
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
        .and_then(|()| migrate(&mut connection, schema))
        .map_err(|source| explain(path, source))?;
    Ok(connection)
}

/// Makes a complete, empty store beside `path` and moves it there.
fn create(path: &Path, schema: &Schema) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let fresh = path.with_extension("sqlite.new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // Created empty first, so that its mode is right before it has content; SQLite gives the
    // -wal and -shm files the same mode.
    File::create_new(&fresh)?.set_permissions(Permissions::from_mode(0o600))?;
    let mut connection = Connection::open(&fresh)?;
    connection.pragma_update(None, "application_id", schema.application_id)?;
    migrate(&mut connection, schema)?;
    connection.close().map_err(|(_, source)| source)?;
    File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// Refuses what is not a shadowd store by its header alone.
fn examine_header(path: &Path, schema: &Schema) -> Result<(), StoreError> {
    let mut header = Vec::with_capacity(100);
    File::open(path)
        .and_then(|file| file.take(100).read_to_end(&mut header))
        .map_err(|source| StoreError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?))
    };
    if !header.starts_with(b"SQLite format 3\0") || word(68) != Some(schema.application_id) {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
        });
    }
    refuse_newer(path, i64::from(word(60).unwrap_or(0)), schema)
}

/// Refuses a damaged store, and a newer schema that still lies in the write-ahead log.
fn examine_content(
    path: &Path,
    connection: &Connection,
    schema: &Schema,
) -> Result<(), StoreError> {
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| explain(path, source))?;
    if finding != "ok" {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            finding,
        });
    }
    let version = user_version(connection).map_err(|source| explain(path, source))?;
    refuse_newer(path, version, schema)
}

fn refuse_newer(path: &Path, found: i64, schema: &Schema) -> Result<(), StoreError> {
    if found > schema.version() {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: schema.version(),
        });
    }
    Ok(())
}

fn user_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Runs every migration that the file has not seen, in one transaction.
fn migrate(connection: &mut Connection, schema: &Schema) -> rusqlite::Result<()> {
    let seen = usize::try_from(user_version(connection)?).unwrap_or(0);
    if seen >= schema.migrations.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &schema.migrations[seen..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", schema.version())?;
    transaction.commit()
}

/// SQLite's own word for damage becomes ours; everything else stays its error.
fn explain(path: &Path, source: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match source.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => StoreError::Damaged {
            path: path.to_owned(),
            finding: source.to_string(),
        },
        _ => StoreError::Open {
            path: path.to_owned(),
            source,
        },
    }
}
