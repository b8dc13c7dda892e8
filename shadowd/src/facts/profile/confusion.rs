//! How often an expectation was right.

use serde::{Deserialize, Serialize};

/// What was expected, and what was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Expected, and there.
    pub true_positives: u64,
    /// Expected, and not there.
    pub false_positives: u64,
    /// Not expected, and there.
    pub false_negatives: u64,
    /// Not expected, and not there.
    pub true_negatives: u64,
}

impl Confusion {
    /// One more.
    pub fn note(&mut self, expected: bool, there: bool) {
        let count = match (expected, there) {
            (true, true) => &mut self.true_positives,
            (true, false) => &mut self.false_positives,
            (false, true) => &mut self.false_negatives,
            (false, false) => &mut self.true_negatives,
        };
        *count = count.saturating_add(1);
    }

    /// Of what was expected, the share that was there; none when nothing was.
    pub fn precision(&self) -> Option<f64> {
        share(self.true_positives, self.false_positives)
    }

    /// Of what was there, the share that was expected; none when nothing was.
    pub fn recall(&self) -> Option<f64> {
        share(self.true_positives, self.false_negatives)
    }
}

fn share(part: u64, rest: u64) -> Option<f64> {
    let all = part.saturating_add(rest);
    (all > 0).then(|| part as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_recall_are_shares_of_what_was_expected_and_of_what_was_there() {
        let mut confusion = Confusion::default();
        assert_eq!((confusion.precision(), confusion.recall()), (None, None));
        for (expected, there, times) in [(true, true, 6), (true, false, 2), (false, true, 4)] {
            for _ in 0..times {
                confusion.note(expected, there);
            }
        }
        assert_eq!(confusion.precision(), Some(0.75));
        assert_eq!(confusion.recall(), Some(0.6));
    }
}
