//! What a daemon that ends keeps for the one after it, in the same boot of the host.

use serde::{Deserialize, Serialize};

use super::{BootTime, Epoch, Vip};

/// What is kept of one group. Nothing of it is worth anything after a reboot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// This host's vote; none where no lease protects the group.
    pub vote: Option<KeptVote>,
    /// The ownership that the next daemon goes on with; none unless this one paused.
    pub pause: Option<KeptPause>,
}

/// A vote at rest: the daemon that kept it promised nothing afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptVote {
    /// Among which voters it is one; 0, which is none of them, where an earlier version kept it.
    #[serde(default)]
    pub electorate: u64,
    /// Nothing is promised to anybody before then.
    pub quiet_until: BootTime,
    /// What is promised: to the epoch's owner alone, until then.
    pub promise: Option<(Epoch, BootTime)>,
    /// The newest epoch in which anything was ever promised.
    pub newest: Epoch,
    /// The newest epoch counter that this host ever asked for.
    pub asked: u64,
}

/// An ownership at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPause {
    /// The epoch the group is owned in.
    pub epoch: Epoch,
    /// Nobody else owns it before then.
    pub deadline: BootTime,
    /// Who promised that; 0 where nothing protects the group.
    pub electorate: u64,
    /// Where the addresses are.
    pub interface: String,
    /// The addresses.
    pub vips: Vec<Vip>,
}

/// A promise longer than a voter forgets by being quiet: on the disk before it is given, so that
/// it outlives the daemon, the boot and the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPromise {
    /// To the epoch's owner alone.
    pub epoch: Epoch,
    /// Until then at the latest, in the boot in which it was kept.
    pub until: BootTime,
    /// After a reboot: for so long from the start of the daemon on, which is later.
    pub length_ns: u64,
}

/// What a daemon that starts knows of the ones before it, by group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the last one kept when it ended cleanly in this boot; nothing after a crash.
    pub kept: Kept,
    /// The newest promise on the disk that may not be over; `until` is of this boot.
    pub promise: Option<KeptPromise>,
}
