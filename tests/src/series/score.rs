//! The score of the Numenta Anomaly Benchmark, standard profile.
//!
//! Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms", 2015: the earliest
//! detection in a window counts, the more the earlier; each false one costs, the more the later
//! after a window; a window without one costs. 0 is a detector that says nothing, 100 a perfect one.

use std::collections::BTreeMap;

use super::Labelled;

/// What a false positive costs. A missed window costs 1, a detection at its begin gives 1.
const FALSE_POSITIVE: f64 = 0.11;
/// This share of a series, but of no more than [`PROBATION_OF`] readings, is for learning alone.
const PROBATION: f64 = 0.15;
const PROBATION_OF: usize = 5_000;

/// A score, and what it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// 0 to 100, or below 0.
    pub score: f64,
    /// At and above this score a reading is an anomaly.
    pub threshold: f64,
    /// Windows in which something was detected.
    pub found: usize,
    /// All windows.
    pub windows: usize,
    /// Detections outside of windows.
    pub false_positives: usize,
}

/// What a detection at a reading counts: in a window, or beside all.
#[derive(Clone, Copy)]
enum Weight {
    In(usize, f64),
    Beside(f64),
}

/// From 1 well before the end of a window, over 0 at its end, to -1 well after.
fn sigmoid(position: f64) -> f64 {
    if position > 3.0 {
        return -1.0;
    }
    2.0 / (1.0 + (5.0 * position).exp()) - 1.0
}

fn weights(series: &Labelled) -> Vec<Weight> {
    let at_begin = sigmoid(-1.0);
    let mut weights = Vec::with_capacity(series.values.len());
    let mut before: Option<(usize, usize)> = None;
    for place in 0..series.values.len() {
        let window = series.windows.iter().position(|w| w.contains(&place));
        weights.push(if let Some(window) = window {
            let (first, last) = (
                *series.windows[window].start(),
                *series.windows[window].end(),
            );
            let width = last - first + 1;
            if place == last {
                before = Some((last, width));
            }
            let position = -((last - place + 1) as f64) / width as f64;
            Weight::In(window, sigmoid(position) / at_begin)
        } else {
            let position = before
                .map(|(last, width)| (place - last) as f64 / width.saturating_sub(1).max(1) as f64);
            Weight::Beside(position.map_or(-1.0, sigmoid) * FALSE_POSITIVE)
        });
    }
    weights
}

/// Detections by falling score: what each changes.
struct Sum {
    windows: usize,
    best: BTreeMap<(usize, usize), f64>,
    beside: f64,
    false_positives: usize,
}

impl Sum {
    fn add(&mut self, series: usize, weight: Weight) {
        match weight {
            Weight::In(window, gain) => {
                let best = self.best.entry((series, window)).or_insert(f64::MIN);
                *best = best.max(gain);
            }
            Weight::Beside(cost) => {
                self.beside += cost;
                self.false_positives += 1;
            }
        }
    }

    fn scored(&self, threshold: f64) -> Scored {
        let windows = self.windows as f64;
        let missed = windows - self.best.len() as f64;
        let gained: f64 = self.best.values().sum();
        let raw = gained - missed + self.beside;
        Scored {
            score: 100.0 * (raw + windows) / (2.0 * windows),
            threshold,
            found: self.best.len(),
            windows: self.windows,
            false_positives: self.false_positives,
        }
    }
}

/// All readings that count, by falling score.
fn ranked(all: &[(&Labelled, &[f64])]) -> (Sum, Vec<(f64, usize, Weight)>) {
    let mut rows = Vec::new();
    let mut windows = 0;
    for (number, (series, scores)) in all.iter().enumerate() {
        windows += series.windows.len();
        let length = series.values.len();
        let probation = (length as f64 * PROBATION) as usize;
        let probation = probation.min((PROBATION_OF as f64 * PROBATION) as usize);
        let weights = weights(series).into_iter().zip(*scores).skip(probation);
        rows.extend(weights.map(|(weight, score)| (*score, number, weight)));
    }
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    let sum = Sum {
        windows,
        best: BTreeMap::new(),
        beside: 0.0,
        false_positives: 0,
    };
    (sum, rows)
}

/// The score with one threshold for all series.
pub fn score_at(all: &[(&Labelled, &[f64])], threshold: f64) -> Scored {
    let (mut sum, rows) = ranked(all);
    for (_, series, weight) in rows.iter().take_while(|row| row.0 >= threshold) {
        sum.add(*series, *weight);
    }
    sum.scored(threshold)
}

/// The score with the best threshold there is for all series together, as the benchmark chooses it.
pub fn best(all: &[(&Labelled, &[f64])]) -> Scored {
    let (mut sum, rows) = ranked(all);
    let mut best = sum.scored(f64::INFINITY);
    for (place, (score, series, weight)) in rows.iter().enumerate() {
        sum.add(*series, *weight);
        // Equal scores are above the threshold together.
        if rows.get(place + 1).is_none_or(|next| next.0 < *score) {
            let scored = sum.scored(*score);
            if scored.score > best.score {
                best = scored;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Labelled {
        Labelled {
            name: "steps".into(),
            first_slot: 0,
            values: vec![0.0; 1_000],
            windows: vec![400..=499, 800..=899],
        }
    }

    fn detected(places: &[usize]) -> Scored {
        let series = series();
        let mut scores = vec![0.0; series.values.len()];
        for place in places {
            scores[*place] = 1.0;
        }
        score_at(&[(&series, &scores)], 0.5)
    }

    #[test]
    fn nothing_is_worth_nothing_and_all_at_once_a_hundred() {
        assert!(detected(&[]).score.abs() < 1e-9);
        assert!((detected(&[400, 800]).score - 100.0).abs() < 1e-9);
        // Half of the windows.
        assert!((detected(&[400]).score - 50.0).abs() < 1e-9);
    }

    #[test]
    fn early_is_worth_more_than_late_and_again_is_worth_nothing() {
        let (early, late) = (detected(&[420]).score, detected(&[490]).score);
        assert!(early > late && late > 0.0, "{early} {late}");
        assert!((detected(&[420, 430, 490]).score - early).abs() < 1e-9);
    }

    #[test]
    fn what_is_beside_costs_and_what_is_on_probation_does_not() {
        let clean = detected(&[400, 800]).score;
        assert!((detected(&[10, 149, 400, 800]).score - clean).abs() < 1e-9);
        // 0.11 of 2 windows, which are worth 1 and cost 1 each.
        let beside = detected(&[200, 400, 800]);
        assert!((clean - beside.score - 100.0 * 0.11 / 4.0).abs() < 1e-9);
        assert_eq!(beside.false_positives, 1);
    }

    #[test]
    fn the_best_threshold_is_found() {
        let series = series();
        let mut scores = vec![0.0; series.values.len()];
        scores[400] = 3.0;
        scores[800] = 2.0;
        scores[600] = 1.0;
        let best = best(&[(&series, &scores)]);
        assert!((best.score - 100.0).abs() < 1e-9, "{best:?}");
        assert!((best.threshold - 2.0).abs() < 1e-9);
    }
}
