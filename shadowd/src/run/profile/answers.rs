//! Answers questions about a group's profile, and carries an operator's orders out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keeper::Keeper;
use super::local;
use super::restore::Restore;
use crate::act::provision::Entry;
use crate::decide::profile::accuracy::Accuracy;
use crate::decide::profile::changes::changes;
use crate::decide::profile::expected::likely;
use crate::decide::profile::lineage::{self, Past};
use crate::decide::profile::repository::Repository;
use crate::decide::profile::roots;
use crate::facts::{BootTime, Confusion, Hour, Reason, ResourceKind, Signed, Version, VersionId};
use crate::run::record::wall_ms;
use crate::serve::protocol::{
    ActBatch, ActLine, ActOrder, ActState, Code, DiffQuery, Expected, ExpectedDependency,
    ExpectedResource, ExpectedUnit, ExportedVersion, ProfileAccuracy, ProfileActs, ProfileDiff,
    ProfileOrder, ProfileOrderDone, ProfileRepository, ProfileVersions, Refusal, ResourceAccuracy,
    ShownNeed, ShownProfile, VERSION_FORMS, VersionLine,
};
use crate::serve::{ProfileAnswer, ProfileQuestion};

/// Fewer letters of an identity could be of several versions.
const LETTERS_MIN: usize = 4;

impl Keeper {
    /// The answer to a question.
    ///
    /// # Errors
    /// A refusal: why, and what to do.
    pub fn answer(
        &mut self,
        question: ProfileQuestion,
        now: BootTime,
    ) -> Result<ProfileAnswer, Refusal> {
        Ok(match question {
            ProfileQuestion::Show(query) => {
                let version = query.version.as_deref();
                ProfileAnswer::Show(Box::new(self.show(version, query.at)?))
            }
            ProfileQuestion::Versions => ProfileAnswer::Versions(self.versions()?),
            ProfileQuestion::Accuracy => {
                ProfileAnswer::Accuracy(Box::new(accuracy(self.learner.accuracy())))
            }
            ProfileQuestion::Repository => {
                let repository = self.repository.as_ref().map(Repository::status);
                ProfileAnswer::Repository(Box::new(ProfileRepository { now, repository }))
            }
            ProfileQuestion::Acts => ProfileAnswer::Acts(self.acts()?),
            ProfileQuestion::ActOrder(order) => {
                self.order_acts(order)?;
                ProfileAnswer::Acts(self.acts()?)
            }
            ProfileQuestion::Diff(query) => ProfileAnswer::Diff(Box::new(self.diff(&query)?)),
            ProfileQuestion::Export(query) => {
                let (_, signed, _) = self.named(query.version.as_deref().unwrap_or("current"))?;
                ProfileAnswer::Export(ExportedVersion::from(&signed))
            }
            ProfileQuestion::Order(order) => {
                ProfileAnswer::Done(Box::new(self.order(&order, now)?))
            }
            ProfileQuestion::Import(signed) => {
                ProfileAnswer::Done(Box::new(self.import(&signed, now)?))
            }
            ProfileQuestion::Restore(request) => {
                ProfileAnswer::Restore(Box::new(self.begin_restore(request, now)?))
            }
            ProfileQuestion::Restored => ProfileAnswer::Restore(Box::new(self.restored()?)),
        })
    }

    /// The version that is named, or was in use at a time that is over, or is in use.
    fn show(&self, version: Option<&str>, at: Option<i64>) -> Result<ShownProfile, Refusal> {
        let past = at.filter(|at| *at < now_ms() && version.is_none());
        let chosen = match (version, past, self.current()) {
            (Some(name), ..) => {
                let (id, _, version) = self.named(name)?;
                Some((id, version))
            }
            (None, Some(at), Some(current)) => Some(self.in_use_at(current, at)?),
            (None, None, Some((id, version))) => Some((*id, Version::clone(version))),
            (None, _, None) => None,
        };
        let in_use_at = past.filter(|_| chosen.is_some());
        let line = chosen.as_ref().map(|(id, version)| self.line(*id, version));
        let profile = chosen
            .map(|(_, version)| version.profile)
            .unwrap_or_default();
        let needs = profile
            .needs
            .into_iter()
            .map(|((unit, resource), need)| ShownNeed {
                unit,
                resource,
                median: need.median,
                peak: need.peak,
                cold: need.cold,
            });
        let units = self.learner.units();
        let learning = units.filter(|unit| !profile.content.units.contains_key(*unit));
        Ok(ShownProfile {
            group: self.group.name.clone(),
            version: line,
            needs: needs.collect(),
            learning: learning.cloned().collect(),
            content: profile.content,
            in_use_at,
            expected: self.expected(at.unwrap_or_else(now_ms)),
            refused: self.learner.refused(),
        })
    }

    /// What was in use at a time, on the line of the version in use.
    fn in_use_at(
        &self,
        (id, current): &(VersionId, Arc<Version>),
        at: i64,
    ) -> Result<(VersionId, Version), Refusal> {
        let read = |id: &VersionId| Some(self.stored(id)?.1);
        let message = match lineage::in_use_at((*id, current), at, read) {
            Past::InUse(id, version) => return Ok((id, *version)),
            Past::Before(first) => {
                let first = jiff::Timestamp::from_millisecond(first).unwrap_or_default();
                format!("no version was in use then: the first is of {first:.0}")
            }
            Past::NotKept(number) => {
                format!("what was in use then came before version {number}, and is not kept here")
            }
        };
        let remedy = "`shadowctl profile history` shows the versions and when they were made";
        Err(Refusal::new(Code::UnknownVersion, message, remedy))
    }

    fn expected(&self, wall_ms: i64) -> Expected {
        let hour = |wall_ms: i64| Hour(u32::try_from(local(wall_ms) / 3_600).unwrap_or(u32::MAX));
        let (at, now) = (hour(wall_ms), hour(now_ms()));
        let profile = self.learner.profile();
        let likely = |habit| likely(habit, &profile.observed, at, now);
        let units = profile.unit_hours.iter().filter_map(|(unit, habit)| {
            let (unit, likely) = (unit.clone(), likely(habit)?);
            Some(ExpectedUnit { unit, likely })
        });
        let dependencies = profile.dependency_hours.iter();
        let dependencies = dependencies.filter_map(|((unit, dependency), habit)| {
            Some(ExpectedDependency {
                unit: unit.clone(),
                dependency: dependency.clone(),
                likely: likely(habit)?,
            })
        });
        let forecasts = self.learner.forecasts(local(wall_ms));
        let resources = forecasts.map(|((unit, resource), forecast)| ExpectedResource {
            unit: unit.clone(),
            resource: *resource,
            median: forecast.median,
            within_80: forecast.within_80,
            within_95: forecast.within_95,
            cold: forecast.cold,
        });
        Expected {
            wall_ms,
            units: units.collect(),
            dependencies: dependencies.collect(),
            resources: resources.collect(),
        }
    }

    fn versions(&self) -> Result<ProfileVersions, Refusal> {
        let ids = self.ids()?;
        let versions = ids.iter().filter_map(|id| {
            let (_, version) = self.stored(id)?;
            Some(self.line(*id, &version))
        });
        let mut versions: Vec<VersionLine> = versions.collect();
        versions.sort_by_key(|line| (line.number, line.id));
        Ok(ProfileVersions {
            versions,
            awaited: self.replica.awaited(),
        })
    }

    fn ids(&self) -> Result<Vec<VersionId>, Refusal> {
        let ids = self.common.store().versions(&self.group.name);
        ids.map_err(|error| {
            let message = format!("the versions cannot be read: {error}");
            Refusal::new(Code::Failed, message, "see `journalctl -u shadowd`")
        })
    }

    fn diff(&self, query: &DiffQuery) -> Result<ProfileDiff, Refusal> {
        let (a, _, before) = self.named(&query.a)?;
        let (b, _, after) = self.named(&query.b)?;
        Ok(ProfileDiff {
            changes: changes(&before.profile.content, &after.profile.content),
            a: self.line(a, &before),
            b: self.line(b, &after),
        })
    }

    /// The version that an operator calls so.
    fn named(&self, name: &str) -> Result<(VersionId, Signed, Version), Refusal> {
        let unknown = |why: String| {
            let remedy = format!("{VERSION_FORMS}; `shadowctl profile history` shows them");
            Refusal::new(Code::UnknownVersion, why, remedy)
        };
        let current = self.current();
        let id = match name {
            "current" => current.map(|(id, _)| *id).ok_or_else(|| {
                unknown("there is no version yet: the first follows when enough was seen".into())
            })?,
            "golden" => current
                .and_then(|(_, version)| version.golden)
                .ok_or_else(|| {
                    unknown("no version is golden: choose one with `golden set`".into())
                })?,
            _ => self.by_number_or_letters(name).map_err(unknown)?,
        };
        let (signed, version) = self
            .stored(&id)
            .ok_or_else(|| unknown(format!("version {} is not here, or damaged", id.short())))?;
        Ok((id, signed, version))
    }

    fn by_number_or_letters(&self, name: &str) -> Result<VersionId, String> {
        let ids = self.ids().map_err(|refusal| refusal.message)?;
        let number: Option<u64> = name.parse().ok();
        let lower = name.to_ascii_lowercase();
        let matches = |id: &&VersionId| match number {
            Some(number) => self
                .stored(id)
                .is_some_and(|(_, version)| version.number == number),
            None => lower.len() >= LETTERS_MIN && id.to_string().starts_with(&lower),
        };
        match ids.iter().filter(matches).collect::<Vec<_>>().as_slice() {
            [one] => Ok(**one),
            [] => Err(format!("there is no version {name}")),
            several => Err(format!("{} versions are called {name}", several.len())),
        }
    }

    fn line(&self, id: VersionId, version: &Version) -> VersionLine {
        let settings = &self.common.settings;
        let peer = settings.peers.iter().find(|peer| peer.id == version.author);
        let own = version.author == self.common.identity.id();
        let current = self.current();
        VersionLine {
            number: version.number,
            id,
            parent: version.parent,
            author: version.author,
            author_name: match peer {
                Some(peer) => Some(peer.name.clone()),
                None => own.then(|| settings.host.name.clone()),
            },
            wall_ms: version.wall_ms,
            reason: version.reason.to_string(),
            pinned: version.pinned,
            current: current.is_some_and(|(one, _)| *one == id),
            golden: current.is_some_and(|(_, version)| version.golden == Some(id)),
        }
    }

    /// Only the owner makes versions.
    fn must_own(&self) -> Result<(), Refusal> {
        if self.owns() {
            return Ok(());
        }
        let remedy = match self.owner() {
            Some(owner) => format!("ask {owner}"),
            None => "wait until somebody owns the group".to_owned(),
        };
        let message = format!("this host does not own group {}", self.group.name);
        Err(Refusal::new(Code::NotActive, message, remedy))
    }

    /// What clients are served with is not changed under them.
    pub(super) fn must_not_own(&self, remedy: &str) -> Result<(), Refusal> {
        if !self.owns() {
            return Ok(());
        }
        let message = format!("this host owns group {}", self.group.name);
        Err(Refusal::new(Code::BadRequest, message, remedy))
    }

    /// What shadowd did on this host.
    fn acts(&self) -> Result<ProfileActs, Refusal> {
        let batches = self.provisioner.batches.list().map_err(|error| {
            let message = format!("what was done cannot be read: {error}");
            Refusal::new(Code::Failed, message, "see `journalctl -u shadowd`")
        })?;
        let batches = batches.into_iter().map(|(number, entries)| ActBatch {
            number,
            acts: lines(&entries),
        });
        Ok(ProfileActs {
            held: self.provisioner.batches.is_held(),
            batches: batches.collect(),
        })
    }

    fn order_acts(&mut self, order: ActOrder) -> Result<(), Refusal> {
        if let ActOrder::Undo { .. } = order {
            self.must_not_own(
                "what was done is taken back on a shadow: hand the group over first",
            )?;
        }
        let done = match order {
            ActOrder::Undo { .. } if self.restore.as_ref().is_some_and(Restore::is_running) => {
                Err("a restore of this host is under way".to_owned())
            }
            ActOrder::Undo { batch } => self.provisioner.undo(batch),
            ActOrder::Resume => self
                .provisioner
                .batches
                .resume()
                .map_err(|error| error.to_string()),
        };
        done.map_err(|why| {
            let remedy = "see `shadowctl profile provision list`";
            Refusal::new(Code::BadRequest, why, remedy)
        })
    }

    fn order(&mut self, order: &ProfileOrder, now: BootTime) -> Result<ProfileOrderDone, Refusal> {
        self.must_own()?;
        let in_use = self.named("current")?.2.profile;
        let (reason, profile) = match order {
            ProfileOrder::Rollback { version } => {
                let (id, _, version) = self.named(version)?;
                (Reason::Rollback(id), version.profile)
            }
            ProfileOrder::Pin => (Reason::Pin, in_use),
            ProfileOrder::Unpin => (Reason::Unpin, self.learner.profile().clone()),
            ProfileOrder::GoldenSet { version } => {
                let (id, ..) = self.named(version)?;
                (Reason::GoldenSet(id), in_use)
            }
            ProfileOrder::GoldenApply => {
                let (id, _, version) = self.named("golden")?;
                (Reason::GoldenApply(id), version.profile)
            }
        };
        self.made(reason, profile, now)
    }

    /// The content of a version from a file, of this group and signed by one of its members.
    fn import(&mut self, signed: &Signed, now: BootTime) -> Result<ProfileOrderDone, Refusal> {
        self.must_own()?;
        let version = self.believed(signed).map_err(|why| {
            let remedy = "import what `shadowctl profile export` of a member of this group wrote";
            Refusal::new(Code::BadRequest, why, remedy)
        })?;
        let roots = &self.common.settings.capture.paths;
        if let Some(why) = roots::refusal(&version.profile, &self.rules, roots) {
            let remedy = "widen `replicate` or `paths` if these are the group's, or learn anew";
            return Err(Refusal::new(Code::BadRequest, why, remedy));
        }
        let reason = Reason::Import(VersionId::of(&signed.bytes));
        self.made(reason, version.profile, now)
    }

    fn made(
        &mut self,
        reason: Reason,
        profile: crate::facts::Profile,
        now: BootTime,
    ) -> Result<ProfileOrderDone, Refusal> {
        let made = self.make_version(reason, profile, now);
        let failed = |why: String| {
            let message = format!("no version could be made: {why}");
            Refusal::new(Code::Failed, message, "see `journalctl -u shadowd`")
        };
        let id = made.map_err(failed)?;
        let kept = self.stored(&id);
        let (_, version) = kept.ok_or_else(|| failed("it is not kept".to_owned()))?;
        let version = self.line(id, &version);
        Ok(ProfileOrderDone { version })
    }
}

/// What became of each act of a journal.
fn lines(entries: &[Entry]) -> Vec<ActLine> {
    let mut lines: BTreeMap<usize, ActLine> = BTreeMap::new();
    for entry in entries {
        let (number, state, why) = match entry {
            Entry::Begin { number, act, .. } => {
                let line = ActLine {
                    act: act.to_string(),
                    state: ActState::Begun,
                    why: None,
                };
                lines.insert(*number, line);
                continue;
            }
            Entry::End { number, failed } => (number, [ActState::Done, ActState::Failed], failed),
            Entry::Undone { number, failed } => {
                (number, [ActState::Undone, ActState::NotUndone], failed)
            }
        };
        if let Some(line) = lines.get_mut(number) {
            line.state = state[usize::from(why.is_some())];
            line.why = why.clone();
        }
    }
    lines.into_values().collect()
}

fn now_ms() -> i64 {
    i64::try_from(wall_ms()).unwrap_or(i64::MAX)
}

/// How often the profile was right, as it is shown.
pub(super) fn accuracy(accuracy: &Accuracy) -> ProfileAccuracy {
    let both = |confusion: &Confusion| (confusion.precision(), confusion.recall());
    let (unit_precision, unit_recall) = both(&accuracy.units);
    let (dependency_precision, dependency_recall) = both(&accuracy.dependencies);
    let resources = accuracy.resources.iter().map(|(kind, errors)| {
        let coverage = errors.coverage();
        let shown = ResourceAccuracy {
            count: errors.count,
            mase: errors.mase(),
            pinball: errors.scaled_pinball(),
            within_80: coverage.map(|[within_80, _]| within_80),
            within_95: coverage.map(|[_, within_95]| within_95),
        };
        (*kind, shown)
    });
    let resources: BTreeMap<ResourceKind, ResourceAccuracy> = resources.collect();
    ProfileAccuracy {
        units: accuracy.units,
        dependencies: accuracy.dependencies,
        unit_precision,
        unit_recall,
        dependency_precision,
        dependency_recall,
        resources,
    }
}
