//! What became of a drill.

use serde::{Deserialize, Serialize};

use super::Name;

/// How far a drill is, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillState {
    /// It goes on.
    Running,
    /// Every unit came up, every check passed, nothing is left.
    Passed,
    /// A step failed.
    Failed,
    /// It was given up before its end, because of what happened meanwhile.
    Aborted,
    /// It was due and did not begin.
    Skipped,
}

impl std::fmt::Display for DrillState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Skipped => "skipped",
        })
    }
}

/// One step of a drill that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStep {
    /// What: `namespace`, `unit NAME`, `check NAME`, `teardown`; of a live drill `handover`,
    /// `check NAME`, `return`.
    pub what: String,
    /// Whether it ended well.
    pub ok: bool,
    /// How long it took.
    pub took_ms: u64,
    /// How it ended, in words.
    pub said: String,
}

/// What only a live drill has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveDrill {
    /// Who owned the group for its time.
    pub to: Name,
    /// For how long it was to.
    pub for_ms: u64,
    /// When it was heard to own the group, in milliseconds since the Unix epoch.
    pub moved_ms: Option<u64>,
    /// No longer than this did nobody answer when it took the group over.
    pub gap_ns: Option<u64>,
    /// How often every check was made.
    pub rounds: u32,
    /// When this host owned the group again, in milliseconds since the Unix epoch.
    pub returned_ms: Option<u64>,
}

/// The last drill of a group on this host, or the one that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The group.
    pub group: Name,
    /// How far it is.
    pub state: DrillState,
    /// Whether the schedule began it; else an operator did.
    pub scheduled: bool,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// How long it took, or takes by now.
    pub took_ms: u64,
    /// Why it did not pass; empty otherwise.
    pub why: String,
    /// What was done, in order.
    pub steps: Vec<DrillStep>,
    /// When a drill of the group last passed on this host, in milliseconds since the Unix epoch.
    pub last_passed_ms: Option<u64>,
    /// Of a live drill only.
    #[serde(default)]
    pub live: Option<LiveDrill>,
}

/// What came of drills, as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillRecord {
    /// The last one of each group, or the one that goes on.
    pub last: Vec<DrillReport>,
    /// Those before, oldest first, without their steps.
    pub earlier: Vec<DrillReport>,
}

impl DrillRecord {
    /// Earlier drills that are kept of each group.
    pub const EARLIER: usize = 32;

    /// The last one of a group.
    pub fn of(&self, group: &Name) -> Option<&DrillReport> {
        self.last.iter().find(|report| report.group == *group)
    }

    /// The last one of a group, to be changed.
    pub fn of_mut(&mut self, group: &Name) -> Option<&mut DrillReport> {
        self.last.iter_mut().find(|report| report.group == *group)
    }

    /// Puts a newer one, or more of the same, into the place of a group's last one.
    pub fn put(&mut self, report: DrillReport) {
        let same = |known: &DrillReport| known.group == report.group;
        if let Some(place) = self.last.iter().position(same) {
            let before = self.last.swap_remove(place);
            if before.began_ms != report.began_ms {
                let steps = Vec::new();
                self.earlier.push(DrillReport { steps, ..before });
                if self.earlier.iter().filter(|one| same(one)).count() > Self::EARLIER
                    && let Some(oldest) = self.earlier.iter().position(same)
                {
                    self.earlier.remove(oldest);
                }
            }
        }
        self.last.push(report);
    }

    /// Forgets groups that are not wanted.
    pub fn retain(&mut self, wanted: impl Fn(&Name) -> bool) {
        self.last.retain(|report| wanted(&report.group));
        self.earlier.retain(|report| wanted(&report.group));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_drill_takes_the_place_of_the_last_and_the_oldest_goes() {
        let report = |group: &str, began_ms, took_ms| DrillReport {
            group: group.parse().expect("a name"),
            state: DrillState::Passed,
            scheduled: false,
            began_ms,
            took_ms,
            why: String::new(),
            steps: Vec::new(),
            last_passed_ms: None,
            live: None,
        };
        let mut record = DrillRecord::default();
        record.put(report("b", 0, 0));
        record.put(report("a", 0, 0));
        record.put(report("a", 0, 9));
        assert_eq!((record.last.len(), record.earlier.len()), (2, 0));
        for began in 1..=DrillRecord::EARLIER as u64 + 3 {
            record.put(report("a", began, 0));
        }
        assert_eq!(record.earlier.len(), DrillRecord::EARLIER);
        assert_eq!(record.earlier[0].began_ms, 3, "the oldest went");
        let name = "a".parse().expect("a name");
        let newest = record.of(&name).expect("one went in");
        assert_eq!(newest.began_ms, DrillRecord::EARLIER as u64 + 3);
        record.retain(|group| group.as_str() == "b");
        assert_eq!((record.last.len(), record.earlier.len()), (1, 0));
    }
}
