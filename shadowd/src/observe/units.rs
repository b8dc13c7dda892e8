//! The states of units, as systemd signals them over D-Bus (org.freedesktop.systemd1(5)).
//!
//! A reading comes straight from the signal, without a question back. Signals of other senders
//! never reach it: each stream takes those of the owner of systemd's name only, so no local user can
//! report a unit dead. When the bus restarts or systemd reloads or executes itself anew, everything
//! is subscribed and read again. This module never starts or stops a unit.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use zbus::fdo::{PropertiesChanged, PropertiesProxy};
use zbus::message::Sequence;
use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};
use zbus_systemd::systemd1::ManagerProxy;

use crate::facts::Name;

const SYSTEMD: &str = "org.freedesktop.systemd1";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Readings that wait for the consumer; above that only the newest of each unit is kept.
const QUEUE: usize = 256;
/// How long one D-Bus call may take.
const CALL_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to subscribe again: from the first doubling to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// The state of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitReading {
    /// The unit, by the name it is watched under.
    pub unit: Name,
    /// systemd's ActiveState: `active`, `reloading`, `inactive`, `failed`, `activating`,
    /// `deactivating`, `maintenance`, `refreshing`.
    pub active_state: String,
    /// The state of the unit's own kind, such as `running` or `dead`.
    pub sub_state: String,
    /// The main process of a service that has one.
    pub main_pid: Option<u32>,
}

impl UnitReading {
    /// Whether the unit does its work: active, also while it takes a new configuration.
    pub fn is_up(&self) -> bool {
        matches!(
            self.active_state.as_str(),
            "active" | "reloading" | "refreshing"
        )
    }
}

/// Why units cannot be watched.
#[derive(Debug, Error)]
pub enum UnitWatchError {
    /// The system bus or systemd on it cannot be reached.
    #[error("systemd cannot be reached over the system bus")]
    Connect(#[source] zbus::Error),
    /// systemd does not know the name, or does not answer.
    #[error("unit {unit} cannot be watched")]
    Unit {
        /// The unit.
        unit: Name,
        /// Why.
        #[source]
        source: zbus::Error,
    },
}

/// Watches units until it is dropped.
#[derive(Debug)]
pub struct UnitWatch {
    task: JoinHandle<()>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    merged: AtomicU64,
    resubscribed: AtomicU64,
}

impl Drop for UnitWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl UnitWatch {
    /// Watches `units` on the current tokio runtime. The receiver gives the state of each first,
    /// then every change. A consumer that falls more than 256 readings behind gets the newest state
    /// of each unit.
    ///
    /// # Errors
    /// If systemd cannot be reached or refuses a name. A unit that does not exist is no error: it is
    /// `inactive` until somebody installs it.
    pub async fn start(
        units: Vec<Name>,
    ) -> Result<(Self, mpsc::Receiver<UnitReading>), UnitWatchError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        let mut readings = Readings::new(units, counters.clone());
        let session = Session::open(&mut readings).await?;
        let task = tokio::spawn(watch(readings, session, sender, counters.clone()));
        Ok((Self { task, counters }, receiver))
    }

    /// Readings that were replaced by a newer one before the consumer took them.
    pub fn merged(&self) -> u64 {
        self.counters.merged.load(Ordering::Relaxed)
    }

    /// How often everything was subscribed and read again.
    pub fn resubscribed(&self) -> u64 {
        self.counters.resubscribed.load(Ordering::Relaxed)
    }
}

async fn watch(
    mut readings: Readings,
    first: Session,
    sender: mpsc::Sender<UnitReading>,
    counters: Arc<Counters>,
) {
    let mut session = Some(first);
    let mut wait = RETRY.0;
    loop {
        let Some(open) = session.as_mut() else {
            match Session::open(&mut readings).await {
                Ok(open) => {
                    counters.resubscribed.fetch_add(1, Ordering::Relaxed);
                    session = Some(open);
                    wait = RETRY.0;
                }
                Err(_) if sender.is_closed() => return,
                // systemd is away; nothing is known of the units, so nothing is reported.
                Err(_) => {
                    sleep(wait).await;
                    wait = (wait * 2).min(RETRY.1);
                }
            }
            continue;
        };
        tokio::select! {
            // A change is handed over before the next one is read, while there is room.
            biased;
            permit = sender.reserve(), if readings.has_unsent() => match permit {
                Ok(permit) => if let Some(reading) = readings.next_unsent() { permit.send(reading) },
                Err(_) => return,
            },
            change = open.changes.next() => match change {
                Some((index, change)) => readings.changed(index, &change),
                None => session = None,
            },
            Some(()) = open.upheavals.next() => session = None,
            () = open.connection.closed() => session = None,
            () = sender.closed() => return,
        }
    }
}

/// One subscription to all units.
struct Session {
    connection: Connection,
    changes: SelectAll<BoxStream<'static, (usize, PropertiesChanged)>>,
    /// systemd has reloaded its units, or another systemd has taken its name.
    upheavals: SelectAll<BoxStream<'static, ()>>,
}

impl Session {
    /// Subscribes first and reads then, so that no change falls between.
    async fn open(readings: &mut Readings) -> Result<Self, UnitWatchError> {
        let mut session = Self::subscribe().await.map_err(UnitWatchError::Connect)?;
        let manager = manager(&session.connection)
            .await
            .map_err(UnitWatchError::Connect)?;
        for index in 0..readings.known.len() {
            let unit = readings.known[index].reading.unit.clone();
            let follow = session.follow(&manager, &unit, index, readings).await;
            follow.map_err(|source| UnitWatchError::Unit { unit, source })?;
        }
        Ok(session)
    }

    async fn subscribe() -> zbus::Result<Self> {
        let connection = zbus::connection::Builder::system()
            .method_timeout(CALL_WITHIN)
            .build()
            .await?;
        let manager = manager(&connection).await?;
        let mut upheavals = SelectAll::new();
        // Reloading(false) comes when a reload has ended; the owner of the name changes when
        // systemd comes back to the bus.
        let reloads = manager
            .receive_reloading()
            .await?
            .filter_map(async |signal| {
                let ended = signal.args().is_ok_and(|arguments| !*arguments.active());
                ended.then_some(())
            });
        let owners = manager.inner().receive_owner_changed().await?;
        let owners = owners.filter_map(async |owner| owner.map(|_| ()));
        upheavals.push(reloads.boxed());
        upheavals.push(owners.boxed());
        // Without a subscriber systemd sends no signals about units at all.
        manager.subscribe().await?;
        Ok(Self {
            connection,
            changes: SelectAll::new(),
            upheavals,
        })
    }

    async fn follow(
        &mut self,
        manager: &ManagerProxy<'static>,
        unit: &Name,
        index: usize,
        readings: &mut Readings,
    ) -> zbus::Result<()> {
        // The path is that of the unit's own name, also when it is watched under an alias.
        let path = manager.load_unit(unit.to_string()).await?;
        let properties = PropertiesProxy::builder(&self.connection)
            .destination(SYSTEMD)
            .path(path.clone())
            .cache_properties(CacheProperties::No)
            .build()
            .await?;
        let changes = properties.receive_properties_changed().await?;
        self.changes
            .push(changes.map(move |change| (index, change)).boxed());

        let (active_state, at) = get(&self.connection, &path, UNIT, "ActiveState").await?;
        let (sub_state, _) = get(&self.connection, &path, UNIT, "SubState").await?;
        let main_pid = if unit.as_str().ends_with(".service") {
            u32::try_from(get(&self.connection, &path, SERVICE, "MainPID").await?.0).ok()
        } else {
            None
        };
        let active_state = String::try_from(active_state)?;
        let sub_state = String::try_from(sub_state)?;
        readings.read(index, at, active_state, sub_state, main_pid);
        Ok(())
    }
}

async fn manager(connection: &Connection) -> zbus::Result<ManagerProxy<'static>> {
    ManagerProxy::builder(connection)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// One property, and when its value arrived among the messages of the connection.
async fn get(
    connection: &Connection,
    path: &OwnedObjectPath,
    interface: &str,
    property: &str,
) -> zbus::Result<(OwnedVariant, Sequence)> {
    let reply = connection
        .call_method(
            Some(SYSTEMD),
            path,
            Some(PROPERTIES),
            "Get",
            &(interface, property),
        )
        .await?;
    Ok((reply.body().deserialize()?, reply.recv_position()))
}

/// What is known of the watched units.
#[derive(Debug)]
struct Readings {
    known: Vec<Known>,
    unsent: BTreeSet<usize>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Known {
    reading: UnitReading,
    /// Signals that came before this reading are older than it.
    read_at: Option<Sequence>,
}

impl Readings {
    fn new(units: Vec<Name>, counters: Arc<Counters>) -> Self {
        let unread = |unit| {
            let (active_state, sub_state) = (String::new(), String::new());
            let reading = UnitReading {
                unit,
                active_state,
                sub_state,
                main_pid: None,
            };
            Known {
                reading,
                read_at: None,
            }
        };
        // Each unit once: two streams of the same signals would report every change twice.
        let units: BTreeSet<_> = units.into_iter().collect();
        let known = units.into_iter().map(unread).collect();
        Self {
            known,
            unsent: BTreeSet::new(),
            counters,
        }
    }

    fn read(
        &mut self,
        index: usize,
        at: Sequence,
        active_state: String,
        sub_state: String,
        main_pid: Option<u32>,
    ) {
        let Some(known) = self.known.get_mut(index) else {
            return;
        };
        known.read_at = Some(at);
        let main_pid = main_pid.filter(|pid| *pid != 0);
        let unit = known.reading.unit.clone();
        self.set(
            index,
            UnitReading {
                unit,
                active_state,
                sub_state,
                main_pid,
            },
        );
    }

    fn changed(&mut self, index: usize, change: &PropertiesChanged) {
        let Some(known) = self.known.get(index) else {
            return;
        };
        let older = |at: &Sequence| change.message().recv_position() <= *at;
        if known.read_at.as_ref().is_some_and(older) {
            return;
        }
        if let Ok(arguments) = change.args() {
            self.merge(
                index,
                arguments.interface_name(),
                arguments.changed_properties(),
            );
        }
    }

    /// Takes what a signal says over; what it does not name stays.
    fn merge(&mut self, index: usize, interface: &str, changed: &HashMap<&str, Variant<'_>>) {
        let Some(known) = self.known.get(index) else {
            return;
        };
        let text = |name: &str| changed.get(name).and_then(|v| String::try_from(v).ok());
        let mut reading = known.reading.clone();
        if interface == UNIT {
            reading.active_state = text("ActiveState").unwrap_or(reading.active_state);
            reading.sub_state = text("SubState").unwrap_or(reading.sub_state);
        } else if interface == SERVICE
            && let Some(pid) = changed.get("MainPID").and_then(|v| u32::try_from(v).ok())
        {
            reading.main_pid = Some(pid).filter(|pid| *pid != 0);
        }
        self.set(index, reading);
    }

    fn set(&mut self, index: usize, reading: UnitReading) {
        let Some(known) = self.known.get_mut(index) else {
            return;
        };
        if known.reading != reading {
            known.reading = reading;
            if !self.unsent.insert(index) {
                self.counters.merged.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn next_unsent(&mut self) -> Option<UnitReading> {
        let index = self.unsent.pop_first()?;
        self.known.get(index).map(|known| known.reading.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings() -> Readings {
        let units = ["b.service", "a.service", "b.service"];
        let units = units.map(|unit| unit.parse().expect("a name")).to_vec();
        Readings::new(units, Arc::new(Counters::default()))
    }

    #[test]
    fn a_signal_changes_what_it_names_and_nothing_else() {
        let mut readings = readings();
        assert_eq!(readings.known.len(), 2);
        let up = HashMap::from([
            ("ActiveState", Variant::from("active")),
            ("SubState", Variant::from("running")),
        ]);
        readings.merge(1, UNIT, &up);
        readings.merge(
            1,
            SERVICE,
            &HashMap::from([("MainPID", Variant::from(42_u32))]),
        );
        assert_eq!(readings.counters.merged.load(Ordering::Relaxed), 1);
        let reading = readings.next_unsent().expect("it changed");
        assert!(reading.is_up());
        assert_eq!(
            (reading.unit.as_str(), reading.main_pid),
            ("b.service", Some(42))
        );
        assert_eq!(reading.sub_state, "running");

        readings.merge(
            1,
            SERVICE,
            &HashMap::from([("MainPID", Variant::from(0_u32))]),
        );
        assert_eq!(
            readings.next_unsent().map(|r| (r.is_up(), r.main_pid)),
            Some((true, None))
        );
        readings.merge(
            1,
            UNIT,
            &HashMap::from([("ActiveState", Variant::from("failed"))]),
        );
        assert_eq!(readings.next_unsent().map(|r| r.is_up()), Some(false));
    }

    #[test]
    fn a_signal_that_changes_nothing_or_makes_no_sense_is_not_reported() {
        let mut readings = readings();
        readings.merge(
            0,
            UNIT,
            &HashMap::from([("ActiveState", Variant::from("active"))]),
        );
        readings.next_unsent();
        readings.merge(
            0,
            UNIT,
            &HashMap::from([("ActiveState", Variant::from("active"))]),
        );
        readings.merge(
            0,
            UNIT,
            &HashMap::from([("ActiveState", Variant::from(7_u32))]),
        );
        readings.merge(
            0,
            "org.example",
            &HashMap::from([("ActiveState", Variant::from("no"))]),
        );
        readings.merge(
            9,
            UNIT,
            &HashMap::from([("ActiveState", Variant::from("failed"))]),
        );
        assert!(!readings.has_unsent());
    }
}
