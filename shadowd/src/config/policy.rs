//! The settings that bound automatic failover of a group.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Minutes of a day.
pub const DAY_MINUTES: u16 = 24 * 60;

/// What bounds automatic failover of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySettings {
    /// For how long a member with a better priority has to be ready before it gets the group back;
    /// none: never.
    pub failback: Option<Duration>,
    /// When it may get it back; none: at any time.
    pub failback_window: Option<DayWindow>,
    /// The flap budget.
    pub flap: FlapSettings,
}

/// A part of each day, in minutes since midnight of the local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayWindow {
    /// First minute within, 0 to 1439.
    pub from: u16,
    /// First minute after, 0 to 1439, not `from`; less than it where midnight is within.
    pub to: u16,
}

impl DayWindow {
    /// Whether the window is open in the minute `minute` of the day.
    pub const fn is_open(self, minute: u16) -> bool {
        if self.from < self.to {
            self.from <= minute && minute < self.to
        } else {
            self.from <= minute || minute < self.to
        }
    }
}

/// How failovers away from a member hold it back (RFC 2439, where a route flap is what a failover
/// is here).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlapSettings {
    /// The penalty is halved in this time: 1 s to 24 h.
    pub half_life: Duration,
    /// Above it the member is held back; each failover adds 1,000. 0: never.
    pub suppress: u32,
    /// Below it the member is not held back any more; less than `suppress`.
    pub reuse: u32,
}

impl Default for FlapSettings {
    fn default() -> Self {
        Self {
            half_life: Duration::from_secs(15 * 60),
            suppress: 2_500,
            reuse: 1_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_may_hold_midnight() {
        let day = DayWindow { from: 120, to: 240 };
        let night = DayWindow { from: 1380, to: 60 };
        let open = |window: DayWindow, minutes: &[u16]| -> Vec<bool> {
            let minutes = minutes.iter();
            minutes.map(|minute| window.is_open(*minute)).collect()
        };
        assert_eq!(open(day, &[119, 120, 239, 240]), [false, true, true, false]);
        assert_eq!(
            open(night, &[1379, 1380, 0, 59, 60]),
            [false, true, true, true, false]
        );
    }
}
