//! Start and stop of the daemon.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::board::Board;
use super::failover::{Failover, Input};
use super::group::GroupRunner;
use super::jobs::{self, Job};
use super::record::Recorder;
use super::{capture, check, logging};
use crate::act::announce::Announcer;
use crate::act::units::Units;
use crate::act::vip::Vips;
use crate::config::settings::{GroupSettings, Settings};
use crate::decide::cluster::{Group, Peer};
use crate::facts::{Epoch, EventKind, HostId, Name};
use crate::link::{Datagrams, Identity, Keyring, Listener};
use crate::observe::carrier::CarrierWatch;
use crate::observe::sys::boot_time;
use crate::observe::units::UnitWatch;
use crate::serve::Socket;
use crate::store::Store;

/// Inputs that wait for the failover loop.
const INPUTS: usize = 1024;
/// Unit jobs that wait.
const JOBS: usize = 256;
/// Nice value of the failover thread (setpriority(2)).
const PRIORITY: i32 = -15;
/// The daemon stops even if a group cannot be given up.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Validates the configuration at `path` and says what is wrong with it; changes nothing.
///
/// # Errors
/// With file, line, key, value and what is allowed.
pub fn check_configuration(path: &Path) -> anyhow::Result<Settings> {
    Ok(crate::config::load(path)?)
}

/// Makes this host's identity in `state_dir`, or reads the one that is there.
///
/// # Errors
/// When it cannot be read or written; a damaged one is left as it is.
pub fn create_identity(state_dir: &Path) -> anyhow::Result<HostId> {
    Ok(Identity::load_or_create(state_dir)?.id())
}

/// Runs the daemon with the configuration at `path` until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a part that it cannot do without fails.
pub fn run(path: &Path) -> anyhow::Result<()> {
    logging::init();
    let settings = crate::config::load(path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("main")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(daemon(settings))
}

async fn daemon(settings: Settings) -> anyhow::Result<()> {
    let identity = Identity::load_or_create(&settings.host.state_dir)?;
    let units = connect_units(&settings).await?;
    check::check(&settings, identity.id(), units.as_deref()).await?;
    let store = Store::open(&settings.host.state_dir)?;
    let epochs = stored_epochs(&store, &settings)?;
    let listener = Listener::bind(settings.host.listen)?;
    let socket = Socket::bind(&settings.host.socket)?;

    let (recorder, record_thread) = Recorder::start(store)?;
    let version = env!("CARGO_PKG_VERSION");
    recorder.note(
        EventKind::DaemonStarted,
        None,
        boot_time(),
        format!("version {version}"),
    );
    let keyring = Arc::new(Keyring::new(
        settings.peers.iter().map(|peer| peer.name.clone()),
    ));
    let (inputs, inbox) = mpsc::channel(INPUTS);
    let (job_queue, job_inbox) = mpsc::channel(JOBS);
    let board = Arc::new(Board::new(
        settings.clone(),
        identity.id(),
        Arc::clone(&keyring),
        recorder.clone(),
        inputs.clone(),
    ));
    if let Some(warning) = socket.warning() {
        warn!(warning, "socket");
        board.note(warning.to_owned());
    }

    let jobs = units.map(|units| {
        tokio::spawn(jobs::work(
            units,
            job_inbox,
            inputs.clone(),
            recorder.clone(),
        ))
    });
    let start = FailoverStart {
        settings: settings.clone(),
        id: identity.id(),
        epochs,
        keyring: Arc::clone(&keyring),
        recorder: recorder.clone(),
        jobs: job_queue,
        board: Arc::clone(&board),
    };
    let failover = start_failover(start, inbox).await?;
    let _watches = watch_host(&settings, &inputs).await?;
    let stop_capture = Arc::new(AtomicBool::new(false));
    let capture_thread = capture::start(
        settings.capture.clone(),
        Arc::clone(&board),
        inputs.clone(),
        Arc::clone(&stop_capture),
    )?;
    let (stop, stopped) = watch::channel(false);
    let (name, peers) = (settings.host.name.clone(), settings.peers.clone());
    let streams = tokio::spawn(listener.run(identity, peers, name, keyring, stopped.clone()));
    let serving = tokio::spawn(socket.serve(Arc::clone(&board), stopped));

    notify("READY=1");
    info!(host = %settings.host.name, version, "ready");
    let end = until_asked(&board, failover, &inputs).await;
    notify("STOPPING=1");

    if let Some(jobs) = jobs {
        // Ends once the loop has dropped its end of the queue and every job is done.
        let _ = jobs.await;
    }
    stop_capture.store(true, Ordering::Relaxed);
    let _ = stop.send(true);
    let _ = streams.await.context("the stream task")?;
    let _ = serving.await.context("the socket task")?;
    let _ = capture_thread.join();
    recorder.note(EventKind::DaemonStopped, None, boot_time(), String::new());
    recorder.stop();
    let _ = record_thread.join();
    end
}

/// systemd is needed only when a group has units.
async fn connect_units(settings: &Settings) -> anyhow::Result<Option<Arc<Units>>> {
    if settings.groups.iter().all(|group| group.units.is_empty()) {
        return Ok(None);
    }
    let units = Units::connect()
        .await
        .context("the groups have units, so systemd is needed")?;
    Ok(Some(Arc::new(units)))
}

fn stored_epochs(store: &Store, settings: &Settings) -> anyhow::Result<Vec<Epoch>> {
    let stored = |group: &GroupSettings| Ok(store.epoch(&group.name)?.unwrap_or(Epoch::NONE));
    settings.groups.iter().map(stored).collect()
}

/// What the failover thread is made of.
struct FailoverStart {
    settings: Settings,
    id: HostId,
    epochs: Vec<Epoch>,
    keyring: Arc<Keyring>,
    recorder: Recorder,
    jobs: mpsc::Sender<Job>,
    board: Arc<Board>,
}

type FailoverEnd = oneshot::Receiver<anyhow::Result<()>>;

/// Starts the failover thread; returns once it has its sockets, with where it reports its end.
async fn start_failover(
    start: FailoverStart,
    inbox: mpsc::Receiver<Input>,
) -> anyhow::Result<FailoverEnd> {
    let (ready, is_ready) = oneshot::channel();
    let (ended, end) = oneshot::channel();
    let work = move || {
        // This thread alone goes first, so that heartbeats never wait behind the services they
        // guard, and the services wait for nothing else of the daemon.
        if let Err(error) = rustix::process::setpriority_process(None, PRIORITY) {
            warn!(%error, "heartbeats run at ordinary priority");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        runtime.block_on(async {
            match start.build(inbox).await {
                Ok(failover) => {
                    let _ = ready.send(Ok(()));
                    let result = failover.run().await.context("the datagram socket failed");
                    let _ = ended.send(result);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    };
    std::thread::Builder::new()
        .name("failover".to_owned())
        .spawn(work)?;
    is_ready
        .await
        .map_err(|_| anyhow!("the failover thread ended while starting"))??;
    Ok(end)
}

impl FailoverStart {
    async fn build(self, inbox: mpsc::Receiver<Input>) -> anyhow::Result<Failover> {
        let listen = self.settings.host.listen;
        let datagrams = Datagrams::bind(listen, Arc::clone(&self.keyring))
            .with_context(|| format!("cannot listen on {listen} (UDP)"))?;
        let mut groups = Vec::new();
        for (number, settings) in self.settings.groups.iter().enumerate() {
            groups.push(self.group(number, settings).await?);
        }
        Ok(Failover::new(
            groups,
            &self.settings.peers,
            datagrams,
            inbox,
            self.board,
        ))
    }

    async fn group(&self, number: usize, settings: &GroupSettings) -> anyhow::Result<GroupRunner> {
        let vips = Vips::open(&settings.interface)?;
        let announcer = Announcer::open(&settings.interface)?;
        // Whoever starts does not know who owns the group: what an earlier daemon left is removed
        // before anything else, so that it cannot answer beside the owner.
        let left_over = vips.release_all(&settings.vips).await?;
        let newest = self.epochs[number];
        for vip in left_over {
            let detail = format!("{vip} was left over from an earlier run");
            let group = Some((&settings.name, newest));
            self.recorder
                .note(EventKind::VipRemoved, group, boot_time(), detail);
        }
        for vip in vips.without_network(&settings.vips).await? {
            self.board.note(format!(
                "group {}: {} has no address in the network of {vip}; neighbours there may not be \
                 answered: give the interface one",
                settings.name, settings.interface
            ));
        }
        let me = Peer {
            name: self.settings.host.name.clone(),
            id: self.id,
        };
        let others = settings
            .members
            .iter()
            .filter_map(|member| self.peer(member))
            .collect();
        let core = Group::new(settings.clone(), me, others, newest, boot_time());
        let (jobs, recorder) = (self.jobs.clone(), self.recorder.clone());
        Ok(GroupRunner::new(
            number, core, vips, announcer, jobs, recorder,
        ))
    }

    fn peer(&self, name: &Name) -> Option<Peer> {
        let peer = self.settings.peers.iter().find(|peer| peer.name == *name)?;
        Some(Peer {
            name: peer.name.clone(),
            id: peer.id,
        })
    }
}

/// Watches links and units and hands every change to the failover loop.
async fn watch_host(
    settings: &Settings,
    inputs: &mpsc::Sender<Input>,
) -> anyhow::Result<(CarrierWatch, Option<UnitWatch>)> {
    let interfaces = settings
        .groups
        .iter()
        .map(|group| group.interface.clone())
        .collect();
    let (carrier, mut readings) = CarrierWatch::start(interfaces).await?;
    let queue = inputs.clone();
    tokio::spawn(async move {
        while let Some(reading) = readings.recv().await {
            let _ = queue.send(Input::Carrier(reading)).await;
        }
    });
    let names = settings.groups.iter().flat_map(|group| &group.units);
    let names: Vec<Name> = names.map(|unit| unit.name.clone()).collect();
    if names.is_empty() {
        return Ok((carrier, None));
    }
    let (units, mut readings) = UnitWatch::start(names).await?;
    let queue = inputs.clone();
    tokio::spawn(async move {
        while let Some(reading) = readings.recv().await {
            let _ = queue.send(Input::Unit(reading)).await;
        }
    });
    Ok((carrier, Some(units)))
}

/// Waits for a signal, then until every group was given up. Feeds the watchdog meanwhile, as long
/// as the failover loop turns.
async fn until_asked(
    board: &Board,
    mut failover: FailoverEnd,
    inputs: &mpsc::Sender<Input>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let watchdog = watchdog_interval();
    let mut feed = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(1)) / 3);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            end = &mut failover => {
                error!("the failover loop has ended");
                return end.map_err(|_| anyhow!("the failover thread died"))?;
            }
            _ = feed.tick() => {
                if let Some(limit) = watchdog && board.failover_silent() < limit / 2 {
                    notify("WATCHDOG=1");
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
        Ok(end) => end.map_err(|_| anyhow!("the failover thread died"))?,
        Err(_) => Err(anyhow!(
            "a group could not be given up within {STOP_WITHIN:?}"
        )),
    }
}

/// Tells systemd; without systemd there is nobody to tell.
fn notify(state: &str) {
    if let Some((key, value)) = state.split_once('=')
        && let Err(error) = systemd::daemon::notify([(key, value)].iter())
    {
        warn!(%error, state, "systemd was not told");
    }
}

fn watchdog_interval() -> Option<Duration> {
    let micros = systemd::daemon::watchdog_enabled().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}
