//! When a drill may begin and when one is due: pure, like the cores.

use crate::config::settings::DrillSettings;
use crate::facts::{GroupStatus, Role};

const MINUTE_MS: u64 = 60_000;

/// Why no drill of a group begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objection {
    /// This host owns the group.
    Active,
    /// This host has no part in the group yet, or none any more.
    NoShadow,
    /// Nobody owns the group.
    NoOwner,
    /// This host could not own it: its link or its units are down.
    NotEligible,
    /// A member is silent.
    Suspected,
    /// The group is frozen, or this host is in maintenance.
    Ordered,
}

impl std::fmt::Display for Objection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Active => "this host is active",
            Self::NoShadow => "this host is not a shadow",
            Self::NoOwner => "nobody owns the group",
            Self::NotEligible => "this host could not own the group: its link or a unit is down",
            Self::Suspected => "a member is silent",
            Self::Ordered => "the group is frozen, or this host is in maintenance",
        })
    }
}

/// What speaks against a drill that an operator wants. One that takes a host's attention while its
/// group is not well is the operator's to judge.
pub fn objection(group: &GroupStatus) -> Option<Objection> {
    match group.role {
        Role::Active => Some(Objection::Active),
        Role::Shadow => None,
        Role::Joining | Role::Stopped | Role::Witness => Some(Objection::NoShadow),
    }
}

/// What speaks against one that begins by itself.
pub fn objection_by_itself(group: &GroupStatus) -> Option<Objection> {
    let ordered = group.policy.frozen.is_some() || group.policy.maintenance.is_some();
    let suspected = group.members.iter().any(|member| member.suspected);
    objection(group).or(match () {
        () if ordered => Some(Objection::Ordered),
        () if group.active.is_none() => Some(Objection::NoOwner),
        () if suspected => Some(Objection::Suspected),
        () if !group.eligible => Some(Objection::NotEligible),
        () => None,
    })
}

/// Whether a drill is due at `now_ms`, in the minute `minute` of the day. A minute is granted to
/// the schedule, so that it does not wander through the day.
pub fn is_due(settings: &DrillSettings, last_ms: Option<u64>, now_ms: u64, minute: u16) -> bool {
    let Some(every) = settings.every else {
        return false;
    };
    let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let passed = last_ms.is_none_or(|last| {
        // A clock that was set back makes the last one be in the future: that is no reason to wait.
        last > now_ms || now_ms - last >= every.saturating_sub(MINUTE_MS)
    });
    passed && settings.window.is_none_or(|window| window.is_open(minute))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::settings::DayWindow;

    #[test]
    fn a_drill_is_due_once_in_each_window() {
        let hour = 3_600_000;
        let mut settings = DrillSettings {
            deadline: Duration::from_secs(60),
            units: Vec::new(),
            scratch: Vec::new(),
            checks: Vec::new(),
            every: None,
            window: None,
        };
        assert!(!is_due(&settings, None, 0, 0));
        settings.every = Some(Duration::from_secs(24 * 3_600));
        assert!(is_due(&settings, None, 0, 0));
        settings.window = Some(DayWindow { from: 120, to: 240 });
        let now = 100 * hour;
        for (last, minute, due) in [
            (None, 119, false),
            (None, 120, true),
            (Some(now - 23 * hour), 120, false),
            (Some(now - 24 * hour + 30_000), 120, true),
            (Some(now + hour), 120, true),
            (Some(now - 48 * hour), 240, false),
        ] {
            assert_eq!(
                is_due(&settings, last, now, minute),
                due,
                "{last:?} {minute}"
            );
        }
    }
}
