//! Lines of versions: no number is used up, whoever wants it, and none is lost.

use std::sync::Arc;

use super::bench::{Bench, NOW, profile, signed};
use super::keeper::Keeper;
use super::letter::Body;
use crate::decide::profile::codec;
use crate::facts::{Content, Digest, Name, Reason, Signed, UnitProfile, Version, VersionId};
use crate::link::signature::sign;
use crate::store::profiles::FILE;

/// A version of this number, signed by whose key is called so.
fn numbered(bench: &Bench, author: &str, number: u64) -> (Signed, Version) {
    let identity = bench.folder.identity(author);
    let (_, mut version) = signed(&identity, None, Reason::First, profile([]));
    version.number = number;
    let bytes = codec::encode(&version).unwrap();
    (sign(&identity, bytes).unwrap(), version)
}

fn hears(bench: &mut Bench, body: Body) -> Result<(), String> {
    let b: Name = "b".parse().unwrap();
    bench.keeper.on_letter(&b, body, NOW)
}

fn head(keeper: &Keeper) -> Option<u64> {
    keeper.current().map(|(_, version)| version.number)
}

#[test]
fn a_number_that_leaps_is_believed_of_the_owner_alone() {
    let mut bench = Bench::new();
    bench.keeper.on_owner(None);
    for number in [Version::LEAP_MAX + 1, Version::NUMBER_MAX] {
        let (signed, _) = numbered(&bench, "b", number);
        let id = VersionId::of(&signed.bytes);
        let why = hears(&mut bench, Body::Version(signed)).unwrap_err();
        assert!(why.contains("too far"), "{why}");
        assert!(hears(&mut bench, Body::Head { number, id }).is_err());
    }
    let id = VersionId::from_bytes([9; 32]);
    for number in [0, u64::MAX] {
        assert!(hears(&mut bench, Body::Head { number, id }).is_err());
    }
    assert_eq!(
        (head(&bench.keeper), bench.keeper.replica.awaited()),
        (None, 0)
    );
    let (near, _) = numbered(&bench, "b", Version::LEAP_MAX);
    hears(&mut bench, Body::Version(near)).unwrap();
    assert_eq!(head(&bench.keeper), Some(Version::LEAP_MAX));
    // A member that was away for long: the owner says how far the line is.
    bench.keeper.on_owner(Some("b".parse().unwrap()));
    let (far, _) = numbered(&bench, "b", 3 * Version::LEAP_MAX);
    hears(&mut bench, Body::Version(far)).unwrap();
    assert_eq!(head(&bench.keeper), Some(3 * Version::LEAP_MAX));
    let (last, _) = numbered(&bench, "b", Version::NUMBER_MAX);
    assert!(hears(&mut bench, Body::Version(last)).is_err());
    let made = bench.keeper.make_version(Reason::Pin, profile([]), NOW);
    assert!(made.is_ok(), "the line goes on");
}

#[test]
fn no_version_is_made_that_nobody_could_read() {
    let mut bench = Bench::owning();
    let (signed, version) = numbered(&bench, "b", Version::NUMBER_MAX);
    bench.keeper.keep(&signed, &version, NOW).unwrap();
    let why = bench
        .keeper
        .make_version(Reason::Pin, profile([]), NOW)
        .unwrap_err();
    assert!(why.contains("no number of a version"), "{why}");
    assert_eq!(head(&bench.keeper), Some(Version::NUMBER_MAX));
    let kept = bench.keeper.common.store().versions(bench.keeper.name());
    assert_eq!(kept.unwrap().len(), 1, "nothing was kept");
}

#[test]
fn a_version_of_one_who_was_a_member_is_in_use_unless_its_number_leaps() {
    let bench = Bench::new();
    let keep = |author: &str, number: u64| {
        let (signed, _) = numbered(&bench, author, number);
        let name = bench.keeper.name().clone();
        let mut store = bench.keeper.common.store();
        store.keep_version(&name, &signed, &[]).unwrap();
    };
    let restarted = || head(&Keeper::new(Arc::clone(&bench.keeper.common), 0, NOW));
    keep("b", 1);
    keep("replaced", 2);
    assert_eq!(restarted(), Some(2));
    keep("replaced", Version::NUMBER_MAX / 2);
    assert_eq!(restarted(), Some(2));
    // Nothing could follow this one, whoever made it.
    keep("b", Version::NUMBER_MAX);
    assert_eq!(restarted(), Some(2));
    keep("b", 3);
    assert_eq!(restarted(), Some(3));
}

/// Twenty minutes of a unit that is there.
fn learn(bench: &mut Bench) {
    let unit = ("nginx.service".to_owned(), UnitProfile::default());
    let here = Content {
        units: [unit].into(),
        ..Content::default()
    };
    for _ in 0..12 {
        let digest = Digest {
            seconds: 100,
            ..Digest::default()
        };
        bench.keeper.learner.on_digest(&digest);
        bench.keeper.learner.on_inventory(&here);
    }
    bench.keeper.take_outputs(NOW);
}

#[test]
fn a_version_that_the_disk_does_not_take_is_made_when_it_does() {
    let mut bench = Bench::owning();
    let file = bench.folder.0.join("a").join(FILE);
    let disk = rusqlite::Connection::open(file).unwrap();
    let full = "CREATE TRIGGER no_room BEFORE INSERT ON versions
                BEGIN SELECT RAISE(ABORT, 'no room'); END";
    disk.execute_batch(full).unwrap();
    learn(&mut bench);
    assert_eq!(head(&bench.keeper), None);
    disk.execute_batch("DROP TRIGGER no_room").unwrap();
    learn(&mut bench);
    assert_eq!(head(&bench.keeper), Some(1));
    let (_, version) = bench.keeper.current().unwrap();
    assert_eq!(version.reason, Reason::First);
    learn(&mut bench);
    assert_eq!(head(&bench.keeper), Some(1), "once");
}
