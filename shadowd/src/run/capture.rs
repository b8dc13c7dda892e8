//! The capture thread: hands exits to the failover loop at once, and drains the probes on a tick.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tracing::warn;

use super::board::Board;
use super::failover::Input;
use super::history::Totals;
use super::keep::keep;
use crate::config::settings::{CaptureSettings, LimitSettings};
use crate::decide::aggregate::{AggregateLimits, Aggregator};
use crate::decide::filter::Filter;
use crate::decide::serving::Serving;
use crate::facts::{
    CaptureStatus, HistoryStatus, Lifecycle, LifecycleKind, Observation, ProbeLosses,
};
use crate::observe::sys::boot_time;
use crate::observe::{Capture, Descriptors, Limits};

/// The thread looks this often whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// Totals of the daemon before this one are waited for so long; on a slow disk it is better to go
/// on without them than to tell nothing.
const TOTALS_WITHIN: Duration = Duration::from_secs(10);
/// The totals are saved this often; what comes after them is read from the records at a start.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// What the thread waits for before it touches the kernel.
struct Order {
    board: Arc<Board>,
    totals: Option<Totals>,
    inputs: mpsc::Sender<Input>,
    serving: Serving,
    stop: Arc<AtomicBool>,
}

/// The thread, started while the daemon still had every capability. It does nothing before
/// [`Capturing::begin`], and ends when this is dropped.
pub struct Capturing {
    thread: JoinHandle<()>,
    orders: SyncSender<Order>,
}

impl Capturing {
    /// Starts the thread; `left` is what the daemon before this one left.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(settings: CaptureSettings, left: Descriptors) -> io::Result<Self> {
        let (orders, order) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || work(&settings, left, &order))?;
        Ok(Self { thread, orders })
    }

    /// Lets it load its programs and capture; it ends soon after `stop` turns true. `totals` is
    /// where what the daemon before this one counted arrives.
    pub fn begin(
        self,
        board: Arc<Board>,
        totals: Option<Totals>,
        inputs: mpsc::Sender<Input>,
        serving: Serving,
        stop: Arc<AtomicBool>,
    ) -> JoinHandle<()> {
        let order = Order {
            board,
            totals,
            inputs,
            serving,
            stop,
        };
        if self.orders.send(order).is_err() {
            warn!("the capturing thread has ended already");
        }
        self.thread
    }
}

fn work(settings: &CaptureSettings, left: Descriptors, order: &Receiver<Order>) {
    let Ok(mut order) = order.recv() else {
        return; // the daemon could not start
    };
    let hand_over = |event: &Lifecycle| {
        if matches!(event.kind, LifecycleKind::Exit { .. }) {
            // When the loop cannot keep up, systemd's own word still reaches it.
            let _ = order.inputs.try_send(Input::Exit(event.pid));
        }
    };
    let names: BTreeSet<String> = left.keys().cloned().collect();
    let mut capture = Capture::go_on(settings, Limits::of(&settings.limits), left);
    keep(&capture, &names);
    let mut measuring = capture.is_measuring();
    give_up_privileges(&capture);
    let mut filter = Filter::new(settings, redaction_key());
    let mut aggregator = aggregator(&settings.limits);
    let mut earlier = order.totals.as_ref();
    let patience = boot_time().after(TOTALS_WITHIN);
    let mut saved = boot_time();
    let mut due = boot_time().after(settings.tick);
    while !order.stop.load(Ordering::Relaxed) {
        capture
            .wait(due.since(boot_time()).min(LOOK))
            .iter()
            .for_each(&hand_over);
        if measuring && !capture.is_measuring() {
            measuring = false;
            give_up_privileges(&capture);
        }
        // Totals go on where the daemon before this one was, so nothing is told before them.
        if let Some(state) = earlier.and_then(|totals| totals.try_recv().ok()) {
            aggregator.restore(state);
            earlier = None;
        }
        if boot_time() >= due && (earlier.is_none() || boot_time() >= patience) {
            due = due.after(settings.tick).max(boot_time());
            let mut sample = capture.tick_with(&hand_over);
            sample.wall_ms = wall_ms();
            let observation = Arc::new(aggregator.absorb(filter.apply(sample)));
            for (unit, serves) in order.serving.look(&observation) {
                // One that finds no room is no loss: the next interval tells no more, and nothing
                // is promoted on what was not told.
                let _ = order.inputs.try_send(Input::Serving { unit, serves });
            }
            let save = boot_time().since(saved) >= SAVE_EVERY;
            if save {
                saved = boot_time();
            }
            let totals = save.then(|| aggregator.export());
            order.board.history().offer(&observation, totals);
            let status = status(&capture, &aggregator, &observation);
            order.board.publish_capture(observation, status);
        }
    }
    order.board.history().finish(aggregator.export());
}

/// A key of this run of the daemon alone: what it hides cannot be guessed back with it later.
fn redaction_key() -> Option<[u8; 32]> {
    let key = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new());
    key.ok().map(|key| key.expose())
}

fn aggregator(limits: &LimitSettings) -> Aggregator {
    let default = AggregateLimits::default();
    let set = |value: Option<u32>, default| value.map_or(default, |value| value as usize);
    Aggregator::new(AggregateLimits {
        flows: set(limits.flows, default.flows),
        processes: set(limits.processes, default.processes),
        ..default
    })
}

fn give_up_privileges(capture: &Capture) {
    if let Err(error) = capture.give_up_privileges() {
        warn!(%error, "the capturing thread keeps the capabilities it loaded programs with");
    }
}

fn status(capture: &Capture, aggregator: &Aggregator, observation: &Observation) -> CaptureStatus {
    let mut probes = capture.probes();
    for probe in &mut probes {
        probe.losses = of_probe(aggregator, &probe.name);
        probe.events = probe.hook.is_some().then(|| probe.losses.total());
    }
    CaptureStatus {
        probes,
        losses: observation.losses,
        cost: capture.cost(),
        tables: aggregator.tables(),
        history: HistoryStatus::default(), // the board knows
    }
}

fn of_probe(aggregator: &Aggregator, name: &str) -> ProbeLosses {
    aggregator.losses().get(name).copied().unwrap_or_default()
}

/// For people and for history only.
fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
