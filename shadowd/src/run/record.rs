//! Writes down what happened: into the log and into the store, off the path of every decision.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use tracing::{error, info, warn};

use super::decisions::{self, Counts};
use super::tap::Tap;
use crate::decide::cluster::{Record, Window};
use crate::facts::{
    BootTime, Cause, Epoch, Event, EventKind, Kept, KeptPromise, Name, PolicyMemory, Told,
};
use crate::store::{Store, StoreError};

/// Happenings that wait to be written; beyond it they are dropped and counted.
const QUEUE: usize = 4096;

enum Entry {
    Event(Box<Event>),
    Epoch(Name, Epoch),
    Policy(Name, u64, Box<PolicyMemory>),
    Promise(Name, KeptPromise),
    Window(Name, Box<Window>),
    Stop,
}

/// Where a promise is reported that is on the disk.
pub type OnKept = Box<dyn Fn(Name, KeptPromise) + Send>;

/// Hands happenings to the recording thread; never waits.
#[derive(Clone)]
pub struct Recorder {
    queue: Sender<Entry>,
    dropped: Arc<AtomicU64>,
    store: Arc<Mutex<Store>>,
    tap: Option<Tap>,
    decisions: Counts,
}

impl Recorder {
    /// Starts the recording thread, which owns the writes to `store`.
    pub fn start(
        store: Store,
        boot: String,
        on_kept: OnKept,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (queue, entries) = bounded(QUEUE);
        let store = Arc::new(Mutex::new(store));
        let dropped = Arc::<AtomicU64>::default();
        let (writer, lost) = (Arc::clone(&store), Arc::clone(&dropped));
        let decisions = Counts::default();
        let counts = decisions.clone();
        let thread = std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || write_all(&entries, &writer, (&lost, &counts), (&boot, &on_kept)))?;
        Ok((
            Self {
                queue,
                dropped,
                store,
                tap: None,
                decisions,
            },
            thread,
        ))
    }

    /// The same, letting `tap` know as well.
    pub fn with_tap(self, tap: Option<Tap>) -> Self {
        Self { tap, ..self }
    }

    /// Records a decision of a group.
    pub fn decision(&self, group: &Name, record: Record) {
        self.push(Event {
            seq: 0,
            boot_ns: record.at,
            wall_ms: wall_ms(),
            kind: record.kind,
            group: Some(group.clone()),
            epoch: Some(record.epoch),
            cause: record.cause,
            detail: record.detail,
        });
    }

    /// Records something that concerns the whole daemon, or a group's action.
    pub fn note(
        &self,
        kind: EventKind,
        group: Option<(&Name, Epoch)>,
        at: BootTime,
        detail: impl Into<String>,
    ) {
        self.push(Event {
            seq: 0,
            boot_ns: at,
            wall_ms: wall_ms(),
            kind,
            group: group.map(|(name, _)| name.clone()),
            epoch: group.map(|(_, epoch)| epoch.counter),
            cause: None,
            detail: detail.into(),
        });
    }

    /// Records something that concerns the whole daemon, and why.
    pub fn note_cause(&self, kind: EventKind, cause: Option<Cause>, at: BootTime, detail: String) {
        self.push(Event {
            seq: 0,
            boot_ns: at,
            wall_ms: wall_ms(),
            kind,
            group: None,
            epoch: None,
            cause,
            detail,
        });
    }

    /// Records what became of a notice to a hook or an alert.
    pub fn notice(
        &self,
        kind: EventKind,
        group: Option<(&Name, u64)>,
        at: BootTime,
        detail: String,
    ) {
        self.push(Event {
            seq: 0,
            boot_ns: at,
            wall_ms: wall_ms(),
            kind,
            group: group.map(|(name, _)| name.clone()),
            epoch: group.map(|(_, epoch)| epoch),
            cause: None,
            detail,
        });
    }

    /// What the receivers `known` were told last; the others are forgotten. May read the disk.
    pub fn told(&self, known: Vec<String>) -> Result<Vec<Told>, StoreError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.forget_told(&known)?;
        store.told()
    }

    /// Remembers what a receiver was told. May wait for the disk.
    pub fn set_told(&self, told: &Told) -> Result<(), StoreError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.set_told(told)
    }

    /// Remembers the newest epoch of a group; false when it has to be asked again.
    #[must_use]
    pub fn epoch(&self, group: &Name, epoch: Epoch) -> bool {
        self.queue
            .try_send(Entry::Epoch(group.clone(), epoch))
            .is_ok()
    }

    /// Remembers what bounds failover of a group; false when it has to be asked again.
    #[must_use]
    pub fn remember_policy(&self, group: &Name, memory: PolicyMemory) -> bool {
        let entry = Entry::Policy(group.clone(), wall_ms(), Box::new(memory));
        self.queue.try_send(entry).is_ok()
    }

    /// What was remembered of a group, and when, in ms since 1970.
    pub fn policy(&self, group: &Name) -> Result<Option<(u64, PolicyMemory)>, StoreError> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.policy(group)
    }

    /// Keeps a promise: it is reported once it is on the disk. One that finds no room in the queue
    /// is not given.
    pub fn promise(&self, group: &Name, promise: KeptPromise) {
        let _ = self.queue.try_send(Entry::Promise(group.clone(), promise));
    }

    /// Keeps a decision with what led to it. One that finds no room is dropped and counted.
    pub fn window(&self, group: &Name, window: Window) {
        if self.decisions.admit() {
            let entry = Entry::Window(group.clone(), Box::new(window));
            if self.queue.try_send(entry).is_err() {
                self.decisions.done();
                self.decisions.lost();
            }
        }
    }

    /// Counts of the decisions that are kept with what led to them.
    pub fn decisions(&self) -> &Counts {
        &self.decisions
    }

    /// Lets `read` look into the store. May wait for the disk.
    pub fn with_store<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what this daemon leaves to the next.
    ///
    /// # Errors
    /// Nothing is kept.
    pub fn keep(&self, boot: &str, groups: &[(Name, Kept)]) -> Result<(), StoreError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.keep(boot, groups)
    }

    /// Events that a full queue or the store refused.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Recorded events, for the socket.
    pub fn events(&self, since: u64, limit: u32) -> Result<Vec<Event>, String> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store
            .events(since, limit)
            .map_err(|error| format!("{:#}", anyhow::Error::from(error)))
    }

    /// Writes what waits and ends the thread.
    pub fn stop(&self) {
        // A queue that stays full means a store that no longer takes anything; the stop goes on.
        let _ = self.queue.send_timeout(Entry::Stop, Duration::from_secs(2));
    }

    fn push(&self, event: Event) {
        if let Some(tap) = &self.tap {
            tap.event(&event);
        }
        if self.queue.try_send(Entry::Event(Box::new(event))).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Milliseconds since 1970.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Takes everything that waits in one go, so that a burst costs one transaction.
fn write_all(
    entries: &Receiver<Entry>,
    store: &Mutex<Store>,
    (lost, counts): (&AtomicU64, &Counts),
    (boot, on_kept): (&str, &OnKept),
) {
    while let Ok(first) = entries.recv() {
        let mut events = Vec::new();
        let mut stop = false;
        for entry in std::iter::once(first).chain(entries.try_iter().take(QUEUE)) {
            match entry {
                Entry::Event(event) => {
                    log(&event);
                    events.push(*event);
                }
                Entry::Epoch(group, epoch) => {
                    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(cause) = store.set_epoch(&group, epoch) {
                        error!(%group, cause = %anyhow::Error::from(cause), "epoch not stored");
                    }
                }
                Entry::Policy(group, at, memory) => {
                    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(cause) = store.set_policy(&group, at, &memory) {
                        error!(%group, cause = %anyhow::Error::from(cause), "policy not stored");
                    }
                }
                Entry::Promise(group, promise) => {
                    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                    match store.keep_promise(boot, &group, &promise) {
                        Ok(()) => on_kept(group, promise),
                        Err(cause) => {
                            error!(%group, cause = %anyhow::Error::from(cause), "promise not kept");
                        }
                    }
                }
                Entry::Window(group, window) => {
                    let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                    decisions::keep(&mut store, &group, &window, counts);
                }
                Entry::Stop => stop = true,
            }
        }
        let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(cause) = store.append(&events) {
            let count = events.len();
            lost.fetch_add(count.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
            error!(count, cause = %anyhow::Error::from(cause), "events not stored");
        }
        if stop {
            return;
        }
    }
}

/// One line a happening: the fields for machines, and the same in one sentence for people.
fn log(event: &Event) {
    let group = event.group.as_ref().map_or("-", Name::as_str);
    let epoch = event.epoch.unwrap_or(0);
    let cause = event
        .cause
        .map_or_else(|| "-".to_owned(), |cause| cause.to_string());
    let kind = event.kind;
    let detail = &event.detail;
    match kind {
        EventKind::Failure
        | EventKind::LeaseLapsed
        | EventKind::VipClaimed
        | EventKind::NoticeFailed
        | EventKind::FlapPenalty
        | EventKind::PathLost
        | EventKind::Starved
        | EventKind::Freeze
        | EventKind::Maintenance => warn!(
            group,
            epoch, cause, "{group}: {kind}: {detail} (cause {cause}, epoch {epoch})"
        ),
        _ => info!(
            group,
            epoch, cause, "{group}: {kind}: {detail} (cause {cause}, epoch {epoch})"
        ),
    }
}
