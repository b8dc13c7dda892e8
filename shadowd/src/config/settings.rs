//! The configuration after validation: every value is in range and every relation holds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::capture::{
    CaptureSettings, Choice, CostMeasurement, FilterSettings, LimitSettings, RedactSettings,
    Redaction,
};
pub use super::drill::{CheckKind, CheckSettings, DrillSettings};
pub use super::notify::{
    AlertSettings, AlertWay, CommandSettings, HookSettings, NotifySettings, WebhookSettings,
};
pub use super::policy::{DAY_MINUTES, DayWindow, FlapSettings, PolicySettings};
pub use super::profile::{ProfileSettings, Provision, ProvisionSettings};
pub use super::redundancy::{ProviderRules, RedundancySettings};
pub use super::repository::{RepositoryPlace, RepositorySettings, S3Settings};
use crate::facts::{HostId, Name, Protection, UnitMode, Vip};

/// All settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// This host.
    pub host: HostSettings,
    /// The other hosts.
    pub peers: Vec<PeerSettings>,
    /// The groups this host is a member of.
    pub groups: Vec<GroupSettings>,
    /// The groups this host is a witness of: no addresses, and all members are others.
    pub witnessed: Vec<GroupSettings>,
    /// Capture.
    pub capture: CaptureSettings,
    /// What Prometheus may read.
    pub metrics: MetricsSettings,
    /// What of it is recorded.
    pub history: HistorySettings,
    /// Who is told what happens.
    pub notify: NotifySettings,
    /// How takeovers are rehearsed, for each of `groups` in the same order.
    pub drills: Vec<DrillSettings>,
    /// The command that creates spares, for each of `groups` in the same order.
    pub providers: Vec<Option<CommandSettings>>,
    /// What is learned of each of `groups`, in the same order.
    pub profiles: Vec<ProfileSettings>,
    /// Where versions of profiles are kept beside the members; none: nowhere.
    pub repository: Option<RepositorySettings>,
}

/// This host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// Its name; peers' configurations use the same.
    pub name: Name,
    /// Where the daemon listens, for datagrams (UDP) and streams (TCP) alike: on the first link to
    /// the other hosts, and on up to three more.
    pub listen: Vec<SocketAddr>,
    /// Where identity and store live.
    pub state_dir: PathBuf,
    /// The socket that `shadowctl` talks to.
    pub socket: PathBuf,
}

/// One other host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// Its name.
    pub name: Name,
    /// Its identity, pinned.
    pub id: HostId,
    /// Where its daemon listens on each link, in the order of this host's `listen`, whose addresses
    /// they are reached from: the paths to it. At least one, at most as many as there.
    pub addresses: Vec<SocketAddr>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSettings {
    /// Its name.
    pub name: Name,
    /// The other members that vote, by name; each is a peer.
    pub members: Vec<Name>,
    /// The other spares, by name; each is a peer.
    pub spares: Vec<Name>,
    /// Whether this host is a spare: it does not vote, and owns the group only while it is enlisted.
    pub spare: bool,
    /// This member's priority, 1 to 255; higher is preferred.
    pub priority: u8,
    /// What keeps the group from having two owners.
    pub protection: Protection,
    /// Between two heartbeats: 5 ms to 10 s.
    pub heartbeat: Duration,
    /// Silence that makes a member suspect: 2 heartbeats to 10 min.
    pub suspect_after: Duration,
    /// How long a starting member listens before it may claim a group without an active.
    pub join_wait: Duration,
    /// The interface of the virtual IPs.
    pub interface: String,
    /// The virtual IPs, at most 32.
    pub vips: Vec<Vip>,
    /// The units, in start order.
    pub units: Vec<UnitSettings>,
    /// Who votes beside the members, by name; each is a peer.
    pub witnesses: Vec<Name>,
    /// How long an owner may go without the answers of a majority, when all is well.
    pub lease: Duration,
    /// Whether the kernel silences the virtual IPs when the lease runs out.
    pub guard: bool,
    /// How long the old owner serves its connections after a planned handover, at most 1 h; zero:
    /// not at all.
    pub drain: Duration,
    /// An owner one of whose units leaves its clients without an answer for so long gives the group
    /// up, 1 s to 10 min; none: that is not looked at.
    pub unanswered_after: Option<Duration>,
    /// Whether a member that lacks something of the profile may own the group when no other can.
    pub promote_unready: bool,
    /// What bounds automatic failover.
    pub policy: PolicySettings,
    /// How many shadows the group wants, and how it gets them back.
    pub redundancy: RedundancySettings,
}

/// One unit of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitSettings {
    /// Name of the unit.
    pub name: Name,
    /// How it is kept.
    pub mode: UnitMode,
}

/// What Prometheus may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where `GET /metrics` is answered over TCP; none: on the query socket alone.
    pub listen: Option<SocketAddr>,
    /// Units with series of their own; the others are summed.
    pub units: usize,
    /// Remotes with series of their own; 0: none, not even a sum.
    pub remotes: usize,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            listen: None,
            units: 200,
            remotes: 0,
        }
    }
}

/// The recorded observations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// Whether observations are recorded.
    pub record: bool,
    /// The oldest go when there are more bytes: 16 MiB to 1 TiB.
    pub max_bytes: u64,
    /// The oldest go when they are older: 1 h to 10 years.
    pub max_age: Duration,
    /// Younger ones are kept as observed, older ones merged into minutes: 10 min to `max_age`.
    pub full_resolution: Duration,
}
