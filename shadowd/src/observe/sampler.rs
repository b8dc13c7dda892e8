//! Capture as the daemon uses it: start, wait for what is urgent, take a sample on each tick.
//!
//! Blocking, for a thread of its own. It decides nothing and keeps no history.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::block::BlockProbes;
use super::cgroups::Cgroups;
use super::fallback::Fallback;
use super::files::FileProbes;
use super::lifecycle::{Event, LifecycleProbes};
use super::limits::Limits;
use super::names::{self, Names};
use super::opens::OpenProbes;
use super::own::Own;
use super::probes::{
    self, Attached, CostMeter, Descriptors, LoadError, Object, Prepared, SWITCHED_OFF, reason,
};
use super::processes::Processes;
use super::scope::{Scope, cgroup_mount};
use super::sockets::SocketProbes;
use super::sys::{boot_time, release_free_memory};
use super::syscalls::SyscallProbe;
use super::tally::Tally;
use super::{groups, host, privileges};
use crate::config::settings::CaptureSettings;
use crate::facts::{
    BootTime, CaptureCost, GroupReading, HostReading, Lifecycle, ProbeStatus, ProcessReading,
    Sample,
};

/// Most process events that wait for a sample; more are counted as dropped.
const LIFECYCLE_MAX: usize = 65_536;

/// Why no program is loaded when nobody wants any.
const EBPF_OFF: &str = "ebpf = false in the configuration";

/// While procfs is read, how long to listen before looking whether it is done.
const LISTEN: Duration = Duration::from_millis(1);

/// What is read on each tick beside the kernel side's tables.
#[derive(Default)]
struct Procfs {
    /// Mount point of the control groups.
    groups: Option<PathBuf>,
    processes: Processes,
}

/// What was read.
struct Read {
    processes: Vec<ProcessReading>,
    groups: Vec<GroupReading>,
    host: HostReading,
}

impl Procfs {
    fn read(&mut self) -> Read {
        Read {
            processes: self.processes.read_all(),
            groups: self
                .groups
                .as_deref()
                .map_or_else(Vec::new, groups::read_all),
            host: host::read(),
        }
    }
}

/// A running capture.
pub struct Capture {
    statuses: Vec<ProbeStatus>,
    syscalls: Option<SyscallProbe>,
    sockets: Option<SocketProbes>,
    events: Option<LifecycleProbes>,
    block: Option<BlockProbes>,
    files: Option<FileProbes>,
    opens: Option<OpenProbes>,
    names: Option<Names>,
    cgroups: Cgroups,
    procfs: Procfs,
    /// Waits for the next sample.
    lifecycle: Vec<Lifecycle>,
    /// Was taken by a tick and not returned by a wait yet.
    unheard: Vec<Lifecycle>,
    last: BootTime,
    /// Process events that did not fit on this side of the border.
    overflowed: u64,
    fallback: Fallback,
    tally: Tally,
    cost: CostMeter,
    own: Own,
}

impl Capture {
    /// Loads what the kernel allows and takes over what exists. Never fails: see
    /// [`Capture::probes`] for what is off.
    pub fn start(settings: &CaptureSettings) -> Self {
        Self::start_with(settings, Limits::of(&settings.limits))
    }

    /// As [`Capture::start`], with tables of another size: for tests that want to see them full.
    pub fn start_with(settings: &CaptureSettings, limits: Limits) -> Self {
        Self::go_on(settings, limits, Descriptors::new())
    }

    /// As [`Capture::start_with`], taking over the programs and counts that a daemon before this
    /// one left, as far as its build and settings were the same.
    pub fn go_on(settings: &CaptureSettings, limits: Limits, left: Descriptors) -> Self {
        if !settings.ebpf {
            return Self::without(settings, EBPF_OFF);
        }
        let mut prepared = match Prepared::new(left, &settings.probes_off) {
            Ok(prepared) => prepared,
            Err(error) => return Self::without(settings, &reason(error.as_ref())),
        };
        if let Some((cgroup, level)) = limits.only {
            prepared.restrict(cgroup, level);
        }
        let mut capture = Self::empty(settings, &prepared.scope);
        // First, so that no group is counted in whose name was not heard.
        capture.events = capture.keep(&[probes::PROCESSES, probes::CGROUPS, probes::OOM], || {
            LifecycleProbes::start(&prepared, limits)
        });
        // Those that were made after the first walk and before they are reported.
        capture.cgroups.walk();
        capture.syscalls = capture.keep(&[probes::SYSCALLS], || {
            SyscallProbe::start(&prepared, limits).map(|(probe, attached)| (probe, vec![attached]))
        });
        let cgroups = Cgroups::new(prepared.scope.cgroups.clone(), prepared.scope.level);
        capture.sockets = capture.keep(&probes::SOCKETS, || {
            SocketProbes::start(&prepared, limits, &cgroups)
        });
        capture.block = capture.keep(&[probes::BLOCK], || {
            BlockProbes::start(&prepared, limits).map(|(probe, attached)| (probe, vec![attached]))
        });
        capture.files = capture.keep(&[probes::FILES], || {
            FileProbes::start(&prepared, limits).map(|(probe, attached)| (probe, vec![attached]))
        });
        capture.opens = capture.keep(&[probes::OPENS], || {
            OpenProbes::start(&prepared, limits, &settings.paths)
                .map(|(probe, attached)| (probe, vec![attached]))
        });
        capture.fall_back(settings);
        capture.statuses.push(Attached::procfs());
        capture.listen_for_names(settings);
        drop(prepared);
        release_free_memory();
        capture
    }

    fn empty(settings: &CaptureSettings, scope: &Scope) -> Self {
        let now = boot_time();
        Self {
            statuses: Vec::new(),
            syscalls: None,
            sockets: None,
            events: None,
            block: None,
            files: None,
            opens: None,
            names: None,
            cgroups: Cgroups::new(scope.cgroups.clone(), scope.level),
            procfs: Procfs {
                groups: scope.cgroups.clone(),
                processes: Processes::default(),
            },
            lifecycle: Vec::new(),
            unheard: Vec::new(),
            last: now,
            overflowed: 0,
            fallback: Fallback::default(),
            tally: Tally::default(),
            cost: CostMeter::new(settings.cost, now),
            own: Own::default(),
        }
    }

    /// Capture from procfs alone.
    fn without(settings: &CaptureSettings, why: &str) -> Self {
        let scope = Scope {
            cgroups: cgroup_mount(),
            ..Scope::default()
        };
        let mut capture = Self::empty(settings, &scope);
        let off = |feature| Attached::without(feature, why).status;
        capture.statuses = probes::FEATURES.iter().map(off).collect();
        capture.fall_back(settings);
        capture.statuses.push(Attached::procfs());
        capture.listen_for_names(settings);
        capture
    }

    fn listen_for_names(&mut self, settings: &CaptureSettings) {
        if settings.probes_off.contains(names::NAME) {
            self.statuses.push(Names::status(Some(SWITCHED_OFF)));
            return;
        }
        match Names::open() {
            Ok(names) => {
                self.statuses.push(Names::status(None));
                self.names = Some(names);
            }
            Err(error) => {
                let why = format!("a raw socket: {}", reason(&error));
                self.statuses.push(Names::status(Some(&why)));
            }
        }
    }

    fn take_names(&mut self, sample: &mut Sample) {
        if let Some(Err(error)) = self.names.as_mut().map(|names| names.drain(sample)) {
            self.degrade(names::NAME, &format!("a drain failed: {error}"));
        }
    }

    /// Notes how the features of one object are fed; keeps the object if it feeds any.
    fn keep<T>(
        &mut self,
        features: &[probes::Feature],
        start: impl Fn() -> Result<(T, Vec<Attached>), LoadError>,
    ) -> Option<T> {
        // What was left by the daemon before this one may be incomplete; it is gone after the first
        // attempt, and the second one loads the object anew.
        match start().or_else(|_| start()) {
            Ok((object, mut attached)) => {
                for one in &mut attached {
                    let programs = std::mem::take(&mut one.programs);
                    self.cost.watch(&one.status.name, programs);
                }
                let any = attached.iter().any(Attached::is_on);
                self.statuses
                    .extend(attached.into_iter().map(|one| one.status));
                any.then_some(object)
            }
            Err(error) => {
                let why = reason(&error);
                let off = |feature| Attached::without(feature, &why).status;
                self.statuses.extend(features.iter().map(off));
                None
            }
        }
    }

    /// Feeds by other means what no program feeds.
    fn fall_back(&mut self, settings: &CaptureSettings) {
        let off = &settings.probes_off;
        self.fallback.take_over(&mut self.statuses, off);
    }

    fn degrade(&mut self, feature: &str, why: &str) {
        let lines = self.statuses.iter_mut();
        for status in lines.filter(|status| status.name == feature && status.hook.is_some()) {
            status.degraded = Some(why.to_owned());
        }
    }

    /// Every probe, how it is fed and what it costs.
    pub fn probes(&self) -> Vec<ProbeStatus> {
        let mut statuses = self.statuses.clone();
        for status in &mut statuses {
            let told = self.tally.told_per_second().get(&status.name);
            self.cost.fill(status, told.copied());
        }
        statuses
    }

    /// What capture itself costs.
    pub fn cost(&self) -> CaptureCost {
        CaptureCost {
            cpu_share: self.own.cpu_share,
            capture_cpu_share: self.own.thread_cpu_share,
            rss_bytes: self.own.rss_bytes,
            measured: self.cost.describe(),
        }
    }

    /// Whether the cost of programs will be measured again, which needs CAP_SYS_ADMIN.
    pub fn is_measuring(&self) -> bool {
        self.cost.is_measuring()
    }

    /// The calling thread, which captures, gives up what only loading takes: once after the start,
    /// and again when [`Capture::is_measuring`] has turned false.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn give_up_privileges(&self) -> std::io::Result<()> {
        privileges::keep_for_capture(self.is_measuring(), || self.cost.answers())
    }

    /// The descriptors of all programs, links and maps, by name: whoever holds them keeps the
    /// programs running, and [`Capture::go_on`] goes on with them.
    pub fn descriptors(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        let objects: [Option<&Object>; 6] = [
            self.syscalls.as_ref().map(SyscallProbe::object),
            self.sockets.as_ref().map(SocketProbes::object),
            self.events.as_ref().map(LifecycleProbes::object),
            self.block.as_ref().map(BlockProbes::object),
            self.files.as_ref().map(FileProbes::object),
            self.opens.as_ref().map(OpenProbes::object),
        ];
        objects.into_iter().flatten().flat_map(Object::descriptors)
    }

    /// Waits until a process begins a program or ends, at most for `patience`, and returns what
    /// happened since the last time, once. The same is in the next sample too.
    pub fn wait(&mut self, patience: Duration) -> Vec<Lifecycle> {
        let mut events = std::mem::take(&mut self.unheard);
        if events.is_empty() {
            self.sleep(patience);
        }
        events.extend(self.take_events());
        self.cost.step(boot_time());
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
        let at = boot_time();
        let mut sample = Sample::default();
        // Before procfs is read, so that who holds a socket is among the processes.
        if let Err((feature, why)) = self.fallback.look(&mut sample, &self.cgroups) {
            self.degrade(feature, &format!("a look failed: {why}"));
        }
        // Reading procfs takes milliseconds, in which programs that began before the turn end.
        let read = self.read_procfs(&mut urgent);
        let mut sample = Sample {
            at,
            interval: at.since(self.last),
            processes: read.processes,
            groups: read.groups,
            host: read.host,
            lifecycle: std::mem::take(&mut self.lifecycle),
            ..sample
        };
        self.last = at;
        // What an error leaves behind stays in the kernel for the next turn but one.
        let cgroups = &self.cgroups;
        let drain = |probe: &mut SyscallProbe| probe.drain(&mut sample, |id| cgroups.is_gone(id));
        if let Some(Err(error)) = self.syscalls.as_mut().map(drain) {
            self.degrade("syscalls", &format!("a drain failed: {error}"));
        }
        if let Some(Err(error)) = self.sockets.as_mut().map(|probe| probe.drain(&mut sample)) {
            self.degrade("tcp", &format!("a drain failed: {error}"));
        }
        if let Some(Err(error)) = self.block.as_mut().map(|probe| probe.drain(&mut sample)) {
            self.degrade("block", &format!("a reading failed: {error}"));
        }
        if let Some(Err(error)) = self.files.as_mut().map(|probe| probe.drain(&mut sample)) {
            self.degrade("files", &format!("a reading failed: {error}"));
        }
        if let Some(opens) = &mut self.opens {
            opens.drain(&mut sample);
        }
        self.cgroups.complete(&mut sample);
        self.take_names(&mut sample);
        let refused = self.lost();
        let missed = self.cost.missed();
        self.tally.add(&mut sample, &refused, &missed);
        self.cost.follow(self.tally.told_per_second());
        self.own.look(sample.interval);
        sample
    }

    /// What each feature's full tables and buffers refused since they were made.
    fn lost(&mut self) -> [(&'static str, u64); 10] {
        let syscalls = self.syscalls.as_mut().map_or(0, SyscallProbe::lost);
        let sockets = self.sockets.as_mut();
        let (connections, datagrams) = sockets.map_or((0, 0), SocketProbes::lost);
        let events = self.events.as_mut().map_or(0, LifecycleProbes::lost);
        [
            (probes::SYSCALLS.name, syscalls),
            (probes::TCP.name, connections),
            (probes::UDP.name, datagrams),
            // Names of control groups share the buffer of process events.
            (probes::PROCESSES.name, events),
            (probes::PROCESSES.name, self.overflowed),
            self.fallback.lost(),
            (
                probes::BLOCK.name,
                self.block.as_mut().map_or(0, BlockProbes::lost),
            ),
            (
                probes::FILES.name,
                self.files.as_mut().map_or(0, FileProbes::lost),
            ),
            (
                probes::OPENS.name,
                self.opens.as_mut().map_or(0, OpenProbes::lost),
            ),
            (names::NAME, self.names.as_ref().map_or(0, Names::lost)),
        ]
    }

    /// Reads procfs in a thread of its own and listens to the kernel meanwhile: on a host with
    /// many processes the reading takes longer than a death may go unnoticed.
    fn read_procfs(&mut self, urgent: &mut impl FnMut(&Lifecycle)) -> Read {
        let mut procfs = std::mem::take(&mut self.procfs);
        let mut read = None;
        std::thread::scope(|scope| {
            let reader = std::thread::Builder::new()
                .name("procfs".to_owned())
                .spawn_scoped(scope, || read = Some(procfs.read()));
            let Ok(reader) = reader else {
                return; // no thread to be had: late is better than never
            };
            while !reader.is_finished() {
                self.sleep(LISTEN);
                self.take_events().iter().for_each(&mut *urgent);
            }
        });
        let read = read.unwrap_or_else(|| procfs.read());
        self.procfs = procfs;
        self.take_events().iter().for_each(urgent);
        read
    }

    /// Until the ring buffer has a record, at most for `patience`.
    fn sleep(&self, patience: Duration) {
        let mut descriptors = Vec::new();
        if let Some(events) = &self.events {
            descriptors.push(PollFd::new(events.wakeup(), PollFlags::POLLIN));
        }
        // A signal ends the wait early, which the callers' loops stand.
        let _ = ppoll(&mut descriptors, Some(TimeSpec::from(patience)), None);
    }

    fn take_events(&mut self) -> Vec<Lifecycle> {
        let mut now = Vec::new();
        let Some(events) = &mut self.events else {
            return now;
        };
        let cgroups = &mut self.cgroups;
        events.events(|event| match event {
            Event::Process(lifecycle) => now.push(lifecycle),
            Event::Cgroup(id, path) => cgroups.made(id, &path),
        });
        let room = LIFECYCLE_MAX.saturating_sub(self.lifecycle.len());
        self.lifecycle.extend(now.iter().take(room).cloned());
        self.overflowed += now.len().saturating_sub(room) as u64;
        now
    }
}
