//! Unit jobs: one after the other, in the order the core asked for them, off the failover loop.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use super::failover::Input;
use super::record::Recorder;
use crate::act::units::Units;
use crate::decide::cluster::{Done, Step};
use crate::facts::{Epoch, EventKind, Name};
use crate::observe::sys::boot_time;

/// Cold units of one group to start or stop.
#[derive(Debug)]
pub struct Job {
    /// The group's number.
    pub group: usize,
    /// The group's name, for the record.
    pub name: Name,
    /// The epoch they run in, or ran in.
    pub epoch: Epoch,
    /// In start order.
    pub units: Vec<Name>,
    /// Start, or stop.
    pub start: bool,
}

/// Works on jobs until the senders are gone.
pub async fn work(
    units: Arc<Units>,
    mut jobs: mpsc::Receiver<Job>,
    inputs: mpsc::Sender<Input>,
    recorder: Recorder,
) {
    while let Some(job) = jobs.recv().await {
        let group = job.group;
        let done = if job.start {
            start(&units, &job, &recorder).await
        } else {
            stop(&units, &job, &recorder).await
        };
        // A loop that has ended needs no report; the jobs it asked for are still done.
        let _ = inputs.send(Input::Done { group, done }).await;
    }
}

async fn start(units: &Units, job: &Job, recorder: &Recorder) -> Done {
    let epoch = job.epoch;
    for unit in &job.units {
        if let Err(error) = units.start(unit, epoch, Units::START_WITHIN).await {
            let why = format!("{:#}", anyhow::Error::from(error));
            return Done::Failed {
                epoch,
                step: Step::StartUnits,
                why,
            };
        }
        let detail = format!("started {unit}");
        recorder.note(
            EventKind::UnitAction,
            Some((&job.name, epoch)),
            boot_time(),
            detail,
        );
    }
    Done::UnitsStarted { epoch }
}

/// Stops all, also when one does not stop: the report says stopped, the record says what failed.
async fn stop(units: &Units, job: &Job, recorder: &Recorder) -> Done {
    let epoch = job.epoch;
    for unit in job.units.iter().rev() {
        let (kind, detail) = match units.stop(unit, epoch, Units::STOP_WITHIN).await {
            Ok(()) => (EventKind::UnitAction, format!("stopped {unit}")),
            Err(error) => {
                let why = format!("{:#}", anyhow::Error::from(error));
                warn!(%unit, why, "unit not stopped");
                (EventKind::Failure, format!("{unit} not stopped: {why}"))
            }
        };
        recorder.note(kind, Some((&job.name, epoch)), boot_time(), detail);
    }
    Done::UnitsStopped { epoch }
}
