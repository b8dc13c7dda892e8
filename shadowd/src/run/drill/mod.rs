//! Drills: begins one when an operator or the schedule wants it, takes it through its steps, ends it
//! whatever happens, and remembers what came of it.

mod inside;
mod isolated;
mod live;
mod record;
mod schedule;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::error;

use super::failover::Input;
use super::record::{Recorder, wall_ms};
use crate::act::hooks::Hooks;
use crate::config::settings::{DrillSettings, GroupSettings, Settings};
use crate::decide::drill::{Objection, objection};
use crate::facts::{DrillRecord, DrillReport, DrillState, GroupStatus, LiveDrill, Name};
use crate::serve::protocol::{Code, Drills as Answer, Refusal};
use crate::store::drills as file;

pub(super) use inside::program;
pub use inside::{check_one, hold};

/// How often the schedule is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// What the end of the daemon waits for a drill's teardown.
const END_WITHIN: Duration = Duration::from_secs(8);

/// All drills of this host.
pub struct Drills {
    host: Name,
    groups: Vec<(GroupSettings, DrillSettings)>,
    state_dir: PathBuf,
    hooks: Hooks,
    recorder: Recorder,
    inputs: mpsc::Sender<Input>,
    record: Mutex<DrillRecord>,
    seen: watch::Sender<Arc<[GroupStatus]>>,
    stopping: watch::Sender<bool>,
    /// One at a time, on the whole host.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drills {
    /// Reads what came of earlier drills.
    pub fn new(settings: &Settings, recorder: Recorder, inputs: mpsc::Sender<Input>) -> Arc<Self> {
        let state_dir = settings.host.state_dir.clone();
        let groups = settings.groups.iter().cloned();
        let groups: Vec<_> = groups.zip(settings.drills.iter().cloned()).collect();
        let mut record = file::load(&state_dir).unwrap_or_else(|error| {
            error!(%error, "what came of earlier drills cannot be read");
            DrillRecord::default()
        });
        record.retain(|name| groups.iter().any(|(group, _)| group.name == *name));
        for report in &mut record.last {
            // A live one goes on: the core of the group remembers it.
            if report.state == DrillState::Running && report.live.is_none() {
                report.state = DrillState::Aborted;
                report.why = "the daemon ended meanwhile".to_owned();
            }
        }
        Arc::new(Self {
            host: settings.host.name.clone(),
            groups,
            state_dir,
            hooks: Hooks::default(),
            recorder,
            inputs,
            record: Mutex::new(record),
            seen: watch::Sender::default(),
            stopping: watch::Sender::new(false),
            turn: Arc::default(),
        })
    }

    /// Removes what an earlier daemon left, goes on with a live drill that it began, then follows the
    /// schedule. Nothing waits for it.
    pub fn follow(self: &Arc<Self>) {
        if self.groups.is_empty() {
            return;
        }
        let drills = Arc::clone(self);
        tokio::spawn(async move {
            drills.clear_left_over().await;
            drills.resume_live().await;
            let mut skipped_ms = 0;
            loop {
                drills.by_schedule(&mut skipped_ms);
                sleep(LOOK).await;
            }
        });
    }

    /// What the groups are now.
    pub fn see(&self, groups: &[GroupStatus]) {
        self.seen.send_replace(groups.into());
    }

    /// What came of drills.
    pub fn answer(&self) -> Answer {
        let record = self.record();
        Answer {
            drills: record.last.clone(),
            earlier: record.earlier.clone(),
        }
    }

    /// The last drill of each group.
    pub fn reports(&self) -> Vec<DrillReport> {
        self.record().last.clone()
    }

    /// Ends a drill that goes on; a live one is left to the next daemon.
    pub async fn finish(&self) {
        self.stopping.send_replace(true);
        let _ = timeout(END_WITHIN, self.turn.lock()).await;
    }

    /// Begins an isolated drill of `name`; it goes on by itself.
    pub fn begin(self: &Arc<Self>, name: &Name, scheduled: bool) -> Result<DrillReport, Refusal> {
        let (number, seen) = self.member_of(name)?;
        if let Some(objection) = objection(&seen) {
            return Err(refused(objection, &seen));
        }
        if self.groups[number].1.units.is_empty() {
            let message = format!("group {name} has no unit to bring up");
            let remedy = "give it a [[group.unit]], or name some in group.drill.units";
            return Err(Refusal::new(Code::Failed, message, remedy));
        }
        let turn = self.take_turn()?;
        let report = self.begun(name, wall_ms(), scheduled, None);
        let (epoch, begun, drills) = (seen.epoch.counter, report.clone(), Arc::clone(self));
        tokio::spawn(async move {
            drills.play(number, epoch, begun).await;
            drop(turn);
        });
        Ok(report)
    }

    fn member_of(&self, name: &Name) -> Result<(usize, GroupStatus), Refusal> {
        let mut groups = self.groups.iter();
        let number = groups.position(|(group, _)| group.name == *name);
        number.zip(self.seen(name)).ok_or_else(|| {
            let message = format!("this host is no member of the group {name}");
            let remedy = "see `shadowctl status` for the groups of this host";
            Refusal::new(Code::UnknownGroup, message, remedy)
        })
    }

    fn take_turn(&self) -> Result<tokio::sync::OwnedMutexGuard<()>, Refusal> {
        Arc::clone(&self.turn).try_lock_owned().map_err(|_| {
            let message = "another drill goes on on this host";
            let remedy = "wait for its end: see `shadowctl failover drills`";
            Refusal::new(Code::Busy, message, remedy)
        })
    }

    fn begun(
        &self,
        name: &Name,
        began_ms: u64,
        scheduled: bool,
        live: Option<LiveDrill>,
    ) -> DrillReport {
        let report = DrillReport {
            group: name.clone(),
            state: DrillState::Running,
            scheduled,
            began_ms,
            took_ms: 0,
            why: String::new(),
            steps: Vec::new(),
            last_passed_ms: self.last(name).and_then(|last| last.last_passed_ms),
            live,
        };
        self.record().put(report.clone());
        report
    }

    fn seen(&self, name: &Name) -> Option<GroupStatus> {
        // Not held while it is read: the failover loop would wait for that.
        let groups = Arc::clone(&self.seen.borrow());
        groups.iter().find(|group| group.group == *name).cloned()
    }
}

fn refused(objection: Objection, seen: &GroupStatus) -> Refusal {
    let message = format!("no drill: {objection}");
    let shadows = seen
        .members
        .iter()
        .filter(|member| Some(&member.host) != seen.active.as_ref());
    let shadows: Vec<&str> = shadows.map(|member| member.host.as_str()).collect();
    let remedy = match objection {
        Objection::Active => format!("run it on a shadow: {}", shadows.join(", ")),
        Objection::NoShadow
        | Objection::NoOwner
        | Objection::NotEligible
        | Objection::Suspected
        | Objection::Ordered
        | Objection::Live => "wait until it is one: see `shadowctl status`".to_owned(),
    };
    Refusal::new(Code::NotEligible, message, remedy)
}

fn words(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
