//! What is to happen, in order of time; what is due at the same time in the order it was added.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Times and the places of what happens then. Only times are moved about to keep the order.
pub struct Queue<E> {
    times: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    places: Vec<Option<E>>,
    free: Vec<usize>,
    numbered: u64,
}

impl<E> Queue<E> {
    pub fn new() -> Self {
        Self {
            times: BinaryHeap::new(),
            places: Vec::new(),
            free: Vec::new(),
            numbered: 0,
        }
    }

    pub fn push(&mut self, time: Duration, event: E) {
        self.numbered += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(event);
                place
            }
            None => {
                self.places.push(Some(event));
                self.places.len() - 1
            }
        };
        self.times.push(Reverse((time, self.numbered, place)));
    }

    pub fn pop(&mut self) -> Option<(Duration, E)> {
        let Reverse((time, _, place)) = self.times.pop()?;
        self.free.push(place);
        Some((time, self.places[place].take()?))
    }
}
