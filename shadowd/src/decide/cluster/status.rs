//! What a group tells the daemon and people of itself. Reading changes nothing.

use super::group::{Group, State, View};
use crate::config::settings::GroupSettings;
use crate::facts::{BootTime, Epoch, GroupStatus, LeaseStatus, MemberStatus, Name, VoterStatus};

impl Group {
    /// This member's settings.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Whether the daemon may end: the group was given up, and the others were told.
    pub fn stopped(&self) -> bool {
        self.state == State::Stopped && self.last_words.is_none()
    }

    /// The newest epoch this member knows.
    pub fn newest_epoch(&self) -> Epoch {
        self.newest
    }

    /// The epoch this member owns the group in; none unless it is active.
    pub fn active_epoch(&self) -> Option<Epoch> {
        match &self.state {
            State::Active(active) => Some(active.epoch),
            State::Joining { .. } | State::Shadow(_) | State::Leaving { .. } | State::Stopped => {
                None
            }
        }
    }

    /// Who owns the group, as far as this member knows.
    pub fn active(&self) -> Option<&Name> {
        match &self.state {
            State::Active(_) | State::Leaving { .. } => Some(&self.me.name),
            State::Shadow(View::Follows { member, .. }) => Some(&self.members[*member].name),
            State::Shadow(View::Vacant { .. } | View::Asking(_))
            | State::Joining { .. }
            | State::Stopped => None,
        }
    }

    /// Whether an offer is open or the group is being given up.
    pub fn handing_over(&self) -> bool {
        match &self.state {
            State::Active(active) => active.offer.is_some(),
            State::Leaving { .. } => true,
            State::Joining { .. } | State::Shadow(_) | State::Stopped => false,
        }
    }

    /// The view for people. Virtual IPs and units are filled in by whoever can see them.
    pub fn status(&self, now: BootTime) -> GroupStatus {
        let deadline = match &self.state {
            State::Active(active) => active.deadline,
            State::Joining { .. } | State::Shadow(_) | State::Leaving { .. } | State::Stopped => {
                None
            }
        };
        let others = self.members.iter().map(|member| MemberStatus {
            host: member.name.clone(),
            role: member.role(),
            priority: member.priority(),
            eligible: member.can_own(),
            suspected: member.suspected,
            reason: member.said.and_then(|said| said.reason),
            spare: member.spare,
        });
        let own = MemberStatus {
            host: self.me.name.clone(),
            role: Some(self.role()),
            priority: self.settings.priority,
            eligible: self.trouble(now).is_none(),
            suspected: false,
            reason: self.trouble(now),
            spare: self.settings.spare,
        };
        GroupStatus {
            group: self.settings.name.clone(),
            role: self.role(),
            since: self.since,
            epoch: self.newest,
            deadline,
            active: self.active().cloned(),
            protection: self.settings.protection,
            eligible: own.eligible,
            members: std::iter::once(own).chain(others).collect(),
            vips: Vec::new(),
            units: Vec::new(),
            lease: self.lease_status(),
            guard: Vec::new(),
            drain: None,
            policy: self.policy_status(now),
            redundancy: self.redundancy_status(),
            lost_paths: Vec::new(),
        }
    }

    fn lease_status(&self) -> Option<LeaseStatus> {
        let lease = self.lease.as_ref()?;
        let voters = lease.voters().map(|ballot| VoterStatus {
            host: ballot.name.clone(),
            witness: ballot.witness,
            promised_until: (ballot.until > BootTime::default()).then_some(ballot.until),
            heard: ballot.heard,
        });
        Some(LeaseStatus {
            length_ns: u64::try_from(self.wanted_lease().as_nanos()).unwrap_or(u64::MAX),
            lapsed: matches!(&self.state, State::Active(active) if active.lapsed),
            voters: voters.collect(),
        })
    }
}
