//! When a drill is due.
//!
//! A run that was missed, because the host was down or something spoke against it, is made up at the
//! first moment at which the window is open: once, however many were missed.

use crate::config::settings::DrillSettings;

const MINUTE_MS: u64 = 60_000;

/// Whether a drill is due at `now_ms`, in the minute `minute` of the day. A minute is granted to
/// the schedule, so that it does not wander through the day.
pub fn is_due(settings: &DrillSettings, last_ms: Option<u64>, now_ms: u64, minute: u16) -> bool {
    let Some(every) = settings.every else {
        return false;
    };
    let every = u64::try_from(every.as_millis()).unwrap_or(u64::MAX);
    let passed = last_ms.is_none_or(|last| {
        // A clock that was set back makes the last one be in the future: that is no reason to wait.
        last > now_ms || now_ms - last >= every.saturating_sub(MINUTE_MS)
    });
    passed && settings.window.is_none_or(|window| window.is_open(minute))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::settings::DayWindow;

    #[test]
    fn a_drill_is_due_once_in_each_window() {
        let hour = 3_600_000;
        let mut settings = DrillSettings {
            deadline: Duration::from_secs(60),
            units: Vec::new(),
            scratch: Vec::new(),
            checks: Vec::new(),
            every: None,
            window: None,
            return_within: Duration::ZERO,
        };
        assert!(!is_due(&settings, None, 0, 0));
        settings.every = Some(Duration::from_secs(24 * 3_600));
        assert!(is_due(&settings, None, 0, 0));
        settings.window = Some(DayWindow { from: 120, to: 240 });
        let now = 1_000 * hour;
        for (last, minute, due) in [
            (None, 119, false),
            (None, 120, true),
            (Some(now - 23 * hour), 120, false),
            (Some(now - 24 * hour + 30_000), 120, true),
            (Some(now + hour), 120, true),
            (Some(now - 48 * hour), 240, false),
            (Some(now - 480 * hour), 239, true),
        ] {
            assert_eq!(
                is_due(&settings, last, now, minute),
                due,
                "{last:?} {minute}"
            );
        }
    }
}
