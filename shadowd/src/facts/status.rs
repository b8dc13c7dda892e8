//! The state of the daemon, as `shadowctl` and the metrics show it.

use serde::{Deserialize, Serialize};

use super::{
    BootTime, CaptureCost, Cause, DrillReport, Epoch, HistoryStatus, HostId, Losses, Name,
    PathStatus, PolicyStatus, ProbeStatus, ProfileStatus, Protection, ReceiverStatus,
    RedundancyStatus, Role, TableStatus, UnitMode, Vip,
};

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This host's name.
    pub host: Name,
    /// This host's identity.
    pub id: HostId,
    /// Version of the daemon.
    pub version: String,
    /// When the daemon started.
    pub started: BootTime,
    /// Now.
    pub now: BootTime,
    /// Every group this host is a member of.
    pub groups: Vec<GroupStatus>,
    /// Every group this host is a witness of.
    #[serde(default)]
    pub witnessed: Vec<WitnessStatus>,
    /// Every peer.
    pub peers: Vec<PeerStatus>,
    /// Datagrams that belong to no peer.
    #[serde(default)]
    pub strangers: LinkCounters,
    /// Connections between hosts.
    #[serde(default)]
    pub connections: StreamCounters,
    /// Capture.
    pub capture: CaptureStatus,
    /// Sentences an operator should read: degraded probes, missing protection, failed steps.
    pub warnings: Vec<String>,
    /// Hooks and alerts.
    #[serde(default)]
    pub receivers: Vec<ReceiverStatus>,
    /// The last drill of each group that had one on this host.
    #[serde(default)]
    pub drills: Vec<DrillReport>,
    /// The profile of each group, in short.
    #[serde(default)]
    pub profiles: Vec<ProfileStatus>,
}

/// One group, as this member sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Name of the group.
    pub group: Name,
    /// This member's role.
    pub role: Role,
    /// Since when.
    pub since: BootTime,
    /// Newest epoch known.
    pub epoch: Epoch,
    /// Until when this member may own the group; none while nothing limits it.
    pub deadline: Option<BootTime>,
    /// Who is active, if somebody is.
    pub active: Option<Name>,
    /// What keeps the group from having two owners.
    pub protection: Protection,
    /// Whether this host could own the group now.
    pub eligible: bool,
    /// Every member, this one included.
    pub members: Vec<MemberStatus>,
    /// The virtual IPs.
    pub vips: Vec<VipStatus>,
    /// The units.
    pub units: Vec<UnitStatus>,
    /// The votes; none where nothing protects the group.
    #[serde(default)]
    pub lease: Option<LeaseStatus>,
    /// The kernel's guard of the virtual IPs; empty where nothing protects the group.
    #[serde(default)]
    pub guard: Vec<VipGuard>,
    /// Connections that this host serves to their end after a planned handover.
    #[serde(default)]
    pub drain: Option<DrainStatus>,
    /// What bounds automatic failover.
    #[serde(default)]
    pub policy: PolicyStatus,
    /// Whether there are as many ready shadows as the group wants; none unless this host is active.
    #[serde(default)]
    pub redundancy: Option<RedundancyStatus>,
    /// Paths to other members and witnesses that carry nothing, while others do; in words.
    #[serde(default)]
    pub lost_paths: Vec<String>,
}

/// Connections that outlast a handover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// They are ended then.
    pub until: BootTime,
    /// How many there were at the last look; none before the first.
    pub connections: Option<usize>,
}

/// The lease of a group, as this member sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// How long a lease this member asks for: longer than configured while it runs late.
    pub length_ns: u64,
    /// This host is active and its lease ran out: the addresses are silent until it holds again.
    pub lapsed: bool,
    /// The other voters.
    pub voters: Vec<VoterStatus>,
}

/// Another voter of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VoterStatus {
    /// Name of the host.
    pub host: Name,
    /// Whether it never owns the group.
    pub witness: bool,
    /// Until when it promised to keep others out for this host, on this host's clock.
    pub promised_until: Option<BootTime>,
    /// When it last said something about a vote.
    pub heard: Option<BootTime>,
}

/// One group that this host is a witness of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// Name of the group.
    pub group: Name,
    /// The newest epoch it voted in.
    pub epoch: Epoch,
    /// For whom it keeps the others out, if for anybody.
    pub holder: Option<Name>,
    /// Until when.
    pub until: Option<BootTime>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Name of the host.
    pub host: Name,
    /// Its role, when it last said so; none before it was heard.
    pub role: Option<Role>,
    /// Its priority.
    pub priority: u8,
    /// Whether it said that it could own the group.
    pub eligible: bool,
    /// Whether it is silent for longer than the group allows.
    pub suspected: bool,
    /// Why it could not own the group, when it said so.
    #[serde(default)]
    pub reason: Option<Cause>,
    /// Whether it is a spare: it does not vote, and owns the group only while it is enlisted.
    #[serde(default)]
    pub spare: bool,
}

/// One virtual IP on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipStatus {
    /// The address.
    pub vip: Vip,
    /// The interface it lives on.
    pub interface: String,
    /// Whether this host holds it now.
    pub held: bool,
}

/// What the kernel's guard does with one virtual IP on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VipGuard {
    /// The address.
    pub vip: Vip,
    /// Until when it may be answered for; none while it is silent.
    pub until: Option<BootTime>,
    /// Packets for it that were dropped on arrival.
    pub dropped_rx: u64,
    /// Packets in its name that were dropped instead of sent.
    pub dropped_tx: u64,
    /// Packets for it that were passed on to the host that serves their connections.
    pub passed: u64,
}

/// One unit of a group on this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Name of the unit.
    pub unit: Name,
    /// How it is kept.
    pub mode: UnitMode,
    /// systemd's ActiveState, `unknown` before it was read.
    pub state: String,
    /// Its main process, if it has one.
    pub main_pid: Option<u32>,
}

/// One peer's link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Name of the host.
    pub host: Name,
    /// Its identity.
    pub id: HostId,
    /// Where its daemon listens, on the first link.
    pub address: String,
    /// Every path to it.
    #[serde(default)]
    pub paths: Vec<PathStatus>,
    /// Whether the TLS stream is up.
    pub connected: bool,
    /// When its last authentic datagram came.
    pub last_heard: Option<BootTime>,
    /// Last measured round trip of datagrams.
    pub round_trip_ns: Option<u64>,
    /// The round trip that 99 of 100 datagrams stayed within, since the daemon started.
    #[serde(default)]
    pub round_trip_p99_ns: Option<u64>,
    /// Counters of its datagrams.
    pub counters: LinkCounters,
}

/// What happened to datagrams, since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Sent.
    pub sent: u64,
    /// Could not be sent (no key yet, or the socket refused).
    pub unsent: u64,
    /// Opened and accepted.
    pub received: u64,
    /// Too short, too long, of another version, or not decodable after opening.
    pub malformed: u64,
    /// With a key id nobody knows, or that did not authenticate.
    pub forged: u64,
    /// With a counter that was used before, or too old to tell.
    pub replayed: u64,
    /// Copies, over another path, of what was accepted before.
    #[serde(default)]
    pub copies: u64,
    /// Not looked at: they name a key of a peer, and too many such came from addresses of no peer.
    #[serde(default)]
    pub limited: u64,
}

/// What happened to connections between hosts, since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamCounters {
    /// Streams that authenticated and exchanged hellos, dialled or accepted.
    pub established: u64,
    /// Streams that took the place of an older one of this host, with new keys.
    pub renewed: u64,
    /// Accepted connections that failed: not TLS 1.3, not a peer, wrong hello, or too slow.
    pub refused: u64,
    /// Accepted connections closed unread: too many unauthenticated ones were open.
    pub crowded: u64,
    /// Accepted connections closed unread: too many came from addresses of no peer.
    pub limited: u64,
    /// Dials that failed.
    pub failed_dials: u64,
    /// Streams ended because an authentic peer said what this version does not know.
    pub violations: u64,
}

/// Capture's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaptureStatus {
    /// Every probe.
    pub probes: Vec<ProbeStatus>,
    /// What was seen and lost.
    pub losses: Losses,
    /// The daemon's tables and what they forgot.
    #[serde(default)]
    pub tables: Vec<TableStatus>,
    /// The recorded observations.
    #[serde(default)]
    pub history: HistoryStatus,
    /// What capture itself costs.
    #[serde(default)]
    pub cost: CaptureCost,
}
