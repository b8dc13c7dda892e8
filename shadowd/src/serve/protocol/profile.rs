//! What the socket says of profiles: what should be running, and whether this host could take over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{group_path, segment_of};
use crate::facts::{
    BootTime, Change, Content, Dependency, HostId, Name, Readiness, RepositoryStatus, ResourceKind,
    Signed, VersionId,
};
pub use crate::facts::{ProfileAccuracy, ResourceAccuracy};

/// `GET`: [`Ready`].
pub const READY: &str = "/v1/ready";
/// `GET` with [`ProfileQuery`]: a [`ShownProfile`].
pub const PROFILE: &str = "/v1/groups/{group}/profile";
/// `GET`: [`ProfileVersions`].
pub const PROFILE_VERSIONS: &str = "/v1/groups/{group}/profile/versions";
/// `GET`: [`ProfileAccuracy`].
pub const PROFILE_ACCURACY: &str = "/v1/groups/{group}/profile/accuracy";
/// `GET` with [`DiffQuery`]: [`ProfileDiff`].
pub const PROFILE_DIFF: &str = "/v1/groups/{group}/profile/diff";
/// `GET` with [`ProfileQuery`]: an [`ExportedVersion`].
pub const PROFILE_EXPORT: &str = "/v1/groups/{group}/profile/export";
/// `GET`: [`ProfileActs`]. `POST` an [`ActOrder`]: [`ProfileActs`].
pub const PROFILE_ACTS: &str = "/v1/groups/{group}/profile/acts";
/// `GET`: [`ProfileRepository`].
pub const PROFILE_REPOSITORY: &str = "/v1/groups/{group}/profile/repository";
/// `POST` a [`ProfileOrder`]: [`ProfileOrderDone`].
pub const PROFILE_ORDER: &str = "/v1/groups/{group}/profile/order";
/// `POST` an [`ExportedVersion`]: [`ProfileOrderDone`].
pub const PROFILE_IMPORT: &str = "/v1/groups/{group}/profile/import";

/// How long the daemon works on an answer about profiles before it answers `timed_out`: it may be
/// looking at the host.
pub const PROFILE_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer body (bytes) of an import is refused.
pub const MAX_IMPORT_BYTES: usize = 16 << 20;

/// A version by its name: `current`, `golden`, a number, or the first letters of an identity.
pub const VERSION_FORMS: &str = "a version is `current`, `golden`, its number, or the first letters of its identity (4 or more)";

/// The path of `path` of `group` with a version.
pub fn profile_path(path: &str, group: &Name, version: &str) -> String {
    format!(
        "{}?version={}",
        group_path(path, group),
        segment_of(version)
    )
}

/// Whether this host could take over, for each group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ready {
    /// The daemon's clock.
    pub now: BootTime,
    /// The groups that this host is a member of.
    pub groups: Vec<GroupReady>,
}

/// Whether this host could take a group over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReady {
    /// The group.
    pub group: Name,
    /// Who owns it now.
    pub owner: Option<Name>,
    /// That is this host: there is nothing to compare.
    pub owned_here: bool,
    /// Number and identity of the version that it was compared with.
    pub version: Option<(u64, VersionId)>,
    /// When it was compared.
    pub at: Option<BootTime>,
    /// The share of items that are ready, 0 to 1.
    pub score: f64,
    /// Every item; none while nothing was compared.
    pub readiness: Option<Readiness>,
}

/// Which version is wanted, and for when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileQuery {
    /// Which; when left out the one in use, or the one that was in use at `at` if that is over.
    #[serde(default)]
    pub version: Option<String>,
    /// What is expected then, ms since 1970; now when left out.
    #[serde(default)]
    pub at: Option<i64>,
}

/// Which versions are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffQuery {
    /// From.
    pub a: String,
    /// To.
    pub b: String,
}

/// A version without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionLine {
    /// Its number on its way.
    pub number: u64,
    /// Its identity.
    pub id: VersionId,
    /// The one before it.
    pub parent: Option<VersionId>,
    /// Who made it.
    pub author: HostId,
    /// Name of that host, if it is configured here.
    pub author_name: Option<Name>,
    /// When, ms since 1970 on its clock.
    pub wall_ms: i64,
    /// Why.
    pub reason: String,
    /// Learning makes no other.
    pub pinned: bool,
    /// It is in use.
    pub current: bool,
    /// It is the golden one.
    pub golden: bool,
}

/// The versions that this host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileVersions {
    /// Oldest first.
    pub versions: Vec<VersionLine>,
    /// Versions that are wanted and not here yet.
    pub awaited: usize,
}

/// How the versions on this host stand to those in the central repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileRepository {
    /// The daemon's clock.
    pub now: BootTime,
    /// None: there is no repository, `sync = false`.
    pub repository: Option<RepositoryStatus>,
}

/// A version, and what is expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownProfile {
    /// The group.
    pub group: Name,
    /// Which version; none before the first.
    pub version: Option<VersionLine>,
    /// What has to be the same on a host that takes over.
    pub content: Content,
    /// The version is the one that was in use at this time, ms since 1970, which is over; none for one
    /// that was named, and for the one in use.
    #[serde(default)]
    pub in_use_at: Option<i64>,
    /// What each unit needs of each resource on a usual day.
    pub needs: Vec<ShownNeed>,
    /// What is expected at a time, by what was learned until now.
    pub expected: Expected,
    /// What was learned so far without being believed yet: names of units.
    pub learning: Vec<String>,
    /// What found no room in the tables of the learner.
    pub refused: u64,
}

/// What a unit needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownNeed {
    /// The unit.
    pub unit: String,
    /// Of what.
    pub resource: ResourceKind,
    /// The median of the next day.
    pub median: f64,
    /// The upper end of the 95 % interval of the next day.
    pub peak: f64,
    /// It rests on less than two days.
    pub cold: bool,
}

/// What is expected at a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// When, ms since 1970.
    pub wall_ms: i64,
    /// Units, by name.
    pub units: Vec<ExpectedUnit>,
    /// Dependencies.
    pub dependencies: Vec<ExpectedDependency>,
    /// Resources.
    pub resources: Vec<ExpectedResource>,
}

/// Whether a unit is expected to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectedUnit {
    /// The unit.
    pub unit: String,
    /// How likely, 0 to 1.
    pub likely: f64,
}

/// Whether a unit is expected to use something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectedDependency {
    /// The unit.
    pub unit: String,
    /// What it connects to.
    pub dependency: Dependency,
    /// How likely, 0 to 1.
    pub likely: f64,
}

/// What a unit is expected to use of a resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectedResource {
    /// The unit.
    pub unit: String,
    /// Of what.
    pub resource: ResourceKind,
    /// Half of the readings are above it.
    pub median: f64,
    /// Eight of ten readings lie within.
    pub within_80: [f64; 2],
    /// 19 of 20 do.
    pub within_95: [f64; 2],
    /// It rests on less than two days.
    pub cold: bool,
}

/// What is different between two versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileDiff {
    /// From.
    pub a: VersionLine,
    /// To.
    pub b: VersionLine,
    /// What differs.
    pub changes: Vec<Change>,
}

/// A version as its author signed it, to be kept in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportedVersion {
    /// Canonical bytes, base64.
    pub bytes: String,
    /// The author's public key (DER), base64.
    pub key: String,
    /// The author's signature, base64.
    pub signature: String,
}

impl From<&Signed> for ExportedVersion {
    fn from(signed: &Signed) -> Self {
        let text = |bytes: &[u8]| data_encoding::BASE64.encode(bytes);
        Self {
            bytes: text(&signed.bytes),
            key: text(&signed.key),
            signature: text(&signed.signature),
        }
    }
}

impl ExportedVersion {
    /// What is in it; none when it is not base64.
    pub fn signed(&self) -> Option<Signed> {
        let bytes = |text: &str| data_encoding::BASE64.decode(text.as_bytes()).ok();
        Some(Signed {
            bytes: bytes(&self.bytes)?,
            key: bytes(&self.key)?,
            signature: bytes(&self.signature)?,
        })
    }
}

/// What an operator wants of a profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order", deny_unknown_fields)]
pub enum ProfileOrder {
    /// Use the content of an earlier version again, and make no other until [`Self::Unpin`].
    Rollback {
        /// Which.
        version: String,
    },
    /// Make no other version.
    Pin,
    /// Go on learning.
    Unpin,
    /// Choose the golden version.
    GoldenSet {
        /// Which.
        version: String,
    },
    /// Use the content of the golden version, and make no other until [`Self::Unpin`].
    GoldenApply,
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileOrderDone {
    /// The version that was made.
    pub version: VersionLine,
}

/// What an operator wants of what shadowd does on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "order", deny_unknown_fields)]
pub enum ActOrder {
    /// Take a batch back, and do nothing more until [`Self::Resume`]. Answered once that begins.
    Undo {
        /// Its number.
        batch: u64,
    },
    /// Go on making this host ready.
    Resume,
}

/// What shadowd did on this host to make it ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileActs {
    /// An operator undid something: nothing more is done until `resume`.
    pub held: bool,
    /// The batches that are kept, oldest first.
    pub batches: Vec<ActBatch>,
}

/// Acts that were done together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActBatch {
    /// Its number.
    pub number: u64,
    /// Its acts, in their order.
    pub acts: Vec<ActLine>,
}

/// One act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActLine {
    /// As a command.
    pub act: String,
    /// What became of it.
    pub state: ActState,
    /// Why, where it failed.
    pub why: Option<String>,
}

/// What became of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActState {
    /// It was begun, and nobody knows how it ended: the host or the program died.
    Begun,
    /// It was done.
    Done,
    /// It failed.
    Failed,
    /// It was undone.
    Undone,
    /// It could not be undone.
    NotUndone,
}
