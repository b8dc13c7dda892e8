//! What the daemon itself uses.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};

/// What the daemon itself uses; none where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OwnUse {
    /// Processor time since it started, seconds.
    pub cpu_seconds: Option<f64>,
    /// Resident memory, bytes.
    pub rss_bytes: Option<u64>,
}

impl OwnUse {
    /// Reads it.
    pub fn read() -> Self {
        let seconds =
            |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        let cpu_seconds = getrusage(UsageWho::RUSAGE_SELF)
            .ok()
            .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time()));
        Self {
            cpu_seconds,
            rss_bytes: rss_bytes(),
        }
    }
}

/// The second field of proc_pid_statm(5), in pages.
fn rss_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    pages.checked_mul(u64::try_from(page).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let own = OwnUse::read();
        assert!(own.cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        assert!(own.rss_bytes.is_some_and(|bytes| bytes > 100_000));
    }
}
