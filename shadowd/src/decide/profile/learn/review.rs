//! What every hour shows: whether it was as expected, and whether the needs still hold.

use std::collections::BTreeMap;

use super::level::sentence;
use super::{Learner, Output};
use crate::decide::profile::codec;
use crate::decide::profile::expected::expected;
use crate::facts::{HOURS, Habit, Hour, Need, ResourceKind};

/// Seconds that were watched between two versions for what units need: what changes all the time makes
/// no storm of them.
const NEEDS_EVERY: u64 = 12 * 3_600;
/// A reason names so many.
const NAMED_MAX: usize = 4;

impl Learner {
    /// The hour is over: was it as expected?
    pub(super) fn close_hour(&mut self) {
        let Some(hour) = self.hour else { return };
        let before = Hour(hour.0.saturating_sub(1));
        let observed = self.profile.observed.clone();
        let mut told = Vec::new();
        let mut judge = |habit: &Habit, what: String| -> (bool, bool) {
            let there = habit.at(hour);
            let expected = expected(habit, &observed, hour, before);
            match (expected, there) {
                (true, false) => told.push(Output::Missing(what)),
                (false, true) if first(habit, hour) => told.push(Output::New(what)),
                _ => {}
            }
            (expected, there)
        };
        for (name, habit) in &self.profile.unit_hours {
            let (expected, there) = judge(habit, format!("unit {name}"));
            self.accuracy.units.note(expected, there);
        }
        for ((unit, to), habit) in &self.profile.dependency_hours {
            let what = format!("{unit} connects to {}:{}", to.remote, to.port);
            let (expected, there) = judge(habit, what);
            self.accuracy.dependencies.note(expected, there);
        }
        for output in told {
            self.tell(output);
        }
        self.forget_hours(hour);
        self.review_needs();
    }

    /// Habits of four weeks without an hour are none.
    fn forget_hours(&mut self, hour: Hour) {
        // A clock that was set back leaves hours behind that are yet to come.
        let kept = |last: Hour| hour.0.saturating_sub(last.0) < HOURS;
        let kept = |habit: &Habit| habit.last().is_some_and(kept);
        self.profile.unit_hours.retain(|_, habit| kept(habit));
        self.profile.dependency_hours.retain(|_, habit| kept(habit));
        let units = &self.profile.unit_hours;
        self.series.retain(|(unit, _), _| units.contains_key(unit));
    }

    pub(super) fn needs(&self) -> BTreeMap<(String, ResourceKind), Need> {
        let series = self.series.iter();
        let needs = series.filter_map(|(key, series)| Some((key.clone(), series.need()?)));
        needs.filter(|(_, need)| codec::is_number(need)).collect()
    }

    /// A lasting change of what is needed makes a version as well.
    fn review_needs(&mut self) {
        if !self.begun {
            return;
        }
        let needs = self.needs();
        self.levels.retain(|key, _| needs.contains_key(key));
        let (mut told, mut changed) = (Vec::new(), BTreeMap::new());
        for ((unit, kind), need) in &needs {
            let key = (unit.clone(), *kind);
            let believed = self.profile.needs.get(&key);
            let level = self.levels.entry(key.clone()).or_default();
            if let Some(need) = level.close_hour(believed, need, *kind) {
                told.push(sentence(unit, *kind, believed, &need));
                changed.insert(key, need);
            }
        }
        let rested = self.watched.saturating_sub(self.needs_at) >= NEEDS_EVERY;
        if told.is_empty() || !rested {
            return;
        }
        let more = told.len().saturating_sub(NAMED_MAX);
        told.truncate(NAMED_MAX);
        let reason = match more {
            0 => told.join("; "),
            more => format!("{}; {more} more", told.join("; ")),
        };
        self.version(Some(reason), changed);
    }
}

/// Whether it was there in no hour before.
fn first(habit: &Habit, hour: Hour) -> bool {
    (1..HOURS).all(|back| !habit.at(Hour(hour.0.saturating_sub(back))))
}
