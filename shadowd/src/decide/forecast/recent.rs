//! The readings of the last eight days, and the last day's worth of them in order.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{DAY, WEEK};
use crate::decide::window::Window;

/// A week before the same time tomorrow, with room for neighbours.
const KEPT: usize = WEEK + DAY;

/// Readings by their step. Steps without one hold no number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Recent {
    values: VecDeque<f32>,
    /// The step of the newest.
    last: Option<u64>,
    /// The last [`DAY`] numbers.
    day: Window,
    /// Steps with readings, also those that are forgotten.
    seen: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            values: VecDeque::new(),
            last: None,
            day: Window::new(DAY),
            seen: 0,
        }
    }
}

impl Recent {
    /// To be called with rising steps.
    pub fn push(&mut self, slot: u64, value: f64) {
        let missing = self.last.map_or(0, |last| (slot - last - 1) as usize);
        for _ in 0..missing.min(KEPT) {
            self.append(f32::NAN);
        }
        self.append(value as f32);
        self.day.push(value);
        self.last = Some(slot);
        self.seen += 1;
    }

    fn append(&mut self, value: f32) {
        self.values.push_back(value);
        if self.values.len() > KEPT {
            self.values.pop_front();
        }
    }

    pub fn last_slot(&self) -> Option<u64> {
        self.last
    }

    pub fn last(&self) -> Option<f64> {
        self.values.back().map(|value| f64::from(*value))
    }

    /// The reading of a step, if there was one and it is kept.
    pub fn at(&self, slot: u64) -> Option<f64> {
        let back = usize::try_from(self.last?.checked_sub(slot)?).ok()?;
        let place = self.values.len().checked_sub(back + 1)?;
        let value = f64::from(self.values[place]);
        (!value.is_nan()).then_some(value)
    }

    /// The readings of the steps from `first` to `last`, bounds included, that are known.
    pub fn between(&self, first: u64, last: u64) -> impl Iterator<Item = f64> + '_ {
        let last = self.last.map_or(0, |newest| newest.min(last));
        (first..=last).filter_map(|slot| self.at(slot))
    }

    /// The quantile of the last day's worth of readings.
    pub fn day_quantile(&self, quantile: f64) -> Option<f64> {
        self.day.quantile(quantile)
    }

    /// How many days were seen.
    pub fn days(&self) -> f64 {
        self.seen as f64 / DAY as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_found_by_their_steps_and_gaps_are_none() {
        let mut recent = Recent::default();
        recent.push(1_000, 1.0);
        recent.push(1_003, 4.0);
        assert_eq!(recent.at(1_000), Some(1.0));
        assert_eq!(recent.at(1_001), None);
        assert_eq!(recent.at(1_003), Some(4.0));
        assert_eq!(recent.at(1_004), None);
        assert_eq!(recent.at(999), None);
        let known: Vec<f64> = recent.between(998, 1_010).collect();
        assert_eq!(known, [1.0, 4.0]);
    }

    #[test]
    fn no_more_is_kept_than_a_week_and_a_day() {
        let mut recent = Recent::default();
        for number in 0..3 * KEPT as u64 {
            recent.push(1_000 + 7 * number, number as f64);
            assert!(recent.values.len() <= KEPT);
        }
        let last = 3 * KEPT as u64 - 1;
        assert_eq!(recent.at(1_000 + 7 * last), Some(last as f64));
        assert_eq!(
            recent.day_quantile(0.0),
            Some((last - DAY as u64 + 1) as f64)
        );
    }
}
