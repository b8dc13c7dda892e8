//! What can be done to the hosts, and how each fault is begun.

use anyhow::{Context as _, Result};

use crate::lab::{DAEMON, Fault, GROUP, Lab, WARM};

/// A kind of fault. The active is who owns the group when the round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The active's daemon stands still until somebody took over, and longer (SIGSTOP).
    StopActive,
    /// The active's daemon stands still for about as long as its lease (SIGSTOP).
    StopActiveBriefly,
    /// The active's daemon is killed (SIGKILL).
    KillActive,
    /// All of the active's processes freeze; its kernel answers on.
    FreezeActive,
    /// The active freezes and loses its link.
    CrashActive,
    /// The active's main warm unit is killed.
    KillUnit,
    /// The active's link loses its carrier.
    LinkDown,
    /// What the active sends to the other member is lost.
    CutOneWay,
    /// The members cannot reach each other; the witness reaches both.
    CutMembers,
    /// The active reaches neither the other member nor the witness.
    CutActive,
    /// 30 % of the active's frames are lost, both ways.
    Loss,
    /// The active gets a tenth of a processor.
    StarveActive,
    /// An operator hands over.
    Handover,
    /// The active's daemon is restarted by systemd.
    RestartActive,
    /// The shadow's daemon stands still (SIGSTOP).
    StopShadow,
    /// The witness's daemon stands still (SIGSTOP).
    StopWitness,
}

impl Kind {
    /// In the order of tables.
    pub const ALL: [Self; 16] = [
        Self::StopActive,
        Self::StopActiveBriefly,
        Self::KillActive,
        Self::FreezeActive,
        Self::CrashActive,
        Self::KillUnit,
        Self::LinkDown,
        Self::CutOneWay,
        Self::CutMembers,
        Self::CutActive,
        Self::Loss,
        Self::StarveActive,
        Self::Handover,
        Self::RestartActive,
        Self::StopShadow,
        Self::StopWitness,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StopActive => "SIGSTOP active, long",
            Self::StopActiveBriefly => "SIGSTOP active, brief",
            Self::KillActive => "SIGKILL active",
            Self::FreezeActive => "freeze active host",
            Self::CrashActive => "crash active host",
            Self::KillUnit => "kill warm unit",
            Self::LinkDown => "link down",
            Self::CutOneWay => "one-way cut",
            Self::CutMembers => "cut between members",
            Self::CutActive => "cut off active",
            Self::Loss => "30 % loss",
            Self::StarveActive => "starve active",
            Self::Handover => "planned handover",
            Self::RestartActive => "restart daemon",
            Self::StopShadow => "SIGSTOP shadow",
            Self::StopWitness => "SIGSTOP witness",
        }
    }

    /// How many of it are in a deck. What only the kernel's guard can make harmless comes more
    /// often.
    pub const fn weight(self) -> usize {
        match self {
            Self::StopActive => 5,
            Self::KillActive | Self::FreezeActive => 3,
            Self::StopActiveBriefly => 2,
            _ => 1,
        }
    }

    /// How long it lasts, at least and at most; and whether it lasts at least until another host
    /// answers.
    pub const fn lasts_ms(self) -> (u64, u64, bool) {
        match self {
            Self::StopActive | Self::FreezeActive => (0, 700, true),
            Self::CrashActive | Self::LinkDown | Self::CutActive => (0, 300, true),
            Self::KillActive | Self::KillUnit | Self::Handover | Self::RestartActive => {
                (0, 50, true)
            }
            Self::StopActiveBriefly => (1, 120, false),
            Self::CutOneWay | Self::CutMembers => (50, 800, false),
            Self::Loss | Self::StarveActive => (300, 1500, false),
            Self::StopShadow | Self::StopWitness => (20, 800, false),
        }
    }

    /// Whether it can begin on a host that does not run: nothing in the host has a part in it.
    pub const fn comes_from_outside(self) -> bool {
        !matches!(
            self,
            Self::StarveActive | Self::Handover | Self::RestartActive
        )
    }

    /// Whether it leaves the old owner's addresses in its kernel, with nobody there to remove them.
    pub const fn leaves_addresses(self) -> bool {
        matches!(self, Self::StopActive | Self::FreezeActive)
    }
}

/// The hosts by their part in the group when a round begins.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Owns the group.
    pub active: String,
    /// The other member.
    pub shadow: String,
    /// Votes.
    pub witness: String,
}

impl Parts {
    /// The host that a fault is done to.
    pub fn host(&self, kind: Kind) -> &str {
        match kind {
            Kind::StopShadow => &self.shadow,
            Kind::StopWitness => &self.witness,
            _ => &self.active,
        }
    }
}

/// Begins a fault; gives the moment just before, on `CLOCK_BOOTTIME`.
///
/// # Errors
/// What shall break is not there, or is broken already by another fault.
pub fn begin(lab: &Lab, kind: Kind, parts: &Parts) -> Result<u64> {
    let Parts {
        active,
        shadow,
        witness,
    } = parts;
    let begun = match kind {
        Kind::StopActive | Kind::StopActiveBriefly => lab.fault(active, &Fault::DaemonStop),
        Kind::KillActive => lab.fault(active, &Fault::DaemonKill),
        Kind::FreezeActive => lab.fault(active, &Fault::Freeze),
        Kind::CrashActive => lab.fault(active, &Fault::Crash),
        Kind::KillUnit => lab.fault(active, &Fault::UnitKill(WARM.to_owned())),
        Kind::LinkDown => lab.fault(active, &Fault::LinkDown),
        Kind::CutOneWay => lab.fault(active, &Fault::CutOneWay(shadow.clone())),
        Kind::CutMembers => lab.fault(active, &Fault::Cut(shadow.clone())),
        Kind::CutActive => lab.fault(active, &Fault::Partition),
        Kind::Loss => lab.fault(active, &Fault::Loss(30)),
        Kind::StarveActive => lab.fault(active, &Fault::Starve(10)),
        Kind::Handover => ask(lab, active, &["shadowctl", "failover", "handover", GROUP]),
        Kind::RestartActive => ask(lab, active, &["systemctl", "restart", "--no-block", DAEMON]),
        Kind::StopShadow => lab.fault(shadow, &Fault::DaemonStop),
        Kind::StopWitness => lab.fault(witness, &Fault::DaemonStop),
    };
    begun.with_context(|| kind.name())
}

fn ask(lab: &Lab, host: &str, arguments: &[&str]) -> Result<u64> {
    let at = crate::lab::boot_ns()?;
    lab.run(host, arguments)?;
    Ok(at)
}
