//! Patches between any two contents, and how changes are told.

use proptest::prelude::*;

use super::*;
use crate::facts::{Dependency, FileKind, Port, Protocol, Scope, ValueHash};

fn hash() -> impl Strategy<Value = ValueHash> {
    any::<[u8; 32]>().prop_map(ValueHash::from_bytes)
}

fn unit() -> impl Strategy<Value = UnitProfile> {
    let ports = proptest::collection::btree_set((1_u16..5).prop_map(port), 0..3);
    let remotes = proptest::collection::btree_set((1_u16..5).prop_map(dependency), 0..3);
    let variables = proptest::collection::btree_map("[AB]", hash(), 0..3);
    let programs = proptest::collection::btree_map("/bin/[ab]", proptest::option::of("[pq]"), 0..3);
    (ports, remotes, variables, programs, "[en]").prop_map(
        |(ports, dependencies, environment, programs, enabled)| UnitProfile {
            ports,
            dependencies,
            environment,
            programs,
            enabled,
            ..UnitProfile::default()
        },
    )
}

fn port(port: u16) -> Port {
    Port {
        protocol: Protocol::Tcp,
        port,
        scope: Scope::All,
    }
}

fn dependency(port: u16) -> Dependency {
    Dependency {
        protocol: Protocol::Tcp,
        remote: "db.example".into(),
        port,
    }
}

fn file() -> impl Strategy<Value = FileFact> {
    let kind = prop_oneof![
        (hash(), 0_u64..9).prop_map(|(hash, size)| FileKind::Regular {
            hash,
            size,
            replicated: true
        }),
        "[xy]".prop_map(|target| FileKind::Link { target }),
        Just(FileKind::Directory),
    ];
    (kind, "[rw]", 0_u32..0o7777).prop_map(|(kind, owner, mode)| FileFact {
        kind,
        group: owner.clone(),
        owner,
        mode,
    })
}

prop_compose! {
    /// A content of few names, so that two of them share some.
    pub(in super::super) fn content()(
        units in proptest::collection::btree_map("[abc]\\.service", unit(), 0..4),
        files in proptest::collection::btree_map("/etc/[abc]", file(), 0..4),
        packages in proptest::collection::btree_map("[pq]", "[12]", 0..3),
        parameters in proptest::collection::btree_map("[vw]", "[12]", 0..3),
    ) -> Content {
        let package = |(name, version)| (name, PackageFact { version, architecture: "all".into() });
        let packages = packages.into_iter().map(package).collect();
        Content { units, packages, files, parameters }
    }
}

proptest! {
    #[test]
    fn a_patch_makes_the_one_of_the_other(before in content(), after in content()) {
        let patch = Patch::between(&before, &after);
        let mut patched = before.clone();
        patch.apply(&mut patched);
        prop_assert_eq!(&patched, &after);
        prop_assert_eq!(patch.is_empty(), before == after);
        prop_assert!(Patch::between(&after, &after).is_empty());
    }

    #[test]
    fn whatever_differs_is_told(before in content(), after in content()) {
        let told = changes(&before, &after);
        prop_assert_eq!(told.is_empty(), before == after, "{:?}", told);
        let back = changes(&after, &before);
        prop_assert_eq!(told.len(), back.len());
    }
}

/// The names under which what differs is told.
fn subjects(before: &Content, after: &Content) -> BTreeSet<String> {
    let mut subjects = BTreeSet::new();
    for (name, _) in pairs(&before.units, &after.units) {
        subjects.insert(format!("unit {name}"));
    }
    for (name, _) in pairs(&before.packages, &after.packages) {
        subjects.insert(format!("package {name}"));
    }
    for (path, _) in pairs(&before.files, &after.files) {
        subjects.insert(path.clone());
    }
    for (name, _) in pairs(&before.parameters, &after.parameters) {
        subjects.insert(format!("kernel parameter {name}"));
    }
    subjects
}

proptest! {
    #[test]
    fn exactly_what_differs_is_told_and_the_way_back_is_the_same_turned_round(
        before in content(),
        after in content(),
    ) {
        prop_assert!(changes(&before, &before).is_empty());
        let told = changes(&before, &after);
        let named: BTreeSet<String> = told.iter().map(|one| one.subject.clone()).collect();
        prop_assert_eq!(named, subjects(&before, &after));
        let parts: BTreeSet<(&str, &str)> =
            told.iter().map(|one| (one.subject.as_str(), one.part.as_str())).collect();
        prop_assert_eq!(parts.len(), told.len(), "each is told once");
        let way = |one: &Change, turned: bool| {
            let there = [one.before.is_some(), one.after.is_some()];
            let there = if turned { [there[1], there[0]] } else { there };
            (one.subject.clone(), one.part.clone(), there)
        };
        let back = changes(&after, &before);
        let forth: BTreeSet<_> = told.iter().map(|one| way(one, false)).collect();
        let turned: BTreeSet<_> = back.iter().map(|one| way(one, true)).collect();
        prop_assert_eq!(forth, turned);
    }

    #[test]
    fn patches_one_after_the_other_are_as_good_as_one(
        one in content(),
        two in content(),
        three in content(),
    ) {
        let mut step_by_step = one.clone();
        Patch::between(&one, &two).apply(&mut step_by_step);
        prop_assert_eq!(&step_by_step, &two);
        Patch::between(&two, &three).apply(&mut step_by_step);
        let mut at_once = one.clone();
        Patch::between(&one, &three).apply(&mut at_once);
        prop_assert_eq!(step_by_step, at_once);
    }

    #[test]
    fn no_value_of_a_variable_is_told(before in content(), after in content()) {
        let hashes = |content: &Content| -> Vec<String> {
            let units = content.units.values();
            let values = units.flat_map(|unit| unit.environment.values());
            values.map(ValueHash::short).collect()
        };
        let text = changes(&before, &after).iter().map(ToString::to_string).collect::<String>();
        for hash in hashes(&before).into_iter().chain(hashes(&after)) {
            prop_assert!(!text.contains(&hash), "{}", text);
        }
    }
}

#[test]
fn a_change_reads_as_a_sentence() {
    let (mut before, mut after) = (Content::default(), Content::default());
    let package = |version: &str| PackageFact {
        version: version.into(),
        architecture: "amd64".into(),
    };
    before.packages.insert("nginx".into(), package("1.22"));
    after.packages.insert("nginx".into(), package("1.24"));
    let mut with = UnitProfile::default();
    before.units.insert("web.service".into(), with.clone());
    with.ports.insert(port(80));
    after.units.insert("web.service".into(), with);
    let told: Vec<String> = changes(&before, &after)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        [
            "package nginx was 1.22 (amd64), is 1.24 (amd64)",
            "unit web.service: listens on tcp 80 is new",
        ]
    );
}
