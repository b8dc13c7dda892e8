//! The running daemon: starts its threads and tasks, waits until asked to stop, and stops them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::board::Board;
use super::capture::Capturing;
use super::daemon::VERSION;
use super::failover::Input;
use super::guards::Guards;
use super::history::Totals;
use super::record::Recorder;
use super::start::{FailoverEnd, FailoverStart, start_failover, start_workers, watch_host};
use crate::act::units::Units;
use crate::config::settings::Settings;
use crate::decide::serving::Serving;
use crate::facts::{Epoch, Protection};
use crate::link::{Identity, Keyring, Listener};
use crate::serve::{MetricsListener, Socket};

/// Unit jobs that a stop waits for; systemd carries on with what is left.
const JOBS_WITHIN: Duration = Duration::from_secs(90);
/// The daemon stops even if a group cannot be given up.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What the threads and tasks share.
pub struct Parts {
    /// The configuration.
    pub settings: Settings,
    /// This host's key.
    pub identity: Identity,
    /// systemd; none when no group has units.
    pub units: Option<Arc<Units>>,
    /// What silences addresses without a lease.
    pub guards: Guards,
    /// The newest known epoch of each group.
    pub epochs: Vec<Epoch>,
    /// The keys of the peers' datagrams.
    pub keyring: Arc<Keyring>,
    /// The record.
    pub recorder: Recorder,
    /// Where the totals of the daemon before this one arrive; none when nothing is recorded.
    pub totals: Option<Totals>,
    /// The state for the socket.
    pub board: Arc<Board>,
    /// The way into the failover loop.
    pub inputs: mpsc::Sender<Input>,
    /// Where Prometheus reads over TCP, if it may.
    pub scrapes: Option<MetricsListener>,
}

type Tasks = JoinSet<anyhow::Result<()>>;

impl Parts {
    /// Runs until a signal, or until a part ends that the daemon cannot do without.
    pub async fn run(
        mut self,
        inbox: mpsc::Receiver<Input>,
        listener: Listener,
        socket: Socket,
        capturing: Capturing,
    ) -> anyhow::Result<()> {
        let (jobs, workers) = start_workers(
            &self.settings,
            self.units.as_ref(),
            &self.inputs,
            &self.recorder,
        );
        let failover = start_failover(self.failover(jobs), inbox).await?;
        let _watches = watch_host(&self.settings, &self.inputs).await?;
        let stop_capture = Arc::new(AtomicBool::new(false));
        let capture_thread = capturing.begin(
            Arc::clone(&self.board),
            self.totals.clone(),
            self.inputs.clone(),
            self.serving(),
            Arc::clone(&stop_capture),
        );
        let (stop, stopped) = watch::channel(false);
        let mut tasks = self.tasks(listener, socket, &stopped);

        for group in &self.settings.groups {
            match group.protection {
                Protection::None => warn!(
                    group = %group.name,
                    "protection = \"none\": a partition makes two owners until it heals"
                ),
                Protection::Lease => {}
            }
        }
        notify("READY", "1");
        info!(host = %self.settings.host.name, version = VERSION, "ready");
        let end = until_asked(&self.board, failover, &self.inputs, &mut tasks).await;
        notify("STOPPING", "1");
        if end.is_ok() {
            // They end once the loop has dropped its end of the queues and every job is done.
            let _ = tokio::time::timeout(JOBS_WITHIN, workers.join_all()).await;
        }
        stop_capture.store(true, Ordering::Relaxed);
        let _ = stop.send(true);
        while tasks.join_next().await.is_some() {}
        let _ = capture_thread.join();
        end
    }

    /// The units that are watched for whether they answer.
    fn serving(&self) -> Serving {
        let groups = self.settings.groups.iter();
        let watched = groups.filter_map(|group| Some((group, group.unanswered_after?)));
        Serving::new(watched.flat_map(|(group, patience)| {
            let units = group.units.iter();
            units.map(move |unit| (unit.name.to_string(), patience))
        }))
    }

    fn failover(&self, jobs: Vec<mpsc::Sender<super::jobs::Job>>) -> FailoverStart {
        FailoverStart {
            settings: self.settings.clone(),
            id: self.identity.id(),
            guards: self.guards.clone(),
            epochs: self.epochs.clone(),
            keyring: Arc::clone(&self.keyring),
            recorder: self.recorder.clone(),
            inputs: self.inputs.clone(),
            jobs,
            board: Arc::clone(&self.board),
        }
    }

    fn tasks(
        &mut self,
        listener: Listener,
        socket: Socket,
        stopped: &watch::Receiver<bool>,
    ) -> Tasks {
        let mut tasks = JoinSet::new();
        let (answers, stop) = (Arc::clone(&self.board), stopped.clone());
        tasks.spawn(async move {
            socket
                .serve(answers, stop)
                .await
                .context("the socket failed")
        });
        let streams = listener.run(
            self.identity.clone(),
            self.settings.peers.clone(),
            self.settings.host.name.clone(),
            Arc::clone(&self.keyring),
            stopped.clone(),
        );
        tasks.spawn(async move { streams.await.context("the streams failed") });
        if let Some(scrapes) = self.scrapes.take() {
            let (answers, stop) = (Arc::clone(&self.board), stopped.clone());
            tasks.spawn(async move {
                let served = scrapes.serve(answers, stop).await;
                served.context("the listener of the metrics failed")
            });
        }
        tasks
    }
}

/// Waits for a signal, then until every group was given up. Feeds the watchdog meanwhile, as long
/// as the failover loop turns.
async fn until_asked(
    board: &Board,
    mut failover: FailoverEnd,
    inputs: &mpsc::Sender<Input>,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let watchdog = watchdog_interval();
    let mut failed = Ok(());
    let mut feed = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(1)) / 3);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            end = &mut failover => {
                error!("the failover loop has ended");
                return end.map_err(|_| anyhow!("the failover thread died"))?;
            }
            Some(task) = tasks.join_next() => {
                // The peers are told, as at any other stop, and the service manager starts anew.
                let task = task.map_err(anyhow::Error::from).and_then(|result| result);
                failed = task.and_then(|()| Err(anyhow!("a part of the daemon ended by itself")));
                break;
            }
            _ = feed.tick() => {
                if let Some(limit) = watchdog && board.failover_silent() < limit / 2 {
                    notify("WATCHDOG", "1");
                }
            }
        }
    }
    info!("stopping");
    inputs
        .send(Input::Stop)
        .await
        .map_err(|_| anyhow!("the failover thread died"))?;
    match tokio::time::timeout(STOP_WITHIN, failover).await {
        Ok(end) => end
            .map_err(|_| anyhow!("the failover thread died"))?
            .and(failed),
        Err(_) => Err(anyhow!(
            "a group could not be given up within {STOP_WITHIN:?}"
        )),
    }
}

/// Tells systemd; without systemd there is nobody to tell.
fn notify(key: &str, value: &str) {
    if let Err(error) = systemd::daemon::notify([(key, value)].iter()) {
        warn!(%error, key, "systemd was not told");
    }
}

fn watchdog_interval() -> Option<Duration> {
    let micros = systemd::daemon::watchdog_enabled().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}
