//! The end of the daemon: who asked for it, whether the next one starts at once, and the word to
//! the failover loop.

use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::board::Board;
use super::failover::Input;
use super::start::FailoverEnd;
use crate::act::own_job;
use crate::facts::{Kept, Name};

/// The daemon stops even if a group cannot be given up.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// systemd is asked for its job for so long; the heartbeats go on meanwhile. Without an answer the
/// stop is for good.
const JOB_WITHIN: Duration = Duration::from_secs(1);
/// A daemon that is restarted may be away for so long: many times what it takes on a host that is
/// busy, and the longest that a host which dies just then can be missed.
const AWAY: Duration = Duration::from_secs(5);

/// The main thread notes its turns so often.
const TURN: Duration = Duration::from_secs(1);

/// The tasks that the daemon cannot do without.
pub type Tasks = JoinSet<anyhow::Result<()>>;

/// The daemon is to end.
pub struct Asked {
    /// systemd starts the next one at once.
    pub restart: bool,
    /// A part of this one has failed.
    failed: anyhow::Result<()>,
}

/// Waits for a signal, or until a part ends that the daemon cannot do without. Notes its turns meanwhile.
///
/// # Errors
/// The failover loop has ended.
pub async fn until_asked(
    board: &Board,
    failover: &mut FailoverEnd,
    tasks: &mut Tasks,
) -> anyhow::Result<Asked> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut turns = tokio::time::interval(TURN);
    let stop = Asked {
        restart: false,
        failed: Ok(()),
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                let restart = own_job::is_restart(JOB_WITHIN).await;
                return Ok(Asked { restart, ..stop });
            }
            _ = interrupt.recv() => return Ok(stop),
            _ = hangup.recv() => {
                warn!("SIGHUP does nothing: `systemctl reload shadowd` reads the configuration anew");
            }
            end = &mut *failover => {
                error!("the failover loop has ended");
                end.map_err(|_| anyhow!("the failover thread died"))??;
                return Err(anyhow!("the failover loop ended by itself"));
            }
            Some(task) = tasks.join_next() => {
                // The peers are told, as at any other stop, and the service manager starts anew.
                let task = task.map_err(anyhow::Error::from).and_then(|result| result);
                let failed = task.and_then(|()| Err(anyhow!("a part of the daemon ended by itself")));
                return Ok(Asked { failed, ..stop });
            }
            _ = turns.tick() => board.main_turn(),
        }
    }
}

/// Has every group given up, or paused when the next daemon starts at once and is among `kept`; gives
/// what that one is to know.
///
/// # Errors
/// The loop does not come to an end, or a part of the daemon failed before.
pub async fn give_up(
    asked: Asked,
    failover: FailoverEnd,
    inputs: &mpsc::Sender<Input>,
    kept: Vec<Name>,
) -> anyhow::Result<Vec<(Name, Kept)>> {
    let restart = asked.restart;
    info!(restart, "stopping");
    let input = if restart {
        Input::Pause { away: AWAY, kept }
    } else {
        Input::Stop
    };
    let died = || anyhow!("the failover thread died");
    inputs.send(input).await.map_err(|_| died())?;
    let end = tokio::time::timeout(STOP_WITHIN, failover).await;
    let end = end.with_context(|| format!("a group could not be given up within {STOP_WITHIN:?}"));
    let kept = end?.map_err(|_| died())??;
    asked.failed.map(|()| kept)
}

/// Tells systemd; without systemd there is nobody to tell.
pub fn notify(key: &str, value: &str) {
    if let Err(error) = systemd::daemon::notify([(key, value)].iter()) {
        warn!(%error, key, "systemd was not told");
    }
}
