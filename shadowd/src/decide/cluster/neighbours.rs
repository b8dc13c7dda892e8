//! What the network says beside the peers' words: that a silent peer's kernel still answers, that
//! another host claims a virtual IP, that something took one away.

use std::time::Duration;

use super::action::Action;
use super::group::{Group, State, View};
use crate::facts::{BootTime, EventKind, Name, Vip};

/// An owner whose kernel answers while its daemon is silent may be so many times as long silent: it
/// is more likely starved than dead, and a host that died answers nothing.
pub(super) const KERNEL_ANSWERS: u32 = 5;
/// The kernel is asked from this part of the permitted silence on, and once a heartbeat is overdue.
const ASK_FROM: u32 = 3;
/// So often a heartbeat, while its answer matters: on a link that begins to lose a third of its frames
/// two questions are left without an answer one time in four, six of them one time in 60.
const ASKED_A_HEARTBEAT: u32 = 5;
/// Addresses that something else removes are put back at most once in this time.
const PUT_BACK: Duration = Duration::from_millis(100);

impl Group {
    /// The kernel of a peer on the same link has answered.
    pub fn on_kernel_answer(&mut self, from: &Name, now: BootTime) {
        if let Some(member) = self.members.iter_mut().find(|member| member.name == *from) {
            member.kernel_answered = Some(now);
        }
    }

    /// Asks the kernel of an owner that has been silent for a while.
    pub(super) fn ask_kernel(&mut self, now: BootTime) {
        let State::Shadow(View::Follows { member, since }) = self.state else {
            return;
        };
        if now < self.ask_kernel_at(member, since) {
            return;
        }
        let silent = now.since(self.silent_from(member, since));
        let matters = silent < self.permitted(member) * KERNEL_ANSWERS;
        let heartbeat = self.settings.heartbeat;
        let pause = if matters {
            heartbeat / ASKED_A_HEARTBEAT
        } else {
            heartbeat
        };
        self.next_probe = now.after(pause);
        let member = self.members[member].name.clone();
        self.actions.push_back(Action::Probe { member });
    }

    /// When the kernel of `member`, which is followed since `since`, is to be asked next.
    pub(super) fn ask_kernel_at(&self, member: usize, since: BootTime) -> BootTime {
        let overdue = self.settings.heartbeat * 3 / 2;
        let silence = (self.permitted(member) / ASK_FROM).max(overdue);
        self.silent_from(member, since)
            .after(silence)
            .max(self.next_probe)
    }

    /// A virtual IP is not on the interface any more, though this host did not remove it.
    pub fn on_address_lost(&mut self, vip: Vip, now: BootTime) {
        self.turn(now);
        if !matches!(self.state, State::Active(_)) {
            return;
        }
        let detail = format!("{vip} was removed by something else");
        self.record(EventKind::VipRemoved, None, detail, now);
        self.put_back_at = Some(self.next_put_back.max(now));
        self.review(now);
    }

    /// Another host says that it has a virtual IP of this group. Whose it is the lease has decided:
    /// an owner says again that it is here, everybody tells people.
    pub fn on_claim(&mut self, vip: Vip, mac: &str, now: BootTime) {
        self.turn(now);
        // A shadow hears the owner's own announcements.
        if let Some(epoch) = self.active_epoch() {
            let detail = format!("{vip} at {mac}");
            self.record(EventKind::VipClaimed, None, detail, now);
            self.actions.push_back(Action::Announce { epoch });
        }
        self.review(now);
    }

    /// Puts addresses back that something else removed.
    pub(super) fn put_back(&mut self, now: BootTime) {
        if self.put_back_at.is_none_or(|at| now < at) {
            return;
        }
        self.put_back_at = None;
        if let State::Active(active) = &self.state {
            let (epoch, deadline) = (active.epoch, active.deadline);
            self.actions.push_back(Action::TakeVips { epoch, deadline });
            self.next_put_back = now.after(PUT_BACK);
        }
    }
}
