//! Readings of the host -> what it used in the interval.

use std::time::Duration;

use super::groups::pressure;
use super::share;
use crate::facts::{HostReading, HostUse};

/// The last reading.
#[derive(Debug, Default)]
pub struct Host {
    last: Option<HostReading>,
}

impl Host {
    pub fn read(&mut self, now: &HostReading, interval: Duration) -> HostUse {
        // Without a reading before, nothing is known of the interval.
        let before = self.last.as_ref().unwrap_or(now);
        let (then, total) = (&before.resources, now.resources);
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let first = self.last.is_none();
        let used = since(total.cpu_ns, then.cpu_ns).filter(|_| !first);
        let waited = |then, now| pressure(then, now, interval).filter(|_| !first);
        let observed = HostUse {
            processors: now.processors,
            cpu: used.map(|used| share(Duration::from_nanos(used), interval)),
            memory_bytes: now.memory_bytes,
            memory_available_bytes: now.memory_available_bytes,
            load: now.load,
            cpu_pressure: waited(then.cpu_pressure, total.cpu_pressure),
            memory_pressure: waited(then.memory_pressure, total.memory_pressure),
            io_pressure: waited(then.io_pressure, total.io_pressure),
            listen_overflows: now.listen_overflows.saturating_sub(before.listen_overflows),
            oom_kills: since(total.oom_kills, then.oom_kills).unwrap_or(0),
            total,
        };
        // What was read once is kept when it could not be read this time, so that what happens
        // meanwhile is told when it can be read again.
        if now.processors > 0 || first {
            self.last = Some(now.clone());
        }
        observed
    }
}
