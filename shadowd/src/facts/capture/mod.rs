//! What capture saw: raw samples, and the observations made of them.

mod counts;
mod errno;
mod histogram;
mod observation;
mod probe;
mod sample;

pub use counts::{
    BlockCounts, FileCounts, FlowCounts, IoDirection, Pressure, Resources, SyscallCounts, Timing,
};
pub use errno::errno_name;
pub use histogram::Histogram;
pub use observation::{
    AggregateState, DeviceUse, FileUse, Flow, HostUse, Listener, Observation, ProcessUse,
    UnitTotals, UnitUse,
};
pub use probe::{
    CaptureCost, FEATURES, HistoryStatus, Losses, ProbeLosses, ProbeStatus, TableStatus,
};
pub use sample::{
    BlockDelta, Direction, FileDelta, FileOpen, FlowDelta, GroupReading, HostReading, Lifecycle,
    LifecycleKind, ListenerReading, NameAnswer, ProcessReading, Protocol, Sample, SyscallDelta,
};
