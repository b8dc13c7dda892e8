//! What the members of a group tell each other.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BootTime, Epoch, HostId, Name, PathNumber, PolicyWord};

/// What a member is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Just started: listens, claims nothing.
    Joining,
    /// Kept ready, does not own the group.
    Shadow,
    /// Owns the group in its epoch.
    Active,
    /// Has stopped taking part (the daemon is ending).
    Stopped,
    /// Votes, never owns the group.
    Witness,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Joining => "joining",
            Self::Shadow => "shadow",
            Self::Active => "active",
            Self::Stopped => "stopped",
            Self::Witness => "witness",
        })
    }
}

/// Why a decision was taken. The code reaches the log, the events and the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Nobody owned the group and nobody better answered while this host joined.
    ColdStart,
    /// The active sent nothing for longer than the group allows.
    Silence,
    /// A unit of the group died on the active.
    UnitDied,
    /// The active's daemon was stopped cleanly.
    DaemonStopped,
    /// The interface of the virtual IPs lost its link.
    LinkLost,
    /// An operator asked for it.
    Handover,
    /// A member with a newer epoch owns the group.
    NewerEpoch,
    /// The group was found without an active although members were up.
    NoActive,
    /// A step that had to happen failed (the log says which).
    StepFailed,
    /// The member joined an existing group.
    Joined,
    /// A majority of the voters did not answer for too long.
    LeaseLost,
    /// Clients of a unit wait and are not answered, though it runs.
    Unanswered,
    /// An operator put the host into maintenance.
    Maintenance,
    /// A member with a better priority was well for long enough.
    Failback,
    /// The group left this host too often: its flap penalty holds it back.
    Flapping,
    /// The members' configurations have other virtual IPs or members for the group.
    DefinitionDiffers,
    /// A live drill began, or its time is over.
    Drill,
    /// The host is a spare that no owner has enlisted.
    Spare,
    /// The active's kernel said that nobody listens where its daemon did, and it was silent.
    DaemonRefused,
    /// The host lacks something that the group's profile asks for.
    NotReady,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ColdStart => "cold_start",
            Self::Silence => "silence",
            Self::UnitDied => "unit_died",
            Self::DaemonStopped => "daemon_stopped",
            Self::LinkLost => "link_lost",
            Self::Handover => "handover",
            Self::NewerEpoch => "newer_epoch",
            Self::NoActive => "no_active",
            Self::StepFailed => "step_failed",
            Self::Joined => "joined",
            Self::LeaseLost => "lease_lost",
            Self::Unanswered => "unanswered",
            Self::Maintenance => "maintenance",
            Self::Failback => "failback",
            Self::Flapping => "flapping",
            Self::DefinitionDiffers => "definition_differs",
            Self::Drill => "drill",
            Self::Spare => "spare",
            Self::DaemonRefused => "daemon_refused",
            Self::NotReady => "not_ready",
        })
    }
}

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What keeps a group from having two owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// Nothing: a partition of a pair makes two owners until it heals. Must be written out.
    None,
    /// A lease that a majority of the members and witnesses grants.
    Lease,
}

/// How a unit of a group is kept on a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitMode {
    /// Runs on every member all the time.
    Warm,
    /// Runs on the active only: started by a promotion, stopped by a release.
    Cold,
}

/// A virtual IP address with the prefix length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Prefix length: 1 to 32 for IPv4, 1 to 128 for IPv6.
    pub prefix: u8,
}

/// What is not a [`Vip`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipError;

impl fmt::Display for VipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a virtual IP is a unicast address with its prefix length, such as 192.0.2.10/24",
        )
    }
}

impl std::error::Error for VipError {}

impl FromStr for Vip {
    type Err = VipError;

    fn from_str(text: &str) -> Result<Self, VipError> {
        let (address, prefix) = text.split_once('/').ok_or(VipError)?;
        let address: IpAddr = address.parse().map_err(|_| VipError)?;
        let prefix: u8 = prefix.parse().map_err(|_| VipError)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let unicast =
            !address.is_multicast() && !address.is_unspecified() && !address.is_loopback();
        if prefix == 0 || prefix > longest || !unicast {
            return Err(VipError);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Vip> for String {
    fn from(vip: Vip) -> Self {
        vip.to_string()
    }
}

impl TryFrom<String> for Vip {
    type Error = VipError;

    fn try_from(text: String) -> Result<Self, VipError> {
        text.parse()
    }
}

/// What one datagram says, after it was opened and authenticated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// When the sender sent it, on the sender's clock.
    pub sent: BootTime,
    /// When the newest datagram of the receiver that the sender had opened was sent, on the
    /// receiver's clock, plus the time the sender has kept it: now less this is the round trip.
    /// `None` before the first.
    pub heard: Option<BootTime>,
    /// The same for each path alone, of the newest that came over it.
    pub echoes: [Option<BootTime>; PathNumber::COUNT],
    /// One message for each group both share; at most [`Datagram::MAX_MESSAGES`].
    pub messages: Vec<GroupMessage>,
}

impl Datagram {
    /// More messages than this in one datagram are refused by the decoder.
    pub const MAX_MESSAGES: usize = 16;
    /// A longer datagram (sealed, in bytes) is refused: it fits the IPv6 minimum MTU unfragmented.
    pub const MAX_BYTES: usize = 1200;
}

/// What a member says of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMessage {
    /// The group.
    pub group: Name,
    /// The newest epoch that the sender knows.
    pub epoch: Epoch,
    /// What it says.
    pub body: Body,
}

/// Who goes on serving the connections of an address that it has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Where it is on the link of the address.
    pub at: Mac,
    /// For how long.
    pub lasts: Duration,
}

impl Drain {
    /// Nobody serves connections for longer, whatever another host says.
    pub const LONGEST: Duration = Duration::from_secs(3_600);
}

/// The kinds of [`GroupMessage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Heartbeat: the sender is alive and this is its state.
    Beat {
        /// The sender's role.
        role: Role,
        /// Higher is preferred.
        priority: u8,
        /// Whether the sender could own the group now: its units and its link are up.
        eligible: bool,
        /// An owner asks with each heartbeat to be kept alone for so long in its epoch; zero where
        /// no lease is needed.
        lease: Duration,
        /// Tells the set of voters that the sender counts from others.
        electorate: u64,
        /// What bounds automatic failover.
        policy: PolicyWord,
    },
    /// Last words: the sender has given the group up; its addresses are gone.
    Resign {
        /// Why.
        cause: Cause,
    },
    /// The active asks `to` to get ready to own the group in the next epoch.
    Offer {
        /// The member that shall take over.
        to: HostId,
    },
    /// The asked member is ready to take over.
    Ready {
        /// Where it is on the link of the addresses, if it passes segments of connections that it
        /// does not know back to who has begun them.
        passes_back: Option<Mac>,
    },
    /// The active's addresses are gone: `to` owns the group in the next epoch.
    Transfer {
        /// The member that takes over.
        to: HostId,
        /// Until when the sender was promised to be alone, on its own clock: `to` inherits it.
        deadline: BootTime,
        /// The sender goes on serving the connections that it has begun.
        drain: Option<Drain>,
    },
    /// The sender wants to own the group in the message's epoch: a voter that promises keeps all
    /// others out for so long.
    Ask {
        /// How long.
        lease: Duration,
        /// Tells the set of voters that the sender counts from others.
        electorate: u64,
    },
    /// The sender keeps all others out, for the message's epoch.
    Promise {
        /// When the request that this answers was sent, on its sender's clock.
        sent: BootTime,
        /// For how long from when the request arrived.
        lease: Duration,
    },
    /// The sender promises nothing because of the message's epoch.
    Refuse {
        /// It may promise after so long; zero: never in the epoch that was asked for.
        wait: Duration,
    },
    /// What was promised to the sender in the message's epoch is given back.
    Withdraw,
    /// An owner's daemon will be silent for a while and then go on: a request as a heartbeat is,
    /// and the silence is no evidence.
    Pause {
        /// For so long; at most 30 s are granted.
        silent: Duration,
        /// Tells the set of voters that the sender counts from others.
        electorate: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_needs_a_unicast_address_and_a_prefix_that_fits() {
        for good in ["192.0.2.10/24", "2001:db8::10/64"] {
            assert_eq!(
                good.parse::<Vip>().map(|vip| vip.to_string()).as_deref(),
                Ok(good)
            );
        }
        for bad in [
            "192.0.2.10",
            "192.0.2.10/33",
            "192.0.2.10/0",
            "224.0.0.1/24",
            "::/64",
            "x/1",
        ] {
            assert_eq!(bad.parse::<Vip>(), Err(VipError), "{bad}");
        }
    }
}
