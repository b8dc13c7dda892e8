//! The readings of one resource of one unit: five-minute means, their forecast and their surprises.

use serde::{Deserialize, Serialize};

use crate::decide::anomaly::{ANOMALY, Surprise};
use crate::decide::forecast::{DAY, Forecast, Forecaster, STEP_MINUTES};
use crate::facts::Need;

/// One resource of one unit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Series {
    forecaster: Forecaster,
    surprise: Surprise,
    open: Option<Open>,
}

/// The step that is not over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Open {
    slot: u64,
    /// Sum of value times seconds.
    sum: f64,
    seconds: f64,
}

/// A step that is over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Closed {
    pub value: f64,
    /// Score of the reading.
    pub surprise: f64,
    /// What had been expected of it a day before; none while nothing was.
    pub expected: Option<Forecast>,
    /// What was read a day before.
    pub yesterday: Option<f64>,
}

impl Closed {
    pub fn is_anomaly(&self) -> bool {
        self.surprise >= ANOMALY
    }
}

impl Series {
    /// The mean over the last `seconds` was `value`; gives the step before, if that is over now.
    pub fn note(&mut self, local_second: u64, seconds: u32, value: f64) -> Option<Closed> {
        if !value.is_finite() || seconds == 0 {
            return None;
        }
        let slot = local_second / (60 * STEP_MINUTES);
        let over = self.open.take_if(|open| open.slot < slot);
        let closed = over.and_then(|open| self.close(open));
        let open = self.open.get_or_insert(Open {
            slot,
            sum: 0.0,
            seconds: 0.0,
        });
        // A clock that was set back: what is late is of the step that is open.
        open.sum += value * f64::from(seconds);
        open.seconds += f64::from(seconds);
        closed
    }

    fn close(&mut self, open: Open) -> Option<Closed> {
        // Readings are remembered so, and judged as what they are compared with.
        let value = f64::from((open.sum / open.seconds) as f32);
        let expected = self.forecaster.said_of(open.slot);
        let yesterday = self.forecaster.read(open.slot.checked_sub(DAY as u64)?);
        self.forecaster.observe(open.slot, value);
        let surprise = self.surprise.score(value);
        Some(Closed {
            value,
            surprise,
            expected,
            yesterday,
        })
    }

    /// What is expected at a second.
    pub fn at(&self, local_second: u64) -> Option<Forecast> {
        self.forecaster.at(local_second / (60 * STEP_MINUTES))
    }

    /// What the next day needs.
    pub fn need(&self) -> Option<Need> {
        let (last, _) = self.forecaster.last()?;
        let next = (1..=DAY as u64).step_by(6);
        let next: Vec<Forecast> = next
            .filter_map(|step| self.forecaster.at(last + step))
            .collect();
        let peak = next
            .iter()
            .map(|one| one.within_95[1])
            .fold(f64::MIN, f64::max);
        let mut medians: Vec<f64> = next.iter().map(|one| one.median).collect();
        medians.sort_by(f64::total_cmp);
        let median = medians.get(medians.len() / 2).copied()?;
        Some(Need {
            median,
            peak: peak.max(median),
            cold: next.iter().any(|one| one.cold),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::profile::accuracy::Errors;

    const BEGIN: u64 = 1_500_000_000;
    const STEP: u64 = 60 * STEP_MINUTES;

    #[test]
    fn a_step_is_the_mean_over_its_time() {
        let mut series = Series::default();
        assert_eq!(series.note(BEGIN, 10, 1.0), None);
        assert_eq!(series.note(BEGIN + 60, 30, 5.0), None);
        let closed = series.note(BEGIN + STEP, 10, 9.0).expect("a step is over");
        assert!((closed.value - 4.0).abs() < 1e-9);
        assert_eq!(closed.expected, None);
        assert_eq!(series.note(BEGIN + 1, 10, f64::NAN), None);
    }

    #[test]
    fn what_never_changes_is_always_within_its_intervals() {
        for value in [0.1, 123_456_789.0, 9_437_185.3] {
            let (mut series, mut errors) = (Series::default(), Errors::default());
            for step in 0..DAY as u64 * 4 {
                if let Some(closed) = series.note(BEGIN + step * STEP, 300, value) {
                    errors.note(&closed);
                }
            }
            assert!(errors.count > 500, "{errors:?}");
            assert_eq!(errors.coverage(), Some([1.0, 1.0]), "{value}");
        }
    }

    #[test]
    fn what_is_expected_is_what_was_said_a_day_before() {
        let mut series = Series::default();
        let mut last = None;
        for step in 0..DAY as u64 * 3 {
            let value = if step % DAY as u64 == 30 { 80.0 } else { 10.0 };
            last = series.note(BEGIN + step * STEP, 300, value).or(last);
        }
        let closed = last.expect("steps are over");
        let expected = closed.expected.expect("it was said");
        assert!((expected.median - 10.0).abs() < 1.0, "{expected:?}");
        let need = series.need().expect("it has readings");
        assert!(need.peak >= need.median && !need.cold, "{need:?}");
    }
}
