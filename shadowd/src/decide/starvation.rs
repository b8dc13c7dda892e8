//! Whether this host is starved: threads of usual priority waited long for a turn, lately.

use std::time::Duration;

use crate::facts::BootTime;

/// A busy host lets a thread wait for some milliseconds; one whose processor time is limited, or
/// taken away by its hypervisor, for longer than this.
const LONG: Duration = Duration::from_millis(60);
/// A wait counts for so many times as long as it took: limits give way at each of their periods.
const REMEMBERED: u32 = 8;
/// And for so long at most.
const LATELY: Duration = Duration::from_secs(2);

/// Follows how long turns are waited for.
#[derive(Debug, Default)]
pub struct Starvation {
    until: Option<BootTime>,
    longest: Duration,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The host is starved: a turn that is due was not given for so long already.
    Begins(Duration),
    /// It is not any more: turns took so long at most.
    Ends(Duration),
}

impl Starvation {
    /// A turn has been due for `waiting` at `now`; to be called as often as the answer matters.
    pub fn look(&mut self, waiting: Duration, now: BootTime) -> Option<Change> {
        if waiting >= LONG {
            self.longest = self.longest.max(waiting);
            let until = now.after(LATELY.min(waiting * REMEMBERED));
            let known = self
                .until
                .replace(until.max(self.until.unwrap_or_default()));
            return known.is_none().then_some(Change::Begins(waiting));
        }
        self.until.take_if(|until| now >= *until)?;
        Some(Change::Ends(std::mem::take(&mut self.longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_host_is_starved_until_turns_come_in_time_for_a_while() {
        let mut starvation = Starvation::default();
        let at = |millis: u64| BootTime::from_nanos(millis * 1_000_000);
        assert_eq!(starvation.look(ms(59), at(1_000)), None);
        assert_eq!(
            starvation.look(ms(60), at(1_010)),
            Some(Change::Begins(ms(60)))
        );
        // Told once, and the last long wait counts.
        assert_eq!(starvation.look(ms(95), at(1_045)), None);
        assert_eq!(starvation.look(ms(61), at(1_145)), None);
        assert_eq!(starvation.look(ms(0), at(1_804)), None);
        assert_eq!(
            starvation.look(ms(0), at(1_805)),
            Some(Change::Ends(ms(95)))
        );
        assert_eq!(starvation.look(ms(0), at(9_000)), None);
        assert_eq!(
            starvation.look(ms(70), at(9_100)),
            Some(Change::Begins(ms(70)))
        );
        // However long it waited, it is forgotten.
        assert_eq!(starvation.look(ms(60_000), at(69_100)), None);
        assert_eq!(starvation.look(ms(0), at(71_099)), None);
        assert_eq!(
            starvation.look(ms(0), at(71_100)),
            Some(Change::Ends(ms(60_000)))
        );
    }
}
