//! Decisions with all that led to them, from the failover loop to the store and to the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use data_encoding::BASE64;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::failover::Input;
use super::record::{Recorder, wall_ms};
use crate::decide::cluster::{Group, Window};
use crate::facts::{BootTime, Decision, EventKind, Name};
use crate::observe::sys::boot_time;
use crate::serve::protocol::{Code, CoreNow, Decisions, RecordedDecision, Refusal};
use crate::store::Store;

/// So many wait to be written; beyond it they are dropped and counted.
const WAITING_MAX: u64 = 8;

/// How many wait, and how many found no room.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    waiting: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl Counts {
    /// Whether there is room for one more, which is then on its way.
    pub fn admit(&self) -> bool {
        // Only the failover thread adds.
        let room = self.waiting.load(Ordering::Relaxed) < WAITING_MAX;
        if room {
            self.waiting.fetch_add(1, Ordering::Relaxed);
        } else {
            self.lost();
        }
        room
    }

    /// One that was on its way is not any more.
    pub fn done(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// One was lost.
    pub fn lost(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Writes one down.
pub(super) fn keep(store: &mut Store, group: &Name, window: &Window, counts: &Counts) {
    counts.done();
    let decision = Decision {
        // The few moments since then do not matter to people.
        wall_ms: wall_ms().saturating_sub(since_ms(window.decision.at)),
        ..window.decision.clone()
    };
    let kept = window.to_bytes().map_err(anyhow::Error::from);
    let kept = kept.and_then(|bytes| Ok(store.keep_decision(group, &decision, &bytes)?));
    if let Err(cause) = kept {
        counts.lost();
        error!(%group, %cause, "decision not stored");
    }
}

fn since_ms(at: BootTime) -> u64 {
    u64::try_from(boot_time().since(at).as_millis()).unwrap_or(u64::MAX)
}

/// The decisions of a group that are kept.
pub(super) fn list(recorder: &Recorder, group: &Name) -> Result<Decisions, Refusal> {
    let read = recorder.with_store(|store| store.decisions(group));
    Ok(Decisions {
        decisions: read.map_err(unreadable)?,
        dropped: recorder.decisions().dropped(),
    })
}

/// One of them.
pub(super) fn one(
    recorder: &Recorder,
    group: &Name,
    number: u64,
) -> Result<RecordedDecision, Refusal> {
    let read = recorder.with_store(|store| store.decision(group, number));
    let (decision, window) = read.map_err(unreadable)?.ok_or_else(|| {
        let message = format!("no decision {number} of group {group} is kept");
        let remedy = "the newest 64 of a group are; `shadowctl events` goes back further";
        Refusal::new(Code::NothingRecorded, message, remedy)
    })?;
    Ok(RecordedDecision {
        decision,
        window: BASE64.encode(&window),
    })
}

fn unreadable(error: crate::store::StoreError) -> Refusal {
    let why = format!("{:#}", anyhow::Error::from(error));
    Refusal::new(Code::Failed, why, "see `journalctl -u shadowd`")
}

/// The core of a group as it is now.
pub(super) async fn core(inputs: &mpsc::Sender<Input>, group: Name) -> Result<CoreNow, Refusal> {
    let (reply, answer) = oneshot::channel();
    inputs.try_send(Input::Core { group, reply }).map_err(|_| {
        let message = "the failover loop is busy";
        Refusal::new(Code::Busy, message, "try again in a second")
    })?;
    let stopping = |_| {
        let message = "the daemon is stopping";
        Refusal::new(Code::Stopping, message, "try again when it runs")
    };
    let (now, checkpoint) = answer.await.map_err(stopping)??;
    encoded(now, checkpoint)
}

fn encoded(now: BootTime, checkpoint: Box<Group>) -> Result<CoreNow, Refusal> {
    let decision = Decision {
        number: 0,
        at: now,
        wall_ms: wall_ms(),
        kind: EventKind::RoleChanged,
        epoch: checkpoint.newest_epoch().counter,
        first_epoch: 0,
        last_epoch: 0,
        cause: None,
    };
    let window = Window {
        decision,
        checkpoint,
        log: Vec::new(),
    };
    let failed = |error: postcard::Error| {
        let remedy = "report this with the output of `shadowd --version`";
        Refusal::new(Code::Failed, error.to_string(), remedy)
    };
    Ok(CoreNow {
        now,
        core: BASE64.encode(&window.to_bytes().map_err(failed)?),
    })
}
