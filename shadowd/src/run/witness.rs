//! One group that this host is a witness of.

use super::group::Outgoing;
use super::record::Recorder;
use crate::decide::cluster::{Action, Witness};
use crate::facts::{BootTime, Epoch, GroupMessage, Name, WitnessStatus};

/// A witness's core, and the record of what it voted.
pub struct WitnessRunner {
    /// Its core.
    pub core: Witness,
    recorder: Recorder,
    stored: Epoch,
}

impl WitnessRunner {
    /// Puts it together.
    pub fn new(core: Witness, recorder: Recorder) -> Self {
        let stored = core.newest_epoch();
        Self {
            core,
            recorder,
            stored,
        }
    }

    /// The group's name.
    pub fn name(&self) -> &Name {
        &self.core.settings().name
    }

    /// Gives what the core says to peers.
    pub fn carry_out(&mut self) -> Vec<Outgoing> {
        let mut outgoing = Vec::new();
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Send { to, epoch, body } => {
                    let group = self.name().clone();
                    let message = GroupMessage { group, epoch, body };
                    outgoing.push(Outgoing { to, message });
                }
                Action::KeepPromise(promise) => {
                    let group = self.name().clone();
                    self.recorder.promise(&group, promise);
                }
                Action::Record(record) => {
                    let group = self.name().clone();
                    self.recorder.decision(&group, record);
                }
                // A witness holds nothing that could be moved.
                Action::Probe { .. }
                | Action::TakeVips { .. }
                | Action::Announce { .. }
                | Action::DropVips { .. }
                | Action::HandOn { .. }
                | Action::PassBack { .. }
                | Action::Provide(_)
                | Action::StartUnits { .. }
                | Action::StopUnits { .. } => {}
            }
        }
        let newest = self.core.newest_epoch();
        if newest > self.stored && self.recorder.epoch(self.name(), newest) {
            self.stored = newest;
        }
        outgoing
    }

    /// The view for people.
    pub fn status(&self, now: BootTime) -> WitnessStatus {
        let holder = self.core.holder(now);
        WitnessStatus {
            group: self.name().clone(),
            epoch: self.core.newest_epoch(),
            holder: holder.map(|(name, _)| name.clone()),
            until: holder.map(|(_, until)| until),
        }
    }
}
