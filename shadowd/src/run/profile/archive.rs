//! Keeps the contents that the version in use and the golden one name, while some host has them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tracing::{debug, warn};

use super::keeper::Keeper;
use super::letter::Body;
use crate::decide::profile::archive::{Lacking, named};
use crate::decide::profile::provision::admits;
use crate::facts::{BootTime, Content, FileKind, Name, ValueHash, Version, VersionId};
use crate::observe::inventory::files;

impl Keeper {
    /// Looks for what is lacking: on this host's own disk, else on the others'.
    pub(super) fn keep_contents(&mut self, now: BootTime) {
        self.note_named(now);
        for one in self.archive.due(now) {
            let Lacking { path, hash, tries } = one;
            match files::content(Path::new(&path), &hash) {
                Ok(bytes) => self.keep_content(&bytes),
                Err(_) => self.ask_for(path, hash, tries),
            }
        }
    }

    /// Versions have changed: what they name has to be here.
    fn note_named(&mut self, now: BootTime) {
        self.load_golden();
        let current = self.current().cloned();
        let golden = self.golden().cloned();
        let ids = [&current, &golden].map(|one| one.as_ref().map(|(id, _)| *id));
        if self.archived == ids {
            return;
        }
        let mut all = BTreeMap::new();
        for (_, version) in current.iter().chain(&golden) {
            all.extend(named(&version.profile.content, &self.rules));
        }
        let kept = self.common.store().contents(&self.group.name);
        match kept {
            Ok(kept) => {
                self.archive.want(all, &kept, now);
                self.archived = ids;
            }
            Err(error) => warn!(group = %self.group.name, %error, "contents cannot be read"),
        }
    }

    /// The golden version is read once; one that is not here yet is on its way.
    fn load_golden(&mut self) {
        let chosen = self.current().and_then(|(_, version)| version.golden);
        if self.golden.as_ref().map(|(id, _)| *id) != chosen {
            self.golden = chosen.and_then(|id| {
                let (_, version) = self.stored(&id)?;
                Some((id, Arc::new(version)))
            });
        }
    }

    /// The golden version, if one was chosen and it is here.
    pub(super) fn golden(&self) -> Option<&(VersionId, Arc<Version>)> {
        let chosen = self.current().and_then(|(_, version)| version.golden);
        self.golden.as_ref().filter(|(id, _)| Some(*id) == chosen)
    }

    /// A content is here: it is kept if a version names it.
    pub(super) fn keep_content(&mut self, bytes: &[u8]) {
        let hash = ValueHash::from(blake3::hash(bytes));
        if !self.archive.is_lacking(&hash) {
            return;
        }
        let (name, needed) = (&self.group.name, self.archive.needed());
        let kept = self.common.store().keep_content(name, bytes, &needed);
        match kept {
            Ok(true) => self.archive.on_kept(&hash),
            Ok(false) => debug!(group = %name, hash = %hash.short(), "no room for a content"),
            Err(error) => warn!(group = %name, %error, "a content could not be kept"),
        }
    }

    /// A content that is kept here; one that is damaged is looked for again.
    pub(super) fn kept_content(&mut self, hash: &ValueHash, now: BootTime) -> Option<Vec<u8>> {
        let found = self.common.store().content(&self.group.name, hash).ok()?;
        if found.is_none() {
            self.archive.on_damage(hash, now);
        }
        found
    }

    /// The content of a file that a version names, which the rules of this host let out: as it is on
    /// the disk, else as it was kept.
    pub(super) fn content_for(
        &mut self,
        path: &str,
        hash: &ValueHash,
        now: BootTime,
    ) -> Result<Vec<u8>, String> {
        let mut versions = self.current().into_iter().chain(self.golden());
        let is_named = versions.any(|(_, version)| names(&version.profile.content, path, hash));
        if !is_named || !admits(&self.rules, path) {
            return Err(format!("{path} is not for others"));
        }
        let here = files::content(Path::new(path), hash);
        here.or_else(|error| {
            let kept = self.kept_content(hash, now);
            kept.ok_or_else(|| format!("{path}: {error}, and it is not kept"))
        })
    }

    /// Asks the owner first, then one member after the other.
    pub(super) fn ask_for(&self, path: String, hash: ValueHash, tries: u32) {
        let owner = self
            .owner()
            .filter(|owner| self.members.contains_key(*owner));
        let others = self.members.keys().filter(|name| Some(*name) != owner);
        let order: Vec<&Name> = owner.into_iter().chain(others).collect();
        let turn = usize::try_from(tries).unwrap_or_default();
        if let Some(to) = turn
            .checked_rem(order.len())
            .and_then(|turn| order.get(turn))
        {
            self.tell(to, &Body::AskFile { path, hash });
        }
    }
}

/// Whether a version has this content at this path, and it may leave its host.
fn names(content: &Content, path: &str, hash: &ValueHash) -> bool {
    content.files.get(path).is_some_and(|fact| {
        matches!(&fact.kind, FileKind::Regular { hash: known, replicated: true, .. } if known == hash)
    })
}
