//! In which hours something was there: four weeks, one bit an hour.

use serde::{Deserialize, Serialize};

/// Hours that are remembered: four weeks.
pub const HOURS: u32 = 4 * 168;
const WORDS: usize = (HOURS as usize).div_ceil(64);

/// An hour of local time, counted from the Unix epoch. Hour 0 was a Thursday's first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hour(pub u32);

impl Hour {
    /// Hour of the day, 0 to 23.
    pub const fn of_day(self) -> u32 {
        self.0 % 24
    }

    /// Hour of the week, 0 to 167, from Monday.
    pub const fn of_week(self) -> u32 {
        (self.0 + 3 * 24) % 168
    }
}

/// The hours of the last four weeks in which something was there, up to the newest that was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Habit {
    newest: Hour,
    /// Bit 0 of word 0 is the newest hour, the next bit the one before.
    words: [u64; WORDS],
}

impl Habit {
    /// It was there in `hour`. One that is older than four weeks changes nothing.
    pub fn note(&mut self, hour: Hour) {
        if let Some(later) = hour.0.checked_sub(self.newest.0) {
            self.shift(later);
            self.newest = hour;
            self.words[0] |= 1;
        } else {
            let back = self.newest.0 - hour.0;
            if back < HOURS {
                self.words[(back / 64) as usize] |= 1 << (back % 64);
            }
        }
    }

    /// Whether it was there in `hour`, as far as is remembered.
    pub fn at(&self, hour: Hour) -> bool {
        match self.newest.0.checked_sub(hour.0) {
            Some(back) if back < HOURS => self.words[(back / 64) as usize] >> (back % 64) & 1 == 1,
            Some(_) | None => false,
        }
    }

    /// The newest hour in which it was there; none when it never was.
    pub fn last(&self) -> Option<Hour> {
        (self.words[0] & 1 == 1).then_some(self.newest)
    }

    fn shift(&mut self, hours: u32) {
        if hours >= HOURS {
            self.words = [0; WORDS];
            return;
        }
        let (words, bits) = ((hours / 64) as usize, hours % 64);
        for place in (0..WORDS).rev() {
            let low = place.checked_sub(words).map_or(0, |from| self.words[from]);
            let lower = place
                .checked_sub(words + 1)
                .map_or(0, |from| self.words[from]);
            self.words[place] = match bits {
                0 => low,
                _ => low << bits | lower >> (64 - bits),
            };
        }
        // Bits past the last hour are none.
        let spare = WORDS as u32 * 64 - HOURS;
        self.words[WORDS - 1] &= u64::MAX >> spare;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn monday_begins_the_week() {
        // 1970-01-05 was a Monday.
        assert_eq!(Hour(4 * 24).of_week(), 0);
        assert_eq!(Hour(4 * 24 + 25).of_week(), 25);
        assert_eq!(Hour(4 * 24 + 25).of_day(), 1);
        assert_eq!(Hour(3).of_week(), 3 * 24 + 3);
    }

    proptest! {
        #[test]
        fn it_remembers_what_a_set_would(
            hours in proptest::collection::vec(1_000_u32..3_000, 0..60),
        ) {
            let mut habit = Habit::default();
            let mut set = BTreeSet::new();
            for hour in hours {
                habit.note(Hour(hour));
                set.insert(hour);
                let newest = *set.last().unwrap_or(&0);
                set.retain(|one| newest - one < HOURS);
                prop_assert_eq!(habit.last(), Some(Hour(newest)));
            }
            for hour in 900..3_100 {
                prop_assert_eq!(habit.at(Hour(hour)), set.contains(&hour), "{}", hour);
            }
        }
    }
}
