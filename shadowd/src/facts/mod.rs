//! Plain data that the rooms exchange.
//!
//! Facts have no behaviour beyond construction, order and conversion: no I/O, no clock, no policy.
//! Every other room may import this one; this one imports none.

mod capture;
mod cluster;
mod decision;
mod drill;
mod event;
mod ids;
mod loan;
mod notice;
mod paths;
mod pause;
mod policy;
mod profile;
mod redundancy;
mod status;
mod time;

pub use capture::errno_name;
pub use capture::{
    AggregateState, BlockCounts, BlockDelta, CaptureCost, DeviceUse, Direction, FEATURES,
    FileCounts, FileDelta, FileOpen, FileUse, Flow, FlowCounts, FlowDelta, GroupReading, Histogram,
    HistoryStatus, HostReading, HostUse, IoDirection, Lifecycle, LifecycleKind, Listener,
    ListenerReading, Losses, NameAnswer, Observation, Pressure, ProbeLosses, ProbeStatus,
    ProcessReading, ProcessUse, Protocol, Resources, Sample, SyscallCounts, SyscallDelta,
    TableStatus, Timing, UnitTotals, UnitUse,
};
pub use cluster::{
    Body, Cause, Datagram, Drain, GroupMessage, Mac, Protection, Role, UnitMode, Vip, VipError,
};
pub use decision::Decision;
pub use drill::{DrillRecord, DrillReport, DrillState, DrillStep, LiveDrill};
pub use event::{Event, EventKind};
pub use ids::{Epoch, HostId, HostIdError, Name, NameError};
pub use loan::{BorrowedStatus, LoanEnd, LoanPhase, LoanStatus, LoanWord, RememberedLoan};
pub use notice::{
    LastNotice, Notice, ReceiverCounts, ReceiverKind, ReceiverStatus, Severity, Told, Topic,
    TopicError,
};
pub use paths::{PathNumber, PathState, PathStatus};
pub use pause::{Kept, KeptPause, KeptPromise, KeptVote, Memory};
pub use policy::{
    FailbackStatus, OrderStatus, PolicyMemory, PolicyOrder, PolicyStatus, PolicyWord,
    RememberedOrder,
};
pub use profile::{
    Act, ActKind, Beside, Change, Confusion, Content, Dependency, Digest, Digest256,
    Digest256Error, DiskInventory, FileFact, FileKind, FilterChain, HOURS, Habit, HostInventory,
    Hot, HotFile, Hour, Inventory, Item, ItemKind, Listing, Need, PackageFact, Passage, Place,
    Port, Profile, ProfileAccuracy, ProfileStatus, Readiness, ReadinessSummary, Reason,
    RepositoryStatus, ResourceAccuracy, ResourceKind, Scope, ShellWord, Signed, StoredObject,
    UnitDigest, UnitProfile, ValueHash, Verdict, Version, VersionId, VersionIdError, is_word,
};
pub use redundancy::{
    Enlistment, ProviderAnswer, ProviderRequest, ProviderState, RedundancyStatus, Restoration,
    RestoreStep, RestoredBy,
};
pub use status::{
    CaptureStatus, DrainStatus, GroupStatus, LeaseStatus, LinkCounters, MemberStatus, PeerStatus,
    Status, StreamCounters, UnitStatus, VipGuard, VipStatus, VoterStatus, WitnessStatus,
};
pub use time::BootTime;
