//! Which counters of a key were seen: a sliding window (as in RFC 4303, section 3.4.3).

/// Counters that are told apart. Older ones are refused, whether they were seen or not: at a
/// heartbeat every 5 ms this is 5 s of reordering.
const WINDOW: u64 = 1024;
const WORD_BITS: u64 = u64::BITS as u64;
const WORDS: usize = (WINDOW / WORD_BITS) as usize;

/// The window of one receive key. The first counter is 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    highest: u64,
    seen: [u64; WORDS],
}

impl Window {
    /// Nothing was seen.
    pub(super) const fn new() -> Self {
        Self {
            highest: 0,
            seen: [0; WORDS],
        }
    }

    /// Whether `counter` may still be accepted. Changes nothing, so it may be asked before the
    /// datagram is authenticated.
    pub(super) fn admits(&self, counter: u64) -> bool {
        if self.forgot(counter) {
            return false;
        }
        let (word, bit) = place(counter);
        counter > self.highest || self.seen[word] & bit == 0
    }

    /// Whether `counter` is so old that it cannot be told any more if it was seen, or is none.
    pub(super) const fn forgot(&self, counter: u64) -> bool {
        counter == 0 || self.highest.saturating_sub(counter) >= WINDOW
    }

    /// Notes that an authentic datagram with `counter` was accepted.
    pub(super) fn note(&mut self, counter: u64) {
        if counter > self.highest {
            // Only the slots that the window slides over are cleared, at most all of them.
            for passed in 1..=(counter - self.highest).min(WINDOW) {
                let (word, bit) = place(self.highest.wrapping_add(passed));
                self.seen[word] &= !bit;
            }
            self.highest = counter;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
    }
}

fn place(counter: u64) -> (usize, u64) {
    let slot = counter % WINDOW;
    ((slot / WORD_BITS) as usize, 1 << (slot % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_window_and_of_the_counter() {
        let mut window = Window::new();
        assert!(!window.admits(0));
        window.note(1);
        assert!(!window.admits(1));
        window.note(1 + WINDOW);
        assert!(!window.admits(1));
        assert!(window.admits(2));
        window.note(u64::MAX);
        assert!(!window.admits(u64::MAX));
        assert!(window.admits(u64::MAX - WINDOW + 1));
        assert!(!window.admits(u64::MAX - WINDOW));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(counters in proptest::collection::vec(1_u64..5_000, 1..400)) {
            let mut window = Window::new();
            let mut seen = BTreeSet::new();
            let mut highest = 0;
            for counter in counters {
                let expected = counter + WINDOW > highest && !seen.contains(&counter);
                prop_assert_eq!(window.admits(counter), expected);
                if expected {
                    window.note(counter);
                    seen.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }
}
