//! The last so many numbers, in the order they came and in order.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A sliding window that knows its quantiles: 8 bytes a number.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Kept", into = "Kept")]
pub struct Window {
    most: usize,
    came: VecDeque<f32>,
    ordered: Vec<f32>,
}

/// What of a window is written: the order follows from the numbers.
#[derive(Serialize, Deserialize)]
struct Kept {
    most: u32,
    came: VecDeque<f32>,
}

impl From<Window> for Kept {
    fn from(window: Window) -> Self {
        let most = u32::try_from(window.most).unwrap_or(u32::MAX);
        let came = window.came;
        Self { most, came }
    }
}

impl From<Kept> for Window {
    fn from(kept: Kept) -> Self {
        let mut window = Self::new(kept.most as usize);
        let too_many = kept.came.len().saturating_sub(window.most);
        window.came = kept.came.into_iter().skip(too_many).collect();
        window.came.retain(|number| !number.is_nan());
        window.ordered = window.came.iter().copied().collect();
        window.ordered.sort_unstable_by(f32::total_cmp);
        window
    }
}

impl Window {
    /// An empty window of at most `most` numbers, at least one.
    pub fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            came: VecDeque::new(),
            ordered: Vec::new(),
        }
    }

    /// Takes a number in; the oldest goes when there are too many. One that is none is left out.
    pub fn push(&mut self, number: f64) {
        let number = number as f32;
        if number.is_nan() {
            return;
        }
        if self.came.len() >= self.most
            && let Some(oldest) = self.came.pop_front()
        {
            let place = self.ordered.partition_point(|one| *one < oldest);
            self.ordered.remove(place);
        }
        let place = self.ordered.partition_point(|one| *one < number);
        self.ordered.insert(place, number);
        self.came.push_back(number);
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.came.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.came.is_empty()
    }

    /// The number that a share of `quantile` (0 to 1) is at most; none when there are none.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let last = self.ordered.len().checked_sub(1)?;
        let place = (quantile.clamp(0.0, 1.0) * last as f64).round() as usize;
        Some(f64::from(self.ordered[place]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_has_the_last_numbers_in_order(
            most in 1_usize..20,
            numbers in proptest::collection::vec(-9.0_f64..9.0, 0..60),
        ) {
            let mut window = Window::new(most);
            for number in &numbers {
                window.push(*number);
            }
            let mut last: Vec<f32> = numbers.iter().rev().take(most).map(|one| *one as f32).collect();
            last.sort_by(f32::total_cmp);
            prop_assert_eq!(&window.ordered, &last);
            prop_assert_eq!(window.quantile(0.0), last.first().copied().map(f64::from));
            prop_assert_eq!(window.quantile(1.0), last.last().copied().map(f64::from));
            let bytes = postcard::to_stdvec(&window).unwrap();
            let again: Window = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&again.ordered, &window.ordered);
            prop_assert_eq!(&again.came, &window.came);
        }
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let mut window = Window::new(3);
        window.push(f64::NAN);
        assert!(window.is_empty());
        assert_eq!(window.quantile(0.5), None);
    }
}
