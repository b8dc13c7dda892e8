//! Starting and stopping units through systemd's D-Bus interface (org.freedesktop.systemd1(5)).
//!
//! An action is done when its job is: systemd says so by the signal JobRemoved, and while none
//! comes the unit is asked again now and then, so that a lost signal costs seconds and not the
//! deadline. Starting and stopping are idempotent in systemd, so an action whose connection breaks
//! is asked for again. This module never decides what runs where and never watches a unit.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use zbus::proxy::CacheProperties;
use zbus::{Connection, fdo};
use zbus_systemd::systemd1::{ManagerProxy, UnitProxy};

use super::epochs::{EpochError, Epochs};
use crate::facts::{Epoch, Name};

/// How long one D-Bus call may take; a job is awaited separately.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// How often a unit is asked for its job while no signal comes.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// Between two attempts to connect again: from the first doubling to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What is done to a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitAction {
    /// Start it.
    Start,
    /// Stop it.
    Stop,
}

impl std::fmt::Display for UnitAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Stop => "stop",
        })
    }
}

/// Why a unit could not be started, stopped or read.
#[derive(Debug, Error)]
pub enum UnitsError {
    /// The system bus cannot be reached.
    #[error("the system bus cannot be reached")]
    Connect(#[source] zbus::Error),
    /// systemd refused a request, or did not answer it.
    #[error("systemd did not take the request for {unit}")]
    Request {
        /// The unit.
        unit: Name,
        /// Why.
        #[source]
        source: zbus::Error,
    },
    /// The job ended, but not well.
    #[error("the {action} job of {unit} ended with the result {result}")]
    Job {
        /// The unit.
        unit: Name,
        /// What was asked for.
        action: UnitAction,
        /// systemd's word: `canceled`, `timeout`, `failed`, `dependency`, `skipped`, and others.
        result: String,
    },
    /// The job is gone, but the unit is not in the state it should have led to.
    #[error("{unit} is {state} after its {action} job")]
    State {
        /// The unit.
        unit: Name,
        /// What was asked for.
        action: UnitAction,
        /// systemd's ActiveState.
        state: String,
    },
    /// The job did not end in time. It goes on in systemd.
    #[error("the {action} job of {unit} did not end within {within:?}")]
    Late {
        /// The unit.
        unit: Name,
        /// What was asked for.
        action: UnitAction,
        /// The deadline.
        within: Duration,
    },
    /// The action came too late.
    #[error("the action on {unit} was refused")]
    Epoch {
        /// The unit.
        unit: Name,
        /// Why.
        #[source]
        source: EpochError,
    },
}

/// A connection to systemd that acts on units.
#[derive(Debug)]
pub struct Units {
    connection: Mutex<Connection>,
    epochs: Epochs<Name>,
}

impl Units {
    /// How long a start may take unless the caller knows better: systemd's own default.
    pub const START_WITHIN: Duration = Duration::from_secs(90);
    /// How long a stop may take unless the caller knows better.
    pub const STOP_WITHIN: Duration = Duration::from_secs(90);

    /// Connects to the system bus; the connection is driven on the current tokio runtime.
    ///
    /// # Errors
    /// [`UnitsError::Connect`].
    pub async fn connect() -> Result<Self, UnitsError> {
        let connection = Mutex::new(open().await.map_err(UnitsError::Connect)?);
        Ok(Self {
            connection,
            epochs: Epochs::default(),
        })
    }

    /// Starts `unit` and waits until it is up; one that is up already is fine.
    ///
    /// # Errors
    /// [`UnitsError::Epoch`] before anything is done if a newer epoch was seen for the unit, and any
    /// other of [`UnitsError`].
    pub async fn start(
        &self,
        unit: &Name,
        epoch: Epoch,
        within: Duration,
    ) -> Result<(), UnitsError> {
        self.act(unit, UnitAction::Start, epoch, within).await
    }

    /// Stops `unit` and waits until it is down; one that is down or not there at all is fine.
    ///
    /// # Errors
    /// As [`Units::start`].
    pub async fn stop(
        &self,
        unit: &Name,
        epoch: Epoch,
        within: Duration,
    ) -> Result<(), UnitsError> {
        self.act(unit, UnitAction::Stop, epoch, within).await
    }

    /// systemd's LoadState of `unit`: `loaded`, or `not-found` where there is no such unit, or
    /// `masked`, `bad-setting`, `error`.
    ///
    /// # Errors
    /// [`UnitsError::Request`], also for a name that no unit can have.
    pub async fn load_state(&self, unit: &Name) -> Result<String, UnitsError> {
        let read = async {
            let connection = self.connected().await?;
            proxy(&connection, unit).await?.load_state().await
        };
        read.await.map_err(|source| UnitsError::Request {
            unit: unit.clone(),
            source,
        })
    }

    async fn act(
        &self,
        unit: &Name,
        action: UnitAction,
        epoch: Epoch,
        within: Duration,
    ) -> Result<(), UnitsError> {
        timeout(within, self.attempts(unit, action, epoch))
            .await
            .unwrap_or_else(|_| {
                Err(UnitsError::Late {
                    unit: unit.clone(),
                    action,
                    within,
                })
            })
    }

    /// Asks until systemd has answered; the caller's deadline bounds it.
    async fn attempts(
        &self,
        unit: &Name,
        action: UnitAction,
        epoch: Epoch,
    ) -> Result<(), UnitsError> {
        let request = |source| UnitsError::Request {
            unit: unit.clone(),
            source,
        };
        let mut wait = RETRY.0;
        loop {
            // Before each attempt: ownership may have changed while the bus was away.
            self.epochs
                .admit([unit].into_iter(), epoch)
                .map_err(|source| UnitsError::Epoch {
                    unit: unit.clone(),
                    source,
                })?;
            let outcome = match self.connected().await {
                Ok(connection) => job(&connection, unit, action).await,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(Outcome::Done) => return Ok(()),
                Ok(Outcome::Result(result)) => {
                    return Err(UnitsError::Job {
                        unit: unit.clone(),
                        action,
                        result,
                    });
                }
                Ok(Outcome::State(state)) => {
                    return Err(UnitsError::State {
                        unit: unit.clone(),
                        action,
                        state,
                    });
                }
                Err(error) if is_transient(&error) => {
                    sleep(wait).await;
                    wait = (wait * 2).min(RETRY.1);
                }
                Err(error) => return Err(request(error)),
            }
        }
    }

    /// The connection, opened again if it has ended.
    async fn connected(&self) -> zbus::Result<Connection> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if !connection.is_closed() {
            return Ok(connection);
        }
        let connection = open().await?;
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = connection.clone();
        Ok(connection)
    }
}

/// How a job ended.
enum Outcome {
    /// The unit is as it was asked to be.
    Done,
    /// systemd's result, other than `done`.
    Result(String),
    /// The unit is in this state instead.
    State(String),
}

async fn open() -> zbus::Result<Connection> {
    zbus::connection::Builder::system()
        .method_timeout(CALL_WITHIN)
        .build()
        .await
}

async fn manager(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// The unit's object. LoadUnit, other than GetUnit, also finds units that are not in memory.
async fn proxy(connection: &Connection, unit: &Name) -> zbus::Result<UnitProxy<'static>> {
    let path = manager(connection)
        .await?
        .load_unit(unit.to_string())
        .await?;
    UnitProxy::builder(connection)
        .path(path)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Queues one job and waits for its end.
async fn job(connection: &Connection, unit: &Name, action: UnitAction) -> zbus::Result<Outcome> {
    let manager = manager(connection).await?;
    // Listen first: a quick job is over before the reply to the request is read.
    let mut removed = pin!(manager.receive_job_removed().await?);
    let mode = "replace".to_owned();
    let queued = match action {
        UnitAction::Start => manager.start_unit(unit.to_string(), mode).await,
        UnitAction::Stop => manager.stop_unit(unit.to_string(), mode).await,
    };
    let job = match queued {
        Ok(job) => job,
        Err(error) if action == UnitAction::Stop && is_no_such_unit(&error) => {
            return Ok(Outcome::Done);
        }
        Err(error) => return Err(error),
    };
    let unit = proxy(connection, unit).await?;
    let mut ask = interval(ASK_AGAIN);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ask.reset();
    loop {
        tokio::select! {
            signal = removed.next() => {
                let signal = signal.ok_or_else(connection_ended)?;
                let arguments = signal.args()?;
                if *arguments.job() != job {
                    continue;
                }
                if arguments.result() != "done" {
                    return Ok(Outcome::Result(arguments.result().clone()));
                }
                break;
            }
            _ = ask.tick() => if unit.job().await?.1 != job {
                break;
            },
        }
    }
    let state = unit.active_state().await?;
    Ok(if reached(action, &state) {
        Outcome::Done
    } else {
        Outcome::State(state)
    })
}

/// Whether a unit in `state` is where `action` leads. A start job also ends as `done` when a
/// condition of the unit kept it down.
fn reached(action: UnitAction, state: &str) -> bool {
    let up = matches!(state, "active" | "reloading" | "refreshing");
    match action {
        UnitAction::Start => up,
        UnitAction::Stop => !up,
    }
}

fn connection_ended() -> zbus::Error {
    zbus::Error::InputOutput(std::sync::Arc::new(std::io::ErrorKind::BrokenPipe.into()))
}

fn is_no_such_unit(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::MethodError(name, _, _)
        if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit")
}

/// Whether an error says that the bus or systemd is away for a moment (the bus was restarted,
/// systemd executes itself anew), and not that the request is wrong.
fn is_transient(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::InputOutput(_) | zbus::Error::Handshake(_) => true,
        zbus::Error::FDO(error) => matches!(
            **error,
            fdo::Error::NoReply(_)
                | fdo::Error::Disconnected(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::ServiceUnknown(_)
                | fdo::Error::IOError(_)
        ),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_has_succeeded_only_in_the_state_it_leads_to() {
        for (state, started, stopped) in [
            ("active", true, false),
            ("reloading", true, false),
            ("inactive", false, true),
            ("failed", false, true),
            ("activating", false, true),
            ("deactivating", false, true),
        ] {
            assert_eq!(reached(UnitAction::Start, state), started, "{state}");
            assert_eq!(reached(UnitAction::Stop, state), stopped, "{state}");
        }
    }

    #[test]
    fn a_lost_bus_is_tried_again_and_a_refusal_is_not() {
        assert!(is_transient(&connection_ended()));
        let fdo = |error| zbus::Error::FDO(Box::new(error));
        assert!(is_transient(&fdo(fdo::Error::NoReply(String::new()))));
        assert!(!is_transient(&fdo(fdo::Error::AccessDenied(String::new()))));
        assert!(!is_transient(&zbus::Error::Unsupported));
    }
}
