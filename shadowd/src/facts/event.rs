//! What happened, as it is recorded and shown.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BootTime, Cause, Name};

/// One recorded happening.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Number in this host's record, from 1; 0 until the store has numbered it.
    pub seq: u64,
    /// When, on the host's boot clock.
    pub boot_ns: BootTime,
    /// When, in milliseconds since the Unix epoch: for people only, decisions never read it.
    pub wall_ms: u64,
    /// What.
    pub kind: EventKind,
    /// The group it concerns.
    pub group: Option<Name>,
    /// The epoch counter it happened in.
    pub epoch: Option<u64>,
    /// Why.
    pub cause: Option<Cause>,
    /// The rest, in words: who, what, how long.
    pub detail: String,
}

/// The kinds of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The daemon started.
    DaemonStarted,
    /// The daemon stopped cleanly.
    DaemonStopped,
    /// The member's role changed; `detail` reads `from -> to`.
    RoleChanged,
    /// A peer's silence passed the group's bound.
    PeerSuspected,
    /// A peer was heard again, or for the first time.
    PeerHeard,
    /// This host decided to own the group.
    Claimed,
    /// A virtual IP was added; `detail` names it.
    VipAdded,
    /// The virtual IPs were announced for the first time in this epoch.
    Announced,
    /// A virtual IP was removed.
    VipRemoved,
    /// This host gave the group up.
    Released,
    /// A unit of a group came up.
    UnitUp,
    /// A unit of a group went down.
    UnitDown,
    /// A unit was started or stopped by the daemon.
    UnitAction,
    /// The link of an interface changed.
    LinkChanged,
    /// A planned handover began, ended or was refused.
    Handover,
    /// A step failed; `detail` says which and why.
    Failure,
    /// This owner's lease ran out: the guard keeps its addresses silent.
    LeaseLapsed,
    /// A majority answers this owner again.
    LeaseHeld,
    /// Another host says that it has a virtual IP of a group that this host owns.
    VipClaimed,
    /// The clients of a unit are left without an answer, or answered again.
    Serving,
    /// The connections that outlast a handover have ended, or were ended; `detail` says which.
    Drained,
    /// This voter keeps the others out for another member than before.
    Voted,
    /// A hook or an alert was told something.
    Notified,
    /// A hook or an alert could not be told, or ended badly; `detail` says which and why.
    NoticeFailed,
    /// Maintenance of this host began or ended.
    Maintenance,
    /// The group was frozen or is not any more.
    Freeze,
    /// The flap penalty grew, began to hold this host back, or ended to.
    FlapPenalty,
    /// The daemon ends and will be back: the group stays here meanwhile.
    Paused,
    /// The daemon is back and goes on where the one before it paused.
    Resumed,
    /// A drill began, was skipped or given up, or a live one got on; `detail` says how.
    Drill,
    /// A drill passed.
    DrillPassed,
    /// A drill failed; `detail` says why.
    DrillFailed,
    /// Fewer shadows are ready than the group wants, something is done about it, or it is over.
    Redundancy,
    /// What a peer says comes over another path, and over this one no more.
    PathLost,
    /// What a peer says comes over this path again.
    PathBack,
    /// Threads of usual priority wait long for their turns on this host, or not any more.
    Starved,
    /// Another version of a group's profile is in use.
    ProfileVersion,
    /// What the owner's units do is not as learned; `detail` says what.
    Deviation,
    /// This host is not as the profile wants it; `detail` says what and why.
    NotReady,
    /// It is again.
    Ready,
    /// shadowd did something to make this host ready, or tried to; `detail` says what.
    Provisioned,
    /// The central repository of profiles is not reached, or again; a version came from it, or one
    /// there was not what it should be; `detail` says which.
    Repository,
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DaemonStarted => "daemon started",
            Self::DaemonStopped => "daemon stopped",
            Self::RoleChanged => "role changed",
            Self::PeerSuspected => "peer suspected",
            Self::PeerHeard => "peer heard",
            Self::Claimed => "claimed",
            Self::VipAdded => "virtual IP added",
            Self::Announced => "announced",
            Self::VipRemoved => "virtual IP removed",
            Self::Released => "released",
            Self::UnitUp => "unit up",
            Self::UnitDown => "unit down",
            Self::UnitAction => "unit action",
            Self::LinkChanged => "link changed",
            Self::Handover => "handover",
            Self::Failure => "failure",
            Self::LeaseLapsed => "lease lapsed",
            Self::LeaseHeld => "lease held",
            Self::VipClaimed => "virtual IP claimed",
            Self::Serving => "serving",
            Self::Drained => "drained",
            Self::Voted => "voted",
            Self::Notified => "notified",
            Self::NoticeFailed => "notice failed",
            Self::Maintenance => "maintenance",
            Self::Freeze => "freeze",
            Self::FlapPenalty => "flap penalty",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Drill => "drill",
            Self::DrillPassed => "drill passed",
            Self::DrillFailed => "drill failed",
            Self::Redundancy => "redundancy",
            Self::PathLost => "path lost",
            Self::PathBack => "path back",
            Self::Starved => "starved",
            Self::ProfileVersion => "profile version",
            Self::Deviation => "deviation",
            Self::NotReady => "not ready",
            Self::Ready => "ready",
            Self::Provisioned => "provisioned",
            Self::Repository => "repository",
        })
    }
}
