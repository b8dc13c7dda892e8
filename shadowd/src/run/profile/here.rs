//! This host beside the profile: what is there, what is lacking, what is done about it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::keeper::{Keeper, is_of};
use super::letter::Body;
use super::provisioner::Step;
use crate::decide::profile::learn::Asked;
use crate::decide::profile::ready::{Wanted, compare};
use crate::facts::{BootTime, Epoch, EventKind, Observation, Readiness, Verdict};
use crate::run::failover::Input;

/// The owner says what is on its host when that has changed, and again after this.
const CONTENT_EVERY: Duration = Duration::from_secs(60);
/// Of what is not ready any more so much is told at once.
const TOLD_MAX: usize = 10;

impl Keeper {
    pub(super) async fn look(&mut self, observation: &Observation, now: BootTime) {
        if self.owns() {
            let asked = self.learner.asked();
            let here = self
                .looker
                .look(&asked, &BTreeSet::new(), observation)
                .await;
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
        let content = &version.profile.content;
        let units = content.units.values();
        let dependencies = units
            .flat_map(|unit| unit.dependencies.iter().cloned())
            .collect();
        let asked = Asked::of(content);
        let mut here = self.looker.look(&asked, &dependencies, observation).await;
        self.beside.look(now);
        here.resident.clone_from(&self.beside.resident);
        here.passages = self.passages(&asked.ports, now);
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
        self.judged(compare(&wanted, &here), now);
    }

    /// Tells what has changed of the readiness.
    fn judged(&mut self, readiness: Readiness, now: BootTime) {
        let before = self.readiness.as_ref().map(|(_, readiness)| readiness);
        let bad = |readiness: &Readiness| -> BTreeSet<(String, String)> {
            let items = readiness.items.iter();
            let bad = items.filter(|item| item.verdict == Verdict::NotReady);
            bad.map(|item| {
                (
                    format!("{} {}", item.kind, item.subject),
                    item.cause.clone(),
                )
            })
            .collect()
        };
        let (was, is) = (before.map(&bad).unwrap_or_default(), bad(&readiness));
        let group = Some((&self.group.name, Epoch::NONE));
        let news: Vec<_> = is.difference(&was).collect();
        for (what, cause) in news.iter().take(TOLD_MAX) {
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

    /// Tells the failover loop whether this host may be promoted as if it were ready. Where the policy
    /// wants a proof, what nobody can tell is none.
    pub(super) fn tell_readiness(&mut self) {
        let verdict = self
            .readiness
            .as_ref()
            .map(|(_, readiness)| readiness.verdict());
        let nothing_to_prove = self.owns() || self.current.is_none();
        let ready = nothing_to_prove
            || match self.group.promote_unready {
                true => verdict != Some(Verdict::NotReady),
                false => verdict == Some(Verdict::Ready),
            };
        if ready != self.told_ready {
            let group = self.group.name.clone();
            let told = self
                .common
                .inputs
                .try_send(Input::Readiness { group, ready });
            // A loop that is busy is told at the next turn.
            if told.is_ok() {
                self.told_ready = ready;
            }
        }
    }

    /// Makes this host ready where its policy lets it. An owner is left as it is.
    pub(super) async fn provision(&mut self, now: BootTime) {
        let readiness = match self.owner.is_some() && !self.owns() {
            true => self.readiness.as_ref().map(|(_, readiness)| readiness),
            false => None,
        };
        let (group, rules) = (&self.group, &self.rules);
        let is_member = |unit: &str| is_of(group, rules, unit);
        let policy: (_, &dyn Fn(&str) -> bool) = (rules, &is_member);
        match self.provisioner.on_turn(readiness, policy, now).await {
            Step::Wait => {}
            Step::Ask(wanted) => {
                let Some(owner) = self.owner.clone() else {
                    return;
                };
                for (path, hash) in wanted {
                    self.tell(&owner, &Body::AskFile { path, hash });
                }
            }
            Step::Done(told) => {
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
}
