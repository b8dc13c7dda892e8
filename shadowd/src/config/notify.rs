//! Who is told what happens: hooks and alerts, after validation.

use std::path::PathBuf;
use std::time::Duration;

use crate::facts::{Name, Topic};

/// Hooks and alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifySettings {
    /// Commands of the operator.
    pub hooks: Vec<HookSettings>,
    /// Messages to people and to other systems.
    pub alerts: Vec<AlertSettings>,
}

impl NotifySettings {
    /// Whether there is nobody to tell.
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty() && self.alerts.is_empty()
    }
}

/// A command with a deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// Absolute path of the program, then its arguments.
    pub command: Vec<String>,
    /// The user it runs as; root if none.
    pub user: Option<String>,
    /// It and all it started is killed after so long: 1 s to 1 h.
    pub deadline: Duration,
}

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSettings {
    /// Its name.
    pub name: Name,
    /// What runs.
    pub run: CommandSettings,
    /// The groups it is told about, each of this host's.
    pub groups: Vec<Name>,
    /// What it is told, in order, each once.
    pub events: Vec<Topic>,
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertSettings {
    /// Its name.
    pub name: Name,
    /// The way it goes.
    pub way: AlertWay,
    /// The groups it is told about, each of this host's.
    pub groups: Vec<Name>,
    /// What it is told: all that is severe enough.
    pub events: Vec<Topic>,
    /// An undelivered message is tried again for so long: up to 1 day.
    pub retry_for: Duration,
    /// The same failure or claim is told again after so long at the earliest: up to 1 day.
    pub repeat_after: Duration,
    /// So many messages may go at once: 1 to 1000.
    pub burst: u32,
    /// One more may go after so long: 1 s to 1 day.
    pub one_more_after: Duration,
}

/// The way of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertWay {
    /// `POST` of JSON.
    Webhook(WebhookSettings),
    /// A mail on the standard input of a command.
    Mail {
        /// The command.
        run: CommandSettings,
        /// Whom it is for.
        to: String,
    },
}

/// Where a webhook goes. The address may hold a secret: `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// Whether it is spoken through TLS.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as the request names them.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// A file with one header line to send along, such as a token.
    pub header_file: Option<PathBuf>,
    /// A try that takes longer is given up: 1 s to 1 min.
    pub deadline: Duration,
}

impl std::fmt::Debug for WebhookSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSettings")
            .field("tls", &self.tls)
            .field("host", &self.host)
            .field("header_file", &self.header_file)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
