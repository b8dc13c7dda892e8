//! Versions that come back as they were, and bytes that are none.

use proptest::prelude::*;

use super::super::changes::tests::content;
use super::*;
use crate::facts::{
    Content, Dependency, FileFact, Habit, HostId, Hour, Need, PackageFact, Protocol, Reason,
    ResourceKind, UnitProfile, VersionId,
};

/// A version with a link at `path`.
pub fn version(path: &str) -> Version {
    let mut profile = Profile::default();
    let unit = UnitProfile {
        enabled: "enabled".into(),
        ..UnitProfile::default()
    };
    profile.content.units.insert("nginx.service".into(), unit);
    let package = PackageFact {
        version: "1.22.1-9".into(),
        architecture: "amd64".into(),
    };
    profile.content.packages.insert("nginx".into(), package);
    let file = FileFact {
        kind: FileKind::Link {
            target: "/etc/nginx/sites-available/default".into(),
        },
        owner: "root".into(),
        group: "root".into(),
        mode: 0o777,
    };
    profile.content.files.insert(path.into(), file);
    Version {
        group: "web".parse().unwrap(),
        number: 1,
        parent: None,
        author: HostId::from_bytes([1; 32]),
        wall_ms: 0,
        reason: Reason::First,
        pinned: false,
        golden: None,
        profile,
    }
}

#[test]
fn a_version_comes_back_as_it_was_and_has_one_identity() {
    let version = version("/etc/nginx/nginx.conf");
    let bytes = encode(&version).unwrap();
    assert_eq!(decode(&bytes), Ok(version.clone()));
    let mut other = version;
    other.number = 2;
    let others = encode(&other).unwrap();
    assert_ne!(VersionId::of(&bytes), VersionId::of(&others));
    let text = VersionId::of(&bytes).to_string();
    assert_eq!(text.parse(), Ok(VersionId::of(&bytes)));
}

#[test]
fn paths_that_lead_astray_are_refused() {
    for path in [
        "etc/passwd",
        "/etc/../srv/.ssh",
        "/etc//x",
        "/etc/./x",
        "/",
        "/a\0b",
        "",
    ] {
        let bytes = encode(&version(path)).unwrap();
        assert_eq!(
            decode(&bytes),
            Err(UnreadableVersion::Path(path.into())),
            "{path:?}"
        );
    }
}

#[test]
fn what_is_newer_foreign_cut_or_longer_is_told_apart() {
    let bytes = encode(&version("/etc/a")).unwrap();
    let mut newer = bytes.clone();
    newer[5] = 9;
    assert_eq!(decode(&newer), Err(UnreadableVersion::Newer(9)));
    assert_eq!(decode(b"ELF"), Err(UnreadableVersion::Foreign));
    assert_eq!(
        decode(&bytes[..bytes.len() - 1]),
        Err(UnreadableVersion::Damaged)
    );
    let mut longer = bytes.clone();
    longer.push(0);
    assert_eq!(decode(&longer), Err(UnreadableVersion::Damaged));
    let huge = vec![0; Version::BYTES_MAX + 1];
    assert!(matches!(decode(&huge), Err(UnreadableVersion::TooLong(_))));
}

fn id() -> impl Strategy<Value = VersionId> {
    any::<[u8; 32]>().prop_map(VersionId::from_bytes)
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        Just(Reason::First),
        ".{0,40}".prop_map(Reason::Deviation),
        id().prop_map(Reason::Rollback),
        Just(Reason::Pin),
        Just(Reason::Unpin),
        id().prop_map(Reason::GoldenSet),
        id().prop_map(Reason::GoldenApply),
        id().prop_map(Reason::Import),
    ]
}

fn habit() -> impl Strategy<Value = Habit> {
    proptest::collection::vec(490_000_u32..491_000, 0..20).prop_map(|hours| {
        let mut habit = Habit::default();
        hours.into_iter().for_each(|hour| habit.note(Hour(hour)));
        habit
    })
}

fn need() -> impl Strategy<Value = Need> {
    let numbers = (-1e12_f64..1e12, -1e12_f64..1e12);
    (numbers, any::<bool>()).prop_map(|((median, peak), cold)| Need { median, peak, cold })
}

prop_compose! {
    fn any_profile()(
        content in content(),
        observed in habit(),
        unit_hours in proptest::collection::btree_map("[abc]\\.service", habit(), 0..3),
        needs in proptest::collection::btree_map(
            ("[abc]\\.service", proptest::sample::select(&ResourceKind::ALL[..])),
            need(),
            0..4,
        ),
        dependency in proptest::option::of(habit()),
    ) -> Profile {
        let to = Dependency { protocol: Protocol::Udp, remote: "ns.example".into(), port: 53 };
        let hours = dependency.map(|hours| (("a.service".to_owned(), to), hours));
        Profile {
            content,
            observed,
            unit_hours,
            dependency_hours: hours.into_iter().collect(),
            needs,
        }
    }
}

prop_compose! {
    fn any_version()(
        profile in any_profile(),
        number in 1..=Version::NUMBER_MAX,
        parent in proptest::option::of(id()),
        golden in proptest::option::of(id()),
        author in any::<[u8; 32]>(),
        reason in reason(),
        wall_ms in any::<i64>(),
        pinned in any::<bool>(),
    ) -> Version {
        Version {
            group: "web".parse().unwrap(),
            number,
            parent,
            author: HostId::from_bytes(author),
            wall_ms,
            reason,
            pinned,
            golden,
            profile,
        }
    }
}

proptest! {
    #[test]
    fn any_version_comes_back_and_two_that_differ_have_two_identities(
        one in any_version(),
        other in any_version(),
    ) {
        let bytes = encode(&one).unwrap();
        prop_assert_eq!(&decode(&bytes).unwrap(), &one);
        prop_assert_eq!(&encode(&one.clone()).unwrap(), &bytes, "it has one encoding");
        let others = encode(&other).unwrap();
        prop_assert_eq!(one == other, bytes == others);
        prop_assert_eq!(bytes == others, VersionId::of(&bytes) == VersionId::of(&others));
    }

    #[test]
    fn no_byte_of_a_version_can_change_without_another_identity(
        version in any_version(),
        place in any::<proptest::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let bytes = encode(&version).unwrap();
        let mut damaged = bytes.clone();
        damaged[place.index(bytes.len())] ^= 1 << bit;
        prop_assert_ne!(VersionId::of(&damaged), VersionId::of(&bytes));
        if let Ok(other) = decode(&damaged) {
            prop_assert_eq!(encode(&other).unwrap(), damaged);
        }
        let cut = place.index(bytes.len());
        prop_assert!(decode(&bytes[..cut]).is_err(), "cut at {}", cut);
    }

    #[test]
    fn any_bytes_are_a_version_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
        let mut framed = b"SHPV\0\x01".to_vec();
        framed.extend_from_slice(&bytes);
        let _ = decode(&framed);
    }

    #[test]
    fn damage_is_an_error_or_another_version(place in 0_usize..200, bit in 0_u8..8) {
        let bytes = encode(&version("/etc/a")).unwrap();
        let mut damaged = bytes.clone();
        let place = place % damaged.len();
        damaged[place] ^= 1 << bit;
        if let Ok(version) = decode(&damaged) {
            // Every version that is believed is canonical, so it has its own identity.
            prop_assert_eq!(encode(&version).unwrap(), damaged.clone());
            prop_assert_ne!(VersionId::of(&damaged), VersionId::of(&bytes));
        }
    }
}

/// Whether a version with this change is believed.
fn refusal(change: impl FnOnce(&mut Content)) -> Option<UnreadableVersion> {
    let mut one = version("/etc/a");
    change(&mut one.profile.content);
    decode(&encode(&one).unwrap()).err()
}

fn unit(name: &str) -> Option<UnreadableVersion> {
    refusal(|content| drop(content.units.insert(name.into(), UnitProfile::default())))
}

fn package(name: &str, version: &str) -> Option<UnreadableVersion> {
    let fact = PackageFact {
        version: version.into(),
        architecture: "(none)".into(),
    };
    refusal(|content| drop(content.packages.insert(name.into(), fact)))
}

fn limit(name: &str, value: &str) -> Option<UnreadableVersion> {
    refusal(|content| {
        let unit = content.units.entry("app.service".into()).or_default();
        unit.limits.insert(name.into(), value.into());
    })
}

fn parameter_of(name: &str, value: &str) -> Option<UnreadableVersion> {
    refusal(|content| drop(content.parameters.insert(name.into(), value.into())))
}

#[test]
fn names_that_programs_would_take_for_something_else_are_refused() {
    for name in [
        "-oDebug=1",
        "../x",
        "a b",
        "a/b.service",
        "",
        "x\ny",
        "--now",
        "*",
        "a?",
        "a;b",
        "$a",
        "-.slice",
        ".service",
        "é.service",
    ] {
        let refused = Some(UnreadableVersion::Name(name.into()));
        assert_eq!(unit(name), refused, "unit {name:?}");
        assert_eq!(package(name, "1.0"), refused, "package {name:?}");
        assert_eq!(package("app", name), refused, "version {name:?}");
    }
    for name in [
        "postgresql@15-main.service",
        "dev-disk-by\\x2dpath.device",
        "user@1000.service",
        "session-c2.scope",
        "a:b.service",
    ] {
        assert_eq!(unit(name), None, "{name}");
    }
    for (name, version) in [
        ("libstdc++6", "12.2.0-14+deb12u1"),
        ("g++", "4:12.2.0-3"),
        ("app", "1:2.3~rc1+b1"),
        ("libc6:amd64", "2.36-9"),
        ("gcc-c++", "0:14.1.1^git7-1.fc40"),
        ("python3.11", "1_2"),
    ] {
        assert_eq!(package(name, version), None, "{name} {version}");
    }
}

#[test]
fn settings_that_would_be_two_are_refused() {
    for text in ["1\n[Install]", "1\r", "\0", "x\u{85}y"] {
        let refused = Some(UnreadableVersion::Setting(text.into()));
        assert_eq!(limit("LimitNOFILE", text), refused);
        assert_eq!(limit(text, "1"), refused);
        assert_eq!(parameter_of("vm.swappiness", text), refused);
        assert_eq!(parameter_of(text, "1"), refused);
    }
    for name in [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "-w",
        ".x",
        "a b",
        "a=b",
    ] {
        let refused = Some(UnreadableVersion::Setting(name.into()));
        assert_eq!(parameter_of(name, "1"), refused, "{name:?}");
    }
    for (name, value) in [
        ("net.ipv4.conf.eth0.forwarding", "1"),
        ("net/ipv4/conf/eth0.1/forwarding", "1"),
        ("net.ipv4.ip_local_port_range", "32768 60999"),
        ("kernel.core_pattern", ""),
        ("net.ipv4.conf.a-b.x", "-1"),
    ] {
        assert_eq!(parameter_of(name, value), None, "{name}");
    }
    for value in [
        "infinity",
        "1h 30min",
        "[not set]",
        "",
        "18446744073709551615",
    ] {
        assert_eq!(limit("LimitNOFILE", value), None, "{value}");
    }
}
