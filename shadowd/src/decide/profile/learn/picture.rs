//! What would be learned if all that is seen now were believed.
//!
//! What no version may have, such as a path that leads elsewhere, is in no picture: no other host
//! would believe a version with it. The rest of its unit is, and what is missing is said.

use std::collections::{BTreeMap, BTreeSet};

use super::unit::UnitSightings;
use crate::decide::profile::codec::{self, UnreadableVersion};
use crate::facts::{Content, UnitProfile};

/// So many things that were left out are remembered.
const LEFT_OUT_MAX: usize = 64;

/// The content, and what is not in it though it is there.
#[derive(Default)]
pub(super) struct Picture {
    pub content: Content,
    /// In words, with the reason.
    pub left_out: BTreeSet<String>,
}

impl Picture {
    /// Of what was seen of the units, as it is `here`.
    pub fn of(sightings: &BTreeMap<String, UnitSightings>, here: &Content, settle: u64) -> Self {
        let mut picture = Self::default();
        for (name, value) in &here.parameters {
            if picture.takes("the kernel", codec::parameter(name, value)) {
                let parameters = &mut picture.content.parameters;
                parameters.insert(name.clone(), value.clone());
            }
        }
        for (name, seen) in sightings {
            if let Some(unit) = here.units.get(name) {
                picture.add_unit(name, seen.profile(unit, settle), here);
            }
        }
        picture
    }

    fn add_unit(&mut self, name: &str, mut unit: UnitProfile, here: &Content) {
        self.prune(name, &mut unit);
        if !self.takes(name, codec::unit(name, &unit)) {
            return;
        }
        for (program, package) in &unit.programs {
            let owner = package
                .as_ref()
                .and_then(|name| here.packages.get_key_value(name))
                .filter(|(name, fact)| codec::package(name, fact).is_ok());
            match owner {
                Some((name, fact)) => {
                    let packages = &mut self.content.packages;
                    packages.insert(name.clone(), fact.clone());
                }
                // What no package owns is compared as a file.
                None => self.add_file(name, program, here),
            }
        }
        for path in unit.reads.iter().chain(&unit.defined_by) {
            self.add_file(name, path, here);
        }
        self.content.units.insert(name.to_owned(), unit);
    }

    /// One bad entry costs that entry, not the unit.
    fn prune(&mut self, name: &str, unit: &mut UnitProfile) {
        let mut takes = |entry| self.takes(name, entry);
        unit.programs.retain(|path, _| takes(codec::plain(path)));
        unit.reads.retain(|path| takes(codec::plain(path)));
        unit.defined_by.retain(|path| takes(codec::plain(path)));
        unit.dependencies
            .retain(|dependency| takes(codec::short(&dependency.remote)));
        unit.limits
            .retain(|limit, value| takes(codec::limit(limit, value)));
        unit.environment
            .retain(|variable, _| takes(codec::short(variable)));
    }

    fn add_file(&mut self, unit: &str, path: &str, here: &Content) {
        if let Some(fact) = here.files.get(path)
            && self.takes(unit, codec::file(path, fact))
        {
            self.content.files.insert(path.to_owned(), fact.clone());
        }
    }

    /// Whether a version may have it; if not, that is said.
    fn takes(&mut self, of: &str, entry: Result<(), UnreadableVersion>) -> bool {
        let Err(why) = entry else {
            return true;
        };
        if self.left_out.len() < LEFT_OUT_MAX {
            self.left_out.insert(format!("{of:?}: {why}"));
        }
        false
    }
}
