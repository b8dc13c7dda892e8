//! What the socket says: versioned paths and the shapes of requests and answers.
//!
//! Server and client share this file. Inside `/v1` fields are only ever added; whoever reads an
//! answer ignores fields it does not know. Nothing here reads or writes.

mod decisions;
mod drill;
mod history;
mod policy;
mod profile;
mod restore;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::{
    BootTime, CaptureStatus, Event, Flow, HostId, Losses, Name, Observation, PeerStatus,
    ProcessUse, ReceiverStatus, Status, UnitUse,
};

pub use decisions::{
    CORE, CORE_TIMEOUT, CoreNow, DECISION, DECISIONS, Decisions, RecordedDecision, decision_path,
};
pub use drill::{
    DRILL, DRILL_END, DRILLS, DrillEndRequest, DrillRequest, Drills, LiveRequest, MAX_LIVE,
    MIN_LIVE,
};

pub use history::{
    AtQuery, HISTORY_AT, HISTORY_RECORDS, HISTORY_SUM, MAX_RECORDS, Record, Recorded, RecordedSum,
    Records, RecordsQuery, SumQuery,
};

pub use policy::{
    DEFAULT_FREEZE, FREEZE, FreezeRequest, MAINTENANCE, MAX_ORDER, MAX_REASON, MaintenanceRequest,
    OrderDone, UNFREEZE, UnfreezeRequest,
};

pub use profile::{
    ActBatch, ActLine, ActOrder, ActState, DiffQuery, Expected, ExpectedDependency,
    ExpectedResource, ExpectedUnit, ExportedVersion, GroupReady, MAX_IMPORT_BYTES, PROFILE,
    PROFILE_ACCURACY, PROFILE_ACTS, PROFILE_DIFF, PROFILE_EXPORT, PROFILE_IMPORT, PROFILE_ORDER,
    PROFILE_REPOSITORY, PROFILE_TIMEOUT, PROFILE_VERSIONS, ProfileAccuracy, ProfileActs,
    ProfileDiff, ProfileOrder, ProfileOrderDone, ProfileQuery, ProfileRepository, ProfileVersions,
    READY, Ready, ResourceAccuracy, ShownNeed, ShownProfile, VERSION_FORMS, VersionLine,
    profile_path,
};

pub use restore::{
    DEFAULT_RESTORE, GoldenRestore, MAX_RESTORE, MIN_RESTORE, PROFILE_RESTORE, RestoreRequest,
    RestoreState,
};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/shadowd/shadowd.sock";

/// The group whose members may open the socket.
pub const SOCKET_GROUP: &str = "shadowd";

/// A longer request body (bytes) is refused.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// More events than this in one answer are refused.
pub const MAX_EVENTS: u32 = 10_000;

/// So many events are answered when a request names no limit.
pub const DEFAULT_EVENTS: u32 = 100;

/// How long the daemon works on a handover before it answers `timed_out`. Longer than for other
/// requests because cold units have to start on the other host.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(8);

/// `GET`: a [`StatusAnswer`].
pub const STATUS: &str = "/v1/status";
/// `GET`: a [`Top`].
pub const TOP: &str = "/v1/top";
/// `GET`: [`Flows`].
pub const FLOWS: &str = "/v1/flows";
/// `GET`: [`Units`].
pub const UNITS: &str = "/v1/units";
/// `GET`: the newest [`Observation`], all of it.
pub const OBSERVATION: &str = "/v1/observation";
/// `GET`: OpenMetrics text.
pub const METRICS: &str = "/metrics";
/// `GET`: [`Probes`].
pub const PROBES: &str = "/v1/probes";
/// `GET`: [`Peers`].
pub const PEERS: &str = "/v1/peers";
/// `GET` with [`EventsQuery`]: [`Events`].
pub const EVENTS: &str = "/v1/events";
/// `GET`: an [`Id`].
pub const ID: &str = "/v1/id";
/// `POST` a [`HandoverRequest`]: [`HandoverDone`].
pub const HANDOVER: &str = "/v1/groups/{group}/handover";

/// `GET`: [`Hooks`].
pub const HOOKS: &str = "/v1/hooks";
/// `POST`: a [`LastNotice`](crate::facts::LastNotice).
pub const HOOK_TEST: &str = "/v1/hooks/{name}/test";

/// How long the daemon works on a test of a hook or an alert before it answers `timed_out`.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(8);

/// The path of a handover of `group`.
pub fn handover_path(group: &Name) -> String {
    group_path(HANDOVER, group)
}

/// `path` of `group`.
pub fn group_path(path: &str, group: &Name) -> String {
    path.replace("{group}", &segment(group))
}

/// The path of a test of the hook or the alert `name`.
pub fn hook_test_path(name: &Name) -> String {
    HOOK_TEST.replace("{name}", &segment(name))
}

/// A name as one segment of a path.
fn segment(name: &Name) -> String {
    segment_of(name.as_str())
}

/// Text as one segment of a path or a query, percent-encoded (RFC 3986 section 2.1).
fn segment_of(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Parameters of a path, percent-encoded.
pub fn query(parameters: &[(&str, &str)]) -> String {
    let parameters = parameters.iter();
    let parameters = parameters.map(|(name, value)| format!("{name}={}", segment_of(value)));
    parameters.collect::<Vec<String>>().join("&")
}

/// The state of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// All that the daemon says of itself.
    #[serde(flatten)]
    pub status: Status,
    /// What happened on this socket.
    #[serde(default)]
    pub socket: SocketCounters,
}

/// What happened on the socket since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SocketCounters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections closed at once because too many were open.
    pub rejected: u64,
    /// Requests answered, refusals included.
    pub requests: u64,
    /// Requests that could not be understood.
    pub malformed: u64,
    /// Changes refused because of who asked.
    pub forbidden: u64,
    /// Requests and connections that took too long.
    pub timed_out: u64,
}

/// What units and processes used in the last interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// End of the interval.
    pub at: BootTime,
    /// Its length.
    pub interval_ns: u64,
    /// By unit, by name.
    #[serde(default)]
    pub units: Vec<UnitUse>,
    /// By process, by pid.
    pub processes: Vec<ProcessUse>,
    /// Totals of loss.
    pub losses: Losses,
}

/// Flows seen since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// End of the last interval.
    pub at: BootTime,
    /// Its length.
    pub interval_ns: u64,
    /// The flows.
    pub flows: Vec<Flow>,
    /// Totals of loss.
    pub losses: Losses,
}

/// What units used in the last interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Units {
    /// End of the interval.
    pub at: BootTime,
    /// Its length.
    pub interval_ns: u64,
    /// By unit, by name.
    pub units: Vec<UnitUse>,
    /// Totals of loss.
    pub losses: Losses,
}

/// Units that ended long ago are only remembered for their totals.
fn active(units: &[UnitUse]) -> Vec<UnitUse> {
    let active = units.iter().filter(|unit| unit.is_active());
    active.cloned().collect()
}

impl From<&Observation> for Top {
    fn from(observation: &Observation) -> Self {
        Self {
            at: observation.at,
            interval_ns: observation.interval_ns,
            units: active(&observation.units),
            processes: observation.processes.clone(),
            losses: observation.losses,
        }
    }
}

impl From<&Observation> for Flows {
    fn from(observation: &Observation) -> Self {
        Self {
            at: observation.at,
            interval_ns: observation.interval_ns,
            flows: observation.flows.clone(),
            losses: observation.losses,
        }
    }
}

impl From<&Observation> for Units {
    fn from(observation: &Observation) -> Self {
        Self {
            at: observation.at,
            interval_ns: observation.interval_ns,
            units: active(&observation.units),
            losses: observation.losses,
        }
    }
}

/// The probes: how each feature is fed, what it lost, what it costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    /// Every probe, the totals of loss, and what capture itself costs.
    #[serde(flatten)]
    pub capture: CaptureStatus,
}

/// The other hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// The daemon's clock, to tell how long ago a peer was heard.
    pub now: BootTime,
    /// Every peer.
    pub peers: Vec<PeerStatus>,
}

/// Hooks and alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Every one, in the order of the configuration, hooks first.
    pub receivers: Vec<ReceiverStatus>,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events with a larger number.
    #[serde(default)]
    pub since: u64,
    /// The newest so many: 1 to [`MAX_EVENTS`].
    #[serde(default = "default_events")]
    pub limit: u32,
}

const fn default_events() -> u32 {
    DEFAULT_EVENTS
}

/// Events, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The events. Numbers follow each other, so a gap tells how many were left out.
    pub events: Vec<Event>,
}

/// Who this host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Id {
    /// Its name; none when the daemon was not asked.
    #[serde(default)]
    pub host: Option<Name>,
    /// Its identity, as the peers' configurations name it.
    pub id: HostId,
}

/// A planned handover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandoverRequest {
    /// Who shall take over; the best member when none.
    pub to: Option<Name>,
}

/// A handover that has ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverDone {
    /// The group.
    pub group: Name,
    /// The counter of the new epoch.
    pub epoch: u64,
    /// Who gave it.
    pub from: Name,
    /// Who has it.
    pub to: Name,
    /// From the request to the new owner's first word, in milliseconds.
    pub took_ms: u64,
}

/// Why a request was refused; [`Refusal::status`] is the HTTP status it travels with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is not what the path expects.
    BadRequest,
    /// The daemon does not know the path: client and daemon differ in version.
    UnknownPath,
    /// The path wants another method.
    WrongMethod,
    /// The body is longer than [`MAX_REQUEST_BYTES`].
    TooLarge,
    /// The caller may read but not change.
    Forbidden,
    /// This host is no member of the group.
    UnknownGroup,
    /// This host has no such hook and no such alert.
    UnknownReceiver,
    /// The wanted host is no member of the group.
    UnknownMember,
    /// This host does not own the group, so it cannot give it.
    NotActive,
    /// No member could take over: silent, or its units or link are down.
    NotEligible,
    /// Another handover of the group is under way.
    Busy,
    /// It took too long; it may still happen.
    TimedOut,
    /// A step failed.
    Failed,
    /// The daemon is stopping.
    Stopping,
    /// No observation is recorded at the wanted time.
    NothingRecorded,
    /// No version of the profile has this name here.
    UnknownVersion,
    /// A code of a newer daemon.
    #[serde(other)]
    Unknown,
}

/// A request that was refused, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, for programs.
    pub code: Code,
    /// Why, for people.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// The HTTP status (RFC 9110 section 15).
    pub const fn status(&self) -> u16 {
        match self.code {
            Code::BadRequest => 400,
            Code::Forbidden => 403,
            Code::UnknownPath
            | Code::UnknownGroup
            | Code::UnknownMember
            | Code::UnknownReceiver
            | Code::UnknownVersion
            | Code::NothingRecorded => 404,
            Code::WrongMethod => 405,
            Code::NotActive | Code::NotEligible | Code::Busy => 409,
            Code::TooLarge => 413,
            Code::Failed | Code::Unknown => 500,
            Code::Stopping => 503,
            Code::TimedOut => 504,
        }
    }
}

/// How a [`Refusal`] travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// The refusal.
    pub error: Refusal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_with_odd_letters_stays_one_path_segment() {
        let plain = handover_path(&"web-1.a_b~".parse().unwrap());
        assert_eq!(plain, "/v1/groups/web-1.a_b~/handover");
        let odd = handover_path(&"a?b#c%d".parse().unwrap());
        assert_eq!(odd, "/v1/groups/a%3Fb%23c%25d/handover");
    }

    #[test]
    fn a_code_of_a_newer_daemon_is_read_as_unknown() {
        let text = r#"{"error":{"code":"from_the_future","message":"m","remedy":"r","more":1}}"#;
        let answer: ErrorAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.error, Refusal::new(Code::Unknown, "m", "r"));
    }

    #[test]
    fn a_handover_request_may_leave_the_host_out_but_adds_nothing() {
        let read = |text| serde_json::from_str::<HandoverRequest>(text).ok();
        assert_eq!(read("{}"), Some(HandoverRequest::default()));
        assert_eq!(read(r#"{"to":null}"#), Some(HandoverRequest::default()));
        assert_eq!(
            read(r#"{"to":"b"}"#).and_then(|ask| ask.to),
            "b".parse().ok()
        );
        for bad in [r#"{"to":"a/b"}"#, r#"{"two":"b"}"#, "null", "[]", "[1]", ""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
