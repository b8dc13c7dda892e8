//! What shadowd does by itself about what is not ready, as far as its policy goes.

use std::collections::BTreeSet;

use crate::config::settings::{ProfileSettings, Provision, ProvisionSettings};
use crate::facts::{Act, ActKind, FileKind, Readiness, ValueHash};

/// Acts of one batch; the others follow when it is done.
pub const BATCH_MAX: usize = 256;

/// Contents of one batch, bytes: they are held in memory until it begins. A single longer one is a batch.
pub const BATCH_BYTES: u64 = 32 << 20;

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
        act.path().is_none_or(|path| admits(rules, path)) && act.unit().is_none_or(is_member)
    });
    let mut acts: Vec<Act> = Vec::new();
    for act in inside {
        if !acts.contains(act) {
            acts.push(act.clone());
        }
    }
    acts.sort_by_key(Act::order);
    acts.truncate(BATCH_MAX);
    let mut bytes = 0_u64;
    let fits = acts.iter().position(|act| {
        let before = bytes;
        bytes = bytes.saturating_add(size(act));
        before > 0 && bytes > BATCH_BYTES
    });
    acts.truncate(fits.unwrap_or(acts.len()));
    acts
}

/// Bytes of the content that an act needs.
const fn size(act: &Act) -> u64 {
    match act {
        Act::Copy { fact, .. } => match fact.kind {
            FileKind::Regular { size, .. } => size,
            _ => 0,
        },
        _ => 0,
    }
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
    fn contents_of_a_batch_are_bounded_and_a_long_one_is_alone() {
        let rules = rules(Provision::Apply, Provision::Apply);
        let sized = |name: &str, bytes: u64| {
            let mut act = copy(&format!("/etc/{name}"));
            if let Act::Copy { fact, .. } = &mut act
                && let FileKind::Regular { size, .. } = &mut fact.kind
            {
                *size = bytes;
            }
            act
        };
        let third = BATCH_BYTES / 3;
        let acts: Vec<Act> = (0..9).map(|at| sized(&at.to_string(), third)).collect();
        assert_eq!(plan(&readiness(&acts), &rules, &|_| true), acts[..3]);
        let long = [sized("long", u64::MAX), sized("short", 1)];
        assert_eq!(plan(&readiness(&long), &rules, &|_| true), long[..1]);
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
