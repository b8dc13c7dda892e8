//! The capture thread: hands exits to the failover loop at once, and drains the probes on a tick.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::board::Board;
use super::failover::Input;
use super::history::Totals;
use super::keep::keep;
use crate::config::settings::CaptureSettings;
use crate::decide::aggregate::Aggregator;
use crate::facts::{CaptureStatus, Lifecycle, LifecycleKind};
use crate::observe::sys::boot_time;
use crate::observe::{Capture, Descriptors, Limits};

/// The thread looks this often whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// Totals of the daemon before this one are waited for so long; on a slow disk it is better to go
/// on without them than to tell nothing.
const TOTALS_WITHIN: Duration = Duration::from_secs(10);
/// The totals are saved this often; what comes after them is read from the records at a start.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Starts the thread; it ends soon after `stop` turns true. `left` is what the daemon before this
/// one left, `totals` where what it counted arrives.
pub fn start(
    settings: CaptureSettings,
    left: Descriptors,
    board: Arc<Board>,
    totals: Option<Totals>,
    inputs: mpsc::Sender<Input>,
    stop: Arc<AtomicBool>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let work = move || {
        let hand_over = |event: &Lifecycle| {
            if matches!(event.kind, LifecycleKind::Exit { .. }) {
                // When the loop cannot keep up, systemd's own word still reaches it.
                let _ = inputs.try_send(Input::Exit(event.pid));
            }
        };
        let names: BTreeSet<String> = left.keys().cloned().collect();
        let mut capture = Capture::go_on(&settings, Limits::default(), left);
        keep(&capture, &names);
        let mut aggregator = Aggregator::default();
        let mut earlier = totals;
        let patience = boot_time().after(TOTALS_WITHIN);
        let mut saved = boot_time();
        let mut due = boot_time().after(settings.tick);
        while !stop.load(Ordering::Relaxed) {
            capture
                .wait(due.since(boot_time()).min(LOOK))
                .iter()
                .for_each(&hand_over);
            // Totals go on where the daemon before this one was, so nothing is told before them.
            if let Some(state) = earlier.as_ref().and_then(|totals| totals.try_recv().ok()) {
                aggregator.restore(state);
                earlier = None;
            }
            if boot_time() >= due && (earlier.is_none() || boot_time() >= patience) {
                due = due.after(settings.tick).max(boot_time());
                let mut sample = capture.tick_with(&hand_over);
                sample.wall_ms = wall_ms();
                let observation = Arc::new(aggregator.absorb(sample));
                let due_to_save = boot_time().since(saved) >= SAVE_EVERY;
                if due_to_save {
                    saved = boot_time();
                }
                let totals = due_to_save.then(|| aggregator.export());
                board.history().offer(&observation, totals);
                let (probes, losses) = (capture.probes(), observation.losses);
                board.publish_capture(
                    observation,
                    CaptureStatus {
                        probes,
                        losses,
                        tables: aggregator.tables(),
                        ..CaptureStatus::default()
                    },
                );
            }
        }
        board.history().finish(aggregator.export());
    };
    std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(work)
}

/// For people and for history only.
fn wall_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
