//! One group's profile on this host: learns from the owner, keeps versions, compares this host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use super::View;
use super::answers::accuracy;
use super::beside::Besides;
use super::letter::Body;
use super::look::Looker;
use super::programs::programs;
use super::provisioner::Provisioner;
use super::repository::Job;
use super::restore::Restore;
use crate::config::settings::{GroupSettings, ProfileSettings, Settings};
use crate::decide::profile::archive::Archive;
use crate::decide::profile::codec;
use crate::decide::profile::digest::{self, Of, merge};
use crate::decide::profile::learn::{Learner, Rules};
use crate::decide::profile::loaded::Loaded;
use crate::decide::profile::replica::Replica;
use crate::decide::profile::repository::Repository;
use crate::facts::{
    BootTime, Content, Digest, HostId, Name, Observation, Place, Readiness, Signed, Version,
    VersionId,
};
use crate::link::{Identity, Post};
use crate::run::failover::Input;
use crate::run::record::Recorder;
use crate::store::profiles::ProfileStore;

/// Observations are told to the others together, after so long.
const DIGEST_EVERY: Duration = Duration::from_secs(10);
/// The host is looked at this often: what breaks is told within two looks.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// Capture may take so long to begin.
const LOOK_BLIND: Duration = Duration::from_secs(10);
/// Sooner when something failed that may be nothing.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// What was learned is stored this often: a crash costs no more of it.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// How what was learned is written. What an earlier shadowd wrote otherwise is learned anew.
const LEARNED: u16 = 2;

/// What a keeper works with, the same for all groups.
pub(super) struct Common {
    pub settings: Settings,
    pub identity: Identity,
    pub recorder: Recorder,
    pub post: Arc<Post>,
    pub inputs: mpsc::Sender<Input>,
    /// The way to the thread of the repository; none where that is off.
    pub jobs: Option<mpsc::Sender<Job>>,
    store: Mutex<ProfileStore>,
}

impl Common {
    pub fn new(
        settings: Settings,
        identity: Identity,
        recorder: Recorder,
        (post, inputs): (Arc<Post>, mpsc::Sender<Input>),
        jobs: Option<mpsc::Sender<Job>>,
        store: ProfileStore,
    ) -> Self {
        Self {
            settings,
            identity,
            recorder,
            post,
            inputs,
            jobs,
            store: Mutex::new(store),
        }
    }

    pub fn store(&self) -> MutexGuard<'_, ProfileStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One group.
pub(super) struct Keeper {
    pub(super) common: Arc<Common>,
    /// Its place among the keepers.
    pub(super) number: usize,
    pub(super) group: GroupSettings,
    pub(super) rules: ProfileSettings,
    /// The other members and spares, by name, with their identities.
    pub(super) members: BTreeMap<Name, HostId>,
    pub(super) learner: Learner,
    pub(super) replica: Replica,
    /// None where there is none.
    pub(super) repository: Option<Repository>,
    pub(super) looker: Looker,
    pub(super) key: [u8; 32],
    pub(super) open: Option<(Digest, BootTime)>,
    pub(super) look_at: BootTime,
    /// From then on the host is looked at even if capture tells nothing.
    pub(super) look_blind_at: BootTime,
    pub(super) content: Content,
    pub(super) tell_content_at: BootTime,
    pub(super) save_at: BootTime,
    pub(super) provisioner: Provisioner,
    pub(super) archive: Archive,
    /// The version in use and the golden one, when it was said last what they name.
    pub(super) archived: [Option<VersionId>; 2],
    /// The golden version, as it was read.
    pub(super) golden: Option<(VersionId, Arc<Version>)>,
    /// The restore that runs, or the last one.
    pub(super) restore: Option<Restore>,
    pub(super) beside: Besides,
    pub(super) loaded: Loaded,
    /// Who owns the group, as far as is known.
    pub(super) owner: Option<Name>,
    /// The version in use.
    pub(super) current: Option<(VersionId, Arc<Version>)>,
    pub(super) readiness: Option<(BootTime, Readiness)>,
    /// What the failover loop was told of it, and when.
    pub(super) told_ready: Option<(bool, BootTime)>,
    /// When it was told last that the number of a version leaps.
    pub(super) leap_told: Option<BootTime>,
}

impl Keeper {
    /// With what the store has of the group.
    pub fn new(common: Arc<Common>, number: usize, now: BootTime) -> Self {
        let settings = &common.settings;
        let (group, rules) = (
            settings.groups[number].clone(),
            settings.profiles[number].clone(),
        );
        let names = group.members.iter().chain(&group.spares);
        let peers = names.filter_map(|name| {
            let peer = settings.peers.iter().find(|peer| peer.name == *name)?;
            Some((peer.name.clone(), peer.id))
        });
        let members: BTreeMap<Name, HostId> = peers.collect();
        let key = key(&common, &group.name);
        let central = settings.repository.as_ref();
        let repository = central.filter(|_| common.jobs.is_some());
        let mut keeper = Self {
            number,
            repository: repository
                .map(|central| Repository::new(central.place.url(), central.every, now)),
            replica: Replica::new(members.keys().cloned().collect(), [], now),
            provisioner: Provisioner::new(group.name.clone(), &common.settings.host.state_dir, now),
            learner: restored(&common, &group, &rules),
            looker: Looker::new(&rules, key),
            common,
            group,
            rules,
            members,
            key,
            open: None,
            beside: Besides::default(),
            loaded: Loaded::default(),
            look_at: now,
            look_blind_at: now.after(LOOK_BLIND),
            content: Content::default(),
            tell_content_at: now,
            save_at: now.after(SAVE_EVERY),
            archive: Archive::default(),
            archived: [None, None],
            golden: None,
            restore: None,
            owner: None,
            current: None,
            readiness: None,
            told_ready: None,
            leap_told: None,
        };
        keeper.load(now);
        keeper
    }

    pub fn name(&self) -> &Name {
        &self.group.name
    }

    pub fn view(&self) -> View {
        let place = self
            .current
            .as_ref()
            .map(|(id, version)| (version.number, *id));
        View {
            group: self.group.name.clone(),
            owner: self.owner.clone(),
            owned_here: self.owns(),
            version: place,
            readiness: self.readiness.clone(),
            repository: self.repository.as_ref().map(Repository::status),
            accuracy: accuracy(self.learner.accuracy()),
        }
    }

    /// Whether this host owns the group, as far as is known.
    pub fn owns(&self) -> bool {
        self.owner.as_ref() == Some(&self.common.settings.host.name)
    }

    /// Who does.
    pub fn owner(&self) -> Option<&Name> {
        self.owner.as_ref()
    }

    /// The version in use.
    pub fn current(&self) -> Option<&(VersionId, Arc<Version>)> {
        self.current.as_ref()
    }

    /// Finds the versions that are kept and whole; the others are asked for again.
    fn load(&mut self, now: BootTime) {
        let found = found(&self.common.store(), &self.group.name);
        for (id, whole) in found {
            match whole {
                Some(kept) if self.goes_on(&kept) => self.has(kept.place, kept.parent, now),
                Some(kept) => {
                    let number = kept.place.number;
                    warn!(group = %self.group.name, number, version = %id, "left aside: its number leaps");
                }
                None => self.damaged(id, now),
            }
        }
        let head = self.replica.head();
        if let Some((place, (_, version))) =
            head.and_then(|place| Some((place, self.stored(&place.id)?)))
        {
            self.current = Some((place.id, Arc::new(version)));
        }
        self.want_golden(now);
    }

    /// Whether a version that is kept is in line. A host that is a member no more made versions while it
    /// was one, but none of them may be in use for its number alone.
    fn goes_on(&self, kept: &Kept) -> bool {
        let first = self.replica.head().is_none();
        !self.leaps(kept.place.number, first || self.is_author(kept.author))
    }

    /// This host has a version.
    pub(super) fn has(&mut self, place: Place, parent: Option<VersionId>, now: BootTime) {
        self.replica.on_version(place, parent, now);
        if let Some(repository) = &mut self.repository {
            repository.on_version(place);
        }
    }

    /// A version that is kept and whole.
    pub fn stored(&self, id: &VersionId) -> Option<(Signed, Version)> {
        whole(&self.common.store(), &self.group.name, id)
    }

    /// Who owns the group now. What this host has and lacks does not change with that, unless it was or
    /// will be the owner itself: just when an owner falls silent the last comparison is what counts.
    pub fn on_owner(&mut self, owner: Option<Name>) {
        if owner == self.owner {
            return;
        }
        let owned = self.owns();
        self.open = None;
        self.owner = owner;
        if owned != self.owns() {
            self.readiness = None;
            // At the next turn, whenever that is.
            self.look_at = BootTime::default();
        }
    }

    /// Capture has told of an interval.
    pub fn on_observation(&mut self, observation: &Observation, local_second: u64, now: BootTime) {
        self.loaded.on_observation(observation);
        if !self.owns() || !self.rules.learn {
            return;
        }
        let vips: BTreeSet<IpAddr> = self.group.vips.iter().map(|vip| vip.address).collect();
        let (group, rules) = (&self.group, &self.rules);
        let is_member = |unit: &str| is_of(group, rules, unit);
        let of = Of {
            is_member: &is_member,
            is_ignored: &|path| rules.ignore.iter().any(|glob| glob.matches(path)),
            vips: &vips,
            programs: &programs(observation, &is_member),
            local_second,
        };
        let more = digest::digest(observation, &of);
        let (digest, since) = self.open.get_or_insert_with(|| (Digest::default(), now));
        merge(digest, &more);
        if now.since(*since) >= DIGEST_EVERY
            && let Some((digest, _)) = self.open.take()
        {
            self.learner.on_digest(&digest);
            self.tell_all(&Body::Digest(digest));
        }
    }

    /// What is due: a look at the host, words to the others, the state on the disk.
    pub async fn on_turn(&mut self, observation: &Observation, now: BootTime) {
        self.replica.on_timer(now);
        // Before capture has told anything, what is free is not known.
        let told = observation.host.memory_bytes > 0 || now >= self.look_blind_at;
        if now >= self.look_at && told {
            self.look(observation, now).await;
            self.look_at = now.after(match self.looker.is_in_doubt() {
                true => LOOK_AGAIN,
                false => LOOK_EVERY,
            });
        }
        self.restore_turn(observation, now).await;
        self.tell_readiness(now);
        self.provision(now).await;
        self.take_outputs(now);
        self.act(now);
        self.sync(now);
        self.keep_contents(now);
        if now >= self.save_at {
            self.save();
            self.save_at = now.after(SAVE_EVERY);
        }
    }

    /// What was learned goes to the disk.
    pub fn save(&mut self) {
        let Ok(bytes) = postcard::to_stdvec(&(LEARNED, &self.learner)) else {
            return;
        };
        let name = &self.group.name;
        let kept = self.common.store().keep_learned(name, &bytes);
        if let Err(error) = kept {
            warn!(group = %name, %error, "what was learned could not be stored");
        }
    }
}

/// Whether a unit is of the group: its own, or one that the profile's rules name.
pub(super) fn is_of(group: &GroupSettings, rules: &ProfileSettings, unit: &str) -> bool {
    let own = group.units.iter().any(|one| one.name.as_str() == unit);
    own || rules.units.iter().any(|glob| glob.matches(unit))
}

/// A version that is kept: where it belongs, what came before it, and who made it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub place: Place,
    pub parent: Option<VersionId>,
    pub author: HostId,
}

/// A version on the disk; none of one that is damaged.
pub(super) type Found = (VersionId, Option<Kept>);

/// The versions of a group on the disk, oldest first.
pub(super) fn found(store: &ProfileStore, group: &Name) -> Vec<Found> {
    let ids = store.versions(group).unwrap_or_else(|error| {
        warn!(%error, "versions of the profile cannot be read");
        Vec::new()
    });
    let found = ids.into_iter().map(|id| match whole(store, group, &id) {
        Some((_, version)) => {
            let number = version.number;
            let kept = Kept {
                place: Place { number, id },
                parent: version.parent,
                author: version.author,
            };
            (id, Some(kept))
        }
        None => {
            warn!(group = %group, version = %id, "a version is damaged");
            (id, None)
        }
    });
    found.collect()
}

/// A version that is kept and whole.
pub(super) fn whole(
    store: &ProfileStore,
    group: &Name,
    id: &VersionId,
) -> Option<(Signed, Version)> {
    let signed = store.version(group, id).ok()??;
    let version = codec::decode(&signed.bytes).ok()?;
    Some((signed, version))
}

/// The key under which the group's values are hashed; a new one where there is none.
fn key(common: &Common, group: &Name) -> [u8; 32] {
    if let Ok(Some(key)) = common.store().key(group) {
        return key;
    }
    let fresh = ring::rand::generate::<[u8; 32]>(&ring::rand::SystemRandom::new());
    // Without randomness there is nothing to hide values with; a host without it signs nothing either.
    let key = fresh.map_or([0; 32], |fresh| fresh.expose());
    if let Err(error) = common.store().keep_key(group, &key) {
        warn!(group = %group, %error, "the group's key could not be stored");
    }
    key
}

/// What an earlier daemon learned, if that is whole.
pub(super) fn restored(common: &Common, group: &GroupSettings, rules: &ProfileSettings) -> Learner {
    let own = group.units.iter().map(|unit| unit.name.to_string());
    let fresh = Rules {
        settle: rules.settle.as_secs(),
        forget: rules.forget.as_secs(),
    };
    let stored = common.store().learned(&group.name).ok().flatten();
    let learner = stored.and_then(|bytes| {
        let (format, rest): (u16, _) = postcard::take_from_bytes(&bytes).ok()?;
        let learner = (format == LEARNED).then(|| postcard::from_bytes::<Learner>(rest))?;
        learner.ok()
    });
    let mut learner = learner.unwrap_or_else(|| Learner::new(fresh));
    learner.configure(fresh, own);
    learner
}
