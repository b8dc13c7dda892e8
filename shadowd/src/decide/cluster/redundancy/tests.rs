//! Transitions of [`Redundancy`]: one table, and what does not fit into one.

use super::*;

const A: usize = 0;
const C: usize = 1;
const D: usize = 2;

fn at(seconds: u64) -> BootTime {
    BootTime::from_nanos((100 + seconds) * 1_000_000_000)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn rules(provider: bool) -> RedundancySettings {
    let provider = provider.then_some(ProviderRules {
        deadline: seconds(30),
        ready_within: seconds(60),
        retry: seconds(10),
        attempts: 2,
    });
    RedundancySettings {
        rejoin_within: seconds(20),
        release_after: seconds(15),
        provider,
        ..RedundancySettings::of(1)
    }
}

/// Member a, spares c and d: who is ready, who is heard, who is enlisted; a spare that is heard and
/// not enlisted is in the pool.
fn view(ready: &[usize], alive: &[usize], enlisted: &[usize]) -> View {
    let set = |members: &[usize]| members.iter().fold(0, |set, member| set | only(*member));
    let spare = |member: &usize| [C, D].contains(member) && !enlisted.contains(member);
    View {
        ready: set(ready),
        spares: set(&[C, D]),
        enlisted: set(enlisted),
        alive: set(alive),
        pool: alive.iter().copied().filter(spare).collect(),
        held: false,
        suspect_after: Duration::from_millis(300),
    }
}

fn loss() -> Loss {
    Loss {
        who: Some(A),
        cause: Some(Cause::Silence),
    }
}

fn owner(provider: bool) -> (Redundancy, RedundancySettings) {
    let (mut core, rules) = (Redundancy::default(), rules(provider));
    core.begin(loss(), false, &rules, at(0));
    (core, rules)
}

fn answer(state: ProviderState) -> ProviderAnswer {
    let detail = "said".to_owned();
    ProviderAnswer { state, detail }
}

fn step(core: &Redundancy) -> Step {
    match &core.state {
        State::Lost(lost) => lost.step,
        state => panic!("not lost: {state:?}"),
    }
}

/// From a loss at 0: at each second, what is there and what is wanted because of it.
type Row = (u64, View, Vec<Want>);

fn play(core: &mut Redundancy, rules: &RedundancySettings, rows: Vec<Row>) {
    for (second, view, wanted) in rows {
        let wants = core.review(&view, rules, at(second));
        assert_eq!(wants, wanted, "at {second} s, {:?}", core.state);
    }
}

#[test]
fn the_old_primary_comes_back_by_itself() {
    let (mut core, rules) = owner(true);
    let nobody = || view(&[], &[C], &[]);
    play(
        &mut core,
        &rules,
        vec![
            (0, nobody(), vec![]),
            (2, nobody(), vec![]),
            (3, nobody(), vec![Want::TellLost]),
            (19, nobody(), vec![]),
            (19, view(&[A], &[A, C], &[]), vec![Want::TellRestored]),
            (90, view(&[A], &[A, C], &[]), vec![]),
        ],
    );
    assert_eq!(core.state, State::Full { since: at(19) });
    let last = core.last.expect("it was restored");
    let expected = (RestoredBy::Rejoined, A, seconds(19), at(19));
    assert_eq!((last.by, last.host, last.took, last.at), expected);
}

#[test]
fn what_is_over_at_once_is_told_to_nobody() {
    let (mut core, rules) = owner(false);
    play(
        &mut core,
        &rules,
        vec![
            (0, view(&[], &[], &[]), vec![]),
            (2, view(&[A], &[A], &[]), vec![]),
            (8, view(&[], &[], &[]), vec![]),
            (10, view(&[A], &[A], &[]), vec![]),
        ],
    );
    assert_eq!(core.last, None);
}

#[test]
fn a_spare_is_enlisted_in_time_and_released_when_it_is_not_needed() {
    let (mut core, rules) = owner(true);
    let full = || view(&[A, C], &[A, C], &[C]);
    play(
        &mut core,
        &rules,
        vec![
            (3, view(&[], &[C], &[]), vec![Want::TellLost]),
            (20, view(&[], &[C], &[]), vec![Want::Enlist(C)]),
            (21, view(&[], &[C], &[C]), vec![]),
            (22, view(&[C], &[C], &[C]), vec![Want::TellRestored]),
            // The member is back, and stays for long enough, which begins anew when it goes.
            (30, full(), vec![]),
            (44, view(&[C], &[C], &[C]), vec![]),
            (45, full(), vec![]),
            (59, full(), vec![]),
            (
                60,
                full(),
                vec![Want::Release(C, "enough members are ready")],
            ),
            (61, view(&[A], &[A, C], &[]), vec![]),
        ],
    );
    let last = core.last.expect("it was restored");
    assert_eq!(
        (last.by, last.host, last.took),
        (RestoredBy::Spare, C, seconds(22))
    );
}

#[test]
fn a_spare_that_does_not_become_ready_makes_room_for_the_next() {
    let (mut core, rules) = owner(false);
    play(
        &mut core,
        &rules,
        vec![
            (3, view(&[], &[C, D], &[]), vec![Want::TellLost]),
            (20, view(&[], &[C, D], &[]), vec![Want::Enlist(C)]),
            (25, view(&[], &[C, D], &[C]), vec![]),
            (
                26,
                view(&[], &[C, D], &[C]),
                vec![Want::Release(C, "it did not become ready"), Want::Enlist(D)],
            ),
            (27, view(&[D], &[C, D], &[D]), vec![Want::TellRestored]),
        ],
    );
}

#[test]
fn a_provider_is_asked_when_no_spare_is_there_and_believed_when_the_spare_is_heard() {
    let (mut core, rules) = owner(true);
    let nobody = || view(&[], &[], &[]);
    let ask = |host, attempt| Want::Provide { host, attempt };
    play(
        &mut core,
        &rules,
        vec![
            (3, nobody(), vec![Want::TellLost]),
            (20, nobody(), vec![ask(C, 1)]),
            (25, nobody(), vec![]),
        ],
    );
    let said = answer(ProviderState::Creating);
    assert_eq!(core.on_answer((C, 1), &said, &rules, at(25)), vec![]);
    let rows = vec![(29, nobody(), vec![]), (30, nobody(), vec![ask(C, 1)])];
    play(&mut core, &rules, rows);
    let said = answer(ProviderState::Ready);
    assert_eq!(core.on_answer((C, 1), &said, &rules, at(31)), vec![]);
    // Its word alone restores nothing, and enlists nobody.
    play(&mut core, &rules, vec![(40, nobody(), vec![])]);
    assert!(matches!(
        step(&core),
        Step::Coming {
            host: C,
            again: None,
            ..
        }
    ));
    play(
        &mut core,
        &rules,
        vec![
            (50, view(&[], &[C], &[]), vec![Want::Enlist(C)]),
            (51, view(&[C], &[C], &[C]), vec![Want::TellRestored]),
        ],
    );
    let last = core.last.expect("it was restored");
    assert_eq!((last.by, last.took), (RestoredBy::Provided, seconds(51)));
}

#[test]
fn attempts_are_bounded_and_their_pauses_grow() {
    let (mut core, rules) = owner(true);
    let nobody = || view(&[], &[], &[]);
    let mut now = 20;
    let mut asked = Vec::new();
    let mut told = Vec::new();
    core.review(&nobody(), &rules, at(3));
    while step(&core) != Step::Exhausted {
        for want in core.review(&nobody(), &rules, at(now)) {
            match want {
                Want::Provide { host, attempt } => {
                    asked.push((now, host, attempt));
                    let said = answer(ProviderState::Failed);
                    let why = core.on_answer((host, attempt), &said, &rules, at(now));
                    let failed =
                        matches!(&why[..], [Want::TellFailed { why, .. }] if why == "said");
                    assert!(failed, "{why:?}");
                }
                want => told.push(want),
            }
        }
        now += 1;
        assert!(now < 1_000, "it gives up");
    }
    // Both spares, the one that was tried less often first.
    assert_eq!(asked, vec![(20, C, 1), (30, D, 1), (40, C, 2), (60, D, 2)]);
    assert_eq!(told, vec![Want::TellExhausted]);
    // A spare that comes all the same is taken, and a member is as good.
    let wants = core.review(&view(&[], &[D], &[]), &rules, at(500));
    assert_eq!(wants, vec![Want::Enlist(D)]);
}

#[test]
fn silence_and_lies_of_a_provider_are_attempts_that_failed() {
    let (mut core, rules) = owner(true);
    let nobody = || view(&[], &[], &[]);
    let failed = |why: &str| Want::TellFailed {
        host: C,
        why: why.to_owned(),
    };
    core.review(&nobody(), &rules, at(3));
    core.review(&nobody(), &rules, at(20));
    // Its command ends after 30 s, and that would be known 60 s later.
    let lost = failed("how the command ended is not known");
    let rows = vec![(109, nobody(), vec![]), (110, nobody(), vec![lost])];
    play(&mut core, &rules, rows);
    let late = answer(ProviderState::Ready);
    assert_eq!(core.on_answer((C, 1), &late, &rules, at(111)), vec![]);
    assert!(
        matches!(step(&core), Step::Again { .. }),
        "that attempt is over"
    );

    let (mut core, rules) = owner(true);
    core.review(&nobody(), &rules, at(3));
    core.review(&nobody(), &rules, at(20));
    core.on_answer((C, 1), &answer(ProviderState::Ready), &rules, at(21));
    let lie = failed("it was not heard as a spare that is ready in time");
    let rows = vec![(79, nobody(), vec![]), (80, nobody(), vec![lie])];
    play(&mut core, &rules, rows);
}

#[test]
fn an_enlisted_spare_that_dies_is_created_anew() {
    let (mut core, rules) = owner(true);
    play(
        &mut core,
        &rules,
        vec![
            (1, view(&[C], &[C], &[C]), vec![]),
            (10, view(&[], &[], &[C]), vec![]),
            (13, view(&[], &[], &[C]), vec![Want::TellLost]),
            (
                30,
                view(&[], &[], &[C]),
                vec![
                    Want::Release(C, "it is silent"),
                    Want::Provide {
                        host: C,
                        attempt: 1,
                    },
                ],
            ),
        ],
    );
}

#[test]
fn nothing_is_done_while_an_operator_works_or_by_who_does_not_own() {
    let (mut core, rules) = owner(true);
    let held = View {
        held: true,
        ..view(&[], &[C], &[])
    };
    let rows = vec![(3, held.clone(), vec![Want::TellLost]), (60, held, vec![])];
    play(&mut core, &rules, rows);
    core.end();
    let rows = vec![(61, view(&[], &[C], &[]), vec![])];
    play(&mut core, &rules, rows);
    let said = answer(ProviderState::Failed);
    assert_eq!(core.on_answer((C, 1), &said, &rules, at(62)), vec![]);
}

/// A lease that lapses on a busy host ends no loss, and no attempt; another owner does.
#[test]
fn an_owner_that_owns_again_goes_on_where_it_was() {
    let nobody = || view(&[], &[], &[]);
    let restored = |again: bool| {
        let (mut core, rules) = owner(true);
        core.review(&nobody(), &rules, at(3));
        let asked = Want::Provide {
            host: C,
            attempt: 1,
        };
        assert_eq!(core.review(&nobody(), &rules, at(20)), vec![asked]);
        core.end();
        core.begin(loss(), again, &rules, at(25));
        let said = answer(ProviderState::Ready);
        core.on_answer((C, 1), &said, &rules, at(26));
        core.review(&view(&[], &[C], &[]), &rules, at(29));
        core.review(&view(&[C], &[C], &[C]), &rules, at(50));
        let last = core.last.expect("it was restored");
        (last.by, last.took)
    };
    assert_eq!(restored(true), (RestoredBy::Provided, seconds(50)));
    assert_eq!(restored(false), (RestoredBy::Provided, seconds(25)));
}
