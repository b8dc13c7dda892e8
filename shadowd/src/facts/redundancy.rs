//! Whether a group has as many ready shadows as it wants, and what is done when it has not.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BootTime, Cause, HostId, Name};

/// Which spares an owner has enlisted. The order is that of what counts: of two words the greater
/// one is the newer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(default)]
pub struct Enlistment {
    /// Counter of the epoch of the owner whose word it is; 0: nobody's.
    pub epoch: u64,
    /// Counts what that owner has changed of it.
    pub change: u32,
    /// The enlisted spares: a bit for each, the lowest for the smallest identity.
    pub spares: u8,
}

/// What a provider says of the host that it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderState {
    /// It runs, as far as the provider can tell.
    Ready,
    /// It is being made: ask again.
    Creating,
    /// This attempt came to nothing.
    Failed,
}

impl fmt::Display for ProviderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::Creating => "creating",
            Self::Failed => "failed",
        })
    }
}

/// The answer of a provider. It is only believed once the host is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderAnswer {
    /// How far it is.
    pub state: ProviderState,
    /// The rest, in words.
    #[serde(default)]
    pub detail: String,
}

/// The redundancy of a group, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedundancyStatus {
    /// How many ready shadows the group wants.
    pub wanted: u8,
    /// How many it has.
    pub ready: u8,
    /// Whether that is enough.
    pub full: bool,
    /// Since when it is, or is not.
    pub since: BootTime,
    /// Why it is not enough, in words.
    #[serde(default)]
    pub why: Option<String>,
    /// What is done about it.
    #[serde(default)]
    pub step: Option<RestoreStep>,
    /// Spares that count as shadows now.
    pub enlisted: Vec<Name>,
    /// The last time that it was enough again.
    #[serde(default)]
    pub last: Option<Restoration>,
}

/// How far a restoration is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum RestoreStep {
    /// Members have until then to come back by themselves.
    Rejoin {
        /// Then something else is tried.
        until: BootTime,
    },
    /// A spare was enlisted and is to say that it is ready.
    Spare {
        /// The spare.
        host: Name,
    },
    /// The provider's command runs.
    Provider {
        /// The host that it is to create.
        host: Name,
        /// From 1.
        attempt: u32,
    },
    /// The provider has answered; the host is to be heard.
    Coming {
        /// The host.
        host: Name,
        /// From 1.
        attempt: u32,
    },
    /// An attempt came to nothing; the next one begins then.
    Again {
        /// When.
        at: BootTime,
    },
    /// No spare is there, and no attempt of a provider is left.
    Exhausted,
}

/// How a shadow came to be ready again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoredBy {
    /// A member came back.
    Rejoined,
    /// A spare that was there was enlisted.
    Spare,
    /// A provider made a spare, which was enlisted.
    Provided,
}

impl fmt::Display for RestoredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rejoined => "rejoined",
            Self::Spare => "spare",
            Self::Provided => "provided",
        })
    }
}

/// A loss of redundancy that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restoration {
    /// How.
    pub by: RestoredBy,
    /// The host that was ready last.
    pub host: Name,
    /// From the loss to its end.
    pub took_ns: u64,
    /// When it ended.
    pub at: BootTime,
}

/// A request to a provider, as JSON on its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderRequest {
    /// Of this protocol: 1.
    pub version: u32,
    /// The group that wants a shadow.
    pub group: Name,
    /// Counter of the epoch of who asks.
    pub epoch: u64,
    /// Why redundancy was lost.
    pub reason: Option<Cause>,
    /// Who asks.
    pub from: Name,
    /// The host that is to be created: a spare of the group.
    pub host: Name,
    /// The identity that it has to have.
    pub id: HostId,
    /// Address and port that it has to listen on.
    pub address: String,
    /// From 1; the same attempt may ask several times.
    pub attempt: u32,
    /// The command is killed after so many seconds.
    pub deadline_s: u64,
}

impl ProviderRequest {
    /// The version that this describes.
    pub const VERSION: u32 = 1;
}
