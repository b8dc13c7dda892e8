//! What shadowd does by itself about what is not ready, as far as its policy goes.

use std::collections::BTreeSet;

use crate::config::settings::{ProfileSettings, Provision, ProvisionSettings};
use crate::facts::{Act, ActKind, FileKind, Readiness, ValueHash};

/// Acts of one batch; the others follow when it is done.
pub const BATCH_MAX: usize = 256;

/// The acts that `rules` lets shadowd do, in their order, at most [`BATCH_MAX`]. Files are touched
/// only where this host's own rules let contents in, and units only if they are of the group by
/// this host's own configuration, whatever the profile says.
pub fn plan(
    readiness: &Readiness,
    rules: &ProfileSettings,
    is_member: &dyn Fn(&str) -> bool,
) -> Vec<Act> {
    let acts = readiness.items.iter().filter_map(|item| item.act.as_ref());
    let allowed = acts.filter(|act| policy(&rules.provision, act.kind()) == Provision::Apply);
    let inside = allowed.filter(|act| {
        path(act).is_none_or(|path| admits(rules, path)) && act.unit().is_none_or(is_member)
    });
    let mut acts: Vec<Act> = Vec::new();
    for act in inside {
        if !acts.contains(act) {
            acts.push(act.clone());
        }
    }
    acts.sort_by_key(Act::order);
    acts.truncate(BATCH_MAX);
    acts
}

/// The contents that the acts need, by path.
pub fn contents(acts: &[Act]) -> BTreeSet<(String, ValueHash)> {
    let needed = acts.iter().filter_map(|act| match act {
        Act::Copy { path, fact } => match fact.kind {
            FileKind::Regular { hash, .. } => Some((path.clone(), hash)),
            _ => None,
        },
        _ => None,
    });
    needed.collect()
}

const fn policy(provision: &ProvisionSettings, kind: ActKind) -> Provision {
    match kind {
        ActKind::Packages => provision.packages,
        ActKind::Files => provision.files,
        ActKind::Parameters => provision.parameters,
        ActKind::Units => provision.units,
        ActKind::Cache => provision.cache,
        ActKind::Firewall => provision.firewall,
    }
}

/// The path that an act changes.
fn path(act: &Act) -> Option<&str> {
    match act {
        Act::Copy { path, .. } | Act::Own { path, .. } | Act::Mode { path, .. } => Some(path),
        _ => None,
    }
}

/// Whether contents of `path` may come to this host.
pub fn admits(rules: &ProfileSettings, path: &str) -> bool {
    let matches =
        |globs: &[crate::config::pattern::Glob]| globs.iter().any(|glob| glob.matches(path));
    matches(&rules.replicate) && !matches(&rules.secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{FileFact, Item, ItemKind, Verdict};

    fn copy(path: &str) -> Act {
        Act::Copy {
            path: path.into(),
            fact: FileFact {
                kind: FileKind::Regular {
                    hash: ValueHash::from_bytes([1; 32]),
                    size: 1,
                    replicated: true,
                },
                owner: "root".into(),
                group: "root".into(),
                mode: 0o644,
            },
        }
    }

    fn readiness(acts: &[Act]) -> Readiness {
        let item = |act: &Act| Item {
            kind: ItemKind::File,
            subject: String::new(),
            verdict: Verdict::NotReady,
            cause: String::new(),
            remedy: None,
            act: Some(act.clone()),
        };
        Readiness {
            group: "web".parse().unwrap(),
            items: acts.iter().map(item).collect(),
        }
    }

    fn rules(files: Provision, units: Provision) -> ProfileSettings {
        ProfileSettings {
            replicate: vec!["/etc/*".parse().unwrap()],
            provision: ProvisionSettings {
                files,
                units,
                ..ProvisionSettings::default()
            },
            ..ProfileSettings::default()
        }
    }

    #[test]
    fn only_what_the_policy_allows_is_done_in_its_order_and_once() {
        let start = Act::Start {
            unit: "app.service".into(),
        };
        let wanted = readiness(&[start.clone(), copy("/etc/app.conf"), copy("/etc/app.conf")]);
        let plan = |files, units| {
            let member = |unit: &str| unit == "app.service";
            plan(&wanted, &rules(files, units), &member)
        };
        let all = plan(Provision::Apply, Provision::Apply);
        assert_eq!(all, [copy("/etc/app.conf"), start.clone()]);
        assert_eq!(plan(Provision::Suggest, Provision::Apply), [start]);
        assert!(plan(Provision::Observe, Provision::Suggest).is_empty());
        let needed = contents(&all);
        assert_eq!(needed.len(), 1);
    }

    #[test]
    fn paths_outside_of_what_this_host_lets_in_are_left_alone() {
        let rules = rules(Provision::Apply, Provision::Apply);
        for path in [
            "/srv/.ssh/authorized_keys",
            "/etc/ssl/private/x",
            "/etc/app.key",
            "/etc/shadow",
        ] {
            let acts = [
                copy(path),
                Act::Mode {
                    path: path.into(),
                    mode: 0o777,
                },
            ];
            let acts = plan(&readiness(&acts), &rules, &|_| true);
            assert!(acts.is_empty(), "{path}");
        }
    }

    #[test]
    fn units_that_this_host_knows_nothing_of_are_left_alone() {
        let rules = rules(Provision::Apply, Provision::Apply);
        let unit = || "poweroff.target".to_owned();
        let acts = [
            Act::Start { unit: unit() },
            Act::Enable { unit: unit() },
            Act::Unmask { unit: unit() },
            Act::Limit {
                unit: unit(),
                name: "LimitNOFILE".into(),
                value: "1".into(),
            },
        ];
        let member = |unit: &str| unit == "app.service";
        assert!(plan(&readiness(&acts), &rules, &member).is_empty());
        assert_eq!(plan(&readiness(&acts), &rules, &|_| true).len(), 4);
    }
}
