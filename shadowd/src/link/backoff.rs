//! How long to wait before the next dial: doubles up to a bound, with jitter.
//!
//! Pure: the caller passes the randomness in and does the waiting.

use std::time::Duration;

/// The first wait. A peer whose daemon restarts must be found again within about 100 ms.
const FIRST: Duration = Duration::from_millis(20);

/// The state between two dials of one peer.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Before the first failure.
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// Begins again at the first wait.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The wait after one more failure: between half of the current bound and all of it, never
    /// longer than `longest`. Jitter keeps a fleet from dialling a returned host all at once.
    pub(super) fn next(&mut self, jitter: u8, longest: Duration) -> Duration {
        let bound = self.next.min(longest);
        self.next = (bound * 2).min(longest);
        bound / 2 + bound / 2 * u32::from(jitter) / u32::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_half_and_all_of_the_bound() {
        let longest = Duration::from_millis(100);
        let mut low = Backoff::new();
        let mut high = Backoff::new();
        for bound_ms in [20, 40, 80, 100, 100] {
            assert_eq!(low.next(0, longest), Duration::from_millis(bound_ms) / 2);
            assert_eq!(high.next(u8::MAX, longest), Duration::from_millis(bound_ms));
        }
        high.reset();
        assert_eq!(high.next(u8::MAX, longest), FIRST);
    }
}
