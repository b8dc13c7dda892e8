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
    fn content()(
        units in proptest::collection::btree_map("[abc].service", unit(), 0..4),
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
