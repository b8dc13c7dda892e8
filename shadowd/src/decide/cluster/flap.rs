//! The flap budget: a member that a group leaves too often is held back for a while.
//!
//! Route flap damping (RFC 2439 section 4.2) with a failover in the place of a flap: each adds a
//! penalty that decays by half in each half-life; above one threshold the member is held back,
//! below a lower one it is not any more.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::settings::FlapSettings;
use crate::facts::BootTime;

/// What one failover adds.
const EACH: f64 = 1_000.0;
/// The penalty never holds a member back for longer than so many half-lives after the last one.
const HALF_LIVES_MAX: i32 = 4;

/// A member's penalty in one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Flap {
    /// As of `at`.
    points: f64,
    at: BootTime,
    held: bool,
}

impl Flap {
    /// What was remembered over a restart, `elapsed` ago.
    pub fn restored(
        points: f64,
        held: bool,
        elapsed: Duration,
        settings: &FlapSettings,
        now: BootTime,
    ) -> Self {
        let points = if points.is_finite() { points } else { 0.0 };
        let points = points.clamp(0.0, most(settings)) * decay(elapsed, settings);
        let (at, held) = (now, held && settings.suppress > 0);
        Self { points, at, held }
    }

    /// The group left this member. Whether the member is held back from now on, and was not before.
    pub fn add(&mut self, settings: &FlapSettings, now: BootTime) -> bool {
        self.points = (self.points(settings, now) + EACH).min(most(settings));
        self.at = now;
        let over = settings.suppress > 0 && self.points > f64::from(settings.suppress);
        over && !std::mem::replace(&mut self.held, true)
    }

    /// Whether the member was held back until now and is not any more.
    pub fn ease(&mut self, settings: &FlapSettings, now: BootTime) -> bool {
        self.held && self.points(settings, now) <= f64::from(settings.reuse) && {
            self.held = false;
            true
        }
    }

    /// Whether the penalty holds the member back, as of the last look.
    pub fn held(&self) -> bool {
        self.held
    }

    /// What is left of the penalty.
    pub fn points(&self, settings: &FlapSettings, now: BootTime) -> f64 {
        self.points * decay(now.since(self.at), settings)
    }

    /// Until when the member is held back; none while it is not.
    pub fn held_until(&self, settings: &FlapSettings) -> Option<BootTime> {
        let half_lives = (self.points / f64::from(settings.reuse.max(1)))
            .log2()
            .max(0.0);
        let span = Duration::try_from_secs_f64(half_lives * settings.half_life.as_secs_f64());
        self.held.then(|| self.at.after(span.unwrap_or_default()))
    }
}

fn most(settings: &FlapSettings) -> f64 {
    let bound = f64::from(settings.reuse) * 2f64.powi(HALF_LIVES_MAX);
    // A threshold above the bound could never be passed.
    bound.max(f64::from(settings.suppress) + EACH)
}

fn decay(elapsed: Duration, settings: &FlapSettings) -> f64 {
    (-elapsed.as_secs_f64() / settings.half_life.as_secs_f64().max(1e-9)).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> BootTime {
        BootTime::from_nanos(minutes * 60_000_000_000)
    }

    #[test]
    fn the_third_failover_in_a_row_holds_back_until_the_penalty_has_decayed() {
        let settings = FlapSettings::default();
        let mut flap = Flap::default();
        assert!(!flap.add(&settings, at(100)));
        assert!(!flap.add(&settings, at(101)));
        assert!(flap.add(&settings, at(102)), "over 2,500");
        assert!(!flap.add(&settings, at(102)), "said once");
        let until = flap.held_until(&settings).unwrap();
        assert!((at(131)..at(132)).contains(&until), "{until}: 2 half-lives");
        assert!(!flap.ease(&settings, at(130)) && flap.held());
        assert!(flap.ease(&settings, at(132)) && !flap.held());
        assert_eq!(flap.held_until(&settings), None);
    }

    #[test]
    fn failovers_far_apart_never_hold_back_and_the_penalty_is_bounded() {
        let settings = FlapSettings::default();
        let mut flap = Flap::default();
        for hour in 0..100 {
            assert!(!flap.add(&settings, at(hour * 60)), "{hour}");
        }
        for _ in 0..1_000 {
            flap.add(&settings, at(6_000));
        }
        let until = flap.held_until(&settings).unwrap();
        assert_eq!(until, at(6_060), "4 half-lives");
    }

    #[test]
    fn a_budget_of_zero_never_holds_back() {
        let settings = FlapSettings {
            suppress: 0,
            ..FlapSettings::default()
        };
        let mut flap = Flap::default();
        assert!((0..50).all(|_| !flap.add(&settings, at(1))));
    }

    #[test]
    fn a_restart_forgets_nothing_but_what_has_decayed() {
        let settings = FlapSettings::default();
        let restored = |elapsed| Flap::restored(4_000.0, true, elapsed, &settings, at(5));
        let quarter = Duration::from_secs(900);
        assert_eq!(restored(quarter).points(&settings, at(5)), 2_000.0);
        assert!(restored(quarter).held());
        let odd = Flap::restored(f64::NAN, true, quarter, &settings, at(5));
        assert_eq!(odd.points(&settings, at(5)), 0.0);
    }
}
