//! Whether what a unit needs of a resource has changed for good.
//!
//! A **shift** is seen within hours: readings lie outside of what was expected a day before, hour after
//! hour on the same side. What follows a season was expected, and is none. A **drift** is slower than
//! the forecast: nothing surprises, but what is needed has not been what the version says for days. A
//! spike is neither: it is over before the one, and the other outlasts what intervals remember of it.

use serde::{Deserialize, Serialize};

use crate::decide::forecast::Forecast;
use crate::decide::profile::series::Closed;
use crate::facts::{Need, ResourceKind};

/// This share of the readings of an hour has to lie outside.
const SHARE: f64 = 0.75;
/// For so many hours in a row.
const SHIFT_HOURS: u32 = 6;
/// More days than intervals remember (three).
const DRIFT_HOURS: u32 = 96;
/// It has changed when it is by so many times more, or less.
const RATIO: f64 = 1.5;

/// One resource of one unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Level {
    /// Readings of the hour that is not over: judged, above and below the 80 % interval.
    judged: u32,
    above: u32,
    below: u32,
    /// Their sum.
    sum: f64,
    /// Mean of the last hour.
    seen: f64,
    /// Hours in a row in which they lay above, below.
    hours_above: u32,
    hours_below: u32,
    /// Hours in a row in which the need was not the one of the version.
    hours_other: u32,
    /// And in which the version did not know it.
    hours_unknown: u32,
}

impl Level {
    /// A reading was judged. One that is off by nothing that a host would notice is within.
    pub fn note(&mut self, closed: &Closed, kind: ResourceKind) {
        let Some(Forecast {
            median,
            within_80: [low, high],
            ..
        }) = closed.expected
        else {
            return;
        };
        let (low, high) = (
            low.min(median - least(kind)),
            high.max(median + least(kind)),
        );
        self.judged += 1;
        self.sum += closed.value;
        self.above += u32::from(closed.value > high);
        self.below += u32::from(closed.value < low);
    }

    /// The hour is over, `believed` is what the version says and `need` what is expected of the next
    /// day: the need that has changed for good, if it has. After a shift it is the level that is seen: the
    /// forecast takes a day to follow.
    pub fn close_hour(
        &mut self,
        believed: Option<&Need>,
        need: &Need,
        kind: ResourceKind,
    ) -> Option<Need> {
        let lasts = |hours: u32, outside: u32| match outside > 0 && is_most(outside, self.judged) {
            true => hours.saturating_add(1),
            false => 0,
        };
        let count = |hours: u32, holds: bool| if holds { hours.saturating_add(1) } else { 0 };
        let known = believed.filter(|believed| !believed.cold || need.cold);
        let other = known.is_some_and(|one| {
            differs(one.median, need.median, kind) || differs(one.peak, need.peak, kind)
        });
        let seen = self.sum / f64::from(self.judged.max(1));
        *self = Self {
            judged: 0,
            above: 0,
            below: 0,
            sum: 0.0,
            seen,
            hours_above: lasts(self.hours_above, self.above),
            hours_below: lasts(self.hours_below, self.below),
            hours_other: count(self.hours_other, other),
            hours_unknown: count(self.hours_unknown, known.is_none()),
        };
        let outside = self.hours_above.max(self.hours_below) >= SHIFT_HOURS;
        if outside && known.is_some_and(|one| differs(one.median, seen, kind)) {
            return Some(Need {
                median: seen,
                peak: need.peak.max(seen),
                cold: need.cold,
            });
        }
        let changed = self.hours_other >= DRIFT_HOURS || self.hours_unknown >= SHIFT_HOURS;
        changed.then_some(*need)
    }
}

fn is_most(part: u32, all: u32) -> bool {
    f64::from(part) >= f64::from(all) * SHARE
}

/// Whether two needs are so different that it matters.
fn differs(one: f64, other: f64, kind: ResourceKind) -> bool {
    let (low, high) = (one.min(other).max(0.0), one.max(other).max(0.0));
    high > low * RATIO && high - low > least(kind)
}

/// Less than this is nothing that a host would notice.
const fn least(kind: ResourceKind) -> f64 {
    match kind {
        ResourceKind::Cpu => 0.05,
        ResourceKind::Memory => 16.0 * MIB,
        ResourceKind::NetworkIn
        | ResourceKind::NetworkOut
        | ResourceKind::DiskRead
        | ResourceKind::DiskWrite => 16.0 * KIB,
    }
}

const KIB: f64 = 1_024.0;
const MIB: f64 = KIB * KIB;

/// What has changed, in words.
pub(super) fn sentence(
    unit: &str,
    kind: ResourceKind,
    believed: Option<&Need>,
    need: &Need,
) -> String {
    let known = believed.filter(|believed| !believed.cold || need.cold);
    let text = |value: f64| amount(kind, value);
    match known {
        Some(one) => format!(
            "{kind} of {unit}: median {} -> {}, peak {} -> {}",
            text(one.median),
            text(need.median),
            text(one.peak),
            text(need.peak)
        ),
        None => format!(
            "{kind} of {unit} is known: median {}, peak {}",
            text(need.median),
            text(need.peak)
        ),
    }
}

fn amount(kind: ResourceKind, value: f64) -> String {
    let value = value.max(0.0);
    match kind {
        ResourceKind::Cpu => format!("{value:.2}"),
        ResourceKind::Memory => format!("{:.1} MiB", value / MIB),
        ResourceKind::NetworkIn
        | ResourceKind::NetworkOut
        | ResourceKind::DiskRead
        | ResourceKind::DiskWrite => format!("{:.1} KiB/s", value / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: ResourceKind = ResourceKind::Cpu;

    fn need(median: f64, peak: f64) -> Need {
        Need {
            median,
            peak,
            cold: false,
        }
    }

    fn closed(value: f64) -> Closed {
        let expected = Forecast {
            median: 0.1,
            within_80: [0.0, 0.2],
            within_95: [0.0, 0.3],
            cold: false,
        };
        Closed {
            value,
            surprise: 0.0,
            expected: Some(expected),
            yesterday: None,
        }
    }

    /// An hour of these readings.
    fn hour(level: &mut Level, readings: &[f64], believed: &Need, now: &Need) -> Option<Need> {
        for value in readings {
            level.note(&closed(*value), CPU);
        }
        level.close_hour(Some(believed), now, CPU)
    }

    #[test]
    fn a_shift_takes_hours_on_one_side_and_another_level() {
        let (before, now) = (need(0.1, 0.3), need(0.15, 0.3));
        let over = [0.4; 12];
        let mut level = Level::default();
        for _ in 1..SHIFT_HOURS {
            assert_eq!(hour(&mut level, &over, &before, &now), None);
        }
        let shifted = hour(&mut level, &over, &before, &now).expect("it lasts");
        assert!((shifted.median - 0.4).abs() < 1e-9 && shifted.peak >= shifted.median);
        // A version that says so is right, though the forecast lags behind.
        assert_eq!(hour(&mut level, &over, &shifted, &now), None);
        // What was expected of this hour is no shift, whatever the version says.
        let mut level = Level::default();
        assert!(!(0..20).any(|_| hour(&mut level, &[0.15; 12], &before, &before).is_some()));
        // Neither is what goes to and fro, nor what is interrupted.
        let mut level = Level::default();
        let to_and_fro = (0..20).any(|at| {
            let reading = if at % 2 == 0 { 0.4 } else { -0.4 };
            hour(&mut level, &[reading; 12], &before, &before).is_some()
        });
        assert!(!to_and_fro);
    }

    #[test]
    fn a_drift_takes_days_and_a_need_that_nobody_knew_hours() {
        let (before, after) = (need(0.1, 0.3), need(0.1, 0.6));
        let mut level = Level::default();
        let calm = [0.1; 12];
        let first = (1..200).find(|_| hour(&mut level, &calm, &before, &after).is_some());
        assert_eq!(first, Some(DRIFT_HOURS));
        let mut level = Level::default();
        let unknown = (1..20).find(|_| level.close_hour(None, &after, CPU) == Some(after));
        assert_eq!(unknown, Some(SHIFT_HOURS));
        let cold = Need {
            cold: true,
            ..before
        };
        let mut level = Level::default();
        let warm = (1..20).find(|_| level.close_hour(Some(&cold), &after, CPU).is_some());
        assert_eq!(warm, Some(SHIFT_HOURS));
    }

    #[test]
    fn what_no_host_would_notice_is_no_change_and_words_have_units() {
        assert!(!differs(0.001, 0.02, CPU) && differs(0.1, 0.2, CPU));
        assert!(!differs(0.2, 0.25, CPU) && differs(0.4, 0.2, CPU));
        assert!(!differs(0.0, 900.0, ResourceKind::NetworkIn));
        let told = sentence("a.service", CPU, Some(&need(0.1, 0.3)), &need(0.4, 0.62));
        assert_eq!(
            told,
            "cpu of a.service: median 0.10 -> 0.40, peak 0.30 -> 0.62"
        );
        let told = sentence(
            "a.service",
            ResourceKind::Memory,
            None,
            &need(MIB, 2.0 * MIB),
        );
        assert_eq!(
            told,
            "memory of a.service is known: median 1.0 MiB, peak 2.0 MiB"
        );
    }
}
