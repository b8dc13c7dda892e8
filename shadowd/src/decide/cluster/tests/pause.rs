//! The pause of an owner whose daemon is restarted, and what voters remember over a restart.

use super::lease::{electorate, leased, owner};
use super::*;
use crate::decide::cluster::Witness;
use crate::facts::{Kept, KeptPause, KeptVote, Memory, PolicyMemory};

const AWAY: Duration = Duration::from_secs(5);

/// The witness promises `lease`, in answer to what was sent just now.
fn promised(bench: &mut Bench, epoch: Epoch, lease: Duration) {
    let message = GroupMessage {
        group: name("web"),
        epoch,
        body: Body::Promise {
            sent: bench.now,
            lease,
        },
    };
    let now = bench.now;
    bench.group.on_message(&name("w"), now, &message, None, now);
    bench.take();
}

/// An owner that has paused, and what it leaves.
fn paused() -> (Bench, Epoch, Memory) {
    let mut bench = owner();
    let own = bench.group.active_epoch().expect("it is active");
    bench.group.on_pause(AWAY, bench.now);
    bench.pass(HEARTBEAT, None);
    assert!(bench.said(|body| matches!(body, Body::Pause { .. })));
    promised(&mut bench, own, SUSPECT);
    assert!(!bench.group.paused(), "that is not long enough");
    promised(&mut bench, own, AWAY * 2);
    assert!(bench.group.paused());
    let kept = Kept {
        vote: bench.group.vote_at_rest(),
        pause: bench.group.pause_at_rest(bench.now),
    };
    let memory = Memory {
        kept,
        promise: None,
    };
    (bench, own, memory)
}

#[test]
fn an_owner_that_paused_goes_on_in_its_epoch() {
    let (bench, own, memory) = paused();
    assert!(!bench.actions.contains(&Action::DropVips { epoch: own }));
    let deadline = memory.kept.pause.as_ref().map(|pause| pause.deadline);
    assert!(deadline >= Some(bench.now.after(AWAY)));
    assert_eq!(bench.group.may_answer_until(), deadline);
    let mut next = leased();
    next.now = bench.now.after(AWAY / 2);
    next.group.last_run = next.now;
    next.group.newest = own;
    assert!(next.group.remember(&memory, next.now));
    next.take();
    assert_eq!(next.group.active_epoch(), Some(own));
    assert_eq!(next.took(), Some(own));
    assert_eq!(next.group.may_answer_until(), deadline);
    assert!(!next.recorded(EventKind::Claimed) && !next.recorded(EventKind::RoleChanged));
    let owned = PolicyMemory {
        owner: true,
        ..PolicyMemory::default()
    };
    next.group.restore(owned, AWAY / 2, next.now);
    let penalty = next.group.status(next.now).policy.flap_penalty;
    assert_eq!(penalty, 0.0, "it did not die");
    let says_active = |body: &Body| {
        matches!(
            body,
            Body::Beat {
                role: Role::Active,
                eligible: true,
                ..
            }
        )
    };
    assert!(next.said(says_active), "it is heard at once");
}

#[test]
fn a_pause_that_is_over_or_not_this_hosts_is_not_gone_on_with() {
    let (bench, own, memory) = paused();
    let changed = |change: &dyn Fn(&mut KeptPause)| {
        let mut memory = memory.clone();
        memory.kept.pause.iter_mut().for_each(change);
        memory
    };
    let now = bench.now;
    for (memory, newest) in [
        (changed(&|pause| pause.deadline = now), own),
        (changed(&|pause| pause.epoch.owner = id(2)), own),
        (changed(&|pause| pause.electorate += 1), own),
        (changed(&|pause| pause.interface.push('1')), own),
        (changed(&|pause| pause.vips.clear()), own),
        (memory.clone(), epoch(own.counter + 1, 2)),
    ] {
        let mut next = leased();
        next.group.newest = newest;
        assert!(!next.group.remember(&memory, now));
        assert_eq!(next.role(), Role::Joining);
    }
}

#[test]
fn without_the_voters_word_a_restart_is_a_stop() {
    let mut bench = owner();
    let own = bench.group.active_epoch().expect("it is active");
    bench.group.on_pause(AWAY, bench.now);
    bench.pass(Duration::from_millis(3_500), None);
    assert!(!bench.group.paused());
    assert_eq!(bench.group.pause_at_rest(bench.now), None);
    assert!(bench.actions.contains(&Action::DropVips { epoch: own }));
    bench.done(Done::VipsDropped { epoch: own });
    assert!(bench.said(|body| matches!(
        body,
        Body::Resign {
            cause: Cause::DaemonStopped
        }
    )));
}

#[test]
fn an_owner_in_trouble_does_not_pause() {
    let mut bench = owner();
    bench.group.on_unit(&name("warm.service"), false, bench.now);
    bench.group.on_pause(AWAY, bench.now);
    bench.take();
    assert!(
        bench
            .actions
            .iter()
            .any(|one| matches!(one, Action::DropVips { .. }))
    );
}

#[test]
fn without_protection_a_pause_is_said_often_enough() {
    let mut bench = Bench::active(false);
    bench.group.on_pause(AWAY, bench.now);
    assert!(!bench.group.paused());
    bench.pass(HEARTBEAT * 4, None);
    assert!(bench.group.paused());
    let mut shadow = Bench::shadow(false);
    let body = Body::Pause {
        silent: AWAY,
        electorate: 0,
    };
    shadow.hear(epoch(1, 2), body);
    shadow.pass(AWAY - HEARTBEAT, None);
    assert!(!shadow.recorded(EventKind::PeerSuspected));
    shadow.pass(HEARTBEAT * 2, None);
    assert!(shadow.recorded(EventKind::PeerSuspected));
}

#[test]
fn more_than_the_quiet_time_is_promised_only_once_the_disk_has_it() {
    let mut bench = leased();
    bench.pass(SUSPECT * 17, None);
    let pause = || Body::Pause {
        silent: AWAY,
        electorate: electorate(),
    };
    let promise = |bench: &Bench| {
        let said = bench.actions.iter().rev().find_map(|action| match action {
            Action::Send {
                body: Body::Promise { lease, .. },
                ..
            } => Some(*lease),
            _ => None,
        });
        said.expect("it promises")
    };
    let own = epoch(5, 2);
    bench.hear(own, pause());
    assert_eq!(promise(&bench), SUSPECT * 16);
    let kept = bench.actions.iter().find_map(|action| match action {
        Action::KeepPromise(kept) => Some(*kept),
        _ => None,
    });
    let kept = kept.expect("it is to be kept");
    assert!(kept.epoch == own && kept.until > bench.now.after(AWAY));
    bench.actions.clear();
    bench.hear(own, pause());
    assert_eq!(promise(&bench), SUSPECT * 16, "still on its way");
    assert!(
        !bench
            .actions
            .iter()
            .any(|one| matches!(one, Action::KeepPromise(_)))
    );
    bench.done(Done::PromiseKept(kept));
    bench.hear(own, pause());
    assert_eq!(promise(&bench), AWAY);
}

/// A witness of `a` (1) and `b` (2) that starts with `memory`.
fn witness(memory: &Memory, now: BootTime) -> Witness {
    let settings = leased().group.settings().clone();
    let peer = |text: &str, number| Peer {
        name: name(text),
        id: id(number),
    };
    let members = vec![peer("a", 1), peer("b", 2)];
    let mut witness = Witness::new(settings, &peer("w", 3), members, &[], Epoch::NONE, now);
    witness.remember(memory);
    witness
}

/// Whether it promises `from`'s epoch anything.
fn grants(witness: &mut Witness, from: &str, epoch: Epoch, now: BootTime) -> bool {
    let body = Body::Ask {
        lease: SUSPECT,
        electorate: electorate(),
    };
    let message = GroupMessage {
        group: name("web"),
        epoch,
        body,
    };
    witness.on_message(&name(from), now, &message, now);
    let mut granted = false;
    while let Some(action) = witness.poll_action() {
        granted |= matches!(
            action,
            Action::Send {
                body: Body::Promise { .. },
                ..
            }
        );
    }
    granted
}

#[test]
fn a_voter_forgets_no_promise_and_is_quiet_only_when_it_might_have() {
    let now = BootTime::from_nanos(9_000_000_000);
    let later = now.after(AWAY);
    let (one, two) = (epoch(5, 1), epoch(6, 2));
    let nothing = Memory::default();
    assert!(!grants(&mut witness(&nothing, now), "b", two, now), "quiet");
    let rest = Kept {
        vote: Some(KeptVote {
            electorate: electorate(),
            quiet_until: now,
            promise: Some((one, later)),
            newest: one,
            asked: 0,
        }),
        pause: None,
    };
    let clean = Memory {
        kept: rest,
        promise: None,
    };
    assert!(
        !grants(&mut witness(&clean, now), "b", two, now),
        "kept out"
    );
    assert!(grants(&mut witness(&clean, now), "a", one, now), "at once");
    assert!(grants(&mut witness(&clean, now), "b", two, later));
    let crashed = Memory {
        kept: Kept::default(),
        promise: Some(crate::facts::KeptPromise {
            epoch: one,
            until: later,
            length_ns: 1,
        }),
    };
    let after_quiet = now.after(SUSPECT * 16);
    assert!(!grants(&mut witness(&crashed, now), "a", one, now), "quiet");
    assert!(grants(&mut witness(&crashed, now), "a", one, after_quiet));
    assert!(!grants(&mut witness(&crashed, now), "b", two, after_quiet));
    assert!(grants(&mut witness(&crashed, now), "b", two, later));
}

#[test]
fn a_vote_of_another_set_of_voters_is_kept_but_ends_no_quiet_time() {
    let now = BootTime::from_nanos(9_000_000_000);
    let (one, two) = (epoch(5, 1), epoch(6, 2));
    let after_quiet = now.after(SUSPECT * 16);
    let later = after_quiet.after(SUSPECT);
    let mut memory = Memory::default();
    memory.kept.vote = Some(KeptVote {
        electorate: electorate() + 1,
        quiet_until: now,
        promise: Some((one, later)),
        newest: one,
        asked: 0,
    });
    assert!(!grants(&mut witness(&memory, now), "a", one, now), "quiet");
    assert!(grants(&mut witness(&memory, now), "a", one, after_quiet));
    assert!(!grants(&mut witness(&memory, now), "b", two, after_quiet));
    assert!(grants(&mut witness(&memory, now), "b", two, later));
    let mut member = leased();
    member.group.remember(&memory, now);
    let vote = member.group.vote_at_rest().expect("a lease protects it");
    assert_eq!(vote.quiet_until, member.now.after(SUSPECT * 16));
    assert_eq!(vote.promise, Some((one, later)));
}
