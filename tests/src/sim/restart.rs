//! A daemon that is restarted cleanly: what it leaves on its host's disk for the next one, and how
//! its pause ends.

use std::time::Duration;

use rand::RngExt;
use shadowd::decide::cluster::Done;
use shadowd::facts::{BootTime, Kept, KeptPromise, Memory};

use super::daemon::Input;
use super::host::Host;
use super::world::{Event, World};

/// What a daemon asks to be away for, in milliseconds; the fault's length decides how long it is.
const AWAY_MS: std::ops::Range<u64> = 100..800;
/// No owner asks to be kept alone for longer, margins included (`pause.rs`).
pub const KEPT_ALONE_MAX: Duration = Duration::from_millis(1_120);

/// The part of a host's disk that is about restarts.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// What was kept at the end of a daemon, and in which boot.
    kept: Option<(u32, Kept)>,
    /// The newest long promise, and in which boot.
    promise: Option<(u32, KeptPromise)>,
}

/// A promise on its way to a disk.
#[derive(Debug)]
pub(super) struct Written {
    boots: u32,
    /// Which daemon waits for it.
    incarnation: u32,
    promise: KeptPromise,
}

impl Host {
    /// Takes what a daemon that starts is told, as the store hands it out: what was kept once, and
    /// in its boot only; a promise of an earlier boot from now on for its whole length.
    pub(super) fn take_memory(&mut self, clock: BootTime) -> Memory {
        let kept = self.disk.kept.take();
        let kept = kept.filter(|(boots, _)| *boots == self.boots);
        if let Some((boots, promise)) = &mut self.disk.promise
            && *boots != self.boots
        {
            promise.until = clock.after(Duration::from_nanos(promise.length_ns));
            *boots = self.boots;
        }
        let promise = self.disk.promise.map(|(_, promise)| promise);
        Memory {
            kept: kept.map(|(_, kept)| kept).unwrap_or_default(),
            promise: promise.filter(|promise| promise.until > clock),
        }
    }

    /// A daemon ends cleanly: it keeps what it knows, and is gone.
    pub(super) fn end_cleanly(&mut self, now: Duration) {
        let clock = self.clock(now);
        let Some(core) = &self.core else { return };
        let kept = Kept {
            vote: core.vote(),
            pause: core.member().and_then(|group| group.pause_at_rest(clock)),
        };
        self.disk.kept = Some((self.boots, kept));
        self.end_daemon(now);
    }
}

impl World {
    /// The service manager restarts a daemon: this is its word that it should end.
    pub(super) fn begin_restart(&mut self, host: usize) {
        let now = self.now;
        let away = Duration::from_millis(self.rng.random_range(AWAY_MS));
        let here = &mut self.hosts[host];
        if here.member().is_some() {
            here.restarting = true;
            self.input(host, Input::Pause(away));
        } else {
            here.end_cleanly(now);
        }
    }

    /// After each turn: a daemon that may end does.
    pub(super) fn end_if_paused(&mut self, host: usize) {
        let now = self.now;
        let here = &mut self.hosts[host];
        let ended = here
            .member()
            .is_some_and(|group| group.paused() || group.stopped());
        if here.restarting && !here.busy && ended {
            let paused = here
                .member()
                .is_some_and(shadowd::decide::cluster::Group::paused);
            here.end_cleanly(now);
            self.outcome.pauses += u64::from(paused);
            self.say(|| format!("h{host} ended, paused: {paused}"));
        }
    }

    /// The disk takes a while, and goes on also when the daemon that asked for it has died.
    pub(super) fn keep_promise(&mut self, host: usize, promise: KeptPromise) {
        let delay = Duration::from_micros(self.rng.random_range(100..8_000));
        let here = &self.hosts[host];
        let (boots, incarnation) = (here.boots, here.incarnation);
        let written = Written {
            boots,
            incarnation,
            promise,
        };
        self.at(self.now + delay, Event::Kept(host, written));
    }

    pub(super) fn kept(&mut self, host: usize, written: Written) {
        let Written {
            boots,
            incarnation,
            promise,
        } = written;
        let here = &mut self.hosts[host];
        if !here.powered || here.boots != boots {
            return;
        }
        here.disk.promise = Some((boots, promise));
        if here.incarnation == incarnation {
            self.input(host, Input::Done(Done::PromiseKept(promise)));
        }
    }
}
