//! A drill in a network of its own, beside production.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::error;

use super::inside::program;
use super::{Drills, words};
use crate::act::drill::{self as place, Probe, Stage};
use crate::act::hooks::{End, Run};
use crate::config::settings::{
    CheckKind, CheckSettings, CommandSettings, DrillSettings, GroupSettings,
};
use crate::decide::drill::objection;
use crate::facts::{DrillReport, DrillState, EventKind, GroupStatus, Name};
use crate::observe::sys::boot_time;

/// A check reports by itself so long before its deadline.
const BEFORE_DEADLINE: Duration = Duration::from_millis(300);

impl Drills {
    /// Takes a drill that has begun to its end.
    pub(super) async fn play(&self, number: usize, epoch: u64, report: DrillReport) {
        let (group, settings) = &self.groups[number];
        let how = if report.scheduled {
            "by schedule"
        } else {
            "by an operator"
        };
        self.event(EventKind::Drill, &group.name, epoch, format!("began {how}"));
        self.save().await;
        let stage = Stage::new(
            &self.hooks,
            &group.name,
            settings,
            &group.interface,
            &group.vips,
        );
        let steps = timeout(settings.deadline, self.steps(&stage, group, settings));
        let (mut state, mut why) = tokio::select! {
            biased;
            why = self.disturbed(&group.name) => (DrillState::Aborted, why),
            ended = steps => match ended {
                Ok(Ok(())) => (DrillState::Passed, String::new()),
                Ok(Err(why)) => (DrillState::Failed, why),
                Err(_) => (DrillState::Failed, format!("not done within {:?}", settings.deadline)),
            },
        };
        let cleared = Instant::now();
        let left = place::clear(&self.hooks).await.map_err(words);
        if let Err(left) = &left
            && state == DrillState::Passed
        {
            (state, why) = (DrillState::Failed, format!("teardown: {left}"));
        }
        let said = left.map(|_| "nothing is left".to_owned());
        // The report has it already.
        let _ = self.step(&group.name, "teardown".to_owned(), cleared, said);
        self.end(&group.name, epoch, state, why).await;
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
                .check_inside(stage, check, &program, environment.clone())
                .await;
            let ended = self.step(&group.name, format!("check {}", check.name), began, said);
            worst = worst.and(ended);
        }
        worst
    }

    async fn check_inside(
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
        let is_over = |groups: &Arc<[GroupStatus]>| {
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

    pub(super) async fn clear_left_over(&self) {
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
}
