//! Names of control groups: id -> path from the visible root.
//!
//! Two sources: a walk of the mount, and the groups the kernel reports when they are made, which
//! catches those that live too short for a walk.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::facts::Sample;

/// Most groups that are remembered; a walk ends there.
const KNOWN_MAX: usize = 16_384;
/// Deepest group that a walk enters.
const DEPTH_MAX: usize = 24;

/// The known names.
pub struct Cgroups {
    mount: Option<PathBuf>,
    level: usize,
    known: HashMap<u64, String>,
    /// Ids that a walk did not find, so that they do not cause another one.
    gone: HashSet<u64>,
    /// Names not handed out yet.
    fresh: Vec<(u64, String)>,
}

impl Cgroups {
    /// Walks the tree at `mount`, whose root lies `level` below the real one.
    pub fn new(mount: Option<PathBuf>, level: u32) -> Self {
        let mut groups = Self {
            mount,
            level: level as usize,
            known: HashMap::new(),
            gone: HashSet::new(),
            fresh: Vec::new(),
        };
        groups.walk();
        groups
    }

    /// Takes a group that the kernel reported, with its path from the real root.
    pub fn made(&mut self, id: u64, path: &str) {
        self.learn(id, below(path, self.level));
    }

    /// Id of the group at a path from the visible root.
    pub fn id(&self, path: &str) -> Option<u64> {
        let mount = self.mount.as_ref()?;
        fs::metadata(mount.join(path.trim_start_matches('/')))
            .ok()
            .map(|group| group.ino())
    }

    /// Whether a group that was known is no more; ids are not used again.
    pub fn is_gone(&self, id: u64) -> bool {
        let path = self.known.get(&id);
        path.is_some_and(|path| self.id(path).is_none_or(|now| now != id))
    }

    /// Hands out the names learnt since the last time, after looking for the ones that the sample
    /// names and nobody knows.
    pub fn complete(&mut self, sample: &mut Sample) {
        let mut unknown: Vec<u64> = Vec::new();
        {
            let ids = (sample.syscalls.iter().map(|count| count.cgroup))
                .chain(sample.flows.iter().map(|flow| flow.cgroup))
                .chain(sample.block.iter().map(|one| one.cgroup))
                .chain(sample.files.iter().map(|one| one.cgroup))
                .chain(sample.opens.iter().map(|one| one.cgroup))
                .chain(sample.lifecycle.iter().map(|event| event.cgroup));
            unknown.extend(
                ids.filter(|id| {
                    *id != 0 && !self.known.contains_key(id) && !self.gone.contains(id)
                }),
            );
        }
        if !unknown.is_empty() {
            self.walk();
            if self.gone.len() >= KNOWN_MAX {
                self.gone.clear();
            }
            self.gone.extend(
                unknown
                    .into_iter()
                    .filter(|id| !self.known.contains_key(id)),
            );
        }
        sample.cgroups = std::mem::take(&mut self.fresh);
    }

    fn learn(&mut self, id: u64, path: String) {
        if self.known.len() >= KNOWN_MAX {
            // Groups come and go; the next unknown id causes a walk that finds the living.
            self.known.clear();
        }
        if self.known.insert(id, path.clone()).as_ref() != Some(&path) {
            self.fresh.push((id, path));
        }
        if self.fresh.len() > KNOWN_MAX {
            self.fresh.remove(0);
        }
    }

    /// Learns the groups that are there now.
    pub fn walk(&mut self) {
        let Some(mount) = self.mount.clone() else {
            return;
        };
        let mut left = KNOWN_MAX;
        let mut open = vec![(mount, String::from("/"), 0)];
        while let Some((folder, path, depth)) = open.pop() {
            let Ok(metadata) = fs::metadata(&folder) else {
                continue;
            };
            self.learn(metadata.ino(), path.clone());
            if depth < DEPTH_MAX {
                children(&folder, &path, |child, path| {
                    if left > 0 {
                        left -= 1;
                        open.push((child, path, depth + 1));
                    }
                });
            }
        }
    }
}

fn children(folder: &Path, path: &str, mut each: impl FnMut(PathBuf, String)) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            each(
                entry.path(),
                format!("{}/{name}", path.trim_end_matches('/')),
            );
        }
    }
}

/// The path without its first `level` components.
fn below(path: &str, level: usize) -> String {
    let mut parts = path
        .split('/')
        .filter(|part| !part.is_empty())
        .skip(level)
        .peekable();
    if parts.peek().is_none() {
        return String::from("/");
    }
    parts.fold(String::new(), |whole, part| whole + "/" + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_at_the_visible_root() {
        assert_eq!(
            below("/a/b/system.slice/x.service", 2),
            "/system.slice/x.service"
        );
        assert_eq!(below("/system.slice", 0), "/system.slice");
        assert_eq!(below("/a", 1), "/");
        assert_eq!(below("", 3), "/");
    }

    #[test]
    fn a_reported_group_is_handed_out_once() {
        let mut groups = Cgroups::new(None, 1);
        groups.made(7, "/host/a.service");
        let mut sample = Sample::default();
        groups.complete(&mut sample);
        assert_eq!(sample.cgroups, [(7, String::from("/a.service"))]);
        groups.made(7, "/host/a.service");
        groups.complete(&mut sample);
        assert!(sample.cgroups.is_empty());
    }
}
