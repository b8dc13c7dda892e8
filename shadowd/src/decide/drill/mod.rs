//! When a drill may begin, when one is due, and what a live one does next: pure, like the cores.

mod live;
mod schedule;

pub use live::{Course, Next, Seen};
pub use schedule::is_due;

use crate::facts::{GroupStatus, Role};

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
    /// A live drill of the group goes on.
    Live,
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
            Self::Live => "a live drill of the group goes on",
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
        () if group.policy.borrowed.is_some() => Some(Objection::Live),
        () if group.active.is_none() => Some(Objection::NoOwner),
        () if suspected => Some(Objection::Suspected),
        () if !group.eligible => Some(Objection::NotEligible),
        () => None,
    })
}
