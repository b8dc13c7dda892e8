//! Versions: made by the owner, kept by everybody, used as the replica says.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::keeper::Keeper;
use super::letter::Body;
use crate::decide::profile::codec;
use crate::decide::profile::learn::Output;
use crate::decide::profile::lineage::{Made, next};
use crate::decide::profile::replica::Action;
use crate::facts::{
    BootTime, Epoch, EventKind, HostId, Place, Profile, Reason, Signed, Version, VersionId,
};
use crate::link::signature::sign;
use crate::run::record::wall_ms;
use crate::store::profiles::MAX_VERSIONS;

/// That numbers leap is told so often: whoever makes them leap may say so all the time.
const LEAP_TOLD_EVERY: Duration = Duration::from_secs(600);

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
                Output::LeftOut(what) => format!("{what}: no version may have it, it is left out"),
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
            why => {
                let reason = why.clone().map_or(Reason::First, Reason::Deviation);
                let profile = self.learner.profile().clone();
                if let Err(error) = self.make_version(reason, profile, now) {
                    warn!(group = %self.group.name, error, "no version could be made");
                    let current = self.current.as_ref();
                    let in_use = current.map(|(_, version)| &version.profile.content);
                    self.learner.on_unkept(why, in_use);
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
        // What nobody could read again would stand in the way of every version after it.
        codec::decode(&bytes).map_err(|error| error.to_string())?;
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

    /// Whether a number is too far from the version in use: the highest one would be the last of all. Who
    /// lacks the whole line has to believe somebody of how far it is; even so half of the numbers are left.
    pub(super) fn leaps(&self, number: u64, trusted: bool) -> bool {
        let head = self.replica.head().map_or(0, |head| head.number);
        let near = head.saturating_add(Version::LEAP_MAX);
        match trusted {
            true => number > near.max(Version::NUMBER_MAX / 2),
            false => number > near,
        }
    }

    /// A number that somebody says. Of one that leaps only the owner is believed.
    ///
    /// # Errors
    /// It is no number of a version here.
    pub(super) fn in_line(
        &mut self,
        number: u64,
        by_owner: bool,
        now: BootTime,
    ) -> Result<(), String> {
        if (1..=Version::NUMBER_MAX).contains(&number) && !self.leaps(number, by_owner) {
            return Ok(());
        }
        let told = self
            .leap_told
            .is_some_and(|at| now < at.after(LEAP_TOLD_EVERY));
        if !told {
            self.leap_told = Some(now);
            warn!(group = %self.group.name, number, "a version is refused: its number leaps");
        }
        Err(format!("{number} is too far from the version in use"))
    }

    /// Whether a version is the owner's.
    pub(super) fn is_owners(&self, author: HostId) -> bool {
        let owner = self.owner().and_then(|owner| self.members.get(owner));
        owner == Some(&author)
    }

    /// Whether a host may make versions of the group: this one, members and spares.
    pub(super) fn is_author(&self, author: HostId) -> bool {
        author == self.common.identity.id() || self.members.values().any(|id| *id == author)
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
