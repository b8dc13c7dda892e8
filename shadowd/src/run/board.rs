//! The latest state of every thread, for the socket to read without disturbing any of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::decisions;
use super::drill::Drills;
use super::failover::Input;
use super::handovers::HandoverAnswer;
use super::history::History;
use super::profile::Profiles;
use super::record::Recorder;
use super::tap::Tap;
use crate::config::settings::Settings;
use crate::facts::{
    BootTime, CaptureStatus, DrillReport, Event, GroupStatus, HostId, LastNotice, Name,
    Observation, PathStatus, PeerStatus, PolicyOrder, Protection, ReceiverStatus, Status,
    WitnessStatus,
};
use crate::link::Keyring;
use crate::observe::sys::boot_time;
use crate::serve::protocol::{
    AtQuery, Code, CoreNow, Decisions, Drills as AllDrills, HANDOVER_TIMEOUT, HandoverDone,
    LiveRequest, OrderDone, Ready, Recorded, RecordedDecision, RecordedSum, Records, RecordsQuery,
    Refusal, SumQuery,
};
use crate::serve::{Answers, ProfileAnswer, ProfileQuestion};

/// The failover loop publishes at least this often while it turns: twice its own rhythm.
const VIEW_LASTS: Duration = Duration::from_millis(200);

/// When a peer was heard and how far it is, by name.
#[derive(Clone, Debug)]
pub struct PeerReading {
    /// The peer.
    pub name: Name,
    /// Every path to it.
    pub paths: Vec<PathStatus>,
    /// Its last authentic datagram.
    pub last_heard: Option<BootTime>,
    /// The last measured round trip.
    pub round_trip_ns: Option<u64>,
    /// What 99 of 100 round trips stayed within.
    pub round_trip_p99_ns: Option<u64>,
}

/// What the failover thread publishes.
#[derive(Clone, Debug, Default)]
pub struct FailoverView {
    /// When it was like this.
    pub at: BootTime,
    /// The groups this host is a member of.
    pub groups: Vec<GroupStatus>,
    /// The groups it is a witness of.
    pub witnessed: Vec<WitnessStatus>,
    /// The peers.
    pub peers: Vec<PeerReading>,
}

/// The time that a status is of. A lease lasts for some heartbeats and the loop publishes less often:
/// looked at from now, one that is held would seem lapsed. A loop that hangs is looked at from now.
fn as_of(shown: BootTime, now: BootTime) -> BootTime {
    match now.since(shown) <= VIEW_LASTS {
        true => shown,
        false => now,
    }
}

/// What the threads publish.
pub struct Board {
    settings: Settings,
    id: HostId,
    started: BootTime,
    keyring: Arc<Keyring>,
    recorder: Recorder,
    history: History,
    inputs: mpsc::Sender<Input>,
    failover: RwLock<Arc<FailoverView>>,
    observation: RwLock<Arc<Observation>>,
    capture: RwLock<CaptureStatus>,
    notes: RwLock<Vec<String>>,
    main_alive: AtomicU64,
    receivers: RwLock<Vec<ReceiverStatus>>,
    tap: Option<Tap>,
    drills: Arc<Drills>,
    profiles: Arc<Profiles>,
}

impl Board {
    /// An empty board.
    pub fn new(
        settings: Settings,
        id: HostId,
        keyring: Arc<Keyring>,
        recorder: Recorder,
        history: History,
        inputs: mpsc::Sender<Input>,
        (drills, profiles): (Arc<Drills>, Arc<Profiles>),
    ) -> Self {
        let started = boot_time();
        Self {
            settings,
            id,
            started,
            keyring,
            recorder,
            history,
            inputs,
            failover: RwLock::default(),
            observation: RwLock::default(),
            capture: RwLock::default(),
            notes: RwLock::default(),
            main_alive: AtomicU64::new(started.as_nanos()),
            receivers: RwLock::default(),
            tap: None,
            drills,
            profiles,
        }
    }

    /// The same, letting `tap` know what groups are.
    pub fn with_tap(self, tap: Option<Tap>) -> Self {
        Self { tap, ..self }
    }

    /// How hooks and alerts do.
    pub fn publish_receivers(&self, receivers: Vec<ReceiverStatus>) {
        *self
            .receivers
            .write()
            .unwrap_or_else(PoisonError::into_inner) = receivers;
    }

    /// The failover thread's view. False if a reader holds the place: that one may be a thread that
    /// gets no turn for long, and the loop waits for nobody.
    pub fn publish_failover(&self, view: FailoverView) -> bool {
        let mut place = match self.failover.try_write() {
            Ok(place) => place,
            Err(TryLockError::Poisoned(place)) => place.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        if let Some(tap) = &self.tap {
            tap.groups(&view.groups);
        }
        self.drills.see(&view.groups);
        *place = Arc::new(view);
        true
    }

    /// What the failover thread published last.
    fn failover(&self) -> Arc<FailoverView> {
        let view = self.failover.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&view)
    }

    /// The capture thread's view.
    pub fn publish_capture(&self, observation: Arc<Observation>, capture: CaptureStatus) {
        *self
            .observation
            .write()
            .unwrap_or_else(PoisonError::into_inner) = observation;
        *self.capture.write().unwrap_or_else(PoisonError::into_inner) = capture;
    }

    /// What is known of profiles.
    pub fn profiles(&self) -> &Arc<Profiles> {
        &self.profiles
    }

    /// Who owns each group, if somebody is known to.
    pub fn owners(&self) -> Vec<(Name, Option<Name>)> {
        let view = self.failover();
        let groups = view.groups.iter();
        groups
            .map(|group| (group.group.clone(), group.active.clone()))
            .collect()
    }

    /// The recorded observations.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// A sentence that every status shows from now on.
    pub fn note(&self, sentence: String) {
        self.notes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sentence);
    }

    /// The main thread had a turn.
    pub fn main_turn(&self) {
        self.main_alive
            .store(boot_time().as_nanos(), Ordering::Relaxed);
    }

    /// How long ago the main thread had its last turn.
    pub fn main_silent(&self, now: BootTime) -> Duration {
        now.since(BootTime::from_nanos(
            self.main_alive.load(Ordering::Relaxed),
        ))
    }

    fn peers(&self, readings: &[PeerReading]) -> Vec<PeerStatus> {
        let status = |peer: &crate::config::settings::PeerSettings| {
            let reading = readings.iter().find(|reading| reading.name == peer.name);
            PeerStatus {
                host: peer.name.clone(),
                id: peer.id,
                address: peer
                    .addresses
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                paths: reading.map_or_else(Vec::new, |reading| reading.paths.clone()),
                connected: self.keyring.connected(&peer.name),
                last_heard: reading.and_then(|reading| reading.last_heard),
                round_trip_ns: reading.and_then(|reading| reading.round_trip_ns),
                round_trip_p99_ns: reading.and_then(|reading| reading.round_trip_p99_ns),
                counters: self.keyring.counters(&peer.name),
            }
        };
        self.settings.peers.iter().map(status).collect()
    }

    fn warnings(&self, capture: &CaptureStatus) -> Vec<String> {
        let mut warnings = Vec::new();
        for group in &self.settings.groups {
            match group.protection {
                Protection::None => warnings.push(format!(
                    "group {}: protection = \"none\": a partition makes two owners until it heals",
                    group.name
                )),
                Protection::Lease if !group.guard => warnings.push(format!(
                    "group {}: guard = false: a daemon that hangs goes on answering for the \
                     virtual IPs beside its successor",
                    group.name
                )),
                Protection::Lease => {}
            }
        }
        for probe in &capture.probes {
            if let Some(why) = &probe.degraded {
                warnings.push(format!("probe {}: {why}", probe.name));
            }
        }
        let history = &capture.history;
        if let Some(why) = &history.failure {
            warnings.push(format!("the history is not written: {why}"));
        } else if history.dropped > 0 {
            warnings.push(format!(
                "{} observations were not recorded: the disk was slow or full",
                history.dropped
            ));
        }
        if history.corrupt > 0 {
            warnings.push(format!(
                "{} records of the history are damaged and are skipped: the log names them",
                history.corrupt
            ));
        }
        if self.recorder.dropped() > 0 {
            warnings.push(format!(
                "{} events were not recorded: see the log",
                self.recorder.dropped()
            ));
        }
        warnings.extend(self.profiles.warnings());
        warnings.extend(self.untold());
        warnings.extend(
            self.notes
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
                .cloned(),
        );
        warnings
    }

    /// Hooks and alerts that did not end well the last time.
    fn untold(&self) -> Vec<String> {
        let receivers = self.receivers.read();
        let receivers = receivers.unwrap_or_else(PoisonError::into_inner);
        let mut sentences: Vec<String> = receivers
            .iter()
            .filter_map(|receiver| {
                let (kind, name) = (receiver.kind, &receiver.name);
                let last = receiver.last.as_ref().filter(|last| !last.ok)?;
                Some(format!("{kind} {name}: {}: {}", last.event, last.result))
            })
            .collect();
        let dropped = self.tap.as_ref().map_or(0, Tap::dropped);
        if dropped > 0 {
            sentences.push(format!(
                "hooks and alerts were not told of {dropped} events: too many came at once"
            ));
        }
        sentences
    }
}

impl Answers for Board {
    fn status(&self) -> Status {
        let view = self.failover();
        let mut capture = self
            .capture
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        capture.history = self.history.status();
        Status {
            host: self.settings.host.name.clone(),
            id: self.id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            now: as_of(view.at, boot_time()),
            peers: self.peers(&view.peers),
            groups: view.groups.clone(),
            witnessed: view.witnessed.clone(),
            strangers: self.keyring.strangers(),
            connections: self.keyring.streams(),
            warnings: self.warnings(&capture),
            capture,
            drills: self.drills.reports(),
            profiles: self.profiles.status(),
            receivers: self
                .receivers
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }

    fn observation(&self) -> Arc<Observation> {
        Arc::clone(
            &self
                .observation
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn events(&self, since: u64, limit: u32) -> Result<Vec<Event>, String> {
        self.recorder.events(since, limit)
    }

    fn recorded_at(&self, query: AtQuery) -> Result<Recorded, Refusal> {
        self.history.recorded_at(query)
    }

    fn records(&self, query: RecordsQuery) -> Result<Records, Refusal> {
        self.history.records(query)
    }

    fn recorded_sum(&self, query: SumQuery) -> Result<RecordedSum, Refusal> {
        self.history.recorded_sum(query)
    }

    fn decisions(&self, group: &Name) -> Result<Decisions, Refusal> {
        decisions::list(&self.recorder, group)
    }

    fn decision(&self, group: &Name, number: u64) -> Result<RecordedDecision, Refusal> {
        decisions::one(&self.recorder, group, number)
    }

    async fn core(&self, group: Name) -> Result<CoreNow, Refusal> {
        decisions::core(&self.inputs, group).await
    }

    async fn test_receiver(&self, receiver: Name) -> Result<LastNotice, Refusal> {
        let (reply, answer) = oneshot::channel();
        let Some(tap) = &self.tap else {
            let message = "this host has no hooks and no alerts";
            let remedy = "configure some: see docs/hooks.md";
            return Err(Refusal::new(Code::UnknownReceiver, message, remedy));
        };
        if !tap.test(receiver, reply) {
            let message = "too much waits to be told";
            return Err(Refusal::new(Code::Busy, message, "try again in a second"));
        }
        answer.await.unwrap_or_else(|_| {
            let message = "the daemon is stopping";
            Err(Refusal::new(Code::Stopping, message, "try again later"))
        })
    }

    async fn drill(&self, group: Name, live: Option<LiveRequest>) -> Result<DrillReport, Refusal> {
        match live {
            None => self.drills.begin(&group, false),
            Some(wanted) => self.drills.begin_live(&group, wanted).await,
        }
    }

    async fn end_drill(&self, group: Name) -> Result<OrderDone, Refusal> {
        self.drills.end_live(&group).await
    }

    fn drills(&self) -> AllDrills {
        self.drills.answer()
    }

    fn ready(&self) -> Ready {
        self.profiles.ready()
    }

    async fn profile(
        &self,
        group: Name,
        question: ProfileQuestion,
    ) -> Result<ProfileAnswer, Refusal> {
        self.profiles.ask(group, question).await
    }

    async fn order(&self, group: Name, order: PolicyOrder) -> Result<OrderDone, Refusal> {
        super::policy::order(&self.inputs, group, order).await
    }

    async fn handover(&self, group: Name, to: Option<Name>) -> Result<HandoverDone, Refusal> {
        let (reply, answer) = oneshot::channel();
        let began = boot_time();
        let from = self.settings.host.name.clone();
        let input = Input::HandOver {
            group: group.clone(),
            to,
            reply,
        };
        self.inputs.try_send(input).map_err(|_| {
            Refusal::new(
                Code::Busy,
                "the failover loop is busy",
                "try again in a second",
            )
        })?;
        let answer = tokio::time::timeout(HANDOVER_TIMEOUT, answer).await;
        let HandoverAnswer { to, epoch } = match answer {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => {
                let message = "the daemon is stopping";
                return Err(Refusal::new(Code::Stopping, message, "ask the other host"));
            }
            Err(_) => {
                let message = "the handover did not end in time";
                return Err(Refusal::new(
                    Code::TimedOut,
                    message,
                    "see `shadowctl events`",
                ));
            }
        };
        let took_ms = u64::try_from(boot_time().since(began).as_millis()).unwrap_or(u64::MAX);
        Ok(HandoverDone {
            group,
            epoch,
            from,
            to,
            took_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_of_its_view_unless_the_loop_hangs() {
        let shown = BootTime::from_nanos(5_000_000_000);
        let soon = shown.after(Duration::from_millis(90));
        assert_eq!(as_of(shown, soon), shown);
        let late = shown.after(Duration::from_secs(1));
        assert_eq!(as_of(shown, late), late);
    }
}
