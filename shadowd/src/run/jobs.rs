//! Unit jobs of one group, off the failover loop.
//!
//! A newer job supersedes one that still runs: whoever gives a group up does not first wait for
//! its units to start. systemd replaces the queued job of a unit likewise (mode "replace").

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::failover::Input;
use super::record::Recorder;
use crate::act::units::{Units, UnitsError};
use crate::decide::cluster::{Done, Step};
use crate::facts::{Epoch, EventKind, Name};
use crate::observe::sys::boot_time;

/// Cold units of one group to start or stop.
#[derive(Debug)]
pub struct Job {
    /// The epoch they run in, or ran in.
    pub epoch: Epoch,
    /// In start order.
    pub units: Vec<Name>,
    /// Start, or stop.
    pub start: bool,
}

/// Works on the jobs of one group.
pub struct Worker {
    /// The group's number, for reports.
    pub group: usize,
    /// The group's name, for the record.
    pub name: Name,
    /// systemd.
    pub units: Arc<Units>,
    /// Where reports go.
    pub inputs: mpsc::Sender<Input>,
    /// Where it is written down.
    pub recorder: Recorder,
}

impl Worker {
    /// Works until the sender of jobs is gone and the last job is done.
    pub async fn work(self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = jobs.recv().await;
        while let Some(job) = next {
            let mut newer = None;
            let done = tokio::select! {
                done = self.run(&job) => Some(done),
                Some(job) = jobs.recv() => {
                    newer = Some(job);
                    None
                }
            };
            if let Some(done) = done {
                // A loop that has ended needs no report; the jobs it asked for are still done.
                let _ = self
                    .inputs
                    .send(Input::Done {
                        group: self.group,
                        done,
                    })
                    .await;
            }
            next = match newer {
                Some(job) => Some(job),
                None => jobs.recv().await,
            };
        }
    }

    /// Starts in order and stops at the first failure; stops in reverse, all of them.
    async fn run(&self, job: &Job) -> Done {
        let epoch = job.epoch;
        if job.start {
            for unit in &job.units {
                let started = self.units.start(unit, epoch, Units::START_WITHIN).await;
                if let Err(why) = self.note(job, unit, "started", started) {
                    return Done::Failed {
                        epoch,
                        step: Step::StartUnits,
                        why,
                    };
                }
            }
            return Done::UnitsStarted { epoch };
        }
        let mut failure = None;
        for unit in job.units.iter().rev() {
            let stopped = self.units.stop(unit, epoch, STOP_WITHIN).await;
            if let Err(why) = self.note(job, unit, "stopped", stopped) {
                failure = Some(why);
            }
        }
        match failure {
            None => Done::UnitsStopped { epoch },
            Some(why) => Done::Failed {
                epoch,
                step: Step::StopUnits,
                why,
            },
        }
    }

    fn note(
        &self,
        job: &Job,
        unit: &Name,
        action: &str,
        result: Result<(), UnitsError>,
    ) -> Result<(), String> {
        result.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        let group = Some((&self.name, job.epoch));
        let detail = format!("{action} {unit}");
        self.recorder
            .note(EventKind::UnitAction, group, boot_time(), detail);
        Ok(())
    }
}

/// As systemd's own default, which kills what has not stopped by then.
const STOP_WITHIN: Duration = Units::STOP_WITHIN;
