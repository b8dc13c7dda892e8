//! Drills: begins one when an operator or the schedule wants it, takes it through its steps, ends it
//! whatever happens, and remembers what came of it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::error;

use super::record::{Recorder, wall_ms};
use crate::act::drill::{self as place, Probe, Stage};
use crate::act::hooks::{End, Hooks, Run};
use crate::config::settings::{
    CheckKind, CheckSettings, CommandSettings, DrillSettings, GroupSettings, Settings,
};
use crate::decide::drill::{Objection, is_due, objection, objection_by_itself};
use crate::facts::{DrillReport, DrillState, DrillStep, EventKind, GroupStatus, Name};
use crate::observe::sys::boot_time;
use crate::serve::protocol::{Code, Refusal};
use crate::store::drills as file;

/// How often the schedule is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// The same reason to skip a drill is recorded once in so long (ms).
const SKIP_AGAIN_MS: u64 = 3_600_000;
/// What the end of the daemon waits for a drill's teardown.
const END_WITHIN: Duration = Duration::from_secs(8);
/// A check reports by itself so long before its deadline.
const BEFORE_DEADLINE: Duration = Duration::from_millis(300);

/// All drills of this host.
pub struct Drills {
    host: Name,
    groups: Vec<(GroupSettings, DrillSettings)>,
    state_dir: PathBuf,
    hooks: Hooks,
    recorder: Recorder,
    reports: Mutex<Vec<DrillReport>>,
    seen: watch::Sender<Vec<GroupStatus>>,
    stopping: watch::Sender<bool>,
    /// One at a time, on the whole host.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Drills {
    /// Reads what came of earlier drills.
    pub fn new(settings: &Settings, recorder: Recorder) -> Arc<Self> {
        let state_dir = settings.host.state_dir.clone();
        let groups = settings.groups.iter().cloned();
        let groups: Vec<_> = groups.zip(settings.drills.iter().cloned()).collect();
        let mut reports = file::load(&state_dir).unwrap_or_else(|error| {
            error!(%error, "what came of earlier drills cannot be read");
            Vec::new()
        });
        reports.retain(|report| groups.iter().any(|(group, _)| group.name == report.group));
        for report in &mut reports {
            if report.state == DrillState::Running {
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
            reports: Mutex::new(reports),
            seen: watch::Sender::default(),
            stopping: watch::Sender::new(false),
            turn: Arc::default(),
        })
    }

    /// Removes what an earlier daemon left, then follows the schedule. Nothing waits for it.
    pub fn follow(self: &Arc<Self>) {
        if self.groups.is_empty() {
            return;
        }
        let drills = Arc::clone(self);
        tokio::spawn(async move {
            drills.clear_left_over().await;
            let mut skipped_ms = 0;
            loop {
                sleep(LOOK).await;
                drills.by_schedule(&mut skipped_ms);
            }
        });
    }

    /// What the groups are now.
    pub fn see(&self, groups: &[GroupStatus]) {
        self.seen.send_replace(groups.to_vec());
    }

    /// What came of drills.
    pub fn reports(&self) -> Vec<DrillReport> {
        let reports = self.reports.lock();
        reports.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends a drill that goes on.
    pub async fn finish(&self) {
        self.stopping.send_replace(true);
        let _ = timeout(END_WITHIN, self.turn.lock()).await;
    }

    /// Begins a drill of `name`; it goes on by itself.
    pub fn begin(self: &Arc<Self>, name: &Name, scheduled: bool) -> Result<DrillReport, Refusal> {
        let number = self
            .groups
            .iter()
            .position(|(group, _)| group.name == *name);
        let (Some(number), Some(seen)) = (number, self.seen(name)) else {
            let message = format!("this host is no member of the group {name}");
            let remedy = "see `shadowctl status` for the groups of this host";
            return Err(Refusal::new(Code::UnknownGroup, message, remedy));
        };
        if let Some(objection) = objection(&seen) {
            return Err(refused(objection, &seen));
        }
        if self.groups[number].1.units.is_empty() {
            let message = format!("group {name} has no unit to bring up");
            let remedy = "give it a [[group.unit]], or name some in group.drill.units";
            return Err(Refusal::new(Code::Failed, message, remedy));
        }
        let turn = Arc::clone(&self.turn).try_lock_owned().map_err(|_| {
            let message = "another drill goes on on this host";
            let remedy = "wait for its end: see `shadowctl status`";
            Refusal::new(Code::Busy, message, remedy)
        })?;
        let report = DrillReport {
            group: name.clone(),
            state: DrillState::Running,
            scheduled,
            began_ms: wall_ms(),
            took_ms: 0,
            why: String::new(),
            steps: Vec::new(),
            last_passed_ms: self.last(name).and_then(|last| last.last_passed_ms),
        };
        self.put(report.clone());
        let (epoch, begun, drills) = (seen.epoch.counter, report.clone(), Arc::clone(self));
        tokio::spawn(async move {
            drills.play(number, epoch, begun).await;
            drop(turn);
        });
        Ok(report)
    }

    async fn play(&self, number: usize, epoch: u64, mut report: DrillReport) {
        let (group, settings) = &self.groups[number];
        let began = Instant::now();
        let how = if report.scheduled {
            "by schedule"
        } else {
            "by an operator"
        };
        self.event(&group.name, epoch, format!("began {how}"));
        self.save().await;
        let stage = Stage::new(
            &self.hooks,
            &group.name,
            settings,
            &group.interface,
            &group.vips,
        );
        let steps = timeout(settings.deadline, self.steps(&stage, group, settings));
        let (state, why) = tokio::select! {
            biased;
            why = self.disturbed(&group.name) => (DrillState::Aborted, why),
            ended = steps => match ended {
                Ok(Ok(())) => (DrillState::Passed, String::new()),
                Ok(Err(why)) => (DrillState::Failed, why),
                Err(_) => (DrillState::Failed, format!("not done within {:?}", settings.deadline)),
            },
        };
        (report.state, report.why) = (state, why);
        let cleared = Instant::now();
        let left = place::clear(&self.hooks).await.map_err(words);
        if let Err(why) = &left
            && report.state == DrillState::Passed
        {
            report.state = DrillState::Failed;
            report.why = format!("teardown: {why}");
        }
        let said = left.map(|_| "nothing is left".to_owned());
        // The report has it already.
        let _ = self.step(&group.name, "teardown".to_owned(), cleared, said);
        report.steps = self
            .last(&group.name)
            .map(|last| last.steps)
            .unwrap_or_default();
        report.took_ms = millis(began.elapsed());
        if report.state == DrillState::Passed {
            report.last_passed_ms = Some(wall_ms());
        }
        self.event(&group.name, epoch, sentence(&report));
        self.put(report);
        self.save().await;
    }

    /// Every step but the teardown; a check that fails keeps no other from being made.
    async fn steps(
        &self,
        stage: &Stage<'_>,
        group: &GroupSettings,
        settings: &DrillSettings,
    ) -> Result<(), String> {
        let program = program()?;
        let began = Instant::now();
        // What an earlier one could not end would be in the way.
        let opened = match place::clear(&self.hooks).await {
            Ok(_) => stage.open(&program).await,
            Err(error) => Err(error),
        };
        let vips: Vec<String> = group
            .vips
            .iter()
            .map(|vip| vip.address.to_string())
            .collect();
        let vips = vips.join(" ");
        let said = opened.map_err(words).map(|()| vips.clone());
        self.step(&group.name, "namespace".to_owned(), began, said)?;
        for unit in &settings.units {
            let began = Instant::now();
            let started = stage.start_copy(unit, settings.deadline).await;
            let said = started.map_err(words).map(|()| "up".to_owned());
            self.step(&group.name, format!("unit {unit}"), began, said)?;
        }
        let environment = vec![
            format!("SHADOWD_GROUP={}", group.name),
            format!("SHADOWD_HOST={}", self.host),
            format!("SHADOWD_VIPS={vips}"),
            "SHADOWD_DRILL=isolated".to_owned(),
        ];
        let mut worst = Ok(());
        for check in &settings.checks {
            let began = Instant::now();
            let said = self
                .check(stage, check, &program, environment.clone())
                .await;
            let ended = self.step(&group.name, format!("check {}", check.name), began, said);
            worst = worst.and(ended);
        }
        worst
    }

    async fn check(
        &self,
        stage: &Stage<'_>,
        check: &CheckSettings,
        program: &str,
        environment: Vec<String>,
    ) -> Result<String, String> {
        let command = match &check.kind {
            CheckKind::Command(command) => command.clone(),
            kind @ (CheckKind::Tcp(_) | CheckKind::Http { .. }) => {
                let probe = Probe {
                    kind: kind.clone(),
                    patience: check.deadline.saturating_sub(BEFORE_DEADLINE),
                };
                let probe = serde_json::to_string(&probe).map_err(|error| error.to_string())?;
                CommandSettings {
                    command: vec![program.to_owned(), "--drill-check".to_owned(), probe],
                    user: None,
                    deadline: check.deadline,
                }
            }
        };
        let run = Run {
            unit: stage.check_unit(&check.name),
            description: format!("shadowd: check {} of a drill", check.name),
            command: &command,
            environment,
            input: None,
            more: stage.check_properties(&check.name),
        };
        let end = self.hooks.run(&run).await.map_err(words)?;
        let said = stage.said(&check.name).await;
        match (end, said.is_empty()) {
            (End::Exited(0), true) => Ok("exit 0".to_owned()),
            (End::Exited(0), false) => Ok(said),
            (end, true) => Err(end.to_string()),
            (end, false) => Err(format!("{end}: {said}")),
        }
    }

    /// Ends when a drill of the group cannot go on, with the reason.
    async fn disturbed(&self, name: &Name) -> String {
        let (mut seen, mut stopping) = (self.seen.subscribe(), self.stopping.subscribe());
        let is_over = |groups: &Vec<GroupStatus>| {
            let group = groups.iter().find(|group| group.group == *name);
            group.is_none_or(|group| objection(group).is_some())
        };
        // Both senders live as long as this.
        tokio::select! {
            _ = seen.wait_for(is_over) => {
                let role = self.seen(name).map(|group| group.role.to_string());
                format!("this host became {}", role.unwrap_or_default())
            }
            _ = stopping.wait_for(|stopping| *stopping) => "the daemon stops".to_owned(),
        }
    }

    fn by_schedule(self: &Arc<Self>, skipped_ms: &mut u64) {
        let now_ms = wall_ms();
        let now = jiff::Zoned::now();
        let minute = u16::from(now.hour().unsigned_abs()) * 60;
        let minute = minute + u16::from(now.minute().unsigned_abs());
        for (group, settings) in &self.groups {
            let last_ms = self.last(&group.name).map(|last| last.began_ms);
            let Some(seen) = self.seen(&group.name) else {
                continue;
            };
            if !is_due(settings, last_ms, now_ms, minute) {
                continue;
            }
            let why = match objection_by_itself(&seen) {
                // Each member has the same schedule; only a shadow follows it.
                Some(Objection::Active | Objection::NoShadow) => continue,
                Some(objection) => objection.to_string(),
                // One drill at a time: another group's turn comes at the next look.
                None => match self.begin(&group.name, true) {
                    Ok(_) => return,
                    Err(refusal) if refusal.code == Code::Busy => return,
                    Err(refusal) => refusal.message,
                },
            };
            if now_ms.saturating_sub(*skipped_ms) >= SKIP_AGAIN_MS {
                *skipped_ms = now_ms;
                let detail = format!("{}: {why}", DrillState::Skipped);
                self.event(&group.name, seen.epoch.counter, detail);
            }
        }
    }

    async fn clear_left_over(&self) {
        let _turn = self.turn.lock().await;
        match place::clear(&self.hooks).await {
            Ok(found) if !found.is_empty() => {
                let detail = format!("left over from an earlier run, ended: {}", found.join(", "));
                self.recorder
                    .note(EventKind::Drill, None, boot_time(), detail);
            }
            Ok(_) => {}
            Err(cause) => {
                // Without systemd there is nothing to end and no drill to begin.
                let cause = words(cause);
                error!(cause, "what earlier drills left is not ended");
            }
        }
    }

    fn seen(&self, name: &Name) -> Option<GroupStatus> {
        let groups = self.seen.borrow();
        groups.iter().find(|group| group.group == *name).cloned()
    }

    fn last(&self, name: &Name) -> Option<DrillReport> {
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.iter().find(|report| report.group == *name).cloned()
    }

    fn put(&self, report: DrillReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.retain(|known| known.group != report.group);
        reports.push(report);
    }

    fn step(
        &self,
        name: &Name,
        what: String,
        began: Instant,
        said: Result<String, String>,
    ) -> Result<(), String> {
        let failed = said.as_ref().err().map(|why| format!("{what}: {why}"));
        let step = DrillStep {
            what,
            ok: failed.is_none(),
            took_ms: millis(began.elapsed()),
            said: said.unwrap_or_else(|why| why),
        };
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = reports.iter_mut().find(|report| report.group == *name) {
            report.took_ms = wall_ms().saturating_sub(report.began_ms);
            report.steps.push(step);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn save(&self) {
        let (directory, reports) = (self.state_dir.clone(), self.reports());
        let write = move || file::save(&directory, &reports);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            error!(%error, "what came of a drill is not stored");
        }
    }

    fn event(&self, name: &Name, epoch: u64, detail: String) {
        let group = Some((name, epoch));
        self.recorder
            .notice(EventKind::Drill, group, boot_time(), detail);
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
        | Objection::Ordered => "wait until it is one: see `shadowctl status`".to_owned(),
    };
    Refusal::new(Code::NotEligible, message, remedy)
}

fn sentence(report: &DrillReport) -> String {
    let (state, steps) = (report.state, report.steps.len());
    let took = Duration::from_millis(report.took_ms);
    match report.why.as_str() {
        "" => format!("{state} after {took:?}, {steps} steps"),
        why => format!("{state} after {took:?}: {why}"),
    }
}

fn words(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// This program, also when a newer one took its place meanwhile.
fn program() -> Result<String, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = path.into_os_string().into_string();
    let path = path.map_err(|_| "the path of the daemon is not UTF-8".to_owned())?;
    Ok(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

/// Makes the place of a drill and keeps it until it is ended; systemd starts this for a drill.
///
/// # Errors
/// Without a private network, or when a step fails.
pub fn hold(place: &str) -> anyhow::Result<()> {
    let place = serde_json::from_str(place)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(place::hold(&place))?;
    super::stop::notify("READY", "1");
    loop {
        std::thread::park();
    }
}

/// Makes one check of a drill; systemd starts this in the place of one.
///
/// # Errors
/// What the check found.
pub fn check_one(probe: &str) -> anyhow::Result<()> {
    println!("{}", place::probe(&serde_json::from_str(probe)?)?);
    Ok(())
}
