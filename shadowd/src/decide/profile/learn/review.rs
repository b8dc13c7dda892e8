//! What every hour shows: whether it was as expected, and whether the needs still hold.

use std::collections::BTreeMap;

use super::{Learner, Output};
use crate::decide::profile::expected::expected;
use crate::facts::{HOURS, Habit, Hour, Need, ResourceKind};

/// What a unit needs has changed when it is by so many times more, or less.
const NEED_RATIO: f64 = 1.5;
/// For so many hours in a row.
const NEED_HOURS: u32 = 3;

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
        let kept = |habit: &Habit| habit.last().is_some_and(|last| hour.0 - last.0 < HOURS);
        self.profile.unit_hours.retain(|_, habit| kept(habit));
        self.profile.dependency_hours.retain(|_, habit| kept(habit));
        let units = &self.profile.unit_hours;
        self.series.retain(|(unit, _), _| units.contains_key(unit));
    }

    pub(super) fn needs(&self) -> BTreeMap<(String, ResourceKind), Need> {
        let series = self.series.iter();
        series
            .filter_map(|(key, series)| Some((key.clone(), series.need()?)))
            .collect()
    }

    /// A lasting change of what is needed makes a version as well.
    fn review_needs(&mut self) {
        if !self.begun {
            return;
        }
        let needs = self.needs();
        let other = needs.iter().find(|(key, need)| {
            let believed = self.profile.needs.get(*key);
            believed.is_none_or(|believed| differs(believed, need))
        });
        let Some(((unit, kind), need)) = other else {
            self.need_changed = 0;
            return;
        };
        self.need_changed += 1;
        if self.need_changed < NEED_HOURS {
            return;
        }
        self.need_changed = 0;
        let believed = self.profile.needs.get(&(unit.clone(), *kind));
        let before =
            believed.map_or_else(|| "unknown".to_owned(), |one| format!("{:.3}", one.peak));
        let reason = format!(
            "{unit} needs another peak of {kind:?}: it was {before}, it is {:.3}",
            need.peak
        );
        self.version(Some(reason));
    }
}

fn differs(believed: &Need, need: &Need) -> bool {
    if believed.cold != need.cold {
        return believed.cold;
    }
    let (low, high) = (believed.peak.min(need.peak), believed.peak.max(need.peak));
    high > low.max(f64::MIN_POSITIVE) * NEED_RATIO && high - low > believed.median.abs() * 0.1
}

/// Whether it was there in no hour before.
fn first(habit: &Habit, hour: Hour) -> bool {
    (1..HOURS).all(|back| !habit.at(Hour(hour.0.saturating_sub(back))))
}
