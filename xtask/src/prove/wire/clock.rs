//! One clock for frames and events.
//!
//! The kernel stamps frames by `CLOCK_REALTIME`, the daemons read `CLOCK_BOOTTIME`. Their
//! difference changes only when somebody sets the wall clock; then nothing can be compared.

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_gettime};

/// More than this between two readings of the difference is a clock that was set.
const MOST_MOVED_NS: u64 = 100_000;

/// The difference between the two clocks, and how far it was seen to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    difference_ns: i64,
    moved_ns: u64,
}

impl Clock {
    /// Reads the difference.
    ///
    /// # Errors
    /// A clock cannot be read.
    pub fn start() -> Result<Self> {
        Ok(Self {
            difference_ns: difference()?,
            moved_ns: 0,
        })
    }

    /// Reads it again, and remembers the largest deviation from the first reading.
    ///
    /// # Errors
    /// A clock cannot be read.
    pub fn check(&mut self) -> Result<()> {
        let moved = difference()?.abs_diff(self.difference_ns);
        self.moved_ns = self.moved_ns.max(moved);
        Ok(())
    }

    /// A kernel's stamp as a time of `CLOCK_BOOTTIME`.
    pub fn boot_ns(self, stamp_ns: i64) -> u64 {
        (stamp_ns - self.difference_ns).max(0) as u64
    }

    /// The largest deviation; it contains the error of each reading.
    pub const fn moved_ns(self) -> u64 {
        self.moved_ns
    }

    /// Whether nobody set the wall clock.
    pub const fn stood(self) -> bool {
        self.moved_ns <= MOST_MOVED_NS
    }
}

/// Wall clock less boot clock, from the quickest of some readings: an interruption makes one long.
fn difference() -> Result<i64> {
    let mut best = (i64::MAX, 0);
    for _ in 0..8 {
        let before = read(ClockId::CLOCK_BOOTTIME)?;
        let wall = read(ClockId::CLOCK_REALTIME)?;
        let after = read(ClockId::CLOCK_BOOTTIME)?;
        best = best.min((after - before, wall - (before + after) / 2));
    }
    Ok(best.1)
}

fn read(clock: ClockId) -> Result<i64> {
    let time = clock_gettime(clock).context("cannot read a clock")?;
    Ok(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_stands() {
        let mut clock = Clock::start().expect("clocks can be read");
        clock.check().expect("clocks can be read");
        assert!(clock.stood(), "{clock:?}");
        let stamp = read(ClockId::CLOCK_REALTIME).expect("clocks can be read");
        let boot = read(ClockId::CLOCK_BOOTTIME).expect("clocks can be read") as u64;
        assert!(clock.boot_ns(stamp).abs_diff(boot) < 1_000_000_000);
        let moved = Clock {
            moved_ns: MOST_MOVED_NS + 1,
            ..clock
        };
        assert!(!moved.stood());
    }
}
