//! The planned handover, and cold units.

use super::*;

#[test]
fn a_handover_drops_the_addresses_before_it_transfers() {
    let mut bench = Bench::active(false);
    assert_eq!(
        bench.group.hand_over(Some(&name("b")), bench.now),
        Ok(name("b"))
    );
    assert_eq!(bench.group.hand_over(None, bench.now), Err(Refusal::Busy));
    bench.take();
    assert!(bench.said(|body| *body == Body::Offer { to: id(2) }));
    bench.hear(epoch(1, 1), Body::Ready { passes_back: None });
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    let transferred = |body: &Body| matches!(body, Body::Transfer { to, .. } if *to == id(2));
    assert!(!bench.said(transferred));
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    assert!(bench.said(transferred));
}

const HERE: Mac = [2, 0, 0, 0, 0, 1];
const THERE: Mac = [2, 0, 0, 0, 0, 2];

fn ready(passes_back: Option<Mac>) -> Body {
    Body::Ready { passes_back }
}

#[test]
fn connections_outlast_a_handover_between_members_that_can_pass_them() {
    for (own, other) in [
        (Some(HERE), Some(THERE)),
        (None, Some(THERE)),
        (Some(HERE), None),
    ] {
        let mut bench = Bench::active(false);
        bench.group.on_link_address(own);
        bench.group.hand_over(None, bench.now).unwrap();
        bench.hear(epoch(1, 1), ready(other));
        let until = bench.now.after(Duration::from_secs(60));
        let (epoch, successor) = (epoch(1, 1), THERE);
        let handed_on = bench.actions.contains(&Action::HandOn {
            epoch,
            successor,
            until,
        });
        assert_eq!(handed_on, own.and(other).is_some(), "{own:?} {other:?}");
        assert_eq!(
            bench.actions.contains(&Action::DropVips { epoch }),
            !handed_on
        );
        bench.done(Done::VipsDropped { epoch });
        let at_home = |body: &Body| matches!(body, Body::Transfer { drain: Some(drain), .. } if drain.at == HERE);
        assert_eq!(bench.said(at_home), handed_on);
    }
}

#[test]
fn a_new_owner_passes_back_what_the_old_one_has_begun_for_a_bounded_time() {
    for (own, lasts, passes) in [
        (Some(HERE), Duration::from_secs(30), Duration::from_secs(30)),
        (Some(HERE), Duration::MAX, Drain::LONGEST),
        (None, Duration::from_secs(30), Duration::ZERO),
    ] {
        let mut bench = Bench::shadow(false);
        bench.group.on_link_address(own);
        bench.hear(epoch(1, 2), Body::Offer { to: id(1) });
        assert!(bench.said(|body| *body == ready(own)));
        let drain = Some(Drain { at: THERE, lasts });
        let (to, deadline) = (id(1), BootTime::default());
        bench.hear(
            epoch(1, 2),
            Body::Transfer {
                to,
                deadline,
                drain,
            },
        );
        let action = Action::PassBack {
            predecessor: THERE,
            until: bench.now.after(passes),
        };
        let at = |wanted: &dyn Fn(&Action) -> bool| bench.actions.iter().position(wanted);
        let passing = at(&|one| *one == action);
        let taken = at(&|one| matches!(one, Action::TakeVips { .. }));
        assert!(taken.is_some());
        assert_eq!(passing.is_some(), own.is_some());
        assert!(passing < taken, "before anything is answered");
    }
}

/// A member that says so of a group it does not own would make two owners.
#[test]
fn nobody_gives_away_what_is_anothers() {
    let mut bench = Bench::shadow(false);
    let transfer = Body::Transfer {
        to: id(1),
        deadline: bench.now.after(Duration::from_secs(3_600)),
        drain: None,
    };
    bench.hear(epoch(1, 3), transfer.clone());
    assert_eq!(bench.took(), None);
    bench.hear(epoch(2, 2), transfer);
    assert!(bench.took().is_some(), "the owner may");
}

#[test]
fn connections_outlast_the_cold_units_that_stop_for_a_handover() {
    let mut bench = Bench::active(true);
    bench.group.on_link_address(Some(HERE));
    bench.done(Done::VipsTaken { epoch: epoch(1, 1) });
    bench.done(Done::UnitsStarted { epoch: epoch(1, 1) });
    bench.group.hand_over(None, bench.now).unwrap();
    bench.hear(epoch(1, 1), ready(Some(THERE)));
    let epoch = epoch(1, 1);
    assert!(
        !bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::HandOn { .. }))
    );
    bench.done(Done::UnitsStopped { epoch });
    assert!(
        bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::HandOn { .. }))
    );
}

#[test]
fn a_handover_nobody_answers_is_given_up_and_the_group_stays() {
    let mut bench = Bench::active(false);
    bench.group.hand_over(None, bench.now).unwrap();
    bench.pass(SUSPECT * 11, Some((epoch(1, 1), shadow(true))));
    assert_eq!(bench.role(), Role::Active);
    assert!(!bench.group.handing_over());
}

#[test]
fn a_handover_is_refused_with_the_reason() {
    let mut bench = Bench::active(false);
    let refusal = bench.group.hand_over(Some(&name("z")), bench.now);
    assert_eq!(refusal, Err(Refusal::NoSuchMember(name("z"))));
    bench.hear(epoch(1, 1), shadow(false));
    let refusal = bench.group.hand_over(Some(&name("b")), bench.now);
    assert_eq!(refusal, Err(Refusal::NotReady(name("b"))));
    let mut bench = Bench::shadow(false);
    let refusal = bench.group.hand_over(None, bench.now);
    assert_eq!(
        refusal,
        Err(Refusal::NotActive {
            active: Some(name("b"))
        })
    );
}

#[test]
fn the_offered_member_answers_and_takes_over_when_told() {
    let mut bench = Bench::shadow(false);
    bench.hear(epoch(1, 2), Body::Offer { to: id(1) });
    assert!(bench.said(|body| matches!(body, Body::Ready { .. })));
    bench.hear(
        epoch(1, 2),
        Body::Transfer {
            to: id(1),
            deadline: BootTime::default(),
            drain: None,
        },
    );
    assert_eq!(bench.took(), Some(epoch(2, 1)));
}

#[test]
fn a_member_that_was_not_named_leaves_the_group_to_the_one_that_was() {
    let mut bench = Bench::shadow(false);
    bench.hear(
        epoch(1, 2),
        Body::Transfer {
            to: id(3),
            deadline: BootTime::default(),
            drain: None,
        },
    );
    bench.pass(SUSPECT * 9, None);
    assert_eq!(bench.took(), None);
    bench.pass(SUSPECT * 2, None);
    assert_eq!(bench.took(), Some(epoch(2, 1)), "nobody came");
}

#[test]
fn cold_units_start_after_the_addresses_and_stop_before_a_transfer() {
    let mut bench = Bench::active(true);
    bench.done(Done::VipsTaken { epoch: epoch(1, 1) });
    assert!(
        bench
            .actions
            .contains(&Action::StartUnits { epoch: epoch(1, 1) })
    );
    bench.done(Done::UnitsStarted { epoch: epoch(1, 1) });
    assert_eq!(
        bench.role(),
        Role::Active,
        "the reading that it runs is still on its way"
    );
    bench.group.on_unit(&name("cold.service"), true, bench.now);
    bench.group.hand_over(None, bench.now).unwrap();
    bench.actions.clear();
    bench.hear(epoch(1, 1), Body::Ready { passes_back: None });
    assert!(
        bench
            .actions
            .contains(&Action::StopUnits { epoch: epoch(1, 1) })
    );
    assert!(
        !bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
    bench.done(Done::UnitsStopped { epoch: epoch(1, 1) });
    assert!(
        bench
            .actions
            .contains(&Action::DropVips { epoch: epoch(1, 1) })
    );
}

#[test]
fn a_cold_unit_left_running_on_a_shadow_is_stopped_once() {
    let mut bench = Bench::shadow(true);
    bench.group.on_unit(&name("cold.service"), true, bench.now);
    bench.pass(SUSPECT, Some((epoch(1, 2), active())));
    let stops = bench
        .actions
        .iter()
        .filter(|action| matches!(action, Action::StopUnits { .. }));
    assert_eq!(stops.count(), 1);
}
