//! How versions follow each other: one line, in which each names the one before it and carries on what
//! was decided about all of them.

use crate::facts::{HostId, Name, Place, Profile, Reason, Version, VersionId};

/// Steps of a line that are walked: more than are kept.
const WALKED_MAX: usize = 1_024;

/// What is new about a version.
#[derive(Clone, Debug)]
pub struct Made {
    /// The group.
    pub group: Name,
    /// Who makes it.
    pub author: HostId,
    /// When, ms since 1970 on its clock.
    pub wall_ms: i64,
    /// Why.
    pub reason: Reason,
    /// What it has.
    pub profile: Profile,
}

/// The version after the one in use, if there is one: where that is on the line, and itself. A pin and
/// the choice of a golden version go on until another is made.
pub fn next(before: Option<(Place, &Version)>, made: Made) -> Version {
    let Made {
        group,
        author,
        wall_ms,
        reason,
        profile,
    } = made;
    let (pinned, golden) = match before {
        Some((_, version)) => (version.pinned, version.golden),
        None => (false, None),
    };
    Version {
        group,
        number: before.map_or(1, |(place, _)| place.number.saturating_add(1)),
        parent: before.map(|(place, _)| place.id),
        author,
        wall_ms,
        pinned: match reason {
            Reason::Pin | Reason::Rollback(_) | Reason::GoldenApply(_) => true,
            Reason::Unpin => false,
            Reason::First | Reason::Deviation(_) | Reason::GoldenSet(_) | Reason::Import(_) => {
                pinned
            }
        },
        golden: match reason {
            Reason::GoldenSet(id) => Some(id),
            Reason::First
            | Reason::Deviation(_)
            | Reason::Rollback(_)
            | Reason::Pin
            | Reason::Unpin
            | Reason::GoldenApply(_)
            | Reason::Import(_) => golden,
        },
        reason,
        profile,
    }
}

/// What was in use at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Past {
    /// This version.
    InUse(VersionId, Box<Version>),
    /// None was made yet: the first is of this time, ms since 1970.
    Before(i64),
    /// It is older than this number, and what came before that is not kept here.
    NotKept(u64),
}

/// The version that was in use at a time (ms since 1970, by the clocks of the authors), on the line of
/// `head`; `read` gives a version that is kept.
pub fn in_use_at(
    (id, head): (VersionId, &Version),
    wall_ms: i64,
    read: impl Fn(&VersionId) -> Option<Version>,
) -> Past {
    let (mut id, mut version) = (id, head.clone());
    for _ in 0..WALKED_MAX {
        if version.wall_ms <= wall_ms {
            return Past::InUse(id, Box::new(version));
        }
        let Some(parent) = version.parent else {
            return Past::Before(version.wall_ms);
        };
        let Some(before) = read(&parent) else {
            break;
        };
        (id, version) = (parent, before);
    }
    Past::NotKept(version.number)
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;
