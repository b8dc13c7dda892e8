//! The models, and how well each did.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::recent::Recent;
use super::{DAY, Forecast, WEEK};

/// How many there are.
pub(super) const MODELS: usize = 7;
/// Steps to each side that count as the same time of day.
const AROUND: u64 = 9;
/// Steps of the last hour.
const HOUR: u64 = 12;
/// Seasons look at most so many days or weeks back.
const BACK: u64 = 8;
/// A step counts half as much as one a day later.
const HALF_LIFE: f64 = DAY as f64;
/// A model whose error is twice as large counts 2^8 times less.
const SHARPNESS: i32 = 8;

/// What the models say of one step, and what is made of it; half as long as it could be, since a day
/// of them is kept.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Said {
    each: [f32; MODELS],
    median: f32,
    within: [[f32; 2]; 2],
    cold: bool,
}

impl Said {
    pub fn new(each: &[f64; MODELS], forecast: &Forecast) -> Self {
        // Shorter numbers round to the outside: what was within an interval stays so.
        let below = |bound: f64| match bound as f32 {
            short if f64::from(short) > bound => short.next_down(),
            short => short,
        };
        let above = |bound: f64| match bound as f32 {
            short if f64::from(short) < bound => short.next_up(),
            short => short,
        };
        let short = |[low, high]: [f64; 2]| [below(low), above(high)];
        Self {
            each: each.map(|one| one as f32),
            median: forecast.median as f32,
            within: [short(forecast.within_80), short(forecast.within_95)],
            cold: forecast.cold,
        }
    }

    pub fn forecast(&self) -> Forecast {
        let [within_80, within_95] = self.within.map(|interval| interval.map(f64::from));
        Forecast {
            median: f64::from(self.median),
            within_80,
            within_95,
            cold: self.cold,
        }
    }
}

/// What each model expects at `slot`, from the readings so far.
pub(super) fn all(recent: &Recent, slot: u64) -> [f64; MODELS] {
    let now = recent.last_slot().unwrap_or_default();
    let level = recent.day_quantile(0.5).unwrap_or_default();
    let hour = median(recent.between(now.saturating_sub(HOUR - 1), now)).unwrap_or(level);
    let before = |season: usize| same_time(recent, slot, season as u64);
    let yesterday = before(DAY).unwrap_or(level);
    let around = around_yesterday(recent, slot).unwrap_or(yesterday);
    let last_week = before(WEEK).unwrap_or(around);
    let mean = mean(recent.between(now.saturating_sub(DAY as u64 - 1), now)).unwrap_or(level);
    let days = days(recent, slot).unwrap_or(around);
    [yesterday, around, last_week, level, hour, mean, days]
}

/// The newest reading a whole number of seasons before `slot`.
fn same_time(recent: &Recent, slot: u64, season: u64) -> Option<f64> {
    (1..=BACK).find_map(|times| recent.at(slot.checked_sub(times * season)?))
}

/// The median of what was read around the same time on the day before.
fn around_yesterday(recent: &Recent, slot: u64) -> Option<f64> {
    (1..=BACK).find_map(|times| {
        let same = slot.checked_sub(times * DAY as u64)?;
        median(recent.between(same.saturating_sub(AROUND), same + AROUND))
    })
}

/// The median of what was read around the same time on all days that are known.
fn days(recent: &Recent, slot: u64) -> Option<f64> {
    let days = (1..=BACK).filter_map(|times| slot.checked_sub(times * DAY as u64));
    median(days.flat_map(|same| recent.between(same.saturating_sub(AROUND), same + AROUND)))
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// What was said of the steps of the next day, and how wrong each model was lately.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Judges {
    said: VecDeque<(u64, Said)>,
    losses: [f64; MODELS],
}

impl Judges {
    /// What was said of `slot`, a day before it.
    pub fn said_for(&self, slot: u64) -> Option<&Said> {
        let place = self
            .said
            .binary_search_by_key(&slot, |(slot, _)| *slot)
            .ok()?;
        Some(&self.said[place].1)
    }

    /// The reading of `slot` is known.
    pub fn judge(&mut self, slot: u64, value: f64) {
        let fades = 0.5_f64.powf(1.0 / HALF_LIFE);
        if let Some(said) = self.said_for(slot).copied() {
            for (loss, said) in self.losses.iter_mut().zip(said.each) {
                *loss = *loss * fades + (value - f64::from(said)).abs();
            }
        }
        while self.said.front().is_some_and(|(before, _)| *before <= slot) {
            self.said.pop_front();
        }
    }

    /// `said` is said of `slot`, which is newer than all before.
    pub fn note(&mut self, slot: u64, said: Said) {
        self.said.push_back((slot, said));
    }

    /// The mean of what the models say, by how well each did.
    pub fn combine(&self, each: &[f64; MODELS]) -> f64 {
        let best = self.losses.iter().copied().fold(f64::INFINITY, f64::min);
        let weight = |loss: f64| match loss > 0.0 {
            true => (best / loss).powi(SHARPNESS),
            false => 1.0,
        };
        let weights = self.losses.map(weight);
        let sum: f64 = weights.iter().sum();
        let weighed: f64 = weights
            .iter()
            .zip(each)
            .map(|(weight, one)| weight * one)
            .sum();
        weighed / sum
    }
}
