//! Brings this host back to the golden version because an operator asked, whatever its policy is.

use std::sync::Arc;
use std::time::Duration;

use super::keeper::{Keeper, is_of};
use crate::decide::profile::restore::{Course, End, left};
use crate::facts::{
    BootTime, Epoch, EventKind, Observation, Readiness, Verdict, Version, VersionId,
};
use crate::run::record::wall_ms;
use crate::serve::protocol::{
    Code, DEFAULT_RESTORE, GoldenRestore, Refusal, RestoreRequest, RestoreState,
};

/// The host is looked at this often while a restore runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A restore of this host.
pub(super) struct Restore {
    version: Arc<Version>,
    course: Course,
    look_at: BootTime,
    /// As it was seen after the last act had ended.
    readiness: Option<Readiness>,
    report: GoldenRestore,
}

impl Restore {
    pub fn is_running(&self) -> bool {
        self.report.state == RestoreState::Running
    }

    /// What the host lacks, once that is known.
    pub fn readiness(&self) -> Option<&Readiness> {
        self.readiness.as_ref()
    }

    /// Acts have ended: what is lacking now has to be found out.
    pub fn on_done(&mut self, told: &[String], now: BootTime) {
        self.report.done.extend(told.iter().cloned());
        self.report.done.truncate(GoldenRestore::DONE_MAX);
        self.readiness = None;
        self.look_at = now;
    }
}

impl Keeper {
    /// Begins to bring this host back.
    ///
    /// # Errors
    /// This host owns the group, no version is golden, or a restore runs already.
    pub(super) fn begin_restore(
        &mut self,
        request: RestoreRequest,
        now: BootTime,
    ) -> Result<GoldenRestore, Refusal> {
        let (id, version) = self.restorable()?;
        let within = request
            .within_s
            .map_or(DEFAULT_RESTORE, Duration::from_secs);
        let content = &version.profile.content;
        let in_use = self.current().map(|(_, current)| &current.profile.content);
        // What shadowd does by itself would go on to the version in use.
        if in_use != Some(content) {
            self.provisioner.batches.hold().map_err(|error| {
                let message = format!("that nothing more is to be done cannot be noted: {error}");
                Refusal::new(Code::Failed, message, "see `journalctl -u shadowd`")
            })?;
        }
        self.provisioner.by_order(true, now);
        let (number, short) = (version.number, id.short());
        self.note(
            format!("restore to the golden version {number} ({short}) begins"),
            now,
        );
        let report = GoldenRestore {
            group: self.group.name.clone(),
            number,
            id,
            began_ms: i64::try_from(wall_ms()).unwrap_or(i64::MAX),
            state: RestoreState::Running,
            why: String::new(),
            done: Vec::new(),
            ready: 0,
            items: 0,
            left: Vec::new(),
            held: self.provisioner.batches.is_held(),
        };
        self.restore = Some(Restore {
            version,
            course: Course::new(now.after(within)),
            look_at: now,
            readiness: None,
            report: report.clone(),
        });
        Ok(report)
    }

    /// The version that this host can be brought back to.
    fn restorable(&self) -> Result<(VersionId, Arc<Version>), Refusal> {
        self.must_not_own(
            "a shadow is brought back; hand the group over first, or use \
             `shadowctl profile golden apply`",
        )?;
        if self.restore.as_ref().is_some_and(Restore::is_running) {
            let message = "a restore of this host is under way";
            let remedy = "wait until it ends; `shadowctl events` shows how it does";
            return Err(Refusal::new(Code::Busy, message, remedy));
        }
        self.golden().cloned().ok_or_else(|| {
            let chosen = self.current().and_then(|(_, version)| version.golden);
            let (message, remedy) = match chosen {
                Some(id) => (
                    format!("the golden version {} is not here, or damaged", id.short()),
                    "it is asked for; try again",
                ),
                None => (
                    "no version is golden".to_owned(),
                    "choose one on the active: `shadowctl profile golden set`",
                ),
            };
            Refusal::new(Code::UnknownVersion, message, remedy)
        })
    }

    /// How the last restore stands.
    ///
    /// # Errors
    /// There was none since the daemon started.
    pub(super) fn restored(&self) -> Result<GoldenRestore, Refusal> {
        let restore = self.restore.as_ref();
        restore
            .map(|restore| restore.report.clone())
            .ok_or_else(|| {
                let message = "no restore was begun since the daemon started";
                let remedy = "`shadowctl profile provision list` shows what was done before";
                Refusal::new(Code::BadRequest, message, remedy)
            })
    }

    /// Compares this host with the golden version, when that is due, and ends the restore when it is
    /// over.
    pub(super) async fn restore_turn(&mut self, observation: &Observation, now: BootTime) {
        let Some(mut restore) = self.restore.take_if(|restore| restore.is_running()) else {
            return;
        };
        if self.owns() {
            self.end_restore(&mut restore, End::Owner, now);
        } else if now >= restore.look_at && !self.provisioner.is_at_work() {
            let version = Arc::clone(&restore.version);
            let readiness = self.compared(&version, observation, now).await;
            restore.look_at = now.after(LOOK_EVERY);
            restore.report.ready = readiness.count(Verdict::Ready);
            restore.report.items = readiness.items.len();
            restore.report.left = left(&readiness, &self.rules, self.provisioner.lost());
            let mended = (&self.rules, self.provisioner.lost());
            let is_member = |unit: &str| is_of(&self.group, &self.rules, unit);
            let end = restore
                .course
                .on_comparison(&readiness, mended, &is_member, now);
            restore.readiness = Some(readiness);
            if let Some(end) = end {
                self.end_restore(&mut restore, end, now);
            }
        }
        self.restore = Some(restore);
    }

    fn end_restore(&mut self, restore: &mut Restore, end: End, now: BootTime) {
        let report = &mut restore.report;
        let (state, why) = match end {
            End::Restored => (RestoreState::Restored, "as the golden version has it"),
            End::Stuck => (
                RestoreState::Incomplete,
                "what is still lacking cannot be mended by shadowd",
            ),
            End::Late => (RestoreState::Incomplete, "the time is over"),
            End::Owner => (RestoreState::Abandoned, "this host owns the group now"),
        };
        (report.state, report.why) = (state, why.to_owned());
        self.provisioner.by_order(false, now);
        report.held = self.provisioner.batches.is_held();
        let (number, left) = (report.number, report.left.len());
        let lacking = match end {
            End::Restored => String::new(),
            _ => format!("; {left} items are not as it has them"),
        };
        self.note(
            format!("restore to the golden version {number}: {why}{lacking}"),
            now,
        );
        self.look_at = now;
    }

    fn note(&self, detail: String, now: BootTime) {
        let group = Some((&self.group.name, Epoch::NONE));
        let recorder = &self.common.recorder;
        recorder.note(EventKind::Provisioned, group, now, detail);
    }
}
