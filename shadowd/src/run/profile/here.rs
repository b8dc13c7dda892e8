//! This host beside the profile: what is there, what is lacking, what is done about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::keeper::{Keeper, is_of};
use super::letter::Body;
use super::look::fresh;
use super::provisioner::Step;
use crate::decide::profile::learn::Asked;
use crate::decide::profile::ready::{Wanted, compare};
use crate::decide::profile::restore::everything;
use crate::facts::{
    BootTime, Epoch, EventKind, ItemKind, Observation, Readiness, ValueHash, Verdict, Version,
};
use crate::run::failover::Input;

/// The owner says what is on its host when that has changed, and again after this.
const CONTENT_EVERY: Duration = Duration::from_secs(60);
/// Where the policy wants a proof the failover loop is told again after this: a word does not last.
const TELL_READY_EVERY: Duration = Duration::from_secs(10);
/// A comparison that is older proves nothing.
const PROVES_FOR: Duration = Duration::from_secs(30);
/// Of what is not ready any more so much is told at once.
const TOLD_MAX: usize = 10;

impl Keeper {
    pub(super) async fn look(&mut self, observation: &Observation, now: BootTime) {
        if self.owns() {
            let asked = self.learner.asked();
            let told = fresh(observation, self.common.settings.capture.tick, now);
            let here = self.looker.look(&asked, &BTreeSet::new(), told).await;
            self.learner.on_inventory(&here.content);
            if here.content != self.content || now >= self.tell_content_at {
                self.tell_content_at = now.after(CONTENT_EVERY);
                self.tell_all(&Body::Key(self.key));
                self.tell_all(&Body::Content(here.content.clone()));
                self.content = here.content;
            }
            self.tell_beside(observation, now);
            return;
        }
        let Some((_, version)) = self.current.clone() else {
            return;
        };
        let readiness = self.compared(&version, observation, now).await;
        self.judged(readiness, now);
    }

    /// This host beside a version.
    pub(super) async fn compared(
        &mut self,
        version: &Version,
        observation: &Observation,
        now: BootTime,
    ) -> Readiness {
        let content = &version.profile.content;
        let units = content.units.values();
        let dependencies = units
            .flat_map(|unit| unit.dependencies.iter().cloned())
            .collect();
        let asked = Asked::of(content);
        let told = fresh(observation, self.common.settings.capture.tick, now);
        let mut here = self.looker.look(&asked, &dependencies, told).await;
        self.beside.look(now);
        here.resident.clone_from(&self.beside.resident);
        here.passages = self.passages(&asked.ports, now);
        here.outdated = self.loaded.outdated(content, &here);
        let modes = self
            .group
            .units
            .iter()
            .map(|unit| (unit.name.clone(), unit.mode));
        let wanted = Wanted {
            group: &self.group.name,
            profile: &version.profile,
            modes: &modes.collect(),
            owner: false,
            beside: &self.beside.told,
        };
        compare(&wanted, &here)
    }

    /// Tells what has changed of the readiness.
    fn judged(&mut self, readiness: Readiness, now: BootTime) {
        let before = self.readiness.as_ref().map(|(_, readiness)| readiness);
        let (was, is) = (before.map(lacks).unwrap_or_default(), lacks(&readiness));
        let group = Some((&self.group.name, Epoch::NONE));
        let news: Vec<_> = is
            .iter()
            .filter(|(item, _)| !was.contains_key(*item))
            .collect();
        for ((what, _), cause) in news.iter().take(TOLD_MAX) {
            let detail = format!("{what}: {cause}");
            self.common
                .recorder
                .note(EventKind::NotReady, group, now, detail);
        }
        if let Some(more) = news.len().checked_sub(TOLD_MAX).filter(|more| *more > 0) {
            let detail = format!("{more} more: see `shadowctl ready {}`", self.group.name);
            self.common
                .recorder
                .note(EventKind::NotReady, group, now, detail);
        }
        if before.is_some() && is.is_empty() && !was.is_empty() {
            let detail = "as the profile wants it".to_owned();
            self.common
                .recorder
                .note(EventKind::Ready, group, now, detail);
        }
        self.readiness = Some((now, readiness));
    }

    /// Tells the failover loop whether this host may be promoted as if it were ready.
    pub(super) fn tell_readiness(&mut self, now: BootTime) {
        let ready = self.is_proven(now);
        let known = |(told, at): (bool, BootTime)| {
            told == ready && (self.group.promote_unready || now < at.after(TELL_READY_EVERY))
        };
        if !self.told_ready.is_some_and(known) {
            let group = self.group.name.clone();
            let told = self
                .common
                .inputs
                .try_send(Input::Readiness { group, ready });
            // A loop that is busy is told at the next turn.
            if told.is_ok() {
                self.told_ready = Some((ready, now));
            }
        }
    }

    /// Where the policy wants a proof, what nobody can tell is none, nor is what was so long ago.
    fn is_proven(&self, now: BootTime) -> bool {
        if self.owns() || self.current.is_none() {
            return true;
        }
        let compared = self.readiness.as_ref();
        let verdict = compared.map(|(at, readiness)| (now.since(*at), readiness.verdict()));
        match self.group.promote_unready {
            true => !matches!(verdict, Some((_, Verdict::NotReady))),
            false => {
                matches!(verdict, Some((age, Verdict::Ready)) if age < PROVES_FOR)
            }
        }
    }

    /// Makes this host ready where its policy lets it, or an operator asked for it. An owner is left as it
    /// is.
    pub(super) async fn provision(&mut self, now: BootTime) {
        let restoring = self.restore.as_ref().filter(|one| one.is_running());
        let readiness = match restoring {
            _ if self.owns() => None,
            Some(restore) => restore.readiness().cloned(),
            None if self.owner.is_none() => None,
            None => self
                .readiness
                .as_ref()
                .map(|(_, readiness)| readiness.clone()),
        };
        let rules = match restoring {
            Some(_) => everything(&self.rules),
            None => self.rules.clone(),
        };
        let group = &self.group;
        let is_member = |unit: &str| is_of(group, &rules, unit);
        let policy: (_, &dyn Fn(&str) -> bool) = (&rules, &is_member);
        let step = self.provisioner.on_turn(readiness.as_ref(), policy, now);
        match step.await {
            Step::Wait => {}
            Step::Ask(wanted, tries) => self.gather(wanted, tries, now),
            Step::Done(told) => {
                if let Some(restore) = &mut self.restore {
                    restore.on_done(&told, now);
                }
                let group = Some((&self.group.name, Epoch::NONE));
                for detail in told {
                    self.common
                        .recorder
                        .note(EventKind::Provisioned, group, now, detail);
                }
                self.look_at = now;
                self.beside.on_read();
            }
        }
    }

    /// Contents for acts: what is kept here is taken, the rest asked for.
    fn gather(&mut self, wanted: Vec<(String, ValueHash)>, tries: u32, now: BootTime) {
        for (_, hash) in self.provisioner.missing() {
            if let Some(bytes) = self.kept_content(&hash, now) {
                self.provisioner.on_content(bytes);
            }
        }
        let missing = self.provisioner.missing();
        for (path, hash) in wanted {
            if missing.contains(&(path.clone(), hash)) {
                self.ask_for(path, hash, tries);
            }
        }
    }
}

/// What is not ready, each with its cause. Another cause is news, but not where it is a measure: that is
/// another one at each look.
fn lacks(readiness: &Readiness) -> BTreeMap<(String, String), String> {
    let items = readiness.items.iter();
    let lacking = items.filter(|item| item.verdict == Verdict::NotReady);
    lacking
        .map(|item| {
            let news = match item.kind {
                ItemKind::Disk
                | ItemKind::Memory
                | ItemKind::Cpu
                | ItemKind::Cache
                | ItemKind::Certificate
                | ItemKind::Clock => String::new(),
                ItemKind::Unit
                | ItemKind::Package
                | ItemKind::File
                | ItemKind::Environment
                | ItemKind::Limit
                | ItemKind::Port
                | ItemKind::Parameter
                | ItemKind::Firewall
                | ItemKind::Dependency => item.cause.clone(),
            };
            let what = format!("{} {}", item.kind, item.subject);
            ((what, news), item.cause.clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Item;

    fn lacking(kind: ItemKind, cause: &str) -> Vec<(String, String)> {
        let item = Item {
            kind,
            subject: "x".into(),
            verdict: Verdict::NotReady,
            cause: cause.into(),
            remedy: None,
            act: None,
        };
        let readiness = Readiness {
            group: "web".parse().unwrap(),
            items: vec![item],
        };
        lacks(&readiness).into_keys().collect()
    }

    #[test]
    fn another_measure_of_the_same_lack_is_no_news_and_another_cause_is() {
        let (disk, unit) = (ItemKind::Disk, ItemKind::Unit);
        assert_eq!(lacking(disk, "200 MiB free"), lacking(disk, "199 MiB free"));
        assert_ne!(
            lacking(unit, "it is masked"),
            lacking(unit, "there is no such unit here")
        );
    }
}
