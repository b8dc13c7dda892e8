//! What a member's kernel says of its daemon.

use super::lease::{electorate, leased};
use super::*;

fn owner_beats() -> Body {
    Body::Beat {
        role: Role::Active,
        priority: 90,
        eligible: true,
        lease: SUSPECT,
        electorate: electorate(),
        policy: PolicyWord::default(),
    }
}

/// A shadow that follows `b`, which owns the group by the word of the witness; its own vote counts.
fn leased_shadow() -> Bench {
    let mut bench = leased();
    bench.pass(SUSPECT * 17, Some((epoch(1, 2), owner_beats())));
    assert_eq!(bench.role(), Role::Shadow);
    bench.actions.clear();
    bench
}

fn suspected(bench: &Bench) -> Option<Cause> {
    bench.actions.iter().find_map(|action| match action {
        Action::Record(record) if record.kind == EventKind::PeerSuspected => record.cause,
        _ => None,
    })
}

fn refuse(bench: &mut Bench, times: u32) {
    for _ in 0..times {
        bench.group.on_kernel_refusal(&name("b"), bench.now);
    }
    bench.take();
}

/// The owner is silent, and its kernel answers all the while: that is taken for starvation.
fn starved(bench: &mut Bench, span: Duration) {
    let end = bench.now.after(span);
    while bench.now < end {
        bench.pass(HEARTBEAT, None);
        bench.group.on_kernel_answer(&name("b"), bench.now);
    }
}

#[test]
fn a_refused_owner_is_suspected_within_two_heartbeats_and_the_voters_are_asked() {
    let mut bench = leased_shadow();
    refuse(&mut bench, 2);
    starved(&mut bench, HEARTBEAT);
    assert_eq!(suspected(&bench), None, "a moment is no silence");
    starved(&mut bench, HEARTBEAT * 2);
    assert_eq!(suspected(&bench), Some(Cause::DaemonRefused));
    assert!(bench.said(|body| matches!(body, Body::Ask { .. })));
    assert_eq!(bench.took(), None, "the voters decide");
}

#[test]
fn one_refusal_or_none_leaves_the_patience_for_starvation() {
    for refusals in [0, 1] {
        let mut bench = leased_shadow();
        refuse(&mut bench, refusals);
        starved(&mut bench, SUSPECT * 4);
        assert_eq!(suspected(&bench), None, "{refusals} refusals");
        starved(&mut bench, SUSPECT * 2);
        assert_eq!(suspected(&bench), Some(Cause::Silence));
    }
}

#[test]
fn a_word_of_the_daemon_clears_what_its_kernel_is_said_to_have_said() {
    let mut bench = leased_shadow();
    refuse(&mut bench, 5);
    bench.hear(epoch(1, 2), owner_beats());
    starved(&mut bench, SUSPECT * 4);
    assert_eq!(suspected(&bench), None);
}

#[test]
fn a_daemon_that_said_it_restarts_is_not_suspected() {
    let mut bench = leased_shadow();
    let silent = Duration::from_secs(5);
    let electorate = electorate();
    bench.hear(epoch(1, 2), Body::Pause { silent, electorate });
    refuse(&mut bench, 5);
    bench.pass(Duration::from_secs(4), None);
    assert_eq!(suspected(&bench), None);
    bench.pass(Duration::from_secs(2), None);
    assert_eq!(suspected(&bench), Some(Cause::DaemonRefused));
}

#[test]
fn without_a_lease_a_refusal_changes_nothing() {
    let mut bench = Bench::shadow(false);
    refuse(&mut bench, 9);
    starved(&mut bench, SUSPECT * 4);
    assert_eq!((suspected(&bench), bench.took()), (None, None));
    starved(&mut bench, SUSPECT * 2);
    assert_eq!(suspected(&bench), Some(Cause::Silence));
}

#[test]
fn a_starved_member_is_slower_to_accuse() {
    for (starved, within) in [
        (false, SUSPECT + HEARTBEAT),
        (true, SUSPECT * 8 + HEARTBEAT),
    ] {
        let mut bench = leased_shadow();
        bench.group.on_starved(starved, bench.now);
        bench.pass(within - HEARTBEAT * 2, None);
        assert_eq!(
            suspected(&bench),
            None,
            "starved {starved}: it could be this host"
        );
        bench.pass(HEARTBEAT * 3, None);
        assert_eq!(suspected(&bench), Some(Cause::Silence), "starved {starved}");
    }
}

#[test]
fn a_starved_member_believes_a_kernel_that_refuses_all_the_same() {
    let mut bench = leased_shadow();
    bench.group.on_starved(true, bench.now);
    refuse(&mut bench, 2);
    bench.pass(HEARTBEAT * 4, None);
    assert_eq!(suspected(&bench), Some(Cause::DaemonRefused));
}
