//! Start of the daemon: what must be there before anything runs, in an order that harms nobody.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::sync::mpsc;
use tracing::warn;

use super::board::Board;
use super::capture::Capturing;
use super::drill::Drills;
use super::failover::Input;
use super::guards::{Guards, release_forgotten};
use super::history::{History, Totals};
use super::memory::{boot_id, take_over};
use super::parts::Parts;
use super::profile::Profiles;
use super::record::{OnKept, Recorder};
use super::tap::Tap;
use super::{check, keep, logging, notify};
use crate::act::units::Units;
use crate::config::settings::{CaptureSettings, GroupSettings, Settings};
use crate::facts::{Epoch, EventKind, HostId, Name, Vip};
use crate::link::{Identity, Keyring, Listener};
use crate::observe::privileges;
use crate::observe::sys::{boot_time, return_large_allocations};
use crate::serve::{Metrics, MetricsListener, Socket};
use crate::store::Store;

/// Inputs that wait for the failover loop.
const INPUTS: usize = 1024;
/// Version of this daemon.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Validates the configuration at `path` and says what is wrong with it; changes nothing.
///
/// # Errors
/// With file, line, key, value and what is allowed.
pub fn check_file(path: &Path) -> anyhow::Result<Settings> {
    Ok(crate::config::load(path)?)
}

/// The same, and whether this host has what the configuration names: addresses, interfaces,
/// networks of the virtual IPs, units.
///
/// # Errors
/// As [`check_file`], or with what this host does not have.
pub fn check_configuration(path: &Path) -> anyhow::Result<Settings> {
    let settings = check_file(path)?;
    // Without an identity there is none to confuse with a peer's.
    let own = Identity::load_id(&settings.host.state_dir).ok();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let units = connect_units(&settings).await?;
        check::check(&settings, own, units.as_deref()).await?;
        check::check_networks(&settings).await
    })?;
    Ok(settings)
}

/// Makes this host's identity in `state_dir`, or reads the one that is there.
///
/// # Errors
/// When it cannot be read or written; a damaged one is left as it is.
pub fn create_identity(state_dir: &Path) -> anyhow::Result<HostId> {
    Ok(Identity::load_or_create(state_dir)?.id())
}

/// Takes away what keeps the virtual IPs of this host silent without a lease.
///
/// # Errors
/// The configuration is bad, a daemon runs, or the kernel refuses.
pub fn remove_guards(path: &Path) -> anyhow::Result<()> {
    let settings = crate::config::load(path)?;
    // The listening socket is the lock, as at the start of the daemon.
    let listen = first_address(&settings)?;
    let _lock = std::net::TcpListener::bind(listen)
        .with_context(|| format!("{listen} is in use: stop the daemon first"))?;
    let identity = Identity::load_or_create(&settings.host.state_dir)?;
    Ok(super::guards::remove(identity.id())?)
}

/// The address that tells whether a daemon runs.
fn first_address(settings: &Settings) -> anyhow::Result<SocketAddr> {
    let first = settings.host.listen.first();
    first.copied().context("the configuration names no address")
}

/// Runs the daemon with the configuration at `path` until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or a part that it cannot do without fails.
pub fn run(path: &Path) -> anyhow::Result<()> {
    return_large_allocations();
    logging::init();
    let left = keep::left();
    let settings = crate::config::load(path)?;
    // This order decides which thread may load programs: see the module of privileges.
    let capturing = Capturing::start(settings.capture.clone(), left)
        .context("the capturing thread cannot be started")?;
    let identity = Identity::load_or_create(&settings.host.state_dir)?;
    // Whoever has no right to listen must not touch the guards of whoever does.
    let listen = first_address(&settings)?;
    let lock = std::net::TcpListener::bind(listen)
        .with_context(|| format!("cannot listen on {listen} (TCP)"))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(release_forgotten(&settings, identity.id()))
        .context("virtual IPs that are not configured any more cannot be removed")?;
    let guards = Guards::open(&settings, identity.id())?;
    drop(lock);
    privileges::keep(privileges::DAEMON).context("capabilities cannot be given up")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("main")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(daemon((settings, path), capturing, identity, guards))
}

async fn daemon(
    (settings, path): (Settings, &Path),
    capturing: Capturing,
    identity: Identity,
    guards: Guards,
) -> anyhow::Result<()> {
    // The listening sockets are the lock: a second daemon started by hand ends here, before it
    // could take the addresses of a live owner away.
    let listener = Listener::bind(&settings.host.listen)?;
    let metrics = Arc::new(Metrics::new(settings.metrics.clone()));
    let socket = Socket::bind(&settings.host.socket)?.with_metrics(Arc::clone(&metrics));
    let scrapes = bind_scrapes(&settings, metrics)?;
    let boot = boot_id()?;
    let (store, memory, left_over) = take_over(&settings, &boot).await?;

    let units = connect_units(&settings).await?;
    check::check(&settings, Some(identity.id()), units.as_deref()).await?;
    let epochs = stored_epochs(&store, &settings)?;
    let (inputs, inbox) = mpsc::channel(INPUTS);
    let (recorder, record_thread) = Recorder::start(store, boot.clone(), on_kept(&inputs))?;
    let (tap, words) = (!settings.notify.is_empty()).then(Tap::new).unzip();
    let recorder = recorder.with_tap(tap.clone());
    note_start(&recorder, &left_over);

    let (history, totals, history_thread) = start_history(&settings)?;
    let keyring = Arc::new(Keyring::new(
        settings.peers.iter().map(|peer| peer.name.clone()),
    ));
    let drills = Drills::new(&settings, recorder.clone(), inputs.clone());
    let board = Board::new(
        settings.clone(),
        identity.id(),
        Arc::clone(&keyring),
        recorder.clone(),
        history.clone(),
        inputs.clone(),
        (Arc::clone(&drills), Profiles::new()),
    );
    drills.follow();
    let board = Arc::new(board.with_tap(tap));
    note_warnings(&socket, &settings, &board);
    let notifying = notify::start(&settings, recorder.clone(), Arc::clone(&board), words).await?;
    let parts = Parts {
        settings,
        path: path.to_owned(),
        identity,
        units,
        guards,
        epochs,
        memory,
        keyring,
        recorder: recorder.clone(),
        totals,
        board,
        inputs,
        scrapes,
    };
    let end = parts.run(inbox, listener, socket, capturing).await;
    // The first thing after the loop has ended, whatever else has to end: the kept is safe.
    let end = end.and_then(|kept| Ok(recorder.keep(&boot, &kept)?));
    drills.finish().await;
    if let Some(notifying) = notifying {
        notifying.finish().await;
    }
    recorder.note(EventKind::DaemonStopped, None, boot_time(), String::new());
    recorder.stop();
    let _ = record_thread.join();
    end_history(&history, history_thread);
    end
}

/// Waits until everything is recorded.
fn end_history(history: &History, thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread {
        history.stop(); // unless capture did
        let _ = thread.join();
    }
}

/// Where Prometheus reads over TCP, if it may.
fn bind_scrapes(
    settings: &Settings,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Option<MetricsListener>> {
    let listen = settings.metrics.listen;
    let bound = listen.map(|address| MetricsListener::bind(address, metrics));
    Ok(bound.transpose()?)
}

/// What the record begins with.
fn note_start(recorder: &Recorder, left_over: &[(Name, Vip)]) {
    let version = format!("version {VERSION}");
    recorder.note(EventKind::DaemonStarted, None, boot_time(), version);
    for (group, vip) in left_over {
        let detail = format!("{vip} of group {group} was left over from an earlier run");
        recorder.note(EventKind::VipRemoved, None, boot_time(), detail);
    }
}

/// What every status shows from the start.
fn note_warnings(socket: &Socket, settings: &Settings, board: &Board) {
    if let Some(warning) = socket.warning() {
        warn!(warning, "socket");
        board.note(warning.to_owned());
    }
    for sentence in check::paths(settings) {
        warn!(sentence, "host.listen");
        board.note(sentence);
    }
    for path in missing_paths(settings) {
        warn!(path = %path.display(), "no such directory");
        board.note(format!(
            "capture.paths: {} does not exist: nothing is opened below it",
            path.display()
        ));
    }
}

/// The history, when it is switched on: where the totals it holds arrive, and its thread.
fn start_history(
    settings: &Settings,
) -> anyhow::Result<(History, Option<Totals>, Option<JoinHandle<()>>)> {
    if !settings.history.record {
        return Ok((History::off(), None, None));
    }
    let dir = &settings.host.state_dir;
    let (history, totals, thread) = History::start(dir, settings.history.clone())?;
    Ok((history, Some(totals), Some(thread)))
}

/// Configuration roots that somebody wrote down and that are not there.
fn missing_paths(settings: &Settings) -> Vec<PathBuf> {
    let paths = &settings.capture.paths;
    if *paths == CaptureSettings::default_paths() {
        return Vec::new();
    }
    paths
        .iter()
        .filter(|path| !path.is_dir())
        .cloned()
        .collect()
}

/// Tells the failover loop of a promise that is on the disk. A loop that has ended gives none.
fn on_kept(inputs: &mpsc::Sender<Input>) -> OnKept {
    let inputs = inputs.clone();
    Box::new(move |group, promise| {
        let _ = inputs.blocking_send(Input::PromiseKept(group, promise));
    })
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
    let groups = settings.groups.iter().chain(&settings.witnessed);
    groups.map(stored).collect()
}
