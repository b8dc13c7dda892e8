//! Whether something is expected in an hour, from the hours in which it was there.

use crate::facts::{Habit, Hour};

/// Weeks and days that are looked at.
const WEEKS: u32 = 3;
const DAYS: u32 = 7;
/// With fewer hours of the same time in which was looked, a pattern is none.
const SEEN_MIN: u32 = 2;
/// Hours that tell whether a pattern still holds.
const LATELY: u32 = 24;
/// A pattern that is off by more than this share of them does not.
const BROKEN: f64 = 0.5;

/// How likely it is there in `hour`, 0 to 1, by what was seen up to and with `now`. None: nothing
/// was seen yet.
///
/// The same hour of the week decides if it was seen twice, else the same hour of the day, else the
/// last hour. What has been there throughout, or nowhere, for a day against its pattern is expected
/// to go on so: it is new, or gone.
pub fn likely(habit: &Habit, observed: &Habit, hour: Hour, now: Hour) -> Option<f64> {
    let lately = lately(habit, observed, now);
    let pattern = pattern(habit, observed, hour, now);
    match (lately, pattern) {
        (Some((share, usual)), Some(_)) if (share - usual).abs() > BROKEN => Some(share),
        (_, Some(pattern)) => Some(pattern),
        (Some((share, _)), None) => Some(share),
        (None, None) => last(habit, observed, now),
    }
}

/// Whether it is expected.
pub fn expected(habit: &Habit, observed: &Habit, hour: Hour, now: Hour) -> bool {
    likely(habit, observed, hour, now).is_some_and(|likely| likely >= 0.5)
}

/// The share of hours of the same time in which it was there; a newer one counts twice as much as
/// the one before it. None while too few were seen.
fn pattern(habit: &Habit, observed: &Habit, hour: Hour, now: Hour) -> Option<f64> {
    share(habit, observed, hour, now, 168, WEEKS)
        .or_else(|| share(habit, observed, hour, now, 24, DAYS))
}

fn share(
    habit: &Habit,
    observed: &Habit,
    hour: Hour,
    now: Hour,
    season: u32,
    most: u32,
) -> Option<f64> {
    let (mut there, mut all, mut seen) = (0.0, 0.0, 0);
    // From the newest such hour that is not in the future.
    let ahead = hour.0.saturating_sub(now.0).div_ceil(season).max(1);
    for times in ahead..ahead + most {
        let before = Hour(hour.0.checked_sub(times * season)?);
        if observed.at(before) {
            let weight = 0.5_f64.powi(seen);
            all += weight;
            there += if habit.at(before) { weight } else { 0.0 };
            seen += 1;
        }
    }
    (seen >= SEEN_MIN as i32).then(|| there / all)
}

/// Of the last day's hours: the share in which it was there, and the share that its pattern says.
/// None while less than a day was seen.
fn lately(habit: &Habit, observed: &Habit, now: Hour) -> Option<(f64, f64)> {
    let (mut there, mut usual) = (0.0, 0.0);
    for back in 0..LATELY {
        let hour = Hour(now.0.checked_sub(back)?);
        if !observed.at(hour) {
            return None;
        }
        there += f64::from(u8::from(habit.at(hour)));
        let before = Hour(hour.0.checked_sub(1)?);
        usual += pattern(habit, observed, hour, before).unwrap_or(f64::NAN);
    }
    let of = f64::from(LATELY);
    Some((
        there / of,
        if usual.is_nan() {
            there / of
        } else {
            usual / of
        },
    ))
}

/// Whether it was there in the newest hour in which was looked.
fn last(habit: &Habit, observed: &Habit, now: Hour) -> Option<f64> {
    let newest = (0..LATELY).map(|back| Hour(now.0.saturating_sub(back)));
    let newest = newest.into_iter().find(|hour| observed.at(*hour))?;
    Some(f64::from(u8::from(habit.at(newest))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Local Monday, 0 h.
    const MONDAY: u32 = 4 * 24 + 168 * 2_600;

    /// What was there in the hours before `until`, from Monday on.
    fn history(until: u32, there: impl Fn(u32) -> bool) -> (Habit, Habit) {
        let (mut habit, mut observed) = (Habit::default(), Habit::default());
        for hour in 0..until {
            observed.note(Hour(MONDAY + hour));
            if there(hour) {
                habit.note(Hour(MONDAY + hour));
            }
        }
        (habit, observed)
    }

    /// The hours of the next two days in which it is expected.
    fn next(until: u32, there: impl Fn(u32) -> bool) -> Vec<u32> {
        let (habit, observed) = history(until, there);
        let now = Hour(MONDAY + until - 1);
        (until..until + 48)
            .filter(|hour| expected(&habit, &observed, Hour(MONDAY + hour), now))
            .map(|hour| hour - until)
            .collect()
    }

    #[test]
    fn nothing_is_known_before_anything_was_seen() {
        let (habit, observed) = (Habit::default(), Habit::default());
        assert_eq!(likely(&habit, &observed, Hour(MONDAY), Hour(MONDAY)), None);
    }

    #[test]
    fn what_runs_always_is_expected_always() {
        for until in [1, 5, 30, 24 * 10, 24 * 30] {
            assert_eq!(next(until, |_| true).len(), 48, "after {until} hours");
            assert_eq!(next(until, |_| false).len(), 0, "after {until} hours");
        }
    }

    #[test]
    fn a_nightly_job_is_expected_at_its_hour_from_the_third_night_on() {
        assert_eq!(next(24 * 2 + 12, |hour| hour % 24 == 3), [15, 39]);
        assert_eq!(next(24 * 20, |hour| hour % 24 == 3), [3, 27]);
    }

    #[test]
    fn a_weekly_job_is_expected_on_its_day_alone() {
        // Sundays at 3, seen three times; it is Saturday, 12 h.
        let until = 168 * 3 + 24 * 5 + 12;
        assert_eq!(next(until, |hour| hour % 168 == 24 * 6 + 3), [15]);
    }

    #[test]
    fn what_is_new_or_gone_is_believed_after_a_day() {
        let added = 24 * 20;
        assert_eq!(next(added + 24, |hour| hour >= added).len(), 48);
        assert_eq!(next(added + 24, |hour| hour < added).len(), 0);
    }

    #[test]
    fn hours_in_which_nobody_looked_say_nothing() {
        let (mut habit, mut observed) = history(24 * 10, |_| true);
        // The observer was away for four days.
        let back = 24 * 14;
        observed.note(Hour(MONDAY + back));
        habit.note(Hour(MONDAY + back));
        let now = Hour(MONDAY + back);
        assert!(expected(&habit, &observed, Hour(MONDAY + back + 5), now));
    }
}
