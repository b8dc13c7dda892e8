//! What the failover loop is told of this host, whatever becomes of the owner.

use std::time::Duration;

use super::bench::{Bench, NOW, profile, signed};
use super::letter::Body;
use crate::facts::{Item, ItemKind, Name, Readiness, Reason, Verdict};

fn readiness(verdict: Verdict) -> Readiness {
    let item = Item {
        kind: ItemKind::Disk,
        subject: "/".into(),
        verdict,
        cause: String::new(),
        remedy: None,
        act: None,
    };
    Readiness {
        group: "web".parse().unwrap(),
        items: vec![item],
    }
}

/// A shadow of `b` with a version, that wants a proof or not.
fn shadow(promote_unready: bool) -> Bench {
    let mut bench = Bench::with(&format!("promote_unready = {promote_unready}"));
    let (version, _) = signed(
        &bench.folder.identity("b"),
        None,
        Reason::First,
        profile([]),
    );
    let b: Name = "b".parse().unwrap();
    let taken = bench.keeper.on_letter(&b, Body::Version(version), NOW);
    taken.unwrap();
    assert!(bench.keeper.current().is_some());
    bench
}

/// What the loop was told last, after `seconds`.
fn told(bench: &mut Bench, seconds: u64) -> bool {
    let now = NOW.after(Duration::from_secs(seconds));
    bench.keeper.tell_readiness(now);
    bench.keeper.told_ready.unwrap().0
}

fn owner(bench: &mut Bench, name: Option<&str>) {
    bench
        .keeper
        .on_owner(name.map(|name| name.parse().unwrap()));
}

#[test]
fn an_owner_that_falls_silent_or_is_another_changes_nothing_of_what_is_known_here() {
    for (promote_unready, verdict, ready) in [
        (false, Verdict::Ready, true),
        (false, Verdict::CannotTell, false),
        (false, Verdict::NotReady, false),
        (true, Verdict::Ready, true),
        (true, Verdict::CannotTell, true),
        (true, Verdict::NotReady, false),
    ] {
        let mut bench = shadow(promote_unready);
        bench.keeper.readiness = Some((NOW, readiness(verdict)));
        for (seconds, name) in [(1, Some("b")), (2, None), (3, Some("c")), (4, Some("b"))] {
            owner(&mut bench, name);
            assert_eq!(
                told(&mut bench, seconds),
                ready,
                "{promote_unready} {verdict:?} {name:?}"
            );
        }
    }
}

#[test]
fn who_owned_the_group_proves_itself_anew_and_is_looked_at_at_once() {
    let mut bench = shadow(false);
    bench.keeper.readiness = Some((NOW, readiness(Verdict::Ready)));
    for name in [Some("a"), None] {
        bench.keeper.look_at = NOW.after(Duration::from_secs(100));
        owner(&mut bench, name);
        assert!(bench.keeper.readiness.is_none() && bench.keeper.look_at <= NOW);
        assert_eq!(told(&mut bench, 1), bench.keeper.owns());
    }
}

#[test]
fn where_a_proof_is_wanted_nothing_compared_is_none_and_an_old_comparison_neither() {
    let mut bench = shadow(false);
    assert!(!told(&mut bench, 0), "there is a version to compare with");
    bench.keeper.readiness = Some((NOW, readiness(Verdict::Ready)));
    assert!(told(&mut bench, 29));
    owner(&mut bench, None);
    assert!(!told(&mut bench, 30));
    // What it was found to lack it lacks until somebody finds otherwise.
    let mut bench = shadow(true);
    bench.keeper.readiness = Some((NOW, readiness(Verdict::NotReady)));
    assert!(!told(&mut bench, 3_600));
    let mut nothing = Bench::with("promote_unready = false");
    assert!(
        told(&mut nothing, 0),
        "before the first version nothing is compared"
    );
}
