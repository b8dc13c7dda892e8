//! Which files a host that takes over should have in memory, and when they are read there.
//!
//! What is in memory comes and goes: it is told beside the versions of a profile and is part of none.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::codec::is_plain;
use crate::facts::{BootTime, Hot, HotFile, is_word};

/// Files of a group that are told.
pub const FILES_MAX: usize = 1_024;
/// Their bytes.
pub const BYTES_MAX: u64 = 4 << 30;
/// Units, and paths of all of them.
const UNITS_MAX: usize = 256;
const PATHS_MAX: usize = 8_192;
/// A file that no process had mapped or open for so long is forgotten.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// So much of a host's memory stays available, whatever there would be to read.
const HEADROOM: u64 = 4;
/// Less than this part of what is hot is not worth reading.
const WORTH: u64 = 20;
/// Between two times that files are read: the first, doubling while they are evicted again, the last.
const REST: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3_600));
/// What stayed in memory for so many rests is not evicted again.
const STAYED: u32 = 4;

/// What the owner's units used lately.
#[derive(Clone, Debug, Default)]
pub struct Used {
    seen: BTreeMap<(String, String), BootTime>,
}

impl Used {
    /// Units use these paths. What finds no room is left out: it may when others are forgotten.
    pub fn note(&mut self, used: BTreeMap<String, BTreeSet<String>>, now: BootTime) {
        self.seen.retain(|_, seen| now.since(*seen) < KEPT);
        for (unit, paths) in used {
            for path in paths.into_iter().filter(|path| is_plain(path)) {
                let key = (unit.clone(), path);
                if self.seen.len() < PATHS_MAX || self.seen.contains_key(&key) {
                    self.seen.insert(key, now);
                }
            }
        }
    }

    /// The paths.
    pub fn paths(&self) -> BTreeSet<&str> {
        self.seen.keys().map(|(_, path)| path.as_str()).collect()
    }

    /// What is told of it, `files` being what is in memory of them: those of which most is, and of these
    /// the small ones first, since a seek costs as much as a long read.
    pub fn hot(&self, files: BTreeMap<String, HotFile>) -> Hot {
        let mut files: Vec<(String, HotFile)> = files.into_iter().collect();
        files.retain(|(_, file)| file.bytes() > 0);
        files.sort_by_key(|(_, file)| Reverse(file.bytes()));
        files.truncate(FILES_MAX);
        files.reverse();
        let mut hot = Hot::default();
        let mut left = BYTES_MAX;
        for (path, file) in files {
            let Some(rest) = left.checked_sub(file.bytes()) else {
                break;
            };
            left = rest;
            hot.files.insert(path, file);
        }
        let told = self.seen.keys();
        for (unit, path) in told.filter(|(_, path)| hot.files.contains_key(path)) {
            let paths = hot.units.entry(unit.clone()).or_default();
            paths.insert(path.clone());
        }
        hot
    }
}

/// What is believed of a peer's word: no more than anybody would tell, and what can be.
pub fn believed(told: Hot) -> Hot {
    let files = told.files.into_iter();
    let files = files.filter(|(path, _)| is_plain(path)).take(FILES_MAX);
    let mut hot = Hot::default();
    let mut left = BYTES_MAX;
    for (path, file) in files {
        if let Some(rest) = left.checked_sub(file.bytes()) {
            left = rest;
            hot.files.insert(path, file);
        }
    }
    let units = told.units.into_iter().filter(|(unit, _)| is_word(unit));
    for (unit, mut paths) in units.take(UNITS_MAX) {
        paths.retain(|path| hot.files.contains_key(path));
        hot.units.insert(unit, paths);
    }
    hot
}

/// A unit's hot files beside what this host has in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warmth {
    /// Bytes that are hot on the active, of files that are here.
    pub hot: u64,
    /// Of these, not in memory here.
    pub missing: u64,
    /// The pieces that are not.
    pub files: BTreeMap<String, HotFile>,
}

impl Warmth {
    /// Of one unit, `here` being the pieces that are in memory of each file that is here; none where no
    /// file of the unit is.
    pub fn of(unit: &str, hot: &Hot, here: &BTreeMap<String, u64>) -> Option<Self> {
        let mut warmth = Self::default();
        let paths = hot.units.get(unit)?.iter();
        for (path, file) in paths.filter_map(|path| hot.files.get_key_value(path)) {
            let Some(there) = here.get(path) else {
                continue;
            };
            let lacking = file.without(*there);
            warmth.hot = warmth.hot.saturating_add(file.bytes());
            if lacking.bytes() > 0 {
                warmth.missing = warmth.missing.saturating_add(lacking.bytes());
                warmth.files.insert(path.clone(), lacking);
            }
        }
        (warmth.hot > 0).then_some(warmth)
    }

    /// Whether reading it would change anything that can be felt.
    pub const fn is_cold(&self) -> bool {
        self.missing > self.hot / WORTH
    }
}

/// Bytes that may be read into memory without taking it from who needs it: a quarter of the memory
/// stays available, and what the units of the group are going to need at their peak.
pub const fn room(memory: u64, available: u64, peak: u64) -> u64 {
    available
        .saturating_sub(memory / HEADROOM)
        .saturating_sub(peak)
}

/// When files are read again: what is evicted soon after it was read tells that the host needs its
/// memory for something else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    last: Option<(BootTime, Duration)>,
}

impl Pace {
    /// Whether files may be read now.
    pub fn is_due(&self, now: BootTime) -> bool {
        self.last.is_none_or(|(at, rest)| now.since(at) >= rest)
    }

    /// They were.
    pub fn read(&mut self, now: BootTime) {
        let rest = match self.last {
            Some((at, rest)) if now.since(at) < rest * STAYED => (rest * 2).min(REST.1),
            Some(_) | None => REST.0,
        };
        self.last = Some((now, rest));
    }
}

#[cfg(test)]
#[path = "hot_tests.rs"]
mod tests;
