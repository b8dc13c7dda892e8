//! How facts lie in the rows of the store.
//!
//! Kinds and causes are stored by the same code that the client shows, so the file can be read
//! with any SQLite tool. A row that does not decode is an error, never a guess.

use rusqlite::Row;
use rusqlite::types::{FromSqlError, Type};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::facts::{BootTime, Epoch, Event, HostId, Told};

/// The code of a kind or a cause: its serde name.
pub(super) fn code<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(code)) => Ok(code),
        Ok(other) => Err(rusqlite::Error::ToSqlConversionFailure(
            format!("expected a code, got {other}").into(),
        )),
        Err(source) => Err(rusqlite::Error::ToSqlConversionFailure(Box::new(source))),
    }
}

/// `text`, cut to at most `max` bytes at a character, with `…` in place of what is missing.
pub(super) fn bounded(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(max.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..kept])
}

/// An event from `seq, boot_ns, wall_ms, kind, group_name, epoch, cause, detail`.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let group: Option<String> = row.get(4)?;
    let cause: Option<String> = row.get(6)?;
    Ok(Event {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        boot_ns: BootTime::from_nanos(row.get::<_, i64>(1)?.cast_unsigned()),
        wall_ms: row.get::<_, i64>(2)?.cast_unsigned(),
        kind: decoded(3, row.get(3)?)?,
        group: group.map(|group| decoded(4, group)).transpose()?,
        epoch: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
        cause: cause.map(|cause| decoded(6, cause)).transpose()?,
        detail: row.get(7)?,
    })
}

/// What was told from `receiver, group_name, subject, topic, epoch, sure`.
pub(super) fn told(row: &Row<'_>) -> rusqlite::Result<Told> {
    Ok(Told {
        receiver: row.get(0)?,
        group: decoded(1, row.get(1)?)?,
        subject: row.get(2)?,
        topic: decoded(3, row.get(3)?)?,
        epoch: row.get::<_, i64>(4)?.cast_unsigned(),
        sure: row.get(5)?,
    })
}

/// An epoch from `counter, owner`.
pub(super) fn epoch(row: &Row<'_>) -> rusqlite::Result<Epoch> {
    let owner: Vec<u8> = row.get(1)?;
    let owner: [u8; 32] = owner.try_into().map_err(|bytes: Vec<u8>| {
        let source = FromSqlError::InvalidBlobSize {
            expected_size: 32,
            blob_size: bytes.len(),
        };
        rusqlite::Error::FromSqlConversionFailure(1, Type::Blob, Box::new(source))
    })?;
    Ok(Epoch {
        counter: row.get::<_, i64>(0)?.cast_unsigned(),
        owner: HostId::from_bytes(owner),
    })
}

fn decoded<T: DeserializeOwned>(column: usize, code: String) -> rusqlite::Result<T> {
    serde_json::from_value(serde_json::Value::String(code)).map_err(|source| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(source))
    })
}
