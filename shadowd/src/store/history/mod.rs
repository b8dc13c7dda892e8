//! The history: recorded observations, bounded by size and age, in files of their own.
//!
//! Not in the store's database: damage here must not keep the daemon from starting, the oldest part
//! is dropped by removing a file, and writing it never waits for an epoch that is being stored.
//! A file is a row of frames ([`frame`]), each with checksums of its own; a file is never changed
//! after its last frame, but replaced by one with minutes in place of seconds when it has grown old
//! ([`merge`]). A saved state lies beside them; with the records after it, it gives the totals back
//! to a daemon that starts.
//!
//! A record that was written survives the death of the process at any instant; a power cut may
//! cost the last minute. One [`Writer`] at a time; any number of [`Reader`]s meanwhile.

mod frame;
#[cfg(test)]
pub(crate) mod fuzz;
mod index;
mod merge;
mod read;
mod record;
mod slim;
mod write;

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use merge::Sum;
pub use read::{Page, Reader, Summed};
pub use write::{Restored, Writer};

/// Folder of the history in the state directory.
pub const FOLDER: &str = "history";

/// What can go wrong with the history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The folder or a file in it could not be made, read, written or removed.
    #[error("cannot {what} {}: check free space, its owner and its mode", .path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An observation could not be packed.
    #[error("cannot pack an observation")]
    Pack(#[source] io::Error),
}

/// From where to where something is recorded: ends of the oldest and the newest interval, ms since
/// 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The oldest.
    pub oldest_ms: i64,
    /// The newest.
    pub newest_ms: i64,
}

/// A place that holds no readable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// Number and time (ms since 1970) of the record, when they can still be read.
    pub record: Option<(u64, i64)>,
    /// Number of the last good record before it in the file, when there is one.
    pub after: Option<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.record, self.after) {
            (Some((number, wall_ms)), _) => write!(f, "record {number} of {wall_ms} ms")?,
            (None, Some(after)) => write!(f, "what follows record {after}")?,
            (None, None) => f.write_str("the begin")?,
        }
        write!(f, " at byte {} of {}", self.offset, self.path.display())
    }
}

#[cfg(test)]
mod tests;
