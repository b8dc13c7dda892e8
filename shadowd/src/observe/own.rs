//! What the daemon itself uses: processor time of the process and of the capturing thread, memory.

use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// The daemon's own use, followed from sample to sample. For one thread: the one that captures.
#[derive(Debug, Default)]
pub struct Own {
    before: Option<(Duration, Duration)>,
    /// Processor time of the process in the last interval, as a share of one processor.
    pub cpu_share: Option<f64>,
    /// Of that, this thread.
    pub thread_cpu_share: Option<f64>,
    /// Resident memory, bytes.
    pub rss_bytes: Option<u64>,
}

impl Own {
    /// Looks again, `interval` after the last time.
    pub fn look(&mut self, interval: Duration) {
        let used = |who| getrusage(who).ok().map(|usage| processor_time(&usage));
        let now = used(UsageWho::RUSAGE_SELF).zip(used(UsageWho::RUSAGE_THREAD));
        let share = |now: Duration, before: Duration| {
            now.saturating_sub(before).as_secs_f64() / interval.as_secs_f64().max(f64::EPSILON)
        };
        if let (Some(now), Some(before)) = (now, self.before) {
            self.cpu_share = Some(share(now.0, before.0));
            self.thread_cpu_share = Some(share(now.1, before.1));
        }
        self.before = now;
        self.rss_bytes = procfs::process::Process::myself()
            .and_then(|process| process.statm())
            .ok()
            .map(|memory| memory.resident.saturating_mul(procfs::page_size()));
    }
}

fn processor_time(usage: &Usage) -> Duration {
    let time = |value: TimeVal| {
        let micros = value.tv_sec().unsigned_abs() * 1_000_000 + value.tv_usec().unsigned_abs();
        Duration::from_micros(micros)
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_and_memory_is_there() {
        let mut own = Own::default();
        own.look(Duration::from_secs(1));
        assert_eq!(own.cpu_share, None, "one look makes no interval");
        let usage = || processor_time(&getrusage(UsageWho::RUSAGE_THREAD).expect("it is there"));
        let start = usage();
        let mut sum = 0_u64;
        while usage() - start < Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        own.look(Duration::from_secs(1));
        let share = own.thread_cpu_share.expect("two looks");
        assert!(share >= 0.019, "{share}");
        assert!(own.rss_bytes.is_some_and(|bytes| bytes > 1 << 20));
    }
}
