//! What receivers are told, step by step and under random orders.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::facts::Role;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> Name {
    text.parse().expect("a legal name")
}

fn at(seconds: f64) -> Now {
    let boot = BootTime::from_nanos((seconds * 1e9) as u64);
    Now { boot, wall_ms: 0 }
}

fn hook(events: &[Topic]) -> Receiver {
    Receiver {
        id: "hook/h".to_owned(),
        events: events.to_vec(),
        groups: vec![name("web")],
        retry_for: None,
        repeat_after: Duration::ZERO,
        rate: None,
    }
}

fn core(receiver: Receiver, told: &[Told]) -> Notifier {
    Notifier::new(name("a"), vec![receiver], told, at(1.0).boot)
}

fn seen(role: Role, epoch: u64) -> Sighting {
    Sighting {
        group: name("web"),
        role,
        epoch,
        active: Some(name("a")),
        redundant: true,
        redundancy: String::new(),
        lapsed: false,
        lost_paths: Vec::new(),
    }
}

/// What is told at this moment: topic, epoch, skipped.
fn told(core: &mut Notifier, now: Now) -> Option<(Topic, u64, u64)> {
    let notice = core.poll(now.boot)?.notice;
    Some((notice.event, notice.epoch, notice.skipped))
}

fn done(core: &mut Notifier, outcome: Outcome, now: Now) {
    core.on_done(0, outcome, now.boot, 0);
}

const ROLES: [Topic; 3] = [Topic::Active, Topic::Shadow, Topic::Stopped];

#[test]
fn a_slow_hook_is_told_the_last_state_and_how_many_it_missed() {
    let mut core = core(hook(&ROLES), &[]);
    core.on_sighting(seen(Role::Shadow, 1), at(1.0));
    assert_eq!(told(&mut core, at(1.0)), Some((Topic::Shadow, 1, 0)));
    for (role, epoch) in [(Role::Active, 2), (Role::Shadow, 3), (Role::Active, 4)] {
        core.on_sighting(seen(role, epoch), at(2.0));
        assert_eq!(told(&mut core, at(2.0)), None, "one at a time");
    }
    done(&mut core, Outcome::Delivered, at(9.0));
    assert_eq!(told(&mut core, at(9.0)), Some((Topic::Active, 4, 1)));
    done(&mut core, Outcome::TimedOut, at(9.0));
    assert_eq!(told(&mut core, at(99.0)), None, "a hook that ran was told");
}

#[test]
fn a_member_that_joins_has_nothing_to_tell() {
    let mut core = core(hook(&ROLES), &[]);
    core.on_sighting(seen(Role::Joining, 1), at(1.0));
    assert_eq!(told(&mut core, at(60.0)), None);
}

fn told_before(topic: Topic, epoch: u64) -> Told {
    Told {
        receiver: "hook/h".to_owned(),
        group: name("web"),
        subject: "role".to_owned(),
        topic,
        epoch,
        sure: true,
    }
}

#[test]
fn what_was_told_before_a_restart_is_not_told_again_unless_it_has_changed() {
    let half_told = Told {
        sure: false,
        ..told_before(Topic::Shadow, 0)
    };
    let remembered = told_before;
    for (before, role, expected) in [
        (half_told, Role::Shadow, Some((Topic::Shadow, 4, 0))),
        (remembered(Topic::Active, 4), Role::Active, None),
        (
            remembered(Topic::Active, 3),
            Role::Active,
            Some((Topic::Active, 4, 0)),
        ),
        (
            remembered(Topic::Active, 4),
            Role::Shadow,
            Some((Topic::Shadow, 4, 0)),
        ),
        (remembered(Topic::Shadow, 0), Role::Shadow, None),
    ] {
        let mut core = core(hook(&ROLES), std::slice::from_ref(&before));
        core.on_sighting(seen(role, 4), at(1.0));
        assert_eq!(told(&mut core, at(1.0)), expected, "{before:?} {role}");
    }
}

#[test]
fn what_a_receiver_does_not_want_is_passed_over_and_remembered() {
    let mut core = core(hook(&[Topic::RedundancyLost]), &[]);
    let lost = |lost: bool| Sighting {
        redundant: !lost,
        ..seen(Role::Active, 1)
    };
    for (start, in_flight) in [(10.0, false), (100.0, true)] {
        core.on_sighting(lost(true), at(start));
        core.on_timer(at(start + 3.0));
        let first = told(&mut core, at(start + 3.0));
        assert_eq!(first, Some((Topic::RedundancyLost, 1, 0)));
        if !in_flight {
            done(&mut core, Outcome::Delivered, at(start + 4.0));
        }
        core.on_sighting(lost(false), at(start + 5.0));
        core.on_timer(at(start + 8.0));
        if in_flight {
            done(&mut core, Outcome::Delivered, at(start + 9.0));
        }
        assert_eq!(told(&mut core, at(start + 9.0)), None);
        let mut last = None;
        while let Some(told) = core.poll_told() {
            last = (told.subject == "redundancy")
                .then_some(told.topic)
                .or(last);
        }
        assert_eq!(last, Some(Topic::RedundancyRestored));
    }
}

#[test]
fn a_vacancy_of_a_takeover_is_told_to_nobody() {
    let mut core = core(hook(&[Topic::Lost, Topic::Owned]), &[]);
    core.on_sighting(seen(Role::Shadow, 1), at(1.0));
    let vacant = Sighting {
        active: None,
        ..seen(Role::Shadow, 1)
    };
    core.on_sighting(vacant.clone(), at(10.0));
    core.on_sighting(seen(Role::Active, 2), at(10.1));
    core.on_timer(at(30.0));
    assert_eq!(told(&mut core, at(30.0)), None, "all is well");
    core.on_sighting(vacant, at(40.0));
    assert_eq!(core.next_deadline(), Some(at(42.0).boot));
    core.on_timer(at(42.0));
    assert_eq!(told(&mut core, at(42.0)), Some((Topic::Lost, 1, 0)));
}

fn alert() -> Receiver {
    Receiver {
        id: "alert/ops".to_owned(),
        retry_for: Some(SECOND * 60),
        repeat_after: SECOND * 300,
        rate: Some((2, SECOND * 10)),
        ..hook(&Topic::ALL)
    }
}

fn failure(detail: &str) -> Event {
    Event {
        seq: 0,
        boot_ns: BootTime::default(),
        wall_ms: 0,
        kind: EventKind::Failure,
        group: Some(name("web")),
        epoch: Some(1),
        cause: Some(Cause::StepFailed),
        detail: detail.to_owned(),
    }
}

#[test]
fn the_same_failure_is_told_once_in_a_while() {
    let mut core = core(alert(), &[]);
    for second in [1.0, 2.0, 3.0] {
        core.on_event(&failure("disk"), at(second));
    }
    assert_eq!(told(&mut core, at(3.0)), Some((Topic::Failure, 1, 0)));
    done(&mut core, Outcome::Delivered, at(4.0));
    assert_eq!(told(&mut core, at(5.0)), None);
    assert_eq!(core.progress(0).expect("it is there").counts.repeated, 2);
    core.on_event(&failure("disk"), at(400.0));
    assert_eq!(told(&mut core, at(400.0)), Some((Topic::Failure, 1, 0)));
}

#[test]
fn what_is_too_much_waits_for_its_turn_and_the_last_is_not_lost() {
    let mut core = core(alert(), &[]);
    let mut sent = Vec::new();
    for step in 0..10 {
        let now = at(1.0 + f64::from(step) * 0.1);
        core.on_event(&failure(&step.to_string()), now);
        while let Some(delivery) = core.poll(now.boot) {
            sent.push(delivery.notice.detail);
            done(&mut core, Outcome::Delivered, now);
        }
    }
    assert_eq!(sent, ["0", "1"], "the burst");
    let due = core.next_deadline().expect("the last one waits");
    let last = core.poll(due).expect("it is its turn").notice;
    assert_eq!((last.detail.as_str(), last.skipped), ("9", 7));
}

#[test]
fn what_does_not_arrive_is_tried_again_later_and_later_and_then_given_up() {
    let mut core = core(alert(), &[]);
    core.on_sighting(seen(Role::Active, 1), at(1.0));
    let mut now = at(4.0);
    core.on_timer(now);
    let mut waits = Vec::new();
    while core.poll(now.boot).is_some() {
        done(&mut core, Outcome::Unreached, now);
        let Some(due) = core.next_deadline() else {
            break;
        };
        waits.push(due.since(now.boot).as_secs());
        now.boot = due;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16]);
    assert_eq!(core.progress(0).expect("it is there").counts.given_up, 1);
    core.on_sighting(seen(Role::Shadow, 2), at(100.0));
    assert_eq!(told(&mut core, at(160.0)), Some((Topic::Shadow, 2, 1)));
}

#[test]
fn an_end_is_told_when_its_begin_may_have_arrived_and_only_then() {
    let lapsed = |lapsed: bool| Sighting {
        lapsed,
        ..seen(Role::Active, 1)
    };
    for (outcome, expected) in [
        (Outcome::Delivered, Some((Topic::LeaseHeld, 1, 0))),
        (Outcome::Unreached, Some((Topic::LeaseHeld, 1, 1))),
        (Outcome::Refused, None),
    ] {
        let mut receiver = alert();
        receiver.events = vec![Topic::LeaseLapsed, Topic::LeaseHeld];
        let mut core = core(receiver, &[]);
        core.on_sighting(lapsed(false), at(1.0));
        core.on_timer(at(5.0));
        assert_eq!(told(&mut core, at(5.0)), None);
        core.on_sighting(lapsed(true), at(10.0));
        core.on_timer(at(11.0));
        assert_eq!(told(&mut core, at(11.0)), Some((Topic::LeaseLapsed, 1, 0)));
        done(&mut core, outcome, at(11.0));
        core.on_sighting(lapsed(false), at(11.2));
        core.on_timer(at(12.3));
        assert_eq!(told(&mut core, at(30.0)), expected, "{outcome:?}");
    }
}

#[test]
fn a_test_goes_first_and_changes_nothing() {
    let mut core = core(hook(&ROLES), &[]);
    core.on_sighting(seen(Role::Active, 1), at(1.0));
    assert!(core.test(0, at(1.0)) && !core.test(0, at(1.0)) && !core.test(7, at(1.0)));
    assert_eq!(told(&mut core, at(1.0)), Some((Topic::Test, 0, 0)));
    done(&mut core, Outcome::Unreached, at(1.0));
    assert_eq!(told(&mut core, at(1.0)), Some((Topic::Active, 1, 0)));
}

proptest! {
    /// Whatever happens on the way, a receiver that is told with success in the end was told the
    /// last role, and every role that it was not told is counted.
    #[test]
    fn the_last_state_always_comes_through(
        steps in prop::collection::vec((0_u8..3, 0_u8..6, 0_u32..4000), 1..60),
    ) {
        let mut core = core(hook(&ROLES), &[]);
        let (mut now, mut last) = (at(1.0), None);
        let mut running = None;
        let mut heard = None;
        for (epoch, (role, act, wait_ms)) in (1_u64..).zip(steps) {
            now.boot = now.boot.after(Duration::from_millis(wait_ms.into()));
            let role = [Role::Active, Role::Shadow, Role::Joining][usize::from(role)];
            core.on_sighting(seen(role, epoch), now);
            last = match role {
                Role::Active => Some((Topic::Active, epoch)),
                Role::Shadow => Some((Topic::Shadow, 0)),
                _ => last,
            };
            if running.is_none() {
                running = core.poll(now.boot).map(|delivery| delivery.notice);
            } else if act < 3 {
                let outcome = [Outcome::Delivered, Outcome::TimedOut, Outcome::Unreached];
                let outcome = outcome[usize::from(act)];
                let notice = running.take().expect("it runs");
                done(&mut core, outcome, now);
                if outcome != Outcome::Unreached {
                    heard = Some(notice);
                }
            }
        }
        for _ in 0..3 {
            if let Some(notice) = running.take() {
                done(&mut core, Outcome::Delivered, now);
                heard = Some(notice);
            }
            now.boot = now.boot.after(SECOND * 61);
            running = core.poll(now.boot).map(|delivery| delivery.notice);
        }
        prop_assert!(running.is_none(), "it never ends");
        let heard = heard.map(|notice| {
            let epoch = if notice.event == Topic::Active { notice.epoch } else { 0 };
            (notice.event, epoch)
        });
        prop_assert_eq!(heard, last);
    }
}

#[test]
fn a_drill_that_failed_is_told_and_one_that_passed_to_whoever_wants_to_know() {
    let ended = |kind, detail: &str| Event {
        seq: 1,
        boot_ns: BootTime::default(),
        wall_ms: 0,
        kind,
        group: Some(name("web")),
        epoch: Some(3),
        cause: None,
        detail: detail.to_owned(),
    };
    let wanted = [Topic::DrillFailed];
    let mut alert = core(hook(&wanted), &[]);
    alert.on_sighting(seen(Role::Shadow, 3), at(1.0));
    alert.on_event(&ended(EventKind::Drill, "began"), at(2.0));
    alert.on_event(&ended(EventKind::DrillPassed, "passed"), at(3.0));
    assert_eq!(told(&mut alert, at(3.0)), None);
    alert.on_event(&ended(EventKind::DrillFailed, "check http: 500"), at(4.0));
    let notice = alert.poll(at(4.0).boot).expect("it is told").notice;
    assert_eq!((notice.event, notice.epoch), (Topic::DrillFailed, 3));
    assert_eq!(notice.severity, crate::facts::Severity::Warning);
    assert_eq!(notice.detail, "check http: 500");
    assert_eq!(notice.key, "a/web/drills");
    let mut both = core(hook(&[Topic::DrillFailed, Topic::DrillPassed]), &[]);
    both.on_event(&ended(EventKind::DrillPassed, "passed"), at(3.0));
    assert_eq!(told(&mut both, at(3.0)), Some((Topic::DrillPassed, 3, 0)));
}
