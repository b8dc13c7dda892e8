//! The peer: a Gaussian over a sliding window of values, as the Numenta Anomaly Benchmark has it.

use std::collections::VecDeque;

/// Values in the window.
const WINDOW: usize = 6_400;
/// It moves on by so many at once.
const STEP: usize = 100;

/// Scores a value by how unlikely it is under the mean and deviation of those before it.
#[derive(Debug, Default)]
pub struct WindowedGaussian {
    window: VecDeque<f64>,
    waiting: Vec<f64>,
    sum: f64,
    squares: f64,
}

impl WindowedGaussian {
    /// The score of the next value: 0 to 1.
    pub fn score(&mut self, value: f64) -> f64 {
        let score = self.unlikely(value);
        if self.window.len() < WINDOW {
            self.take_in(value);
        } else {
            self.waiting.push(value);
            if self.waiting.len() == STEP {
                for old in self.window.drain(..STEP) {
                    self.sum -= old;
                    self.squares -= old * old;
                }
                for value in std::mem::take(&mut self.waiting) {
                    self.take_in(value);
                }
            }
        }
        score
    }

    fn take_in(&mut self, value: f64) {
        self.window.push_back(value);
        self.sum += value;
        self.squares += value * value;
    }

    /// One less the probability of a value at least so far from the mean, on its side.
    fn unlikely(&self, value: f64) -> f64 {
        if self.window.is_empty() {
            return 0.0;
        }
        let count = self.window.len() as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        let deviation = if variance > 0.0 {
            variance.sqrt()
        } else {
            1e-6
        };
        let away = (value - mean).abs() / deviation;
        1.0 - 0.5 * libm::erfc(away / std::f64::consts::SQRT_2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_far_from_the_mean_is_unlikely() {
        let mut detector = WindowedGaussian::default();
        assert!(detector.score(1.0).abs() < 1e-9, "nothing is known yet");
        for number in 0..1_000 {
            detector.score(f64::from(number % 2));
        }
        // One deviation, and four.
        assert!((detector.unlikely(1.0) - 0.841_3).abs() < 1e-3);
        assert!(detector.unlikely(2.5) > 0.999_9);
        assert!((detector.unlikely(0.5) - 0.5).abs() < 1e-2);
    }

    #[test]
    fn a_full_window_moves_on() {
        let mut detector = WindowedGaussian::default();
        for _ in 0..WINDOW {
            detector.score(0.0);
        }
        for _ in 0..STEP {
            detector.score(10.0);
        }
        assert_eq!(detector.window.len(), WINDOW);
        let mean = detector.sum / WINDOW as f64;
        assert!((mean - 10.0 * STEP as f64 / WINDOW as f64).abs() < 1e-9);
    }
}
