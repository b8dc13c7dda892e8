//! The errors that forecasts had, and the intervals that follow from them.

use serde::{Deserialize, Serialize};

use super::recent::Recent;
use super::{DAY, Forecast, JUDGED_MIN};
use crate::decide::window::Window;

/// Errors that are remembered: three days of them.
const KEPT: usize = 3 * DAY;
/// One-sided quantiles of the normal distribution for 80 % and 95 %.
const NORMAL: [f64; 2] = [1.281_55, 1.959_96];
/// The same of Student's t by degrees of freedom, from 1 to 10 (any table of the distribution).
const STUDENT: [[f64; 2]; 10] = [
    [3.077_68, 12.706_2],
    [1.885_62, 4.302_65],
    [1.637_74, 3.182_45],
    [1.533_21, 2.776_45],
    [1.475_88, 2.570_58],
    [1.439_76, 2.446_91],
    [1.414_92, 2.364_62],
    [1.396_82, 2.306_00],
    [1.383_03, 2.262_16],
    [1.372_18, 2.228_14],
];
/// The shares of readings that lie outside of the intervals.
const OUTSIDE: [f64; 2] = [0.2, 0.05];

/// The last errors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Errors(Window);

impl Default for Errors {
    fn default() -> Self {
        Self(Window::new(KEPT))
    }
}

impl Errors {
    /// A forecast was off by `error`.
    pub fn note(&mut self, error: f64) {
        self.0.push(error);
    }

    /// The intervals around what is expected.
    pub fn around(&self, expected: f64, recent: &Recent) -> Forecast {
        if self.0.len() < JUDGED_MIN {
            return cold(expected, recent);
        }
        let center = self.quantile(0.5);
        let interval = |which: usize| {
            let wider = self.wider(recent.days(), which);
            [OUTSIDE[which] / 2.0, 1.0 - OUTSIDE[which] / 2.0]
                .map(|quantile| expected + center + (self.quantile(quantile) - center) * wider)
        };
        Forecast {
            median: expected,
            within_80: interval(0),
            within_95: interval(1),
            cold: false,
        }
    }

    /// What days have in common makes their errors alike, so it is days that count as experience.
    fn wider(&self, days: f64, which: usize) -> f64 {
        let judged = (days - 1.0).clamp(1.0, KEPT as f64 / DAY as f64);
        let freedom = (judged as usize).clamp(1, STUDENT.len());
        STUDENT[freedom - 1][which] / NORMAL[which] * (1.0 + 1.0 / judged).sqrt()
    }

    fn quantile(&self, quantile: f64) -> f64 {
        self.0.quantile(quantile).unwrap_or_default()
    }
}

/// Without experience: everything that was seen, and as much again to both sides.
fn cold(expected: f64, recent: &Recent) -> Forecast {
    let seen = |quantile| recent.day_quantile(quantile).unwrap_or(expected);
    let (low, high) = (seen(0.0).min(expected), seen(1.0).max(expected));
    let wide = (high - low).max(expected.abs());
    Forecast {
        median: expected,
        within_80: [low, high],
        within_95: [low - wide, high + wide],
        cold: true,
    }
}
