//! Tells the failover loop, and the record, when this host begins or ends to be starved.

use super::record::Recorder;
use crate::decide::starvation::{Change, Starvation};
use crate::facts::{BootTime, EventKind};
use crate::observe::turns::Turns;

/// Looks at the turns of a thread of usual priority.
pub struct StarvedWatch {
    turns: Turns,
    starvation: Starvation,
    recorder: Recorder,
}

impl StarvedWatch {
    /// A host that is not starved so far.
    pub fn new(turns: Turns, recorder: Recorder) -> Self {
        Self {
            turns,
            starvation: Starvation::default(),
            recorder,
        }
    }

    /// Whether the host is starved, if that has changed.
    pub fn look(&mut self, now: BootTime) -> Option<bool> {
        let change = self.starvation.look(self.turns.waiting(now), now)?;
        let (starved, detail) = match change {
            Change::Begins(waiting) => {
                let ms = waiting.as_millis();
                let detail = format!(
                    "a thread of usual priority waits for its turn since {ms} ms: this host is \
                     slower to call others dead"
                );
                (true, detail)
            }
            Change::Ends(longest) => {
                let ms = longest.as_millis();
                (false, format!("over; a turn took up to {ms} ms"))
            }
        };
        self.recorder.note(EventKind::Starved, None, now, detail);
        Some(starved)
    }
}
