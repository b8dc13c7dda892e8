//! What a group knows of each other member.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rhythm::Rhythm;
use crate::facts::{BootTime, Cause, HostId, LoanWord, Name, Role};

/// A datagram sent up to this long before the newest one came out of order; an older one comes
/// from a host that rebooted, whose boot clock began anew, and whose new run is not known yet.
const REORDERED: Duration = Duration::from_secs(1);

/// One other member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    pub name: Name,
    pub id: HostId,
    /// It does not vote, and could own the group only while it is enlisted.
    pub spare: bool,
    /// What it last said; none before its first message.
    pub said: Option<Said>,
    /// How regularly its heartbeats arrive.
    pub rhythm: Rhythm,
    /// Silent for longer than the group allows, as of the last look.
    pub suspected: bool,
    /// When its kernel last answered.
    pub kernel_answered: Option<BootTime>,
    /// How often its kernel refused heartbeats since its last word.
    pub refused: u32,
    /// It said that it is active while this member was: once it stops, clients must be told anew.
    pub contested: bool,
    /// Its configuration has other addresses or members for the group.
    pub differs: bool,
    /// Since when it could own the group without a break; none while it could not.
    pub ready_since: Option<BootTime>,
}

/// A member's last word.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub heard: BootTime,
    pub sent: BootTime,
    pub role: Role,
    pub priority: u8,
    pub eligible: bool,
    /// The lease it asked for: as an owner it may be silent for so long.
    pub lease: Duration,
    /// Why it is not eligible.
    pub reason: Option<Cause>,
    /// It said that it will be silent for so long.
    pub paused: Duration,
    /// It lent the group.
    pub loan: Option<LoanWord>,
}

impl Said {
    /// What a member is before it has told more.
    pub const fn first(heard: BootTime, sent: BootTime) -> Self {
        Self {
            heard,
            sent,
            role: Role::Shadow,
            priority: 0,
            eligible: false,
            lease: Duration::ZERO,
            reason: None,
            paused: Duration::ZERO,
            loan: None,
        }
    }
}

impl Member {
    pub fn new(name: Name, id: HostId, spare: bool) -> Self {
        Self {
            name,
            id,
            spare,
            said: None,
            rhythm: Rhythm::default(),
            suspected: false,
            kernel_answered: None,
            refused: 0,
            contested: false,
            differs: false,
            ready_since: None,
        }
    }

    /// Whether a message sent at `sent` was overtaken by one already taken in.
    pub fn overtaken(&self, sent: BootTime) -> bool {
        self.said
            .is_some_and(|said| sent < said.sent && said.sent.since(sent) < REORDERED)
    }

    /// Heard within `suspect_after`.
    pub fn alive(&self) -> bool {
        self.said.is_some() && !self.suspected
    }

    /// Could own the group now, by its own word.
    pub fn can_own(&self) -> bool {
        self.alive()
            && !self.differs
            && self
                .said
                .is_some_and(|said| said.eligible && said.role != Role::Stopped)
    }

    /// Would own the group at once: one that joins listens first.
    pub fn ready(&self) -> bool {
        self.can_own() && self.role() != Some(Role::Joining)
    }

    /// Would own the group, but for its flap penalty: an operator may hand it the group all the
    /// same, and so does who cannot serve.
    pub fn holds_back(&self) -> bool {
        self.abstains_for(Cause::Flapping)
    }

    /// Would own the group, but for this.
    pub fn abstains_for(&self, reason: Cause) -> bool {
        self.alive()
            && !self.differs
            && self.said.is_some_and(|said| said.reason == Some(reason))
            && self.role() == Some(Role::Shadow)
    }

    pub fn role(&self) -> Option<Role> {
        self.said.map(|said| said.role)
    }

    pub fn priority(&self) -> u8 {
        self.said.map_or(0, |said| said.priority)
    }
}
