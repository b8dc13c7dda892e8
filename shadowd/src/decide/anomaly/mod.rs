//! How surprising a reading is, after one pass over those before it.
//!
//! A reading surprises when it lies outside of what was read lately, when the level of the last
//! half hour does, or when it jumps further than readings have jumped. What has surprised once is
//! known: for a while only what is more surprising still counts, so that a change is told when it
//! comes and not for as long as it lasts.

use serde::{Deserialize, Serialize};

use super::window::Window;

/// Readings that are remembered: a week of five minutes each.
const REMEMBERED: usize = 2_016;
/// Readings of the level.
const LEVEL: usize = 6;
/// With fewer readings nothing surprises.
const LEAST: usize = 100;
/// What is usual lies between these quantiles.
const USUAL: [f64; 2] = [0.01, 0.99];
/// A reading outside of the usual by this share of its width has a score of 1.
const WIDTH: f64 = 0.3;
/// A series that never moved surprises when it moves by this share of its level.
const STILL: f64 = 0.01;
/// A level outside of the usual counts more than a reading, a jump less.
const LEVEL_WEIGHT: f64 = 2.0;
const JUMP_WEIGHT: f64 = 0.7;
/// After so many readings half of a surprise is forgotten.
const FORGOTTEN: f64 = 144.0;
/// A reading with at least this score is an anomaly.
pub const ANOMALY: f64 = 1.0;

/// Scores the readings of one series.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Surprise {
    readings: Window,
    levels: Window,
    jumps: Window,
    latest: Window,
    before: Option<f64>,
    known: f64,
}

impl Default for Surprise {
    fn default() -> Self {
        Self {
            readings: Window::new(REMEMBERED),
            levels: Window::new(REMEMBERED),
            jumps: Window::new(REMEMBERED),
            latest: Window::new(LEVEL),
            before: None,
            known: 0.0,
        }
    }
}

impl Surprise {
    /// The score of the next reading: 0 is usual, [`ANOMALY`] and more is not. One that is no number
    /// scores 0 and is forgotten.
    pub fn score(&mut self, value: f64) -> f64 {
        if !value.is_finite() {
            return 0.0;
        }
        self.latest.push(value);
        let level = self.latest.quantile(0.5).unwrap_or(value);
        let jump = self.before.map(|before| (value - before).abs());
        let reading = outside(&self.readings, value);
        let level_outside = LEVEL_WEIGHT * outside(&self.levels, level);
        let jumped = jump.map_or(0.0, |jump| JUMP_WEIGHT * outside(&self.jumps, jump));
        let found = reading.max(level_outside).max(jumped);
        self.readings.push(value);
        self.levels.push(level);
        self.jumps.push(jump.unwrap_or_default());
        self.before = Some(value);
        let score = (found - self.known).max(0.0);
        self.known = found.max(self.known * 0.5_f64.powf(1.0 / FORGOTTEN));
        score
    }
}

/// How far `value` lies outside of what is usual.
fn outside(window: &Window, value: f64) -> f64 {
    if window.len() < LEAST {
        return 0.0;
    }
    let [low, high] = USUAL.map(|quantile| window.quantile(quantile).unwrap_or(value));
    let level = window.quantile(0.5).unwrap_or(value);
    let width = WIDTH * (high - low) + STILL * level.abs() + f64::MIN_POSITIVE;
    ((value - high).max(low - value) / width).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A wave of a day with some noise.
    fn usual(number: u32) -> f64 {
        let phase = f64::from(number % 288) / 288.0 * std::f64::consts::TAU;
        let noise = f64::from(number.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
        50.0 + 10.0 * phase.sin() + noise
    }

    fn trained() -> Surprise {
        let mut surprise = Surprise::default();
        for number in 0..2_000 {
            surprise.score(usual(number));
        }
        surprise
    }

    #[test]
    fn what_goes_on_as_usual_surprises_nobody() {
        let mut surprise = trained();
        for number in 2_000..6_000 {
            let score = surprise.score(usual(number));
            assert!(score < ANOMALY, "{number}: {score}");
        }
    }

    #[test]
    fn a_spike_and_a_new_level_surprise_once() {
        for value in [200.0, 0.0] {
            let mut surprise = trained();
            assert!(surprise.score(value) >= ANOMALY, "{value}");
            let again = (0..20).filter(|_| surprise.score(value) >= ANOMALY).count();
            // The level follows half a window later and may surprise more than the reading did.
            assert!(again <= 2, "{value}: {again} times");
        }
    }

    #[test]
    fn a_series_that_stands_still_surprises_when_it_moves() {
        let mut surprise = Surprise::default();
        for _ in 0..500 {
            assert!(surprise.score(7.0) < ANOMALY);
        }
        assert!(surprise.score(7.5) >= ANOMALY);
    }

    #[test]
    fn what_is_no_number_is_nothing() {
        let mut surprise = trained();
        assert_eq!(surprise.score(f64::NAN), 0.0);
        assert_eq!(surprise.score(f64::INFINITY), 0.0);
        assert!(surprise.score(usual(2_000)) < ANOMALY);
    }
}
