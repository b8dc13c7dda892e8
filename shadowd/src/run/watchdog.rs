//! The watchdog of systemd (sd_watchdog_enabled(3)), fed by the failover loop itself.
//!
//! The loop is real-time where it may be, so a host whose other threads hardly run does not lose its
//! daemon, and its group, to a watchdog that waits for one of them. What hangs for good is found all
//! the same: a loop that does not turn, and a main thread that has not for much longer than a starved
//! host lets it wait.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

use crate::facts::BootTime;

/// Where systemd listens (sd_notify(3)).
const SOCKET: &str = "NOTIFY_SOCKET";
/// A main thread without a turn for so long hangs.
const MAIN_HANGS: Duration = Duration::from_secs(60);
/// The watchdog is fed so often within its limit.
const TIMES: u32 = 6;

/// Feeds the watchdog, and never waits for systemd.
#[derive(Debug)]
pub struct Watchdog {
    socket: UnixDatagram,
    systemd: SocketAddr,
    every: Duration,
    next: BootTime,
}

impl Watchdog {
    /// None when nobody watches.
    pub fn of_systemd() -> Option<Self> {
        let micros = systemd::daemon::watchdog_enabled().ok()?;
        let limit = Duration::from_micros(micros);
        let address = std::env::var_os(SOCKET)?;
        if limit.is_zero() {
            return None;
        }
        Self::new(&address, limit)
            .inspect_err(|error| warn!(%error, "systemd's watchdog cannot be fed"))
            .ok()
    }

    /// Feeds whoever listens at `address`, within `limit` each time.
    fn new(address: &OsStr, limit: Duration) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        let systemd = match address.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(address)?,
        };
        Ok(Self {
            socket,
            systemd,
            every: limit / TIMES,
            next: BootTime::default(),
        })
    }

    /// The loop has had a turn, and the main thread had its last one so long ago.
    pub fn feed(&mut self, main_silent: Duration, now: BootTime) {
        if now < self.next || main_silent >= MAIN_HANGS {
            return;
        }
        // A queue that is full has a reader that is late: it is tried again with the next turn.
        if self
            .socket
            .send_to_addr(b"WATCHDOG=1", &self.systemd)
            .is_ok()
        {
            self.next = now.after(self.every);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    fn fed(systemd: &UnixDatagram) -> usize {
        let mut word = [0; 32];
        let mut times = 0;
        while let Ok(length) = systemd.recv(&mut word) {
            assert_eq!(&word[..length], b"WATCHDOG=1");
            times += 1;
        }
        times
    }

    #[test]
    fn it_is_fed_in_time_unless_the_main_thread_hangs() {
        let name = format!("shadowd-watchdog-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        systemd.set_nonblocking(true).unwrap();
        let address = format!("@{name}");
        let mut watchdog = Watchdog::new(OsStr::new(&address), Duration::from_secs(3)).unwrap();
        for millis in (0..3_000).step_by(100) {
            watchdog.feed(Duration::from_secs(5), at(10_000 + millis));
        }
        assert_eq!(fed(&systemd), 6);
        watchdog.feed(MAIN_HANGS, at(20_000));
        assert_eq!(fed(&systemd), 0);
        // Nobody reads: it does not wait, and goes on when somebody does.
        for millis in (0..10_000_000).step_by(1_000) {
            watchdog.feed(Duration::ZERO, at(30_000 + millis));
        }
        assert!(fed(&systemd) > 0);
        watchdog.feed(Duration::ZERO, at(20_000_000));
        assert_eq!(fed(&systemd), 1);
    }
}
