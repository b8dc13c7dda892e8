//! Waits with a deadline.

use std::time::Instant;

use super::daemon::PATIENCE;

/// Waits until `condition` holds.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        std::thread::yield_now();
    }
}
