//! One group's profile on this host: learns from the owner, keeps versions, compares this host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::warn;

use super::View;
use super::beside::Besides;
use super::letter::Body;
use super::look::Looker;
use super::programs::programs;
use super::provisioner::Provisioner;
use crate::config::settings::{GroupSettings, ProfileSettings, Settings};
use crate::decide::profile::codec;
use crate::decide::profile::digest::{self, Of, merge};
use crate::decide::profile::learn::{Learner, Rules};
use crate::decide::profile::replica::{Place, Replica};
use crate::facts::{
    BootTime, Content, Digest, HostId, Name, Observation, Readiness, Signed, Version, VersionId,
};
use crate::link::{Identity, Post};
use crate::run::failover::Input;
use crate::run::record::Recorder;
use crate::store::profiles::ProfileStore;

/// Observations are told to the others together, after so long.
const DIGEST_EVERY: Duration = Duration::from_secs(10);
/// The host is looked at this often: what breaks is told within two looks.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// What was learned is stored this often: a crash costs no more of it.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// What a keeper works with, the same for all groups.
pub(super) struct Common {
    pub settings: Settings,
    pub identity: Identity,
    pub recorder: Recorder,
    pub post: Arc<Post>,
    pub inputs: mpsc::Sender<Input>,
    store: Mutex<ProfileStore>,
}

impl Common {
    pub fn new(
        settings: Settings,
        identity: Identity,
        recorder: Recorder,
        (post, inputs): (Arc<Post>, mpsc::Sender<Input>),
        store: ProfileStore,
    ) -> Self {
        Self {
            settings,
            identity,
            recorder,
            post,
            inputs,
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
    pub(super) group: GroupSettings,
    pub(super) rules: ProfileSettings,
    /// The other members and spares, by name, with their identities.
    pub(super) members: BTreeMap<Name, HostId>,
    pub(super) learner: Learner,
    pub(super) replica: Replica,
    pub(super) looker: Looker,
    pub(super) key: [u8; 32],
    pub(super) open: Option<(Digest, BootTime)>,
    pub(super) look_at: BootTime,
    pub(super) content: Content,
    pub(super) tell_content_at: BootTime,
    pub(super) save_at: BootTime,
    pub(super) provisioner: Provisioner,
    pub(super) beside: Besides,
    /// Who owns the group, as far as is known.
    pub(super) owner: Option<Name>,
    /// The version in use.
    pub(super) current: Option<(VersionId, Arc<Version>)>,
    pub(super) readiness: Option<(BootTime, Readiness)>,
    /// What the failover loop was told of it.
    pub(super) told_ready: bool,
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
        let mut keeper = Self {
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
            look_at: now,
            content: Content::default(),
            tell_content_at: now,
            save_at: now.after(SAVE_EVERY),
            owner: None,
            current: None,
            readiness: None,
            told_ready: true,
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
        let ids = self.common.store().versions(&self.group.name);
        let ids = ids.unwrap_or_else(|error| {
            warn!(%error, "versions of the profile cannot be read");
            Vec::new()
        });
        for id in ids {
            match self.stored(&id) {
                Some((_, version)) => {
                    let number = version.number;
                    self.replica
                        .on_version(Place { number, id }, version.parent, now);
                }
                None => {
                    warn!(group = %self.group.name, version = %id, "a version is damaged");
                    self.replica.on_damage(id, now);
                }
            }
        }
        let head = self.replica.head();
        if let Some((place, (_, version))) =
            head.and_then(|place| Some((place, self.stored(&place.id)?)))
        {
            self.current = Some((place.id, Arc::new(version)));
        }
    }

    /// A version that is kept and whole.
    pub fn stored(&self, id: &VersionId) -> Option<(Signed, Version)> {
        let signed = self.common.store().version(&self.group.name, id).ok()??;
        let version = codec::decode(&signed.bytes).ok()?;
        Some((signed, version))
    }

    /// Who owns the group now.
    pub fn on_owner(&mut self, owner: Option<Name>) {
        if owner != self.owner {
            self.open = None;
            self.readiness = None;
            self.owner = owner;
        }
    }

    /// Capture has told of an interval.
    pub fn on_observation(&mut self, observation: &Observation, local_second: u64, now: BootTime) {
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
        if now >= self.look_at {
            self.look(observation, now).await;
            self.look_at = now.after(LOOK_EVERY);
        }
        self.tell_readiness();
        self.provision(now).await;
        self.take_outputs(now);
        self.act(now);
        if now >= self.save_at {
            self.save();
            self.save_at = now.after(SAVE_EVERY);
        }
    }

    /// What was learned goes to the disk.
    pub fn save(&mut self) {
        let Ok(bytes) = postcard::to_stdvec(&self.learner) else {
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
fn restored(common: &Common, group: &GroupSettings, rules: &ProfileSettings) -> Learner {
    let own = group.units.iter().map(|unit| unit.name.to_string());
    let fresh = Rules {
        settle: rules.settle.as_secs(),
        forget: rules.forget.as_secs(),
    };
    let stored = common.store().learned(&group.name).ok().flatten();
    let learner = stored.and_then(|bytes| postcard::from_bytes::<Learner>(&bytes).ok());
    let mut learner = learner.unwrap_or_else(|| Learner::new(fresh));
    learner.configure(fresh, own);
    learner
}
