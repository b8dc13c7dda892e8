//! What was seen of one unit.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::sightings::Sightings;
use crate::facts::{Dependency, Port, UnitDigest, UnitProfile};

/// Members of each set.
const PROGRAMS_MAX: usize = 64;
const PORTS_MAX: usize = 64;
const REMOTES_MAX: usize = 256;
const READS_MAX: usize = 1_024;

/// The sets of a unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UnitSightings {
    programs: Sightings<String>,
    ports: Sightings<Port>,
    dependencies: Sightings<Dependency>,
    reads: Sightings<String>,
}

impl Default for UnitSightings {
    fn default() -> Self {
        Self {
            programs: Sightings::new(PROGRAMS_MAX),
            ports: Sightings::new(PORTS_MAX),
            dependencies: Sightings::new(REMOTES_MAX),
            reads: Sightings::new(READS_MAX),
        }
    }
}

impl UnitSightings {
    /// As if everything of `unit` had been seen for long until `now`.
    pub fn of(unit: &UnitProfile, now: u64, settle: u64) -> Self {
        let mut seen = Self::default();
        for at in [now.saturating_sub(settle), now, now] {
            for program in unit.programs.keys() {
                seen.programs.see(program, at);
            }
            for port in &unit.ports {
                seen.ports.see(port, at);
            }
            for dependency in &unit.dependencies {
                seen.dependencies.see(dependency, at);
            }
            for path in &unit.reads {
                seen.reads.see(path, at);
            }
        }
        seen
    }

    pub fn see(&mut self, digest: &UnitDigest, now: u64) {
        for program in &digest.programs {
            self.programs.see(program, now);
        }
        for port in &digest.ports {
            self.ports.see(port, now);
        }
        for dependency in digest.dependencies.keys() {
            self.dependencies.see(dependency, now);
        }
        for path in &digest.reads {
            self.reads.see_newest(path, now);
        }
    }

    pub fn forget(&mut self, since: u64) {
        self.programs.forget(since);
        self.ports.forget(since);
        self.dependencies.forget(since);
    }

    pub fn refused(&self) -> u64 {
        self.programs.refused()
            + self.ports.refused()
            + self.dependencies.refused()
            + self.reads.refused()
    }

    pub fn programs(&self, settle: u64) -> BTreeSet<String> {
        self.programs.belonging(settle).cloned().collect()
    }

    /// What is read when a unit starts is read once, and needed for as long as the unit runs.
    pub fn reads(&self) -> BTreeSet<String> {
        self.reads.all().cloned().collect()
    }

    /// What is there of the unit, with what belongs to it.
    pub fn profile(&self, here: &UnitProfile, settle: u64) -> UnitProfile {
        let programs = self.programs(settle).into_iter();
        let owner = |program: &String| here.programs.get(program).cloned().flatten();
        UnitProfile {
            enabled: here.enabled.clone(),
            environment: here.environment.clone(),
            limits: here.limits.clone(),
            defined_by: here.defined_by.clone(),
            programs: programs
                .map(|program| (program.clone(), owner(&program)))
                .collect(),
            ports: self.ports.belonging(settle).cloned().collect(),
            dependencies: self.dependencies.belonging(settle).cloned().collect(),
            reads: self.reads(),
        }
    }
}
