//! Maintenance, freeze, failback, the flap budget, and members that disagree.

use super::*;
use crate::facts::{PolicyMemory, PolicyOrder};

const WAIT: Duration = Duration::from_secs(1);

/// A heartbeat of `b` with a priority and what bounds failover there.
fn beat(role: Role, priority: u8, policy: PolicyWord) -> Body {
    Body::Beat {
        role,
        priority,
        eligible: policy.reason.is_none(),
        lease: Duration::ZERO,
        electorate: 0,
        policy,
    }
}

fn well(role: Role, priority: u8) -> Body {
    beat(role, priority, PolicyWord::default())
}

fn maintain(force: bool) -> PolicyOrder {
    PolicyOrder::MaintenanceOn {
        span: None,
        reason: "new disk".to_owned(),
        force,
    }
}

fn freeze() -> PolicyOrder {
    PolicyOrder::Freeze {
        span: WAIT,
        reason: String::new(),
    }
}

impl Bench {
    fn order(&mut self, order: PolicyOrder) -> Result<Option<Name>, Refusal> {
        let answer = self.group.on_order(order, self.now);
        self.take();
        answer
    }

    fn offered(&self) -> bool {
        self.said(|body| *body == Body::Offer { to: id(2) })
    }

    fn word(&self) -> PolicyWord {
        let words = self.actions.iter().rev();
        let mut words = words.filter_map(|action| match action {
            Action::Send {
                body: Body::Beat { policy, .. },
                ..
            } => Some(*policy),
            _ => None,
        });
        words.next().unwrap()
    }

    fn causes(&self) -> Vec<Cause> {
        let causes = self.actions.iter().filter_map(|action| match action {
            Action::Record(record) if record.kind == EventKind::Handover => record.cause,
            _ => None,
        });
        causes.collect()
    }

    /// The unit dies while the group is here and comes back; `b` takes over and dies too.
    fn flap(&mut self) {
        let unit = name("warm.service");
        let owned = self.group.newest_epoch();
        self.group.on_unit(&unit, false, self.now);
        self.take();
        self.done(Done::VipsDropped { epoch: owned });
        self.group.on_unit(&unit, true, self.now);
        let theirs = epoch(owned.counter + 1, 2);
        self.hear(theirs, active());
        assert_eq!(self.role(), Role::Shadow);
        self.actions.clear();
    }
}

#[test]
fn maintenance_hands_the_group_over_and_keeps_it_away() {
    let mut bench = Bench::active(false);
    assert_eq!(bench.order(maintain(false)), Ok(Some(name("b"))));
    assert!(bench.offered());
    assert_eq!(bench.word().reason, Some(Cause::Maintenance));
    assert!(bench.recorded(EventKind::Maintenance));
    bench.hear(epoch(1, 1), Body::Ready { passes_back: None });
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    bench.hear(epoch(2, 2), active());
    bench.actions.clear();
    bench.pass(SUSPECT * 50, None);
    assert_eq!(
        bench.took(),
        None,
        "b is silent, but this host is worked on"
    );
    bench.order(PolicyOrder::MaintenanceOff).unwrap();
    assert!(bench.took().is_some());
}

#[test]
fn maintenance_of_an_owner_that_nobody_could_relieve_is_refused_or_waits() {
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 1), shadow(false));
    assert_eq!(bench.order(maintain(false)), Err(Refusal::NobodyReady));
    assert_eq!(bench.group.status(bench.now).policy.maintenance, None);
    assert_eq!(bench.order(maintain(true)), Ok(None));
    bench.pass(SUSPECT * 20, Some((epoch(1, 1), shadow(false))));
    assert_eq!(bench.role(), Role::Active);
    assert!(!bench.offered());
    bench.hear(epoch(1, 1), shadow(true));
    assert!(bench.offered(), "as soon as somebody can");
    assert_eq!(bench.causes(), [Cause::Maintenance]);
}

#[test]
fn maintenance_ends_by_itself_and_outlasts_a_restart() {
    let mut bench = Bench::shadow(false);
    let order = PolicyOrder::MaintenanceOn {
        span: Some(WAIT),
        reason: "new disk".to_owned(),
        force: false,
    };
    assert_eq!(bench.order(order), Ok(None));
    let memory = bench.group.remembered(bench.now);
    let mut again = Bench::shadow(false);
    again.group.restore(memory.clone(), WAIT / 2, again.now);
    let status = again.group.status(again.now).policy;
    assert_eq!(status.maintenance.unwrap().reason, "new disk");
    again.pass(WAIT * 3 / 4, Some((epoch(1, 2), active())));
    assert!(again.group.status(again.now).eligible);
    again.group.restore(memory, WAIT * 2, again.now);
    assert!(again.group.status(again.now).eligible, "over meanwhile");
}

#[test]
fn nobody_takes_a_frozen_group_over_until_the_freeze_ends() {
    let mut bench = Bench::shadow(false);
    let word = PolicyWord {
        freeze_order: 1 << 16,
        freeze_left_ms: 1_000,
        ..PolicyWord::default()
    };
    bench.hear(epoch(1, 2), beat(Role::Active, 90, word));
    assert!(bench.group.status(bench.now).policy.frozen.is_some());
    bench.pass(WAIT * 9 / 10, None);
    assert_eq!(bench.took(), None, "b is silent, but the group is frozen");
    assert_eq!(bench.word().freeze_order, 1 << 16, "told on");
    bench.pass(WAIT / 5, None);
    assert!(bench.took().is_some(), "it has ended by itself");
}

#[test]
fn a_newer_order_wins_and_an_older_one_changes_nothing() {
    let mut bench = Bench::shadow(false);
    bench.order(freeze()).unwrap();
    let own = bench.word();
    assert!(own.freeze_left_ms == 1_000 && own.freeze_order > 0);
    let word = |freeze_order, freeze_left_ms| PolicyWord {
        freeze_order,
        freeze_left_ms,
        ..PolicyWord::default()
    };
    let say = |bench: &mut Bench, order| {
        bench.hear(epoch(1, 2), beat(Role::Active, 90, word(order, 0)));
        bench.group.status(bench.now).policy.frozen.is_some()
    };
    assert!(say(&mut bench, own.freeze_order - 1));
    assert!(say(&mut bench, u64::MAX), "leaves no number for the next");
    assert!(!say(&mut bench, own.freeze_order + (1 << 16)));
    bench.order(freeze()).unwrap();
    assert!(bench.word().freeze_order > own.freeze_order + (1 << 16));
}

#[test]
fn an_owner_keeps_a_frozen_group_but_hands_it_over_when_told() {
    let mut bench = Bench::active(false);
    bench.order(freeze()).unwrap();
    let unit = name("warm.service");
    bench.group.on_unit(&unit, false, bench.now);
    bench.pass(SUSPECT, Some((epoch(1, 1), shadow(true))));
    assert_eq!(bench.role(), Role::Active, "though b could do better");
    bench.group.on_unit(&unit, true, bench.now);
    assert_eq!(bench.group.hand_over(None, bench.now), Ok(name("b")));
    bench.take();
    bench.hear(epoch(1, 1), Body::Ready { passes_back: None });
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    bench.actions.clear();
    // What an operator began is brought to its end.
    bench.pass(SUSPECT * 11, Some((epoch(1, 1), shadow(true))));
    assert!(bench.took().is_some(), "b did not take it");
}

#[test]
fn a_group_goes_back_to_a_better_priority_that_was_ready_for_long_enough() {
    let better = |role| Some((epoch(1, 1), well(role, 200)));
    let owner = |failback| {
        let mut bench = Bench::active(false);
        bench.group.settings.policy.failback = failback;
        bench.pass(WAIT / 2, better(Role::Shadow));
        bench
    };
    let mut never = owner(None);
    never.pass(WAIT * 4, better(Role::Shadow));
    assert!(!never.offered());

    let mut bench = owner(Some(WAIT));
    bench.hear(epoch(1, 1), shadow(false));
    bench.pass(WAIT * 9 / 10, better(Role::Shadow));
    assert!(!bench.offered(), "it counts from when it was ready again");
    let ahead = bench.group.status(bench.now).policy.failback.unwrap();
    assert_eq!(ahead.to, name("b"));
    bench.pass(WAIT / 5, better(Role::Shadow));
    assert!(bench.offered());
    assert_eq!(bench.causes(), [Cause::Failback]);

    let mut equal = owner(Some(WAIT));
    let same = Some((epoch(1, 1), well(Role::Shadow, 100)));
    equal.pass(WAIT * 4, same);
    assert!(!equal.offered(), "no better than this one");
}

#[test]
fn failback_waits_for_its_window_and_for_the_end_of_a_freeze() {
    let better = Some((epoch(1, 1), well(Role::Shadow, 200)));
    let mut bench = Bench::active(false);
    bench.group.settings.policy.failback = Some(WAIT);
    bench.group.on_failback_window(false, bench.now);
    bench.pass(WAIT * 2, better.clone());
    assert!(!bench.offered());
    bench.order(freeze()).unwrap();
    bench.group.on_failback_window(true, bench.now);
    bench.pass(WAIT / 2, better.clone());
    assert!(!bench.offered());
    bench.pass(WAIT, better);
    assert!(bench.offered());
}

#[test]
fn a_member_that_a_group_leaves_too_often_is_held_back_while_another_could_own_it() {
    let mut bench = Bench::active(false);
    for _ in 0..2 {
        bench.flap();
        assert!(bench.group.status(bench.now).eligible);
        // Here it is heard irregularly, which makes patient.
        bench.pass(SUSPECT * 5, None);
        assert_eq!(bench.role(), Role::Active, "b is silent");
        let epoch = bench.group.newest_epoch();
        bench.done(Done::VipsTaken { epoch });
        bench.hear(epoch, shadow(true));
    }
    bench.flap();
    let status = bench.group.status(bench.now);
    assert!(!status.eligible && status.policy.held_until.is_some());
    assert_eq!(status.policy.reason, Some(Cause::Flapping));
    // Late, but rather than nobody.
    bench.pass(SUSPECT * 5, None);
    assert_eq!(bench.took(), None);
    bench.pass(SUSPECT * 10, None);
    assert!(bench.took().is_some());
}

#[test]
fn handovers_are_no_flaps_and_a_daemon_that_died_as_the_owner_is_one() {
    let mut bench = Bench::active(false);
    bench.group.hand_over(None, bench.now).unwrap();
    bench.hear(epoch(1, 1), Body::Ready { passes_back: None });
    let penalty = |bench: &Bench| bench.group.status(bench.now).policy.flap_penalty;
    assert_eq!(penalty(&bench), 0.0);
    let mut again = Bench::new(false);
    let owner = PolicyMemory {
        owner: true,
        ..PolicyMemory::default()
    };
    again.group.restore(owner, WAIT, again.now);
    assert_eq!(penalty(&again), 1_000.0);
    assert!(!again.group.remembered(again.now).owner, "counted once");
}

#[test]
fn an_operator_and_an_owner_in_trouble_overrule_the_penalty_of_another() {
    let word = PolicyWord {
        reason: Some(Cause::Flapping),
        ..PolicyWord::default()
    };
    let held = beat(Role::Shadow, 90, word);
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 1), held.clone());
    let now = bench.now;
    assert_eq!(bench.group.hand_over(None, now), Err(Refusal::NobodyReady));
    assert_eq!(bench.group.hand_over(Some(&name("b")), now), Ok(name("b")));
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 1), held);
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.take();
    let dropped = Action::DropVips { epoch: epoch(1, 1) };
    assert!(bench.actions.contains(&dropped));
}

/// Two members that abstain would hand the group to each other for ever, and nobody would have it.
#[test]
fn who_owns_the_group_because_all_others_abstain_stays() {
    let word = PolicyWord {
        reason: Some(Cause::Flapping),
        ..PolicyWord::default()
    };
    let held = beat(Role::Shadow, 90, word);
    let mut bench = Bench::active(true);
    bench.hear(epoch(1, 1), held.clone());
    bench.done(Done::Failed {
        epoch: epoch(1, 1),
        step: Step::StartUnits,
        why: String::new(),
    });
    let dropped = Action::DropVips { epoch: epoch(1, 1) };
    assert!(bench.actions.contains(&dropped), "it could not serve");
    bench.done(Done::VipsDropped { epoch: epoch(1, 1) });
    bench.actions.clear();
    bench.pass(SUSPECT * 15, Some((epoch(1, 1), held.clone())));
    let second = epoch(2, 1);
    assert_eq!(bench.took(), Some(second), "nobody else would");
    bench.done(Done::VipsTaken { epoch: second });
    bench.pass(SUSPECT * 15, Some((second, held)));
    let dropped = Action::DropVips { epoch: second };
    assert!(!bench.actions.contains(&dropped), "to nobody that abstains");
    bench.hear(second, shadow(true));
    assert!(
        bench.actions.contains(&dropped),
        "one that does not abstain"
    );
}

#[test]
fn of_two_members_that_disagree_on_the_group_one_may_own_it() {
    let differs = |role| {
        let word = PolicyWord {
            definition: 1,
            ..PolicyWord::default()
        };
        beat(role, 100, word)
    };
    // Which of the two is better is the same for both.
    let bench = Bench::new(false);
    let better = bench.group.key(100, id(1)) < bench.group.key(100, id(2));
    let mut bench = Bench::new(false);
    bench.pass(JOIN * 2, Some((Epoch::NONE, differs(Role::Shadow))));
    assert_eq!(bench.took().is_some(), better);
    let status = bench.group.status(bench.now);
    assert_eq!(status.policy.differs_from, [name("b")]);
    assert_eq!(status.eligible, better);
    assert!(bench.recorded(EventKind::Failure));
    // One that is gone disagrees no more.
    bench.pass(SUSPECT * 20, None);
    assert_eq!(bench.role(), Role::Active);
}
