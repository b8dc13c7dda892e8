//! What is different between two contents: as a patch for machines, as sentences for people.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::facts::{Change, Content, FileFact, PackageFact, UnitProfile};

/// Entries of a map that are gone, and those that are new or other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapPatch<V> {
    /// Keys that are gone.
    pub gone: BTreeSet<String>,
    /// What is new or other.
    pub set: BTreeMap<String, V>,
}

impl<V: Clone + PartialEq> MapPatch<V> {
    fn between(before: &BTreeMap<String, V>, after: &BTreeMap<String, V>) -> Self {
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        let set = after
            .iter()
            .filter(|(key, value)| before.get(*key) != Some(value));
        Self {
            gone: gone.cloned().collect(),
            set: set
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    fn apply(&self, to: &mut BTreeMap<String, V>) {
        to.retain(|key, _| !self.gone.contains(key));
        to.extend(self.set.clone());
    }

    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.set.is_empty()
    }
}

/// What makes one content of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    units: MapPatch<UnitProfile>,
    packages: MapPatch<PackageFact>,
    files: MapPatch<FileFact>,
    parameters: MapPatch<String>,
}

impl Patch {
    /// What makes `after` of `before`.
    pub fn between(before: &Content, after: &Content) -> Self {
        Self {
            units: MapPatch::between(&before.units, &after.units),
            packages: MapPatch::between(&before.packages, &after.packages),
            files: MapPatch::between(&before.files, &after.files),
            parameters: MapPatch::between(&before.parameters, &after.parameters),
        }
    }

    /// Makes the one of the other.
    pub fn apply(&self, content: &mut Content) {
        self.units.apply(&mut content.units);
        self.packages.apply(&mut content.packages);
        self.files.apply(&mut content.files);
        self.parameters.apply(&mut content.parameters);
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
            && self.packages.is_empty()
            && self.files.is_empty()
            && self.parameters.is_empty()
    }
}

/// All that is different, by subject and part.
pub fn changes(before: &Content, after: &Content) -> Vec<Change> {
    let mut list = List::default();
    for (name, pair) in pairs(&before.units, &after.units) {
        list.unit(&format!("unit {name}"), pair);
    }
    for (name, pair) in pairs(&before.packages, &after.packages) {
        let text = |fact: &PackageFact| format!("{} ({})", fact.version, fact.architecture);
        list.add(
            &format!("package {name}"),
            "",
            pair.map(|fact| fact.map(text)),
        );
    }
    for (path, pair) in pairs(&before.files, &after.files) {
        list.file(path, pair);
    }
    for (name, pair) in pairs(&before.parameters, &after.parameters) {
        let subject = format!("kernel parameter {name}");
        list.add(&subject, "", pair.map(Option::<&String>::cloned));
    }
    list.changes.sort();
    list.changes
}

/// Both values of each key that has two that differ.
fn pairs<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, [Option<&'a V>; 2])> {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let pairs = keys.into_iter();
    pairs
        .map(|key| (key, [before.get(key), after.get(key)]))
        .filter(|(_, [one, other])| one != other)
}

#[derive(Default)]
struct List {
    changes: Vec<Change>,
}

impl List {
    fn add(&mut self, subject: &str, part: &str, [before, after]: [Option<String>; 2]) {
        if before != after {
            self.changes.push(Change {
                subject: subject.to_owned(),
                part: part.to_owned(),
                before,
                after,
            });
        }
    }

    fn unit(&mut self, subject: &str, pair: [Option<&UnitProfile>; 2]) {
        let [Some(before), Some(after)] = pair else {
            let there = pair.map(|unit| unit.map(|unit| unit.enabled.clone()));
            return self.add(subject, "", there);
        };
        let enabled = [before, after].map(|unit| Some(unit.enabled.clone()));
        self.add(subject, "enabled", enabled);
        for (path, pair) in pairs(&before.programs, &after.programs) {
            let owner = |owner: &Option<String>| match owner {
                Some(package) => format!("of package {package}"),
                None => "of no package".to_owned(),
            };
            let part = format!("program {path}");
            self.add(subject, &part, pair.map(|one| one.map(owner)));
        }
        for (name, pair) in pairs(&before.environment, &after.environment) {
            // Values are hashes under a key: all that can be said is that they differ.
            let [was, is] = pair.map(|value| value.is_some());
            let said = [
                was.then(|| "one value".to_owned()),
                is.then(|| "another".to_owned()),
            ];
            self.add(subject, &format!("variable {name}"), said);
        }
        for (name, pair) in pairs(&before.limits, &after.limits) {
            self.add(subject, name, pair.map(Option::<&String>::cloned));
        }
        self.members(
            subject,
            "listens on",
            [&before.ports, &after.ports],
            |port| format!("{} {}", port.protocol, port.port),
        );
        let dependencies = [&before.dependencies, &after.dependencies];
        self.members(subject, "connects to", dependencies, |to| {
            format!("{} {}:{}", to.protocol, to.remote, to.port)
        });
        let definitions = [&before.defined_by, &after.defined_by];
        self.members(subject, "is defined by", definitions, String::clone);
        self.members(
            subject,
            "reads",
            [&before.reads, &after.reads],
            String::clone,
        );
    }

    fn members<T: Ord>(
        &mut self,
        subject: &str,
        what: &str,
        [before, after]: [&BTreeSet<T>; 2],
        name: impl Fn(&T) -> String,
    ) {
        for member in before.symmetric_difference(after) {
            let there = [before, after].map(|set| set.contains(member).then(String::new));
            self.add(subject, &format!("{what} {}", name(member)), there);
        }
    }

    fn file(&mut self, path: &str, pair: [Option<&FileFact>; 2]) {
        let [Some(before), Some(after)] = pair else {
            return self.add(
                path,
                "",
                pair.map(|fact| fact.map(|fact| fact.kind.to_string())),
            );
        };
        let both = [before, after];
        self.add(path, "owner", both.map(|fact| Some(fact.owner.clone())));
        self.add(path, "group", both.map(|fact| Some(fact.group.clone())));
        self.add(
            path,
            "mode",
            both.map(|fact| Some(format!("{:04o}", fact.mode))),
        );
        self.add(
            path,
            "content",
            both.map(|fact| Some(fact.kind.to_string())),
        );
    }
}

#[cfg(test)]
#[path = "changes_tests.rs"]
pub(super) mod tests;
