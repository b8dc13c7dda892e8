//! Capture as the daemon uses it: start, wait for what is urgent, take a sample on each tick.
//!
//! Blocking, for a thread of its own. It decides nothing and keeps no history.

use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::cgroups::Cgroups;
use super::probes::{self, Loaded};
use super::sys::boot_time;
use super::tables::{Event, Limits};
use super::{processes, seed};
use crate::config::settings::CaptureSettings;
use crate::facts::{BootTime, Lifecycle, Losses, ProbeStatus, ProcessReading, Sample};

/// Most process events that wait for a sample; more are counted as dropped.
const LIFECYCLE_MAX: usize = 65_536;

/// While procfs is read, how long to listen before looking whether it is done.
const LISTEN: Duration = Duration::from_millis(1);

/// A running capture.
pub struct Capture {
    loaded: Loaded,
    cgroups: Cgroups,
    /// Waits for the next sample.
    lifecycle: Vec<Lifecycle>,
    /// Was taken by a tick and not returned by a wait yet.
    unheard: Vec<Lifecycle>,
    last: BootTime,
    seen: u64,
    /// Dropped on this side of the border.
    dropped: u64,
}

impl Capture {
    /// Loads what the kernel allows and takes over what exists. Never fails: see
    /// [`Capture::probes`] for what is off.
    pub fn start(settings: &CaptureSettings) -> Self {
        Self::start_with(settings, Limits::default())
    }

    /// As [`Capture::start`], with tables of another size: for tests that want to see them full.
    pub fn start_with(settings: &CaptureSettings, limits: Limits) -> Self {
        let mut loaded = probes::load(settings.ebpf, limits);
        let cgroups = Cgroups::new(loaded.scope.cgroups.clone(), loaded.scope.level);
        let mut dropped = 0;
        if let Some(tables) = &mut loaded.tables {
            dropped += tables.seed(seed::listeners(loaded.scope.netns, &cgroups));
        }
        Self {
            loaded,
            cgroups,
            lifecycle: Vec::new(),
            unheard: Vec::new(),
            last: boot_time(),
            seen: 0,
            dropped,
        }
    }

    /// Every probe and how it is fed.
    pub fn probes(&self) -> Vec<ProbeStatus> {
        self.loaded.statuses.clone()
    }

    /// Waits until a process begins a program or ends, at most for `patience`, and returns what
    /// happened since the last time, once. The same is in the next sample too.
    pub fn wait(&mut self, patience: Duration) -> Vec<Lifecycle> {
        let mut events = std::mem::take(&mut self.unheard);
        if events.is_empty() {
            self.sleep(patience);
        }
        events.extend(self.take_events());
        events
    }

    /// Drains the kernel's tables and reads procfs. What happens meanwhile is returned by the next
    /// [`Capture::wait`].
    pub fn tick(&mut self) -> Sample {
        let mut unheard = std::mem::take(&mut self.unheard);
        let sample = self.tick_with(|event| {
            if unheard.len() < LIFECYCLE_MAX {
                unheard.push(event.clone());
            }
        });
        self.unheard = unheard;
        sample
    }

    /// As [`Capture::tick`], for a caller that cannot wait for its end: hands what happens
    /// meanwhile to `urgent` at once, and [`Capture::wait`] does not return it again.
    pub fn tick_with(&mut self, mut urgent: impl FnMut(&Lifecycle)) -> Sample {
        let turned = self
            .loaded
            .tables
            .as_mut()
            .is_some_and(|tables| tables.turn().is_ok());
        let at = boot_time();
        // Reading procfs takes milliseconds, in which programs that began before the turn end.
        let processes = self.read_procfs(&mut urgent);
        let mut sample = Sample {
            at,
            interval: at.since(self.last),
            processes,
            lifecycle: std::mem::take(&mut self.lifecycle),
            ..Sample::default()
        };
        self.last = at;
        if let Some(tables) = self.loaded.tables.as_ref().filter(|_| turned) {
            let drained = tables.drain(&mut sample.syscalls, &mut sample.flows);
            // What an error leaves behind stays in the kernel for the next turn but one.
            if let Err(error) = drained {
                self.loaded
                    .degrade(&["syscalls", "tcp"], &format!("a drain failed: {error}"));
            }
        }
        if let Some(log) = &mut self.loaded.log {
            log.forward();
        }
        self.cgroups.complete(&mut sample);
        self.seen += records(&sample);
        let lost = self
            .loaded
            .tables
            .as_ref()
            .map_or(0, |tables| tables.lost());
        sample.losses = Losses {
            seen: self.seen,
            dropped: lost + self.dropped,
            unattributed: 0,
        };
        sample
    }

    /// Reads procfs in a thread of its own and listens to the kernel meanwhile: on a host with
    /// many processes the reading takes longer than a death may go unnoticed.
    fn read_procfs(&mut self, urgent: &mut impl FnMut(&Lifecycle)) -> Vec<ProcessReading> {
        let processes = std::thread::scope(|scope| {
            let reader = std::thread::Builder::new()
                .name("procfs".to_owned())
                .spawn_scoped(scope, processes::read_all);
            let Ok(reader) = reader else {
                return processes::read_all(); // no thread to be had: late is better than never
            };
            while !reader.is_finished() {
                self.sleep(LISTEN);
                self.take_events().iter().for_each(&mut *urgent);
            }
            reader.join().unwrap_or_default()
        });
        self.take_events().iter().for_each(urgent);
        processes
    }

    /// Until the ring buffer has a record, at most for `patience`.
    fn sleep(&self, patience: Duration) {
        let mut descriptors = Vec::new();
        if let Some(tables) = &self.loaded.tables {
            descriptors.push(PollFd::new(tables.wakeup(), PollFlags::POLLIN));
        }
        // A signal ends the wait early, which the callers' loops stand.
        let _ = ppoll(&mut descriptors, Some(TimeSpec::from(patience)), None);
    }

    fn take_events(&mut self) -> Vec<Lifecycle> {
        let mut now = Vec::new();
        let Some(tables) = &mut self.loaded.tables else {
            return now;
        };
        let cgroups = &mut self.cgroups;
        tables.events(|event| match event {
            Event::Process(lifecycle) => now.push(lifecycle),
            Event::Cgroup(id, path) => cgroups.made(id, &path),
        });
        let room = LIFECYCLE_MAX.saturating_sub(self.lifecycle.len());
        self.lifecycle.extend(now.iter().take(room).cloned());
        self.dropped += now.len().saturating_sub(room) as u64;
        now
    }
}

/// Happenings in a sample: calls, changes of connections, process events.
fn records(sample: &Sample) -> u64 {
    let calls: u64 = sample.syscalls.iter().map(|count| count.calls).sum();
    let flows: u64 = sample
        .flows
        .iter()
        .map(|flow| flow.opened + flow.closed + flow.failed)
        .sum();
    calls + flows + sample.lifecycle.len() as u64
}
