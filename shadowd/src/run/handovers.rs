//! Handovers that were asked for and have not ended yet.

use std::time::Duration;

use tokio::sync::oneshot;

use super::group::GroupRunner;
use crate::facts::{BootTime, Name};
use crate::serve::protocol::{Code, Refusal};

/// A handover whose new owner was not heard by then is reported as failed.
const WITHIN: Duration = Duration::from_secs(7);

/// A handover that has ended well.
#[derive(Debug)]
pub struct HandoverAnswer {
    /// The new owner.
    pub to: Name,
    /// Its epoch.
    pub epoch: u64,
}

/// How a handover ends that an order began.
pub type OrderReply = oneshot::Receiver<Result<HandoverAnswer, Refusal>>;
/// Where that is told.
pub type HandoverReply = oneshot::Sender<Result<HandoverAnswer, Refusal>>;

struct Pending {
    group: usize,
    to: Name,
    until: BootTime,
    reply: HandoverReply,
}

/// All that are under way.
#[derive(Default)]
pub struct Handovers {
    pending: Vec<Pending>,
}

impl Handovers {
    /// The group with this number is to go to `to`.
    pub fn begun(&mut self, group: usize, to: Name, reply: HandoverReply, now: BootTime) {
        self.pending.push(Pending {
            group,
            to,
            until: now.after(WITHIN),
            reply,
        });
    }

    /// Answers those that have ended.
    pub fn answer(&mut self, groups: &[GroupRunner], now: BootTime) {
        for index in (0..self.pending.len()).rev() {
            let pending = &self.pending[index];
            if let Some(answer) = pending.answer(&groups[pending.group], now) {
                let _ = self.pending.swap_remove(index).reply.send(answer);
            }
        }
    }
}

impl Pending {
    /// A handover has ended once the new owner was heard, or once the core gave it up.
    fn answer(
        &self,
        group: &GroupRunner,
        now: BootTime,
    ) -> Option<Result<HandoverAnswer, Refusal>> {
        let core = &group.core;
        let failed =
            |code, message| Some(Err(Refusal::new(code, message, "see `shadowctl events`")));
        if core.handing_over() {
            None
        } else if core.active() == Some(&self.to) {
            let epoch = core.newest_epoch().counter;
            let to = self.to.clone();
            Some(Ok(HandoverAnswer { to, epoch }))
        } else if core.active_epoch().is_some() {
            let to = &self.to;
            failed(
                Code::Failed,
                format!("{to} did not take the group over; it stays here"),
            )
        } else if now >= self.until {
            let message = format!("{} was not heard as active in time", self.to);
            failed(Code::TimedOut, message)
        } else {
            None
        }
    }
}
