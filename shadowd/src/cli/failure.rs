//! Why a command did not succeed, as a sentence and as an exit code.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::client::CallError;
use super::human::clean;
use crate::decide::cluster::UnreadableWindow;
use crate::facts::{DrillState, Name};
use crate::serve::protocol::Code;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The daemon gave no answer, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// No daemon runs, and no identity could be read either.
    #[error(
        "no daemon at {} and no identity in {} ({finding}): create one with `shadowd \
         --create-identity` as root, or start the daemon",
        .socket.display(),
        .file.display()
    )]
    NoIdentity {
        /// The socket.
        socket: PathBuf,
        /// The file.
        file: PathBuf,
        /// What was found.
        finding: String,
    },
    /// The file could not be written.
    #[error("cannot write {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A hook or an alert was tried and did not end well.
    #[error("the test of {name} did not end well: see what it printed with `journalctl`")]
    Test {
        /// Its name.
        name: Name,
    },
    /// A recorded decision cannot be read.
    #[error("it cannot be replayed here")]
    Window(#[source] UnreadableWindow),
    /// What should be bytes is not.
    #[error("the recorded decision is damaged: it is no base64")]
    Text,
    /// Decisions came out differently.
    #[error("{count} of the recorded decisions came out differently: report this with --json")]
    Differs {
        /// How many.
        count: usize,
    },
    /// A drill did not pass.
    #[error("the drill of {group} {}: {why}", match .state {
        DrillState::Failed => "failed",
        _ => "was not carried through",
    })]
    Drill {
        /// The group.
        group: Name,
        /// How it ended.
        state: DrillState,
        /// Why.
        why: String,
    },
    /// The file could not be read.
    #[error("cannot read {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This host could not be shown to be ready.
    #[error("this host is not proven ready for {group}")]
    NotReady {
        /// The group.
        group: Name,
    },
    /// This host could not be brought back to the golden version.
    #[error("this host is not as the golden version of {group} has it: {why}")]
    NotRestored {
        /// The group.
        group: Name,
        /// Why.
        why: String,
    },
    /// The output could not be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code, as `--help` and docs/shadowctl.md list them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Call(CallError::Refused(refusal)) => match refusal.code {
                Code::Forbidden => 4,
                Code::UnknownPath | Code::WrongMethod => 5,
                _ => 1,
            },
            Self::Call(CallError::NoPermission { .. }) => 4,
            Self::Call(CallError::NotUnderstood { .. })
            | Self::Text
            | Self::Window(UnreadableWindow::OtherVersion { .. }) => 5,
            Self::Window(_) | Self::Differs { .. } => 1,
            Self::Call(
                CallError::NotRunning { .. }
                | CallError::Socket { .. }
                | CallError::Closed { .. }
                | CallError::TimedOut { .. },
            )
            | Self::NoIdentity { .. } => 3,
            Self::Unreadable { .. } | Self::NotReady { .. } | Self::NotRestored { .. } => 1,
            Self::Test { .. } | Self::Drill { .. } | Self::File { .. } | Self::Output(_) => 1,
        }
    }

    /// Whether the reader of the output went away, which is its right (`shadowctl top | head`).
    pub fn is_closed_output(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What failed and why in one line, and what to do in a second one unless the first says it.
    pub fn explain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(&format!(": {error}"));
            cause = error.source();
        }
        let line = clean(&line);
        match self.remedy() {
            Some(remedy) => format!("{line}\n  try: {}", clean(remedy)),
            None => line,
        }
    }

    fn remedy(&self) -> Option<&str> {
        match self {
            Self::Call(CallError::Refused(refusal)) if !refusal.remedy.is_empty() => {
                Some(&refusal.remedy)
            }
            _ => None,
        }
    }
}
