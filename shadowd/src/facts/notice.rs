//! What hooks and alerts are told, and what became of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BootTime, Cause, Name};

/// What a notice says. The configuration and `SHADOWD_EVENT` use the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// This host owns the group.
    Active,
    /// This host is kept ready and does not own the group.
    Shadow,
    /// This host has given the group up because its daemon ends.
    Stopped,
    /// Nobody is known to own the group.
    Lost,
    /// Somebody owns the group again.
    Owned,
    /// Fewer members could take the group over than are wanted.
    RedundancyLost,
    /// As many members as are wanted could take the group over again.
    RedundancyRestored,
    /// This owner has no majority: the kernel keeps its addresses silent.
    LeaseLapsed,
    /// A majority answers this owner again.
    LeaseHeld,
    /// Another host says that it has a virtual IP of a group that this host owns.
    VipClaimed,
    /// A path to another member or a witness carries nothing, while others do.
    PathLost,
    /// All paths to other members and witnesses carry again.
    PathBack,
    /// A planned handover began, ended or was refused.
    Handover,
    /// A step failed.
    Failure,
    /// A drill passed.
    DrillPassed,
    /// A drill failed.
    DrillFailed,
    /// Somebody tries whether the way works.
    Test,
}

/// What is not a [`Topic`] that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicError;

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of ")?;
        for (place, topic) in Topic::ALL.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}\"{topic}\"")?;
        }
        Ok(())
    }
}

impl std::error::Error for TopicError {}

impl Topic {
    /// What can be asked for; [`Topic::Test`] always comes.
    pub const ALL: [Self; 16] = [
        Self::Active,
        Self::Shadow,
        Self::Stopped,
        Self::Lost,
        Self::Owned,
        Self::RedundancyLost,
        Self::RedundancyRestored,
        Self::LeaseLapsed,
        Self::LeaseHeld,
        Self::VipClaimed,
        Self::PathLost,
        Self::PathBack,
        Self::Handover,
        Self::Failure,
        Self::DrillPassed,
        Self::DrillFailed,
    ];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Shadow => "shadow",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
            Self::Owned => "owned",
            Self::RedundancyLost => "redundancy-lost",
            Self::RedundancyRestored => "redundancy-restored",
            Self::LeaseLapsed => "lease-lapsed",
            Self::LeaseHeld => "lease-held",
            Self::VipClaimed => "vip-claimed",
            Self::PathLost => "path-lost",
            Self::PathBack => "path-back",
            Self::Handover => "handover",
            Self::Failure => "failure",
            Self::DrillPassed => "drill-passed",
            Self::DrillFailed => "drill-failed",
            Self::Test => "test",
        }
    }

    /// How much it matters; of one that resolves another, how much that one mattered.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Active | Self::Shadow | Self::Handover | Self::DrillPassed | Self::Test => {
                Severity::Info
            }
            Self::Stopped
            | Self::RedundancyLost
            | Self::RedundancyRestored
            | Self::PathLost
            | Self::PathBack
            | Self::Failure
            | Self::DrillFailed => Severity::Warning,
            Self::Lost | Self::Owned | Self::LeaseLapsed | Self::LeaseHeld | Self::VipClaimed => {
                Severity::Critical
            }
        }
    }

    /// Whether it ends a trouble. Nobody is told of an end without a begin.
    pub const fn resolves(self) -> bool {
        matches!(
            self,
            Self::Owned | Self::RedundancyRestored | Self::LeaseHeld | Self::PathBack
        )
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        let found = Self::ALL.into_iter().find(|topic| topic.word() == text);
        found.ok_or(TopicError)
    }
}

/// How much a notice matters, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look at it today.
    Warning,
    /// Clients are, or may be, without service.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// One message to a hook or an alert; its JSON is the body of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The host that says so.
    pub host: Name,
    /// The group; none in a test.
    pub group: Option<Name>,
    /// What.
    pub event: Topic,
    /// How much it matters; of a resolved one, how much it mattered.
    pub severity: Severity,
    /// Whether this ends what an earlier notice with the same `key` told.
    pub resolved: bool,
    /// The same for all notices that replace each other: `HOST/GROUP/SUBJECT`.
    pub key: String,
    /// This host's role, as `shadowctl status` words it.
    pub role: String,
    /// Counter of the epoch.
    pub epoch: u64,
    /// Who owns the group, if anybody is known to.
    pub active: Option<Name>,
    /// Why, when a decision stands behind it.
    pub cause: Option<Cause>,
    /// The rest, in words.
    pub detail: String,
    /// Earlier notices of this key that were left out because newer ones overtook them.
    pub skipped: u64,
    /// When, on the host's boot clock.
    pub boot_ns: BootTime,
    /// When, in milliseconds since the Unix epoch: for people only.
    pub wall_ms: u64,
}

/// What kind of receiver a notice goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReceiverKind {
    /// A command of the operator.
    Hook,
    /// A message over HTTP.
    Webhook,
    /// A message through a mail command.
    Mail,
}

impl fmt::Display for ReceiverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hook => "hook",
            Self::Webhook => "webhook",
            Self::Mail => "mail",
        })
    }
}

/// A hook or an alert, and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverStatus {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: ReceiverKind,
    /// What it is told.
    pub events: Vec<Topic>,
    /// The groups it is told about.
    pub groups: Vec<Name>,
    /// What it is being told at this moment.
    pub running: Option<Topic>,
    /// Notices that wait.
    pub waiting: u64,
    /// What became of the notices so far.
    pub counts: ReceiverCounts,
    /// The last notice that was tried.
    pub last: Option<LastNotice>,
}

/// What became of the notices to one receiver, since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverCounts {
    /// Taken; the hook ended with 0, the server answered with 2xx.
    pub delivered: u64,
    /// Taken, but the hook or the mail command ended with another code or by a signal.
    pub failed: u64,
    /// Killed at the deadline.
    pub timed_out: u64,
    /// Tried in vain and tried again.
    pub retried: u64,
    /// Given up: refused, or tried in vain for too long.
    pub given_up: u64,
    /// Overtaken by a newer one before they were told.
    pub skipped: u64,
    /// Left out because the same was told a moment ago.
    pub repeated: u64,
}

/// One try of a notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastNotice {
    /// What.
    pub event: Topic,
    /// The group; none in a test.
    pub group: Option<Name>,
    /// Its epoch.
    pub epoch: u64,
    /// When it ended, ms since the Unix epoch.
    pub wall_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Whether it was told well.
    pub ok: bool,
    /// What came of it, in words.
    pub result: String,
}

/// What a receiver was last told of one subject of a group: kept over restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The receiver: kind and name, such as `hook/dns`.
    pub receiver: String,
    /// The group.
    pub group: Name,
    /// What it is about, such as `role`.
    pub subject: String,
    /// What was told, or passed over because the receiver does not want it.
    pub topic: Topic,
    /// The epoch it was true in.
    pub epoch: u64,
    /// False from before it is told until it is known to have been: a daemon that dies in between
    /// leaves that behind.
    pub sure: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_configuration_are_the_words_of_the_json() {
        for topic in Topic::ALL {
            assert_eq!(topic.to_string().parse(), Ok(topic));
            let json = serde_json::to_string(&topic).unwrap();
            assert_eq!(json, format!("\"{topic}\""));
        }
        assert_eq!("test".parse::<Topic>(), Err(TopicError));
        assert!(TopicError.to_string().contains("\"redundancy-lost\""));
    }
}
