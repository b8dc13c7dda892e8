//! Refusals: a member's kernel says that nobody listens where its daemon did.
//!
//! A dead daemon on a live host is silent for long, because its kernel answers ARP and ND: it could
//! be starved. The same kernel tells the difference, by answering a heartbeat with port unreachable
//! (RFC 792, RFC 4443). Who saw the heartbeat on its way can forge that, so it grants nothing: where
//! voters decide, they may be asked sooner, and keep what they promised for as long as ever. Where
//! nothing protects a group it changes nothing.

use std::time::Duration;

use super::group::Group;
use crate::facts::{BootTime, Cause, Name};

/// So many refusals, and not a word since the first.
const REFUSALS: u32 = 2;
/// A member whose daemon is not there may be silent for so many heartbeats.
const HEARTBEATS: u32 = 2;

impl Group {
    /// The kernel of a peer refused a heartbeat, over a path that carried its words before.
    pub fn on_kernel_refusal(&mut self, from: &Name, now: BootTime) {
        self.turn(now);
        if let Some(member) = self.members.iter_mut().find(|member| member.name == *from) {
            member.refused = member.refused.saturating_add(1);
        }
    }

    /// Whether the member's daemon is gone, by the word of its kernel.
    pub(super) fn refused(&self, member: usize) -> bool {
        self.lease.is_some() && self.members[member].refused >= REFUSALS
    }

    /// How long a member that is refused may be silent, when it could be silent for `permitted`.
    pub(super) fn unless_refused(&self, member: usize, permitted: Duration) -> Duration {
        match self.refused(member) {
            true => permitted.min(self.settings.heartbeat * HEARTBEATS),
            false => permitted,
        }
    }

    /// Why a member that is silent for too long is taken for dead.
    pub(super) fn silence_is(&self, member: usize) -> Cause {
        match self.refused(member) {
            true => Cause::DaemonRefused,
            false => Cause::Silence,
        }
    }
}
