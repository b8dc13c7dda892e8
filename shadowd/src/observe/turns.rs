//! Whether threads of usual priority get their turns.
//!
//! The failover loop is real-time where it may be, so it runs on time on a host on which the services
//! it guards hardly run at all. One thread of usual priority notes each of its turns, and the loop
//! looks at the notes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::sys::boot_time;
use crate::facts::BootTime;

/// Between two turns.
const PERIOD: Duration = Duration::from_millis(25);

/// The notes of the thread, which ends soon after the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Turns {
    last: Arc<AtomicU64>,
}

impl Turns {
    /// Starts the thread. To be called from one of usual priority, which it inherits.
    ///
    /// # Errors
    ///
    /// The kernel has no room for a thread.
    pub fn start() -> io::Result<Self> {
        let last = Arc::new(AtomicU64::new(boot_time().as_nanos()));
        let notes = Arc::downgrade(&last);
        let work = move || {
            while let Some(last) = notes.upgrade() {
                last.store(boot_time().as_nanos(), Ordering::Relaxed);
                drop(last);
                std::thread::sleep(PERIOD);
            }
        };
        std::thread::Builder::new()
            .name("turns".into())
            .spawn(work)?;
        Ok(Self { last })
    }

    /// For how long the thread has been waiting for a turn that is due; zero when none is.
    pub fn waiting(&self, now: BootTime) -> Duration {
        let last = BootTime::from_nanos(self.last.load(Ordering::Relaxed));
        now.since(last).saturating_sub(PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_due_is_waited_for() {
        let turns = Turns {
            last: Arc::new(AtomicU64::new(1_000_000_000)),
        };
        let after = |millis: u64| BootTime::from_nanos(1_000_000_000 + millis * 1_000_000);
        assert_eq!(turns.waiting(after(0)), Duration::ZERO);
        assert_eq!(turns.waiting(after(25)), Duration::ZERO);
        assert_eq!(turns.waiting(after(125)), Duration::from_millis(100));
    }

    #[test]
    fn turns_are_noted_and_the_thread_ends_with_its_notes() {
        let turns = Turns::start().unwrap();
        let first = turns.last.load(Ordering::Relaxed);
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while turns.last.load(Ordering::Relaxed) == first {
            assert!(std::time::Instant::now() < deadline, "no turn was noted");
            std::thread::yield_now();
        }
        let notes = Arc::downgrade(&turns.last);
        drop(turns);
        while notes.strong_count() > 0 {
            assert!(std::time::Instant::now() < deadline, "the thread goes on");
            std::thread::yield_now();
        }
    }
}
