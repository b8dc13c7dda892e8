//! Learns what should be running, from what the owner's units do and what its host has.
//!
//! What shows only while it is used (programs, ports, dependencies, files that are read) belongs
//! once it was seen often enough; what is there or is not (versions of packages, contents of files,
//! environments) is believed once it has lasted. Either makes a new version, with its reason. What
//! differs for less is told and forgotten.

mod due;
mod level;
mod picture;
mod review;
mod settle;
mod sightings;
mod unit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use self::due::Unkept;
use self::level::Level;
use self::picture::Picture;
use self::settle::{Said, Settling};
use self::unit::UnitSightings;
use super::accuracy::Accuracy;
use super::series::Series;
use crate::decide::forecast::Forecast;
use crate::facts::{
    Content, Dependency, Digest, FileFact, FileKind, Habit, Hour, PackageFact, Port, Profile,
    ResourceKind, UnitProfile,
};

/// Units that are followed, dependencies whose hours are, and series.
const UNITS_MAX: usize = 256;
const DEPENDENCIES_MAX: usize = 1_024;
const SERIES_MAX: usize = 256;
/// Outputs that nobody takes are dropped, the oldest first.
const OUTPUTS_MAX: usize = 256;
/// A clock that was ahead by more than this (seconds) was wrong, not adjusted: two days.
const AHEAD_MAX: u64 = 2 * 24 * 3_600;

/// How much is needed to be believed, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// A value has to last for so long.
    pub settle: u64,
    /// What was not seen for so long is gone.
    pub forget: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A new version is due, for this reason; none for the first.
    Version(Option<String>),
    /// Something differed and is back: what, in words.
    Passed(String),
    /// Something changes all the time, and is left out.
    Restless(String),
    /// Something is there that no version may have, and is left out: of what, and why.
    LeftOut(String),
    /// A reading that surprises: of which unit, which resource, the reading, its score.
    Anomaly {
        /// The unit.
        unit: String,
        /// Of what.
        kind: ResourceKind,
        /// The mean over five minutes.
        value: f64,
        /// 1 is the least that surprises.
        score: f64,
    },
    /// Expected in the hour that is over, and not there.
    Missing(String),
    /// There in the hour that is over for the first time.
    New(String),
}

/// What to find out about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Units.
    pub units: BTreeSet<String>,
    /// Programs, by unit.
    pub programs: BTreeMap<String, BTreeSet<String>>,
    /// Paths, and for a content whether it is hashed plainly: as the host's own rules have it if none.
    pub files: BTreeMap<String, Option<bool>>,
    /// Packages, beside those that own the programs.
    pub packages: BTreeSet<String>,
    /// Ports that are to be free, or the units' own.
    pub ports: BTreeSet<Port>,
}

/// A path, and how its content was hashed.
fn wanted((path, fact): (&String, &FileFact)) -> (String, Option<bool>) {
    let plain = match fact.kind {
        FileKind::Regular { replicated, .. } => Some(replicated),
        FileKind::Link { .. } | FileKind::Directory | FileKind::Unreadable { .. } => None,
    };
    (path.clone(), plain)
}

impl Asked {
    /// What a host has to have to be like a content.
    pub fn of(content: &Content) -> Self {
        let mut asked = Self {
            units: content.units.keys().cloned().collect(),
            files: content.files.iter().map(wanted).collect(),
            packages: content.packages.keys().cloned().collect(),
            ..Self::default()
        };
        for (name, unit) in &content.units {
            let programs = unit.programs.keys().cloned().collect();
            asked.programs.insert(name.clone(), programs);
            asked.ports.extend(unit.ports.iter().cloned());
        }
        asked
    }
}

/// One group's learner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learner {
    rules: Rules,
    profile: Profile,
    /// A first version was made.
    begun: bool,
    sightings: BTreeMap<String, UnitSightings>,
    units: Settling<String, Option<UnitProfile>>,
    packages: Settling<String, Option<PackageFact>>,
    files: Settling<String, Option<FileFact>>,
    parameters: Settling<String, Option<String>>,
    /// Something settled and waits for the rest, since then.
    due: Option<u64>,
    #[serde(skip)]
    unkept: Option<Unkept>,
    before: Content,
    series: BTreeMap<(String, ResourceKind), Series>,
    /// Whether what is needed has changed for good.
    levels: BTreeMap<(String, ResourceKind), Level>,
    /// When the needs of a version were made, by what was watched.
    needs_at: u64,
    /// What defines the units, as systemd said last.
    #[serde(skip)]
    defined_by: BTreeSet<String>,
    /// What the last picture had not, in words.
    #[serde(skip)]
    left_out: BTreeSet<String>,
    hour: Option<Hour>,
    /// Seconds of all digests: what nobody looked at is no time in which something was not there.
    watched: u64,
    accuracy: Accuracy,
    #[serde(skip)]
    outputs: VecDeque<Output>,
    /// What found no room.
    refused: u64,
}

impl Learner {
    /// A learner of a group about which nothing is known.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            profile: Profile::default(),
            begun: false,
            sightings: BTreeMap::new(),
            units: Settling::default(),
            packages: Settling::default(),
            files: Settling::default(),
            parameters: Settling::default(),
            due: None,
            unkept: None,
            before: Content::default(),
            series: BTreeMap::new(),
            levels: BTreeMap::new(),
            needs_at: 0,
            defined_by: BTreeSet::new(),
            left_out: BTreeSet::new(),
            hour: None,
            watched: 0,
            accuracy: Accuracy::default(),
            outputs: VecDeque::new(),
            refused: 0,
        }
    }

    /// Goes on by these rules, with units that are the group's own whatever they do.
    pub fn configure(&mut self, rules: Rules, own: impl IntoIterator<Item = String>) {
        self.rules = rules;
        for name in own {
            self.sightings.entry(name).or_default();
        }
    }

    /// What was learned: the content of the last version, and habits and needs as of now.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// How often it was right.
    pub fn accuracy(&self) -> &Accuracy {
        &self.accuracy
    }

    /// What is expected of each resource of each unit at a second.
    pub fn forecasts(
        &self,
        local_second: u64,
    ) -> impl Iterator<Item = (&(String, ResourceKind), Forecast)> {
        let series = self.series.iter();
        series.filter_map(move |(key, series)| Some((key, series.at(local_second)?)))
    }

    /// Units that were seen, whether or not they are believed yet.
    pub fn units(&self) -> impl Iterator<Item = &String> {
        self.sightings.keys()
    }

    /// What found no room so far.
    pub fn refused(&self) -> u64 {
        let sets = self.sightings.values().map(UnitSightings::refused);
        self.refused + sets.sum::<u64>()
    }

    /// From now on `profile` is believed: it was made by another host or chosen by an operator.
    pub fn believe(&mut self, profile: Profile) {
        self.watched = self.watched.max(self.rules.settle);
        let now = self.watched;
        self.sightings.clear();
        for (name, unit) in &profile.content.units {
            let seeded = UnitSightings::of(unit, now, self.rules.settle);
            self.sightings.insert(name.clone(), seeded);
        }
        self.before = profile.content.clone();
        self.profile = profile;
        self.begun = true;
        (self.due, self.unkept) = (None, None);
    }

    /// What to look for on a host, to compare it or to learn more.
    pub fn asked(&self) -> Asked {
        let mut asked = Asked::default();
        for (name, seen) in &self.sightings {
            asked.units.insert(name.clone());
            let programs = seen.programs(self.rules.settle);
            asked
                .files
                .extend(seen.reads().into_iter().map(|path| (path, None)));
            asked.programs.insert(name.clone(), programs);
        }
        let known = self.profile.content.files.keys().chain(&self.defined_by);
        asked.files.extend(known.map(|path| (path.clone(), None)));
        asked
    }

    /// What happened since the last digest.
    pub fn on_digest(&mut self, digest: &Digest) {
        let now = digest.local_second;
        self.set_back(now);
        let hour = Hour(u32::try_from(now / 3_600).unwrap_or(u32::MAX));
        if self.hour.is_some_and(|before| before < hour) {
            self.close_hour();
        }
        self.hour = Some(hour);
        self.watched += u64::from(digest.seconds);
        self.profile.observed.note(hour);
        for (name, unit) in &digest.units {
            if !self.sightings.contains_key(name) && self.sightings.len() >= UNITS_MAX {
                self.refused += 1;
                continue;
            }
            let seen = self.sightings.entry(name.clone()).or_default();
            seen.see(unit, self.watched);
            self.profile
                .unit_hours
                .entry(name.clone())
                .or_default()
                .note(hour);
            for dependency in unit.dependencies.keys() {
                self.note_dependency(name, dependency, hour);
            }
            for (kind, value) in &unit.uses {
                self.note_use(name, *kind, (now, digest.seconds), *value);
            }
        }
    }

    /// Hours and readings of a time that is yet to come were a wrong clock's, and everything that follows
    /// would be older than they are: what was learned of hours begins anew.
    fn set_back(&mut self, now: u64) {
        let ahead = |hour: Hour| (u64::from(hour.0) * 3_600).saturating_sub(now);
        let newest = self.profile.observed.last();
        if newest.is_none_or(|newest| ahead(newest) <= AHEAD_MAX) {
            return;
        }
        self.profile.observed = Habit::default();
        self.profile.unit_hours.clear();
        self.profile.dependency_hours.clear();
        self.series.clear();
        self.levels.clear();
        self.hour = None;
        let what = "the clock was far ahead: hours and needs are learned anew";
        self.tell(Output::Passed(what.to_owned()));
    }

    fn note_dependency(&mut self, unit: &str, dependency: &Dependency, hour: Hour) {
        let hours = &mut self.profile.dependency_hours;
        let key = (unit.to_owned(), dependency.clone());
        if !hours.contains_key(&key) && hours.len() >= DEPENDENCIES_MAX {
            self.refused += 1;
            return;
        }
        hours.entry(key).or_default().note(hour);
    }

    fn note_use(&mut self, unit: &str, kind: ResourceKind, (now, seconds): (u64, u32), value: f64) {
        let key = (unit.to_owned(), kind);
        if !self.series.contains_key(&key) && self.series.len() >= SERIES_MAX {
            self.refused += 1;
            return;
        }
        let series = self.series.entry(key).or_default();
        let Some(closed) = series.note(now, seconds, value) else {
            return;
        };
        self.accuracy
            .resources
            .entry(kind)
            .or_default()
            .note(&closed);
        let level = self.levels.entry((unit.to_owned(), kind)).or_default();
        level.note(&closed, kind);
        if closed.is_anomaly() {
            self.tell(Output::Anomaly {
                unit: unit.to_owned(),
                kind,
                value: closed.value,
                score: closed.surprise,
            });
        }
    }

    /// What is on the owner's host now, of what was [`asked`](Self::asked) for.
    pub fn on_inventory(&mut self, here: &Content) {
        let now = self.watched;
        for seen in self.sightings.values_mut() {
            seen.forget(now.saturating_sub(self.rules.forget));
        }
        // What triggers a unit of the group, such as a timer, has no process that could be seen.
        for name in here.units.keys() {
            if !self.sightings.contains_key(name) && self.sightings.len() < UNITS_MAX {
                self.sightings
                    .insert(name.clone(), UnitSightings::default());
            }
        }
        let units = here.units.values();
        self.defined_by = units
            .flat_map(|unit| unit.defined_by.iter().cloned())
            .collect();
        let settle = self.rules.settle;
        let Picture {
            content: picture,
            left_out,
        } = Picture::of(&self.sightings, here, settle);
        self.leave_out(left_out);
        let content = &mut self.profile.content;
        let mut said = Said::default();
        said.settle(
            &mut self.units,
            &mut content.units,
            &picture.units,
            settle,
            now,
        );
        said.settle(
            &mut self.packages,
            &mut content.packages,
            &picture.packages,
            settle,
            now,
        );
        said.settle(
            &mut self.files,
            &mut content.files,
            &picture.files,
            settle,
            now,
        );
        said.settle(
            &mut self.parameters,
            &mut content.parameters,
            &picture.parameters,
            settle,
            now,
        );
        for output in said.told {
            self.tell(output);
        }
        if said.lasting {
            self.due.get_or_insert(now);
        }
        self.make_version(now);
    }

    /// What is left out is told when it begins to be.
    fn leave_out(&mut self, left_out: BTreeSet<String>) {
        for what in left_out.difference(&self.left_out.clone()) {
            self.tell(Output::LeftOut(what.clone()));
        }
        self.left_out = left_out;
    }

    fn tell(&mut self, output: Output) {
        if self.outputs.len() >= OUTPUTS_MAX {
            self.outputs.pop_front();
            self.refused += 1;
        }
        self.outputs.push_back(output);
    }

    /// The next thing that came of it.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;
