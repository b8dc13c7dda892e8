//! The lease: asked for, held, lapsed, inherited.

use super::*;
use crate::decide::cluster::Witness;
use crate::decide::cluster::ballots::electorate_of;

/// `a` (1) and `b` (2) with the witness `w` (3); starts long before its own vote counts.
pub(super) fn leased() -> Bench {
    let mut bench = Bench::new(false);
    let settings = GroupSettings {
        protection: Protection::Lease,
        witnesses: vec![name("w")],
        guard: true,
        ..bench.group.settings().clone()
    };
    let peer = |text: &str, number| Peer {
        name: name(text),
        id: id(number),
    };
    let (me, others, witness) = (peer("a", 1), vec![peer("b", 2)], [peer("w", 3)]);
    bench.group = Group::new(settings, me, others, &witness, Epoch::NONE, bench.now);
    bench.group.on_carrier(true, bench.now);
    bench.group.on_unit(&name("warm.service"), true, bench.now);
    bench.take();
    bench
}

pub(super) fn electorate() -> u64 {
    electorate_of(&[id(1), id(2), id(3)])
}

/// The lease that is asked for: the last quarter of a heartbeat would keep nothing.
const ASKED: Duration =
    SUSPECT.saturating_sub(Duration::from_nanos(HEARTBEAT.as_nanos() as u64 / 4));

/// `w` promises what was asked just now, in `epoch`.
fn promise(bench: &mut Bench, epoch: Epoch) {
    promise_what_left(bench, epoch, bench.now);
}

/// `w` promises what was asked at `sent`.
fn promise_what_left(bench: &mut Bench, epoch: Epoch, sent: BootTime) {
    let message = GroupMessage {
        group: name("web"),
        epoch,
        body: Body::Promise { sent, lease: ASKED },
    };
    let now = bench.now;
    bench.group.on_message(&name("w"), now, &message, None, now);
    bench.take();
}

fn asked(bench: &Bench) -> Option<Epoch> {
    bench.actions.iter().find_map(|action| match action {
        Action::Send {
            epoch,
            body: Body::Ask { .. },
            ..
        } => Some(*epoch),
        _ => None,
    })
}

/// Alone with the witness, and active by its word.
pub(super) fn owner() -> Bench {
    let mut bench = leased();
    bench.pass(SUSPECT * 17, None);
    let epoch = asked(&bench).expect("it asks when its own vote counts");
    promise(&mut bench, epoch);
    assert_eq!(bench.took(), Some(epoch));
    bench.done(Done::VipsTaken { epoch });
    bench.actions.clear();
    bench
}

#[test]
fn nobody_owns_a_group_before_a_majority_has_promised() {
    let mut bench = leased();
    bench.pass(SUSPECT * 15, None);
    assert_eq!(asked(&bench), None, "its own vote does not count yet");
    bench.pass(SUSPECT * 2, None);
    let epoch = asked(&bench).expect("it asks");
    assert_eq!(bench.took(), None);
    assert_eq!(bench.group.may_answer_until(), Some(BootTime::default()));
    promise(&mut bench, epoch);
    assert_eq!(bench.took(), Some(epoch));
    let margin = ASKED / 500;
    let until = bench.now.after(ASKED - margin);
    assert_eq!(bench.group.may_answer_until(), Some(until));
}

#[test]
fn promises_of_another_epoch_or_from_the_future_are_none() {
    let mut bench = owner();
    let held = bench.group.may_answer_until();
    bench.pass(HEARTBEAT, None);
    promise(&mut bench, epoch(99, 1));
    assert_eq!(bench.group.may_answer_until(), held);
    let own = bench.group.active_epoch().expect("it is active");
    let message = GroupMessage {
        group: name("web"),
        epoch: own,
        body: Body::Promise {
            sent: bench.now.after(HEARTBEAT),
            lease: SUSPECT,
        },
    };
    let now = bench.now;
    bench.group.on_message(&name("w"), now, &message, None, now);
    assert_eq!(bench.group.may_answer_until(), held);
    promise(&mut bench, own);
    assert!(bench.group.may_answer_until() > held);
}

/// The answers to twelve heartbeats: they all come, or every other does.
fn asks_after(all: bool, late: bool) -> Duration {
    let mut bench = owner();
    let own = bench.group.active_epoch().expect("it is active");
    let mut left = Vec::new();
    for beat in 0..12 {
        bench.pass(HEARTBEAT, None);
        left.extend((all || beat % 2 == 0).then_some(bench.now));
        if !late {
            left.drain(..)
                .for_each(|sent| promise_what_left(&mut bench, own, sent));
        }
    }
    for sent in left {
        promise_what_left(&mut bench, own, sent);
    }
    bench.group.wanted_lease()
}

#[test]
fn lost_answers_ask_for_longer_leases_and_late_ones_for_those_that_would_have_held() {
    assert_eq!(asks_after(true, false), ASKED);
    let lost = asks_after(false, false);
    assert!(lost >= HEARTBEAT * 10, "{lost:?}");
    assert_eq!(asks_after(false, true), lost, "whenever the others come");
    let late = asks_after(true, true);
    assert!(
        (ASKED..=ASKED * 2).contains(&late),
        "it lapsed once: {late:?}"
    );
}

#[test]
fn a_lapsed_owner_stays_silent_and_goes_on_when_a_majority_answers() {
    let mut bench = owner();
    let own = bench.group.active_epoch().expect("it is active");
    bench.pass(SUSPECT * 2, None);
    assert!(bench.recorded(EventKind::LeaseLapsed));
    assert_eq!(bench.role(), Role::Active);
    promise(&mut bench, own);
    assert!(bench.recorded(EventKind::LeaseHeld));
    assert!(bench.actions.contains(&Action::Announce { epoch: own }));
}

/// Who was cut off must not move the group a second time when it hears the others again.
#[test]
fn a_lapsed_owner_that_hears_of_a_newer_epoch_yields() {
    for said in [active(), shadow(true)] {
        let mut bench = owner();
        let own = bench.group.active_epoch().expect("it is active");
        bench.pass(SUSPECT * 2, None);
        assert!(bench.recorded(EventKind::LeaseLapsed));
        bench.actions.clear();
        bench.hear(epoch(own.counter + 1, 2), said);
        assert_eq!(bench.took(), None, "its lease is over");
        assert_eq!(bench.group.active_epoch(), None);
        bench.done(Done::VipsDropped { epoch: own });
        assert_eq!(bench.role(), Role::Shadow);
    }
}

#[test]
fn an_owner_whose_lease_holds_rises_above_whoever_says_it_owns() {
    for said in [active(), shadow(true)] {
        let mut bench = owner();
        let own = bench.group.active_epoch().expect("it is active");
        let held = bench.group.may_answer_until();
        bench.hear(epoch(own.counter + 1, 2), said);
        assert_eq!(bench.took(), Some(epoch(own.counter + 2, 1)));
        assert_eq!(bench.group.may_answer_until(), held, "nothing was promised");
    }
}

#[test]
fn an_owner_without_a_majority_gives_up_after_a_while() {
    let mut bench = owner();
    let own = bench.group.active_epoch().expect("it is active");
    bench.pass(SUSPECT * 12, None);
    assert!(bench.actions.contains(&Action::DropVips { epoch: own }));
    bench.done(Done::VipsDropped { epoch: own });
    assert_eq!(bench.role(), Role::Shadow);
}

/// `b`, which had heard what left here at `heard`, hands on what is `left` of its lease.
fn hand_on(bench: &mut Bench, left: Duration, heard: Option<BootTime>) {
    let sent = BootTime::from_nanos(7_000_000_000);
    let message = GroupMessage {
        group: name("web"),
        epoch: epoch(1, 2),
        body: Body::Transfer {
            to: id(1),
            deadline: sent.after(left),
            drain: None,
        },
    };
    let (from, now) = (name("b"), bench.now);
    bench.group.on_message(&from, sent, &message, heard, now);
    bench.take();
}

#[test]
fn a_transferred_lease_is_owned_at_once_until_it_ends() {
    for (heard, inherits) in [(true, true), (false, false)] {
        let mut bench = leased();
        bench.hear(epoch(1, 2), active());
        bench.actions.clear();
        let (now, left) = (bench.now, Duration::from_millis(20));
        hand_on(&mut bench, left, heard.then_some(now));
        assert_eq!(bench.took().is_some(), inherits);
        if inherits {
            let until = now.after(left - left / 500 - Duration::from_millis(2));
            assert_eq!(bench.group.may_answer_until(), Some(until));
        }
    }
}

#[test]
fn a_member_votes_for_one_at_a_time_and_only_among_its_own_voters() {
    let ask = |electorate| Body::Ask {
        lease: SUSPECT,
        electorate,
    };
    let mut bench = leased();
    // One that could not own the group votes all the same, and wants nothing for itself.
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.pass(SUSPECT * 17, None);
    bench.actions.clear();
    bench.hear(epoch(5, 2), ask(electorate() + 1));
    assert!(!bench.said(|body| matches!(body, Body::Promise { .. } | Body::Refuse { .. })));
    assert!(bench.recorded(EventKind::Failure));
    bench.hear(epoch(5, 2), ask(electorate()));
    assert!(bench.said(|body| matches!(body, Body::Promise { .. })));
    bench.actions.clear();
    // Nobody asks in another's name.
    bench.hear(epoch(6, 3), ask(electorate()));
    assert!(!bench.said(|body| matches!(body, Body::Promise { .. })));
    let mut bench = owner();
    bench.hear(epoch(7, 2), ask(electorate()));
    assert!(bench.said(|body| matches!(body, Body::Refuse { .. })));
}

/// No voter promises for longer, so nobody is to count on more, whatever the former owner says.
#[test]
fn no_transfer_lasts_longer_than_a_voter_promises() {
    let mut bench = leased();
    bench.hear(epoch(1, 2), active());
    let now = bench.now;
    hand_on(&mut bench, Duration::from_secs(3_600), Some(now));
    let until = bench.group.may_answer_until().expect("it is protected");
    assert!(until > now && until <= now.after(SUSPECT * 16), "{until:?}");
}

/// One broken member could else leave no epoch for anybody, through a witness that believes it.
#[test]
fn no_witness_is_believed_an_absurd_epoch_and_none_believes_it() {
    let mut bench = leased();
    bench.pass(SUSPECT * 17, None);
    let refused = GroupMessage {
        group: name("web"),
        epoch: epoch(u64::MAX, 2),
        body: Body::Refuse {
            wait: Duration::ZERO,
        },
    };
    let (from, now) = (name("w"), bench.now);
    bench.group.on_message(&from, now, &refused, None, now);
    bench.take();
    assert!(bench.recorded(EventKind::Failure));
    bench.actions.clear();
    while asked(&bench).is_none() {
        assert!(bench.now < now.after(SUSPECT * 17), "it asks on");
        bench.pass(HEARTBEAT, None);
    }
    let asked = asked(&bench).expect("it asks on");
    promise(&mut bench, asked);
    assert_eq!(bench.took(), Some(asked));

    let settings = GroupSettings {
        protection: Protection::Lease,
        ..bench.group.settings().clone()
    };
    let peer = |text: &str, number| Peer {
        name: name(text),
        id: id(number),
    };
    let members = vec![peer("a", 1), peer("b", 2)];
    let me = peer("w", 3);
    let mut witness = Witness::new(settings, &me, members, &[], Epoch::NONE, bench.now);
    let now = bench.now.after(SUSPECT * 17);
    let ask = GroupMessage {
        group: name("web"),
        epoch: epoch(u64::MAX, 2),
        body: Body::Ask {
            lease: SUSPECT,
            electorate: electorate(),
        },
    };
    witness.on_message(&name("b"), now, &ask, now);
    assert_eq!(witness.newest_epoch(), Epoch::NONE);
    let said = std::iter::from_fn(|| witness.poll_action());
    assert!(said.into_iter().all(|one| matches!(one, Action::Record(_))));
}

/// A host that gets no processor time would else lose its group at the first wait of its loop.
#[test]
fn a_starved_owner_asks_for_longer_leases_and_a_starved_shadow_does_not() {
    let mut bench = owner();
    let own = bench.group.active_epoch().expect("it is active");
    let mut asks = |starved, beats| {
        bench.group.on_starved(starved, bench.now);
        for _ in 0..beats {
            bench.pass(HEARTBEAT, None);
            promise(&mut bench, own);
        }
        bench.group.wanted_lease()
    };
    assert_eq!(asks(false, 2), ASKED);
    assert_eq!(asks(true, 2), SUSPECT * 2);
    assert_eq!(asks(false, 80), ASKED, "it is forgotten");
    let mut bench = leased();
    bench.hear(epoch(1, 2), active());
    bench.group.on_starved(true, bench.now);
    bench.pass(HEARTBEAT * 2, Some((epoch(1, 2), active())));
    assert_eq!(bench.group.wanted_lease(), ASKED);
}
