//! Joining, silence, resignation, competing owners, failed steps.

use super::*;

#[test]
fn a_starting_member_claims_nothing_before_it_has_listened() {
    let mut bench = Bench::new(false);
    bench.pass(JOIN - HEARTBEAT, None);
    assert_eq!(bench.took(), None);
    bench.pass(HEARTBEAT * 2, None);
    assert_eq!(bench.took(), Some(epoch(1, 1)));
}

#[test]
fn a_starting_member_follows_the_active_it_hears() {
    let mut bench = Bench::shadow(false);
    bench.pass(JOIN * 3, Some((epoch(1, 2), active())));
    assert_eq!(bench.took(), None);
    assert_eq!(bench.group.active(), Some(&name("b")));
}

#[test]
fn silence_promotes_after_the_bound_and_not_before() {
    let mut bench = Bench::shadow(false);
    bench.pass(SUSPECT - Duration::from_millis(1), None);
    assert_eq!(bench.took(), None);
    bench.pass(Duration::from_millis(2), None);
    assert_eq!(bench.took(), Some(epoch(2, 1)));
    assert!(bench.recorded(EventKind::PeerSuspected));
}

#[test]
fn silence_in_a_stall_of_this_process_is_no_evidence() {
    let mut bench = Bench::shadow(false);
    bench.pass(HEARTBEAT, Some((epoch(1, 2), active())));
    bench.now = bench.now.after(SUSPECT * 4);
    bench.group.on_timer(bench.now);
    bench.take();
    assert_eq!(
        bench.took(),
        None,
        "this process did not run, so it could not hear"
    );
    bench.pass(SUSPECT, None);
    assert_eq!(bench.took(), Some(epoch(2, 1)));
}

#[test]
fn a_kernel_that_answers_makes_patient_for_as_long_as_it_does() {
    let ms = Duration::from_millis;
    let silent_for = |answers_for: Duration| {
        let mut bench = Bench::shadow(false);
        bench.pass(HEARTBEAT, Some((epoch(1, 2), active())));
        let last_word = bench.now;
        while bench.took().is_none() && bench.now.since(last_word) < ms(1_000) {
            bench.pass(ms(1), None);
            if bench.now.since(last_word) <= answers_for {
                bench.group.on_kernel_answer(&name("b"), bench.now);
            }
        }
        bench.now.since(last_word)
    };
    let alone = silent_for(Duration::ZERO);
    assert!(alone < SUSPECT + ms(3), "{alone:?}");
    let died_late = silent_for(ms(16));
    let bound = ms(16) + SUSPECT;
    assert!((bound..bound + ms(3)).contains(&died_late), "{died_late:?}");
    let starved = silent_for(ms(1_000));
    let bound = SUSPECT * 5;
    assert!((bound..bound + ms(3)).contains(&starved), "{starved:?}");
}

/// On a link that loses a third of its frames a few questions are all without an answer now and then.
#[test]
fn a_silent_owners_kernel_is_asked_often_while_its_answer_matters() {
    let mut bench = Bench::shadow(false);
    bench.pass(HEARTBEAT, Some((epoch(1, 2), active())));
    bench.actions.clear();
    let asked = |bench: &mut Bench, span: Duration| {
        let end = bench.now.after(span);
        while bench.now < end {
            bench.group.on_kernel_answer(&name("b"), bench.now);
            bench.pass(Duration::from_millis(1), None);
        }
        let asks = |action: &Action| matches!(action, Action::Probe { .. });
        std::mem::take(&mut bench.actions)
            .into_iter()
            .filter(asks)
            .count()
    };
    assert_eq!(
        asked(&mut bench, HEARTBEAT),
        0,
        "a heartbeat is not overdue yet"
    );
    let before_suspicion = asked(&mut bench, SUSPECT - HEARTBEAT);
    assert!(before_suspicion >= 6, "{before_suspicion}");
}

#[test]
fn a_member_whose_units_or_link_are_down_or_unknown_never_claims() {
    for trouble in ["unit", "link", "unknown"] {
        let mut bench = Bench::shadow(false);
        match trouble {
            "unit" => bench.group.on_unit(&name("warm.service"), false, bench.now),
            "link" => bench.group.on_carrier(false, bench.now),
            _ => {
                let settings = bench.group.settings().clone();
                let me = Peer {
                    name: name("a"),
                    id: id(1),
                };
                let other = Peer {
                    name: name("b"),
                    id: id(2),
                };
                bench.group = Group::new(settings, me, vec![other], &[], Epoch::NONE, bench.now);
            }
        }
        bench.pass(JOIN * 2, None);
        assert_eq!(bench.took(), None, "{trouble}");
    }
}

#[test]
fn a_member_whose_link_returns_listens_before_it_claims() {
    let mut bench = Bench::shadow(false);
    bench.group.on_carrier(false, bench.now);
    bench.pass(JOIN, None);
    bench.group.on_carrier(true, bench.now);
    bench.pass(JOIN / 2, None);
    assert_eq!(bench.took(), None, "the owner could not be heard yet");
    bench.hear(epoch(1, 2), active());
    assert_eq!(bench.role(), Role::Shadow);
    bench.group.on_carrier(false, bench.now);
    bench.pass(JOIN, None);
    bench.group.on_carrier(true, bench.now);
    bench.pass(JOIN + SUSPECT, None);
    assert_eq!(bench.took(), Some(epoch(2, 1)), "there is no owner");
}

#[test]
fn a_resignation_is_acted_on_at_once() {
    let mut bench = Bench::shadow(false);
    bench.hear(
        epoch(1, 2),
        Body::Resign {
            cause: Cause::UnitDied,
        },
    );
    assert_eq!(bench.took(), Some(epoch(2, 1)));
}

#[test]
fn a_resignation_of_an_older_epoch_changes_nothing() {
    let mut bench = Bench::new(false);
    bench.hear(epoch(5, 2), active());
    bench.hear(
        epoch(4, 2),
        Body::Resign {
            cause: Cause::UnitDied,
        },
    );
    assert_eq!(bench.took(), None);
    assert_eq!(bench.role(), Role::Shadow);
}

#[test]
fn an_overtaken_message_changes_nothing_but_a_reboot_is_believed() {
    let mut bench = Bench::shadow(false);
    let resign = Body::Resign {
        cause: Cause::UnitDied,
    };
    bench.hear_sent(bench.sent - 500_000, epoch(1, 2), resign);
    assert_eq!(bench.took(), None);
    bench.sent += 60_000_000_000;
    bench.hear(epoch(1, 2), active());
    let joining = Body::Beat {
        role: Role::Joining,
        priority: 90,
        eligible: true,
        lease: Duration::ZERO,
        electorate: 0,
        policy: PolicyWord::default(),
    };
    bench.hear_sent(1_000, epoch(1, 2), joining);
    assert_eq!(
        bench.group.active(),
        None,
        "b has rebooted and no longer owns the group"
    );
}

#[test]
fn a_stranger_and_another_group_are_not_heard() {
    let mut bench = Bench::shadow(false);
    let message = GroupMessage {
        group: name("web"),
        epoch: epoch(9, 3),
        body: Body::Resign {
            cause: Cause::UnitDied,
        },
    };
    bench
        .group
        .on_message(&name("stranger"), bench.now, &message, None, bench.now);
    let other = GroupMessage {
        group: name("db"),
        ..message
    };
    bench
        .group
        .on_message(&name("b"), bench.now, &other, None, bench.now);
    bench.take();
    assert_eq!(bench.took(), None);
    assert_eq!(bench.group.newest_epoch(), epoch(1, 2));
}

#[test]
fn a_dead_unit_moves_the_group_to_a_member_that_can_own_it() {
    let mut bench = Bench::active(false);
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.take();
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    let resigned = |body: &Body| {
        matches!(
            body,
            Body::Resign {
                cause: Cause::UnitDied
            }
        )
    };
    assert!(!bench.said(resigned), "the addresses go before the word");
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert!(bench.said(resigned));
    assert_eq!(bench.role(), Role::Shadow);
}

#[test]
fn a_dead_unit_is_kept_while_the_other_only_joins() {
    let mut bench = Bench::active(false);
    let joining = Body::Beat {
        role: Role::Joining,
        priority: 90,
        eligible: true,
        lease: Duration::ZERO,
        electorate: 0,
        policy: PolicyWord::default(),
    };
    bench.hear(epoch(1, 1), joining);
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.take();
    assert_eq!(
        bench.role(),
        Role::Active,
        "it would not claim before it has listened"
    );
}

#[test]
fn a_dead_unit_is_kept_where_nobody_could_do_better() {
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 1), shadow(false));
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.take();
    assert_eq!(bench.role(), Role::Active);
    bench.hear(epoch(1, 1), shadow(true));
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
}

#[test]
fn the_newer_of_two_owners_stays_and_announces_again() {
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 0), active());
    bench.actions.clear();
    bench.hear(epoch(1, 1), shadow(true));
    assert!(
        bench
            .actions
            .contains(&Action::Announce { epoch: epoch(1, 1) })
    );
    bench.hear(epoch(2, 2), active());
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert_eq!(bench.group.active(), Some(&name("b")));
}

#[test]
fn an_owner_rises_above_a_newer_epoch_that_was_left() {
    let mut bench = Bench::active(false);
    let joining = Body::Beat {
        role: Role::Joining,
        priority: 90,
        eligible: true,
        lease: Duration::ZERO,
        electorate: 0,
        policy: PolicyWord::default(),
    };
    bench.hear(epoch(7, 2), joining);
    assert_eq!(bench.took(), Some(epoch(8, 1)));
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn a_failed_step_moves_the_group_on_and_holds_this_member_back() {
    let mut bench = Bench::active(false);
    let failed = Done::Failed {
        epoch: epoch(1, 1),
        step: Step::TakeVips,
        why: "no".to_owned(),
    };
    bench.done(failed);
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    bench.actions.clear();
    let other = Some((epoch(1, 1), shadow(true)));
    bench.pass(Duration::from_secs(29), other);
    assert_eq!(bench.took(), None, "another could");
    bench.pass(SUSPECT * 11, None);
    assert_eq!(bench.took(), Some(epoch(2, 1)), "nobody else is left");
}

#[test]
fn a_stopped_owner_gives_the_group_up_before_it_ends() {
    let mut bench = Bench::active(false);
    bench.group.on_stop(bench.now);
    bench.take();
    assert!(!bench.group.stopped());
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert!(bench.said(|body| matches!(
        body,
        Body::Resign {
            cause: Cause::DaemonStopped
        }
    )));
    assert!(!bench.group.stopped(), "last words are said again");
    bench.pass(Duration::from_millis(100), None);
    assert!(bench.group.stopped());
}

/// What the others said meanwhile may still wait to be read, behind what is read first.
#[test]
fn a_member_that_did_not_run_while_it_should_have_listened_does_not_claim_at_once() {
    let mut bench = Bench::new(false);
    bench.now = bench.now.after(JOIN * 2);
    bench.group.on_unit(&name("warm.service"), true, bench.now);
    bench.take();
    assert_eq!(bench.took(), None);
    bench.hear(epoch(1, 2), active());
    bench.pass(JOIN * 2, Some((epoch(1, 2), active())));
    assert_eq!(bench.took(), None, "it follows the owner");
}

/// A late report of a step that nobody wants any more used to end the wait for the next attempt: a
/// member that leaves would have kept the addresses for good.
#[test]
fn addresses_that_would_not_go_are_removed_again_whatever_else_fails() {
    let mut bench = Bench::active(true);
    let failed = |step| Done::Failed {
        epoch: epoch(1, 1),
        step,
        why: "no".to_owned(),
    };
    bench.done(failed(Step::TakeVips));
    bench.done(failed(Step::DropVips));
    bench.done(failed(Step::StartUnits));
    bench.actions.clear();
    bench.pass(
        Duration::from_millis(150),
        Some((epoch(1, 1), shadow(true))),
    );
    let again = Action::DropVips { epoch: epoch(1, 1) };
    assert!(bench.actions.contains(&again), "{:?}", bench.actions);
}

#[test]
fn a_report_of_an_epoch_that_is_over_changes_nothing() {
    let mut bench = Bench::active(false);
    for done in [
        Done::VipsDropped { epoch: epoch(9, 1) },
        Done::UnitsStopped { epoch: epoch(9, 1) },
        Done::Failed {
            epoch: epoch(9, 1),
            step: Step::StartUnits,
            why: String::new(),
        },
    ] {
        bench.done(done);
        assert_eq!(bench.role(), Role::Active);
    }
}

#[test]
fn an_owner_that_answers_nobody_leaves_to_a_member_that_is_ready_and_abstains() {
    let mut bench = Bench::active(false);
    bench.group.on_serving("other.service", false, bench.now);
    bench.take();
    assert_eq!(bench.role(), Role::Active);
    bench.hear(epoch(1, 1), shadow(false));
    bench.group.on_serving("warm.service", false, bench.now);
    bench.take();
    let dropped = Action::DropVips { epoch: epoch(1, 1) };
    assert!(!bench.actions.contains(&dropped), "nobody does better");
    bench.hear(epoch(1, 1), shadow(true));
    assert!(bench.actions.contains(&dropped));
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    let resigned = |body: &Body| {
        matches!(
            body,
            Body::Resign {
                cause: Cause::Unanswered
            }
        )
    };
    assert!(bench.said(resigned));
    bench.group.on_serving("warm.service", true, bench.now);
    bench.actions.clear();
    bench.pass(SUSPECT * 3, Some((epoch(1, 1), shadow(true))));
    let eligible = |body: &Body| matches!(body, Body::Beat { eligible: true, .. });
    assert!(!bench.said(eligible), "it would look well without clients");
}
