//! Versions: made by the owner, kept by everybody, used as the replica says.

use std::sync::Arc;

use tracing::{info, warn};

use super::keeper::Keeper;
use super::letter::Body;
use crate::decide::profile::codec;
use crate::decide::profile::learn::Output;
use crate::decide::profile::lineage::{Made, next};
use crate::decide::profile::replica::Action;
use crate::facts::{
    BootTime, Epoch, EventKind, Place, Profile, Reason, Signed, Version, VersionId,
};
use crate::link::signature::sign;
use crate::run::record::wall_ms;
use crate::store::profiles::MAX_VERSIONS;

impl Keeper {
    /// Versions that are due are made; what else was learned is told.
    pub(super) fn take_outputs(&mut self, now: BootTime) {
        while let Some(output) = self.learner.poll_output() {
            let detail = match output {
                Output::Version(reason) => match self.version_due(reason, now) {
                    Some(told) => told,
                    None => continue,
                },
                Output::Passed(what) => what,
                Output::Restless(what) => format!("{what} changes all the time: it is left out"),
                Output::Anomaly {
                    unit,
                    kind,
                    value,
                    score,
                } => format!("{unit}: {kind} of {value:.3} surprises ({score:.1})"),
                Output::Missing(what) => format!("expected and not there: {what}"),
                Output::New(what) => format!("new: {what}"),
            };
            if self.owns() {
                let group = Some((&self.group.name, Epoch::NONE));
                self.common
                    .recorder
                    .note(EventKind::Deviation, group, now, detail);
            }
        }
    }

    /// Only the owner's versions count, and none is made while one is pinned: that is told.
    fn version_due(&mut self, reason: Option<String>, now: BootTime) -> Option<String> {
        if !self.owns() {
            return None;
        }
        let pinned = self
            .current
            .as_ref()
            .is_some_and(|(_, version)| version.pinned);
        match reason {
            Some(reason) if pinned => Some(format!("no new version, one is pinned: {reason}")),
            reason => {
                let reason = reason.map_or(Reason::First, Reason::Deviation);
                let profile = self.learner.profile().clone();
                if let Err(error) = self.make_version(reason, profile, now) {
                    warn!(group = %self.group.name, error, "no version could be made");
                }
                None
            }
        }
    }

    /// Makes a version after the one in use, signed by this host.
    ///
    /// # Errors
    /// It cannot be written, signed or kept: nothing has changed.
    pub fn make_version(
        &mut self,
        reason: Reason,
        profile: Profile,
        now: BootTime,
    ) -> Result<VersionId, String> {
        let before = self.current.as_ref().and_then(|(_, version)| {
            let head = self.replica.head()?;
            Some((head, version.as_ref()))
        });
        let made = Made {
            group: self.group.name.clone(),
            author: self.common.identity.id(),
            wall_ms: i64::try_from(wall_ms()).unwrap_or(i64::MAX),
            reason,
            profile,
        };
        let version = next(before, made);
        let bytes = codec::encode(&version).map_err(|error| error.to_string())?;
        let signed = sign(&self.common.identity, bytes).map_err(|error| error.to_string())?;
        self.keep(&signed, &version, now)
    }

    /// Keeps a version that is known to be whole and a member's.
    pub fn keep(
        &mut self,
        signed: &Signed,
        version: &Version,
        now: BootTime,
    ) -> Result<VersionId, String> {
        let in_use = self.current.as_ref().map(|(id, _)| *id);
        let golden = self
            .current
            .as_ref()
            .and_then(|(_, version)| version.golden);
        let needed: Vec<VersionId> = in_use
            .into_iter()
            .chain(golden)
            .chain(version.golden)
            .collect();
        let kept = self
            .common
            .store()
            .keep_version(&self.group.name, signed, &needed);
        let id = kept.map_err(|error| error.to_string())?;
        let place = Place {
            number: version.number,
            id,
        };
        self.has(place, version.parent, now);
        self.forget_evicted();
        self.act(now);
        Ok(id)
    }

    /// Of more versions than are kept the oldest have gone from the disk.
    fn forget_evicted(&mut self) {
        if self.replica.count() <= MAX_VERSIONS as usize {
            return;
        }
        if let Ok(kept) = self.common.store().versions(&self.group.name) {
            self.replica.retain(&kept.into_iter().collect());
        }
    }

    /// Carries out what the replica wants.
    pub(super) fn act(&mut self, now: BootTime) {
        while let Some(action) = self.replica.poll_action() {
            match action {
                Action::TellHead { to, head } => {
                    let Place { number, id } = head;
                    self.tell(&to, &Body::Head { number, id });
                }
                Action::Ask { to, id } => self.tell(&to, &Body::Ask(id)),
                Action::Send { to, id } => match self.stored(&id) {
                    Some((signed, _)) => self.tell(&to, &Body::Version(signed)),
                    None => self.damaged(id, now),
                },
                Action::Use(id) => self.use_version(id, now),
            }
        }
    }

    fn use_version(&mut self, id: VersionId, now: BootTime) {
        let Some((_, version)) = self.stored(&id) else {
            return self.damaged(id, now);
        };
        if self
            .current
            .as_ref()
            .is_some_and(|(current, _)| *current == id)
        {
            return;
        }
        let (name, number) = (&self.group.name, version.number);
        info!(group = %name, number, version = %id.short(), "version in use");
        let detail = format!("version {number}, {}: {}", id.short(), version.reason);
        let group = Some((name, Epoch::NONE));
        self.common
            .recorder
            .note(EventKind::ProfileVersion, group, now, detail);
        let learned_here = version.author == self.common.identity.id()
            && matches!(
                version.reason,
                Reason::First | Reason::Deviation(_) | Reason::Unpin
            );
        if !learned_here {
            self.learner.believe(version.profile.clone());
        }
        self.current = Some((id, Arc::new(version)));
        self.want_golden(now);
        self.look_at = now;
    }
}
