//! How long a lease an owner asks for.
//!
//! An owner whose process does not get to run, or whose answers get lost, asks for longer leases:
//! dying unnoticed for longer is better than a lease that lapses while alive. What it learnt so is
//! forgotten by halves, and how soon is learnt as well: at first within moments, because most
//! stalls are the only one; each time that a trouble comes back after it was forgotten it is
//! remembered for twice as long.
//!
//! On a link that loses datagrams all the time a lease lasts so many heartbeats that losing every
//! one of them in a row would be a matter of days.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::BootTime;

/// A lease is stretched up to so many times the length that is configured.
pub(super) const STRETCH_MAX: u32 = 16;
/// Half of a first stretch is forgotten after this.
const CALM_MIN: Duration = Duration::from_millis(50);
/// And of one that came back again and again after this.
const CALM_MAX: Duration = Duration::from_secs(10);
/// A trouble after so many times the calm is a first one again.
const FORGOTTEN: u32 = 600;
/// At most so many of 1,000 heartbeats get lost, and so many in a row do
/// with a probability of 1 in 10 million: ln(10^-7) / ln(share).
const RUNS: [(u32, u32); 6] = [
    (100, 7),
    (200, 10),
    (300, 14),
    (400, 18),
    (500, 24),
    (650, 38),
];
/// Fewer of 1,000 than this are chance.
const CHANCE: u32 = 50;

/// What is left of a stretch is nothing once it is less than this part of the configured length.
const NOTHING: u32 = 16;

/// The length of the leases to ask for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Stretch {
    configured: Duration,
    wanted: Duration,
    /// When the stretch last grew or shrank, or would have to.
    since: BootTime,
    /// How long there must be no trouble for half of the stretch to go.
    calm: Duration,
    /// The last trouble, if any.
    trouble: Option<BootTime>,
    /// Something of the stretch was forgotten since.
    shrunk: bool,
}

impl Stretch {
    pub fn new(configured: Duration, now: BootTime) -> Self {
        Self {
            configured,
            wanted: configured,
            since: now,
            calm: CALM_MIN,
            trouble: None,
            shrunk: false,
        }
    }

    /// The lease to ask for; from the configured length to [`STRETCH_MAX`] times as long.
    pub fn wanted(&self) -> Duration {
        self.wanted
    }

    /// Only a lease of `needed` would have held.
    pub fn trouble(&mut self, needed: Duration, now: BootTime) {
        if needed <= self.configured {
            return;
        }
        let needed = needed.min(self.configured * STRETCH_MAX);
        if needed > self.wanted {
            let last = self.trouble.replace(now);
            let calm = match last.map(|last| now.since(last)) {
                Some(ago) if ago > self.calm * FORGOTTEN => CALM_MIN,
                Some(_) if self.shrunk => self.calm * 2,
                Some(_) | None => self.calm,
            };
            self.calm = calm.min(CALM_MAX);
            self.shrunk = false;
            self.wanted = needed;
            self.since = now;
        } else if needed > self.half() {
            // Half of it would not do.
            self.trouble = Some(now);
            self.since = now;
        }
    }

    /// Time has passed; to be called with each heartbeat.
    pub fn beat(&mut self, now: BootTime) {
        if now.since(self.since) >= self.calm && self.wanted > self.configured {
            self.wanted = self.half();
            self.since = now;
            self.shrunk = true;
        }
    }

    /// So many of 1,000 heartbeats get lost ([`super::answers`]).
    pub fn losses(&mut self, share: u32, heartbeat: Duration, now: BootTime) {
        if share >= CHANCE {
            let run = RUNS.iter().find(|(most, _)| share <= *most);
            let run = run.map_or(u32::MAX / 1_000, |(_, run)| *run);
            self.trouble(heartbeat.saturating_mul(run), now);
        }
    }

    fn half(&self) -> Duration {
        let above = self.wanted.saturating_sub(self.configured) / 2;
        match above < self.configured / NOTHING {
            true => self.configured,
            false => self.configured + above,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(30);
    const BEAT: u64 = 10;

    /// How often a lease would have lapsed while the process does not run for `stall_ms` each
    /// `period_ms`, for `for_ms`; and the stretch at the end.
    fn lapses(stall_ms: u64, period_ms: u64, for_ms: u64) -> (u32, Stretch) {
        let mut stretch = Stretch::new(LEASE, at(0));
        let (mut lapses, mut next) = (0, period_ms);
        let mut now = 0;
        while now < for_ms {
            now += BEAT;
            if now >= next {
                next += period_ms;
                now += stall_ms;
                let needed = Duration::from_millis(stall_ms + 2 * BEAT);
                lapses += u32::from(needed > stretch.wanted());
                stretch.trouble(needed, at(now));
            }
            stretch.beat(at(now));
        }
        (lapses, stretch)
    }

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_single_stall_is_forgotten_within_a_second() {
        let mut stretch = Stretch::new(LEASE, at(0));
        stretch.trouble(LEASE * 12, at(100));
        assert_eq!(stretch.wanted(), LEASE * 12);
        for now in (110..=1100).step_by(10) {
            stretch.beat(at(now));
        }
        assert_eq!(stretch.wanted(), LEASE);
    }

    #[test]
    fn stalls_that_come_back_are_remembered_for_longer_each_time() {
        for (stall, period) in [(100, 150), (100, 1_000), (300, 3_000), (50, 7_000)] {
            let (lapsed, stretch) = lapses(stall, period, 600_000);
            assert!(lapsed <= 9, "{stall} ms each {period} ms: {lapsed} lapses");
            assert!(stretch.calm > CALM_MIN || period < 200, "{stretch:?}");
        }
    }

    #[test]
    fn a_trouble_after_long_calm_is_a_first_one() {
        let (_, mut stretch) = lapses(100, 1_000, 60_000);
        let calm = stretch.calm;
        assert!(calm > CALM_MIN);
        for now in (70_000..100_000).step_by(10) {
            stretch.beat(at(now));
        }
        assert_eq!(stretch.wanted(), LEASE);
        stretch.trouble(LEASE * 2, at(10_000_000));
        assert_eq!(stretch.calm, CALM_MIN);
    }

    #[test]
    fn a_lossy_link_gets_leases_that_outlast_its_losses() {
        let beat = Duration::from_millis(BEAT);
        let lossy = |share: u32| {
            let mut stretch = Stretch::new(LEASE, at(0));
            stretch.losses(share, beat, at(1));
            stretch.wanted()
        };
        assert_eq!(lossy(0), LEASE);
        assert_eq!(lossy(CHANCE - 1), LEASE, "chance");
        assert_eq!(lossy(100), beat * 7);
        assert_eq!(lossy(260), beat * 14);
        assert_eq!(lossy(1_000), LEASE * STRETCH_MAX);
    }

    #[test]
    fn a_stretch_has_a_bound() {
        let mut stretch = Stretch::new(LEASE, at(0));
        stretch.trouble(Duration::from_secs(60), at(1));
        assert_eq!(stretch.wanted(), LEASE * STRETCH_MAX);
        stretch.trouble(LEASE / 2, at(2));
        assert_eq!(stretch.wanted(), LEASE * STRETCH_MAX);
    }
}
