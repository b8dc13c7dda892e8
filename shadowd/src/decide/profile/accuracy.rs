//! How often a profile was right.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::series::Closed;
use crate::facts::{Confusion, ResourceKind};

/// How good the forecasts of a resource were, a day ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// Forecasts that could be judged.
    pub count: u64,
    /// Of these, readings within the 80 % interval.
    pub within_80: u64,
    /// And within the 95 % interval.
    pub within_95: u64,
    /// Sum of the differences between reading and median.
    absolute: f64,
    /// Sum of the differences between reading and the reading a day before.
    naive: f64,
    /// Sum of the pinball losses of the 10 %, 50 % and 90 % quantiles.
    pinball: f64,
}

impl Errors {
    /// A step is over. One of which nothing was expected, or of which the day before is not known,
    /// says nothing.
    pub(super) fn note(&mut self, closed: &Closed) {
        let (Some(expected), Some(yesterday)) = (closed.expected, closed.yesterday) else {
            return;
        };
        let value = closed.value;
        let within = |[low, high]: [f64; 2]| u64::from((low..=high).contains(&value));
        let [low, high] = expected.within_80;
        self.count += 1;
        self.within_80 += within(expected.within_80);
        self.within_95 += within(expected.within_95);
        self.absolute += (value - expected.median).abs();
        self.naive += (value - yesterday).abs();
        let quantiles = [(0.1, low), (0.5, expected.median), (0.9, high)];
        self.pinball += quantiles
            .iter()
            .map(|(q, at)| pinball(*q, *at, value))
            .sum::<f64>()
            / 3.0;
    }

    /// Mean absolute error, scaled by that of the reading a day before (Hyndman and Koehler, 2006):
    /// below 1 is better than that. None where the day before was always right, or nothing was judged.
    pub fn mase(&self) -> Option<f64> {
        (self.naive > 0.0).then(|| self.absolute / self.naive)
    }

    /// Mean pinball loss of three quantiles, scaled the same way.
    pub fn scaled_pinball(&self) -> Option<f64> {
        (self.naive > 0.0).then(|| self.pinball / self.naive)
    }

    /// The shares of readings within the 80 % and the 95 % interval.
    pub fn coverage(&self) -> Option<[f64; 2]> {
        let count = self.count as f64;
        (self.count > 0).then(|| [self.within_80, self.within_95].map(|one| one as f64 / count))
    }
}

/// The loss of a quantile forecast (Koenker and Bassett, 1978).
fn pinball(quantile: f64, forecast: f64, value: f64) -> f64 {
    let over = value - forecast;
    (quantile * over).max((quantile - 1.0) * over)
}

/// How often a profile was right, of everything it expects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Units, by hour.
    pub units: Confusion,
    /// Dependencies, by hour.
    pub dependencies: Confusion,
    /// Resources, by step.
    pub resources: BTreeMap<ResourceKind, Errors>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::forecast::Forecast;

    #[test]
    fn errors_are_scaled_by_those_of_the_day_before() {
        let mut errors = Errors::default();
        let closed = |value: f64, yesterday: Option<f64>| Closed {
            value,
            surprise: 0.0,
            expected: Some(Forecast {
                median: 10.0,
                within_80: [8.0, 12.0],
                within_95: [5.0, 15.0],
                cold: false,
            }),
            yesterday,
        };
        errors.note(&closed(11.0, Some(13.0)));
        errors.note(&closed(14.0, Some(12.0)));
        errors.note(&closed(99.0, None));
        assert_eq!(errors.count, 2);
        assert_eq!(errors.coverage(), Some([0.5, 1.0]));
        assert_eq!(errors.mase(), Some(5.0 / 4.0));
        // 11: (0.3 + 0.5 + 0.1) / 3; 14: (0.6 + 2.0 + 1.8) / 3.
        let pinball = errors.scaled_pinball().unwrap_or_default();
        assert!(
            (pinball - (0.9 + 4.4) / 3.0 / 4.0).abs() < 1e-9,
            "{pinball}"
        );
    }
}
