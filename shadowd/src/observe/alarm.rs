//! The alarm clock of the failover loop: a timer of the kernel on the clock that leases are counted
//! on, to the microsecond. The runtime's own timers ring up to 2 ms late, which a takeover would wait for.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::sys::register_readable;
use crate::facts::BootTime;

/// One alarm, at one time.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    at: Option<BootTime>,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        let timer = register_readable(timer)?;
        Ok(Self { timer, at: None })
    }

    /// To ring at `at` and no other time; at once if that is past.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn set(&mut self, at: BootTime) -> io::Result<()> {
        if self.at == Some(at) {
            return Ok(());
        }
        // Zero would disarm it (timerfd_settime(2)).
        let since_boot = at.since(BootTime::default()).max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(since_boot).map_err(io::Error::other)?,
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        self.at = Some(at);
        Ok(())
    }

    /// Waits until it rings, which it does once.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub async fn rings(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            let read = ready.try_io(|timer| Ok(nix::unistd::read(timer.get_ref(), &mut [0; 8])?));
            match read {
                Ok(read) => {
                    self.at = None;
                    return read.map(drop);
                }
                // It was set anew meanwhile.
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::sys::boot_time;

    const SOON: Duration = Duration::from_millis(3);

    #[tokio::test]
    async fn it_rings_at_its_time_and_not_before() {
        let mut alarm = Alarm::new().expect("a timer");
        for _ in 0..3 {
            let at = boot_time().after(SOON);
            alarm.set(at).expect("set");
            alarm.rings().await.expect("rings");
            assert!(boot_time() >= at);
        }
        alarm.set(BootTime::default()).expect("set to the past");
        alarm.rings().await.expect("rings at once");
    }

    #[tokio::test]
    async fn what_was_set_before_counts_no_more() {
        let mut alarm = Alarm::new().expect("a timer");
        alarm.set(boot_time()).expect("set");
        let at = boot_time().after(SOON);
        alarm.set(at).expect("set anew");
        alarm.rings().await.expect("rings");
        assert!(boot_time() >= at);
    }
}
