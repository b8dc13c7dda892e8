//! What is done to the pair, and how it is measured.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::system::{System, standby};
use crate::lab::{Fault, Lab, WARM};
use crate::probe::Window;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// The active's processes freeze and its link goes down
    HostCrash,
    /// The main process of nginx on the active is killed
    UnitDeath,
    /// All processes of the active's daemon are stopped (SIGSTOP)
    DaemonStall,
    /// An operator hands over, under load with new and with held connections
    Handover,
    /// The active gets little processor time; nobody dies
    StarveActive,
    /// The standby gets little processor time; nobody dies
    StarveStandby,
    /// 30 % of the active's frames are lost, both ways; nobody dies
    Loss,
}

/// Frames lost, in percent.
const LOSS_PERCENT: u8 = 30;

impl Case {
    /// In the order they are measured.
    pub const ALL: [Self; 7] = [
        Self::HostCrash,
        Self::UnitDeath,
        Self::DaemonStall,
        Self::Handover,
        Self::StarveActive,
        Self::StarveStandby,
        Self::Loss,
    ];

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostCrash => "host_crash",
            Self::UnitDeath => "unit_death",
            Self::DaemonStall => "daemon_stall",
            Self::Handover => "handover",
            Self::StarveActive => "starve_active",
            Self::StarveStandby => "starve_standby",
            Self::Loss => "loss",
        }
    }

    /// The names of its p50, p99 and maximum; none for a case that has no outage to end.
    pub const fn metrics(self) -> Option<[&'static str; 3]> {
        match self {
            Self::HostCrash => Some(["host_crash_p50", "host_crash_p99", "host_crash_max"]),
            Self::UnitDeath => Some(["unit_death_p50", "unit_death_p99", "unit_death_max"]),
            Self::DaemonStall => Some(["daemon_stall_p50", "daemon_stall_p99", "daemon_stall_max"]),
            Self::Handover => Some(["handover_p50", "handover_p99", "handover_max"]),
            Self::StarveActive | Self::StarveStandby | Self::Loss => None,
        }
    }

    /// Whether nobody dies, so that every takeover is a false one.
    pub const fn is_endured(self) -> bool {
        self.metrics().is_none()
    }

    /// Whether the old owner's daemon can be asked for its events right after.
    pub const fn old_can_tell(self) -> bool {
        !matches!(self, Self::HostCrash | Self::DaemonStall)
    }

    /// Runs of a system between two switches: a handover leaves both hosts well, and there are many.
    pub const fn runs_a_turn(self) -> u32 {
        match self {
            Self::Handover => 10,
            _ => 1,
        }
    }

    /// How the client measures.
    pub fn window(self) -> Window {
        match self {
            Self::Handover => Window {
                held: 10,
                // A lost first word is said again after a second: that is late, not failed.
                timeout: Duration::from_secs(3),
                ..Window::default()
            },
            _ => Window::default(),
        }
    }

    /// How long it goes on after the takeover: what comes late belongs to it.
    pub const fn tail(self) -> Duration {
        match self {
            Self::Handover => Duration::from_millis(1500),
            _ => Duration::from_millis(500),
        }
    }

    /// Does it to the pair whose active is `active`; gives the moment before.
    ///
    /// # Errors
    /// A step fails.
    pub fn inject(self, lab: &Lab, system: System, active: &str, starve: u8) -> Result<u64> {
        let unit = system.unit().to_owned();
        match self {
            Self::HostCrash => lab.fault(active, &Fault::Crash),
            Self::UnitDeath => lab.fault(active, &Fault::UnitKill(WARM.to_owned())),
            Self::DaemonStall => lab.fault(active, &Fault::UnitStall(unit)),
            Self::Handover => system.hand_over(lab, active),
            Self::StarveActive => lab.fault(active, &Fault::Starve(starve)),
            Self::StarveStandby => lab.fault(&standby(lab, active)?, &Fault::Starve(starve)),
            Self::Loss => lab.fault(active, &Fault::Loss(LOSS_PERCENT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_after_their_case() {
        for case in Case::ALL {
            let names = case.metrics().unwrap_or([case.name(); 3]);
            assert!(names.iter().all(|name| name.starts_with(case.name())));
            let known = Case::from_str(case.name(), false);
            assert_eq!(known, Ok(case));
        }
    }
}
