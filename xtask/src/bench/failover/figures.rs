//! What many runs come to: percentiles, by nearest rank.

use serde::Serialize;

/// Middle, end and extreme of a set of values. With fewer than 100 values p99 is the largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// How many values.
    pub runs: usize,
    /// Half of them are not above it.
    pub p50: f64,
    /// 99 of 100 are not above it.
    pub p99: f64,
    /// The largest.
    pub max: f64,
    /// Distance of the quartiles.
    pub quartiles: f64,
}

impl Figures {
    /// Of these values; none of no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied()
        };
        Some(Self {
            runs: sorted.len(),
            p50: rank(50)?,
            p99: rank(99)?,
            max: rank(100)?,
            quartiles: rank(75)? - rank(25)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest_and_no_value_is_made_up() {
        let figures = Figures::of((1..=200).map(f64::from)).expect("there are values");
        assert_eq!(
            (figures.p50, figures.p99, figures.max, figures.quartiles),
            (100.0, 198.0, 200.0, 100.0)
        );
        let one = Figures::of([3.0]).expect("there is a value");
        assert_eq!((one.runs, one.p50, one.p99, one.max), (1, 3.0, 3.0, 3.0));
        assert_eq!(Figures::of([]), None);
    }
}
