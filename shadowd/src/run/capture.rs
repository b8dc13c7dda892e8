//! The capture thread: hands exits to the failover loop at once, and drains the probes on a tick.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::board::Board;
use super::failover::Input;
use super::keep::keep;
use crate::config::settings::CaptureSettings;
use crate::decide::aggregate::Aggregator;
use crate::facts::{CaptureStatus, Lifecycle, LifecycleKind};
use crate::observe::sys::boot_time;
use crate::observe::{Capture, Descriptors, Limits};

/// The thread looks this often whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// Starts the thread; it ends soon after `stop` turns true. `left` is what the daemon before this
/// one left.
pub fn start(
    settings: CaptureSettings,
    left: Descriptors,
    board: Arc<Board>,
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
        let mut due = boot_time().after(settings.tick);
        while !stop.load(Ordering::Relaxed) {
            capture
                .wait(due.since(boot_time()).min(LOOK))
                .iter()
                .for_each(&hand_over);
            if boot_time() >= due {
                due = due.after(settings.tick).max(boot_time());
                let observation = aggregator.absorb(capture.tick_with(&hand_over));
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
    };
    std::thread::Builder::new()
        .name("capture".to_owned())
        .spawn(work)
}
