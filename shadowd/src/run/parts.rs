//! The running daemon: starts its threads and tasks, waits until asked to stop, and stops them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::board::Board;
use super::capture::Capturing;
use super::daemon::VERSION;
use super::failover::Input;
use super::guards::Guards;
use super::history::Totals;
use super::profile::{ProfileStart, Profiling};
use super::provider;
use super::record::Recorder;
use super::start::{FailoverStart, start_failover, start_workers, watch_host};
use super::stop::{Tasks, give_up, notify, until_asked};
use super::succession::going_on;
use crate::act::units::Units;
use crate::config::settings::Settings;
use crate::decide::serving::Serving;
use crate::facts::{Epoch, Kept, Memory, Name, Protection};
use crate::link::{Identity, Keyring, Letter, Listener, Post};
use crate::observe::turns::Turns;
use crate::serve::{MetricsListener, Socket};

/// Unit jobs that a stop waits for; systemd carries on with what is left.
const JOBS_WITHIN: Duration = Duration::from_secs(90);
/// A restart waits for the end of capture, which takes its programs off, for so long.
const CAPTURE_WITHIN: Duration = Duration::from_secs(2);
/// It is looked at this often.
const LOOK: Duration = Duration::from_millis(5);

/// What the threads and tasks share.
pub struct Parts {
    /// The configuration.
    pub settings: Settings,
    /// Where it is, and the next daemon's will be.
    pub path: PathBuf,
    /// This host's key.
    pub identity: Identity,
    /// systemd; none when no group has units.
    pub units: Option<Arc<Units>>,
    /// What silences addresses without a lease.
    pub guards: Guards,
    /// The newest known epoch of each group.
    pub epochs: Vec<Epoch>,
    /// What the daemon before this one left of each.
    pub memory: Vec<Memory>,
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

impl Parts {
    /// Runs until a signal, or until a part ends that the daemon cannot do without; gives what the
    /// next daemon is to know.
    pub async fn run(
        mut self,
        inbox: mpsc::Receiver<Input>,
        listener: Listener,
        socket: Socket,
        capturing: Capturing,
    ) -> anyhow::Result<Vec<(Name, Kept)>> {
        let (jobs, workers) = start_workers(
            &self.settings,
            self.units.as_ref(),
            &self.inputs,
            &self.recorder,
        );
        let turns = Turns::start().context("the thread of turns cannot be started")?;
        let mut failover = start_failover(self.failover(jobs, turns), inbox).await?;
        // An owner that was paused is heard again once the streams are up: nothing slow before.
        let (stop, stopped) = watch::channel(false);
        let names = self.settings.peers.iter().map(|peer| peer.name.clone());
        let (post, letters) = Post::new(names);
        let post = Arc::new(post);
        let mut tasks = self.tasks((listener, &post), socket, &stopped);
        let mut profiling = self.profiling(post, letters)?;
        let _watches = watch_host(&self.settings, &self.inputs).await?;
        let stop_capture = Arc::new(AtomicBool::new(false));
        let capture_thread = capturing.begin(
            Arc::clone(&self.board),
            self.totals.clone(),
            self.inputs.clone(),
            self.serving(),
            Arc::clone(&stop_capture),
        );

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
        let asked = until_asked(&self.board, &mut failover, &mut tasks).await;
        notify("STOPPING", "1");
        let end = match asked {
            Ok(asked) => {
                if asked.restart {
                    // What takes its time ends while the heartbeats still go on.
                    stop_capture.store(true, Ordering::Relaxed);
                    profiling.end().await;
                    ended(&capture_thread, CAPTURE_WITHIN).await;
                }
                let kept = going_on(&self.settings, &self.path);
                give_up(asked, failover, &self.inputs, kept).await
            }
            Err(error) => Err(error),
        };
        if end.is_ok() {
            // They end once the loop has dropped its end of the queues and every job is done.
            let _ = tokio::time::timeout(JOBS_WITHIN, workers.join_all()).await;
        }
        stop_capture.store(true, Ordering::Relaxed);
        let _ = stop.send(true);
        profiling.end().await;
        while tasks.join_next().await.is_some() {}
        let _ = capture_thread.join();
        end
    }

    /// Starts the thread of the profiles.
    fn profiling(
        &self,
        post: Arc<Post>,
        letters: mpsc::Receiver<Letter>,
    ) -> anyhow::Result<Profiling> {
        let start = ProfileStart {
            settings: self.settings.clone(),
            identity: self.identity.clone(),
            recorder: self.recorder.clone(),
            board: Arc::clone(&self.board),
            post,
            inputs: self.inputs.clone(),
            letters,
            profiles: Arc::clone(self.board.profiles()),
        };
        start
            .start()
            .context("the thread of the profiles cannot be started")
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

    fn failover(&self, jobs: Vec<mpsc::Sender<super::jobs::Job>>, turns: Turns) -> FailoverStart {
        FailoverStart {
            settings: self.settings.clone(),
            id: self.identity.id(),
            guards: self.guards.clone(),
            epochs: self.epochs.clone(),
            memory: self.memory.clone(),
            keyring: Arc::clone(&self.keyring),
            recorder: self.recorder.clone(),
            inputs: self.inputs.clone(),
            jobs,
            providers: provider::start(&self.settings, &self.inputs),
            board: Arc::clone(&self.board),
            turns,
        }
    }

    fn tasks(
        &mut self,
        (listener, post): (Listener, &Arc<Post>),
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
            (Arc::clone(&self.keyring), Arc::clone(post)),
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

/// Waits until the thread has ended, but no longer than `within`.
pub(super) async fn ended(thread: &JoinHandle<()>, within: Duration) {
    let looks = async {
        while !thread.is_finished() {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(within, looks).await;
}
