//! Which contents the units of this host run with: a program reads its configuration when it starts or is
//! told to, and knows nothing of what is written later.

use std::collections::{BTreeMap, BTreeSet};

use crate::facts::{Content, FileKind, Inventory, Observation};

/// What units run with, as far as looks and capture have shown.
#[derive(Debug, Default)]
pub struct Loaded {
    units: BTreeMap<String, Run>,
}

/// A unit that runs.
#[derive(Debug, Default)]
struct Run {
    /// When systemd saw its state change last, µs since 1970: a start or a reload.
    changed_at: u64,
    /// What it read, by path.
    contents: BTreeMap<String, FileKind>,
}

impl Loaded {
    /// What a unit opened it knows: also where somebody told it without asking systemd.
    pub fn on_observation(&mut self, observation: &Observation) {
        for file in observation.files.iter().filter(|file| !file.write) {
            if let Some(run) = self.units.get_mut(&file.unit) {
                run.contents.remove(&file.path);
            }
        }
    }

    /// Files of which the units of `wanted` that run here know an earlier content, by unit. What a unit
    /// runs with is what was there at the first look after it was started, reloaded, or seen to
    /// open the file.
    pub fn outdated(
        &mut self,
        wanted: &Content,
        here: &Inventory,
    ) -> BTreeMap<String, BTreeSet<String>> {
        self.units
            .retain(|unit, _| here.host.active.contains(unit) && wanted.units.contains_key(unit));
        let mut outdated: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, unit) in &wanted.units {
            let (true, Some(changed_at)) = (
                here.host.active.contains(name),
                here.host.changed_at.get(name),
            ) else {
                continue;
            };
            let run = self.units.entry(name.clone()).or_default();
            if run.changed_at != *changed_at {
                *run = Run {
                    changed_at: *changed_at,
                    contents: BTreeMap::new(),
                };
            }
            for path in unit.reads.iter().chain(&unit.defined_by) {
                let Some(fact) = here.content.files.get(path) else {
                    continue;
                };
                match run.contents.get(path) {
                    Some(known) if differs(known, &fact.kind) => {
                        outdated
                            .entry(name.clone())
                            .or_default()
                            .insert(path.clone());
                    }
                    Some(_) => {}
                    None => drop(run.contents.insert(path.clone(), fact.kind.clone())),
                }
            }
        }
        outdated
    }
}

/// Whether two contents are known to differ: those that are hashed in different ways may be the same.
fn differs(known: &FileKind, now: &FileKind) -> bool {
    use FileKind::{Regular, Unreadable};
    match (known, now) {
        (Unreadable { .. }, _) | (_, Unreadable { .. }) => false,
        (
            Regular {
                replicated: one, ..
            },
            Regular {
                replicated: other, ..
            },
        ) => one == other && known != now,
        _ => known != now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FileFact, FileUse, UnitProfile, ValueHash};

    const UNIT: &str = "app.service";
    const CONF: &str = "/etc/app.conf";

    fn regular(byte: u8, replicated: bool) -> FileKind {
        FileKind::Regular {
            hash: ValueHash::from_bytes([byte; 32]),
            size: 1,
            replicated,
        }
    }

    fn wanted() -> Content {
        let unit = UnitProfile {
            reads: [CONF.to_owned()].into(),
            ..UnitProfile::default()
        };
        Content {
            units: [(UNIT.to_owned(), unit)].into(),
            ..Content::default()
        }
    }

    fn here(changed_at: u64, kind: FileKind) -> Inventory {
        let fact = FileFact {
            kind,
            owner: "root".into(),
            group: "root".into(),
            mode: 0o644,
        };
        let mut here = Inventory::default();
        here.content.files.insert(CONF.into(), fact);
        here.host.active.insert(UNIT.into());
        here.host.changed_at.insert(UNIT.into(), changed_at);
        here
    }

    fn is_outdated(loaded: &mut Loaded, here: &Inventory) -> bool {
        let outdated = loaded.outdated(&wanted(), here);
        outdated.get(UNIT).is_some_and(|paths| paths.contains(CONF))
    }

    #[test]
    fn a_content_that_is_written_later_is_not_known_until_a_reload_or_a_start() {
        let mut loaded = Loaded::default();
        assert!(!is_outdated(&mut loaded, &here(7, regular(1, true))));
        assert!(is_outdated(&mut loaded, &here(7, regular(2, true))));
        assert!(is_outdated(&mut loaded, &here(7, regular(2, true))));
        assert!(
            !is_outdated(&mut loaded, &here(7, regular(1, true))),
            "it came back"
        );
        assert!(is_outdated(&mut loaded, &here(7, regular(2, true))));
        assert!(!is_outdated(&mut loaded, &here(8, regular(2, true))));
        assert!(is_outdated(&mut loaded, &here(8, regular(1, true))));
    }

    #[test]
    fn what_a_unit_opens_it_knows() {
        let mut loaded = Loaded::default();
        is_outdated(&mut loaded, &here(7, regular(1, true)));
        let open = |unit: &str, write: bool| Observation {
            files: vec![FileUse {
                unit: unit.into(),
                path: CONF.into(),
                write,
                ..FileUse::default()
            }],
            ..Observation::default()
        };
        loaded.on_observation(&open("other.service", false));
        loaded.on_observation(&open(UNIT, true));
        assert!(is_outdated(&mut loaded, &here(7, regular(2, true))));
        loaded.on_observation(&open(UNIT, false));
        assert!(!is_outdated(&mut loaded, &here(7, regular(2, true))));
    }

    #[test]
    fn a_unit_that_does_not_run_and_what_cannot_be_read_are_not_judged() {
        let mut loaded = Loaded::default();
        is_outdated(&mut loaded, &here(7, regular(1, true)));
        let unreadable = FileKind::Unreadable { why: "busy".into() };
        for kind in [unreadable, regular(2, false)] {
            assert!(!is_outdated(&mut loaded, &here(7, kind)));
        }
        let mut stopped = here(7, regular(2, true));
        stopped.host.active.clear();
        assert!(!is_outdated(&mut loaded, &stopped));
        assert!(
            !is_outdated(&mut loaded, &here(7, regular(2, true))),
            "anew"
        );
    }
}
