//! A member that lacks something of the profile goes last, or by policy not at all.

use super::*;

fn lacking(role: Role) -> Body {
    let policy = PolicyWord {
        reason: Some(Cause::NotReady),
        ..PolicyWord::default()
    };
    Body::Beat {
        role,
        priority: 90,
        eligible: false,
        lease: Duration::ZERO,
        electorate: 0,
        policy,
    }
}

#[test]
fn a_shadow_that_lacks_something_says_so_and_takes_over_late_rather_than_nobody() {
    let mut ready = Bench::shadow(false);
    ready.pass(SUSPECT * 5, None);
    assert!(ready.took().is_some(), "as it does without a lack");
    let mut bench = Bench::shadow(false);
    bench.group.on_readiness(false, bench.now);
    let status = bench.group.status(bench.now);
    assert_eq!(
        (status.eligible, status.policy.reason),
        (false, Some(Cause::NotReady))
    );
    bench.pass(SUSPECT * 5, None);
    assert_eq!(bench.took(), None, "others go first");
    bench.pass(SUSPECT * 10, None);
    assert!(bench.took().is_some(), "but there is nobody");
    // An owner proves itself by serving.
    assert!(bench.group.status(bench.now).eligible);
}

#[test]
fn where_the_policy_wants_a_proof_it_never_takes_over_until_it_is_ready() {
    let mut bench = Bench::shadow(false);
    bench.group.settings.promote_unready = false;
    bench.group.on_readiness(false, bench.now);
    bench.pass(SUSPECT * 100, None);
    assert_eq!(bench.took(), None);
    bench.group.on_readiness(true, bench.now);
    bench.pass(SUSPECT * 5, None);
    assert!(bench.took().is_some());
}

#[test]
fn where_the_policy_wants_a_proof_silence_of_who_compares_is_none() {
    let strict = || {
        let mut bench = Bench::shadow(false);
        bench.group.settings.promote_unready = false;
        bench
    };
    let mut unheard = strict();
    unheard.pass(SUSPECT * 100, None);
    assert_eq!(unheard.took(), None, "nothing was compared yet");
    let mut hung = strict();
    hung.group.on_readiness(true, hung.now);
    assert!(hung.group.status(hung.now).eligible);
    let later = hung.now.after(Duration::from_secs(31));
    let status = hung.group.status(later);
    assert_eq!(
        (status.eligible, status.policy.reason),
        (false, Some(Cause::NotReady))
    );
}

#[test]
fn it_is_handed_nothing_but_by_an_owner_that_cannot_serve() {
    let mut bench = Bench::active(false);
    bench.hear(epoch(1, 1), lacking(Role::Shadow));
    let now = bench.now;
    assert_eq!(bench.group.hand_over(None, now), Err(Refusal::NobodyReady));
    let refused = Err(Refusal::NotReady(name("b")));
    assert_eq!(bench.group.hand_over(Some(&name("b")), now), refused);
    let dropped = Action::DropVips { epoch: epoch(1, 1) };
    bench.group.on_unit(&name("warm.service"), false, now);
    bench.take();
    assert!(bench.actions.contains(&dropped));
    let mut strict = Bench::active(false);
    strict.group.settings.promote_unready = false;
    strict.hear(epoch(1, 1), lacking(Role::Shadow));
    strict
        .group
        .on_unit(&name("warm.service"), false, strict.now);
    strict.take();
    assert!(!strict.actions.contains(&dropped), "nobody would take it");
}
