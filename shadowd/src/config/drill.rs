//! How takeovers of a group are rehearsed, after validation.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::notify::CommandSettings;
use super::policy::DayWindow;
use crate::facts::Name;

/// How takeovers of one group are rehearsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillSettings {
    /// A drill that takes longer is ended: 5 s to 1 h.
    pub deadline: Duration,
    /// The units that are brought up, in start order.
    pub units: Vec<Name>,
    /// Directories that the units find empty and may write to, absolute, at most 16.
    pub scratch: Vec<PathBuf>,
    /// What is demanded of them, in order, at most 32.
    pub checks: Vec<CheckSettings>,
    /// A drill begins by itself this long after the last; none: never.
    pub every: Option<Duration>,
    /// When it may begin by itself; none: at any time.
    pub window: Option<DayWindow>,
    /// For how long a live drill asks for the group after its time: 10 s to 24 h.
    pub return_within: Duration,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckSettings {
    /// Its name.
    pub name: Name,
    /// What is checked.
    pub kind: CheckKind,
    /// It has failed after so long: 1 s to 1 h.
    pub deadline: Duration,
    /// A live drill makes it too, on the host that lent the group.
    pub live: bool,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Runs a command that has to end with 0.
    #[serde(skip)]
    Command(CommandSettings),
    /// Connects.
    Tcp(SocketAddr),
    /// Gets a path.
    Http {
        /// Of whom.
        at: SocketAddr,
        /// What the request names as its host.
        authority: String,
        /// Path and query.
        path: String,
        /// The status that has to be answered.
        status: u16,
    },
}
