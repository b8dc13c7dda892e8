//! How regularly a member's heartbeats arrive, learned from those that did.
//!
//! A mean and a deviation that forget exponentially, as TCP estimates round trips (RFC 6298,
//! section 2): heartbeats that get lost or come late make both grow within some of them, and calm
//! makes them shrink again. On a calm link the estimate stays below what is configured, and changes
//! nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::facts::BootTime;

/// A gap this many deviations above the mean is silence.
const DEVIATIONS: u32 = 4;

/// What was learned.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Rhythm {
    last: Option<BootTime>,
    mean: Duration,
    deviation: Duration,
}

impl Rhythm {
    /// A heartbeat arrived. `listening`: since when this process has run without a break. What it
    /// did not hear because it did not run is no gap, nor is an outage longer than `longest`.
    pub fn beat(&mut self, now: BootTime, listening: BootTime, longest: Duration) {
        let last = self.last.replace(now).filter(|last| *last >= listening);
        let Some(gap) = last.map(|last| now.since(last)) else {
            return;
        };
        if gap > longest {
            return;
        }
        if self.mean.is_zero() {
            (self.mean, self.deviation) = (gap, gap / 2);
            return;
        }
        self.deviation = self.deviation * 3 / 4 + gap.abs_diff(self.mean) / 4;
        self.mean = self.mean * 7 / 8 + gap / 8;
    }

    /// How long a member with this rhythm may be silent; zero before its second heartbeat.
    pub fn expected(&self) -> Duration {
        self.mean + self.deviation * DEVIATIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(240);

    fn after(gaps_ms: impl IntoIterator<Item = u64>) -> Duration {
        let (mut rhythm, mut now) = (Rhythm::default(), BootTime::from_nanos(1));
        rhythm.beat(now, BootTime::default(), LONGEST);
        for gap in gaps_ms {
            now = now.after(Duration::from_millis(gap));
            rhythm.beat(now, BootTime::default(), LONGEST);
        }
        rhythm.expected()
    }

    #[test]
    fn a_regular_member_may_be_silent_for_hardly_longer_than_its_rhythm() {
        assert_eq!(after([]), Duration::ZERO);
        let calm = after([10; 100]);
        assert!(calm < Duration::from_millis(12), "{calm:?}");
        let jitter = after((0..100).map(|n| 9 + n % 3));
        assert!(jitter < Duration::from_millis(15), "{jitter:?}");
    }

    #[test]
    fn losses_make_patient_and_calm_makes_strict_again() {
        let lossy = [10, 20, 10, 40, 10, 10, 30, 10, 20, 50].repeat(5);
        let learned = after(lossy.clone());
        assert!(learned > Duration::from_millis(50), "{learned:?}");
        let calm = after(lossy.into_iter().chain([10; 60]));
        assert!(calm < Duration::from_millis(15), "{calm:?}");
    }

    #[test]
    fn outages_and_own_stalls_teach_nothing() {
        let regular = after([10; 50]);
        let outage = after([10; 50].into_iter().chain([5_000]));
        assert_eq!(outage, regular);
        let (mut rhythm, mut now) = (Rhythm::default(), BootTime::from_nanos(1));
        for _ in 0..50 {
            now = now.after(Duration::from_millis(10));
            rhythm.beat(now, BootTime::default(), LONGEST);
        }
        let before = rhythm.expected();
        now = now.after(Duration::from_millis(200));
        rhythm.beat(now, now, LONGEST);
        assert_eq!(rhythm.expected(), before);
    }
}
