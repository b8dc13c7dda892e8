//! Spares: who may claim, whose vote counts, and whose word enlists.

use super::*;
use crate::facts::{Enlistment, ProviderAnswer, ProviderState, RestoredBy};

/// Long enough for everything that an owner waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A group of a, b and the witness w, with the spare c: on a, or on c.
fn bench(on_spare: bool) -> Bench {
    let peer = |text: &str, number: u8| Peer {
        name: name(text),
        id: id(number),
    };
    let mut bench = Bench::new(false);
    let settings = GroupSettings {
        members: match on_spare {
            true => vec![name("a"), name("b")],
            false => vec![name("b")],
        },
        spares: match on_spare {
            true => Vec::new(),
            false => vec![name("c")],
        },
        spare: on_spare,
        witnesses: vec![name("w")],
        protection: Protection::Lease,
        guard: true,
        redundancy: RedundancySettings {
            rejoin_within: Duration::from_secs(10),
            ..RedundancySettings::of(1)
        },
        ..bench.group.settings().clone()
    };
    let (me, others) = match on_spare {
        true => (peer("c", 3), vec![peer("a", 1), peer("b", 2)]),
        // In any order: who votes comes first.
        false => (peer("a", 1), vec![peer("c", 3), peer("b", 2)]),
    };
    let witness = [peer("w", 9)];
    bench.group = Group::new(settings, me, others, &witness, Epoch::NONE, bench.now);
    bench.group.on_carrier(true, bench.now);
    bench.group.on_unit(&name("warm.service"), true, bench.now);
    bench.take();
    bench
}

fn beat(role: Role, reason: Option<Cause>, enlisted: Enlistment) -> Body {
    let policy = PolicyWord {
        reason,
        enlisted,
        ..PolicyWord::default()
    };
    Body::Beat {
        role,
        priority: 90,
        eligible: reason.is_none(),
        lease: Duration::ZERO,
        electorate: 0,
        policy,
    }
}

fn enlisted(epoch: u64, change: u32, spares: u8) -> Enlistment {
    Enlistment {
        epoch,
        change,
        spares,
    }
}

impl Bench {
    fn hear_from(&mut self, from: &str, epoch: Epoch, body: Body) {
        self.sent += 1_000_000;
        let message = GroupMessage {
            group: name("web"),
            epoch,
            body,
        };
        let sent = BootTime::from_nanos(self.sent);
        self.group
            .on_message(&name(from), sent, &message, None, self.now);
        self.take();
    }

    fn reason(&self) -> Option<Cause> {
        self.group.status(self.now).policy.reason
    }

    /// The epoch that it asked the voters for last, and who was asked.
    fn asked(&self) -> Option<(Epoch, Vec<Name>)> {
        let asks = self.actions.iter().filter_map(|action| match action {
            Action::Send {
                to,
                epoch,
                body: Body::Ask { .. },
            } => Some((*epoch, to.clone())),
            _ => None,
        });
        let asks: Vec<(Epoch, Name)> = asks.collect();
        let (last, _) = asks.last()?.clone();
        let whom = asks.into_iter().filter(|(epoch, _)| *epoch == last);
        Some((last, whom.map(|(_, to)| to).collect()))
    }

    /// Lets time pass until it asks the voters; for what, and whom.
    fn until_asked(&mut self, says: &[(&str, Epoch, Body)]) -> (Epoch, Vec<Name>) {
        self.actions.clear();
        for _ in 0..200 {
            self.pass_with(HEARTBEAT, says);
            if let Some(asked) = self.asked() {
                return asked;
            }
        }
        panic!("it asks: {:?}", self.group.status(self.now));
    }

    fn promise_from(&mut self, from: &str, epoch: Epoch) {
        let body = Body::Promise {
            sent: self.now,
            lease: SUSPECT,
        };
        self.hear_from(from, epoch, body);
    }

    /// Lets time pass; `says` are repeated at each heartbeat.
    fn pass_with(&mut self, span: Duration, says: &[(&str, Epoch, Body)]) {
        let end = self.now.after(span);
        while self.now < end {
            self.now = self.now.after(HEARTBEAT);
            for (from, epoch, body) in says {
                self.hear_from(from, *epoch, body.clone());
            }
            self.group.on_timer(self.now);
            self.take();
            if let Some(epoch) = self.group.active_epoch() {
                self.promise_from("w", epoch);
            }
        }
    }
}

#[test]
fn a_spare_claims_only_while_the_newest_owner_has_enlisted_it() {
    let claims = |word: Enlistment| {
        let mut bench = bench(true);
        // The quiet time of what it never votes for.
        let says = [("b", epoch(4, 2), beat(Role::Active, None, word))];
        bench.pass_with(SUSPECT * 20, &says);
        let reason = bench.reason();
        bench.actions.clear();
        bench.pass_with(SUSPECT * 20, &[]);
        (reason, bench.asked().map(|(_, whom)| whom))
    };
    assert_eq!(claims(enlisted(0, 0, 0)), (Some(Cause::Spare), None));
    // The word of an earlier epoch is none.
    assert_eq!(claims(enlisted(3, 7, 1)).0, Some(Cause::Spare));
    // Nobody knows the word of an epoch that is above his own.
    assert_eq!(claims(enlisted(9, 0, 1)).0, Some(Cause::Spare));
    let (reason, whom) = claims(enlisted(4, 2, 1));
    let whom = whom.expect("it asks");
    assert_eq!(reason, None);
    assert!(
        [name("a"), name("b"), name("w")]
            .iter()
            .all(|one| whom.contains(one))
    );
}

#[test]
fn a_spare_needs_a_majority_of_the_voters_and_is_none_itself() {
    let mut bench = bench(true);
    let word = enlisted(4, 2, 1);
    let says = [("b", epoch(4, 2), beat(Role::Active, None, word))];
    bench.pass_with(SUSPECT * 20, &says);
    let (asked, _) = bench.until_asked(&[]);
    bench.promise_from("w", asked);
    assert_eq!(bench.took(), None, "one of three voters is no majority");
    bench.promise_from("a", asked);
    assert_eq!(bench.took(), Some(asked));
    // It gives nobody a vote.
    let mut bench = self::bench(true);
    bench.pass_with(SUSPECT * 20, &says);
    let lease = bench.group.status(bench.now).lease.expect("a lease");
    assert_eq!(lease.voters.len(), 3);
    let ask = Body::Ask {
        lease: SUSPECT,
        electorate: bench.group.lease.as_ref().expect("a lease").electorate,
    };
    bench.actions.clear();
    bench.pass_with(SUSPECT * 3, &[]);
    bench.hear_from("a", epoch(9, 1), ask);
    assert!(!bench.said(|body| matches!(body, Body::Promise { .. })));
}

#[test]
fn members_count_no_promise_of_a_spare_and_spares_do_not_change_who_votes() {
    let mut with = bench(false);
    let without = |group: &Group| {
        let settings = GroupSettings {
            spares: Vec::new(),
            ..group.settings().clone()
        };
        let others = vec![Peer {
            name: name("b"),
            id: id(2),
        }];
        let witness = [Peer {
            name: name("w"),
            id: id(9),
        }];
        let me = Peer {
            name: name("a"),
            id: id(1),
        };
        let now = BootTime::from_nanos(5_000_000_000);
        Group::new(settings, me, others, &witness, Epoch::NONE, now)
    };
    let electorate = |group: &Group| group.lease.as_ref().map(|lease| lease.electorate);
    assert_eq!(electorate(&with.group), electorate(&without(&with.group)));
    let says = beat(Role::Shadow, None, enlisted(0, 0, 0));
    let (asked, whom) = with.until_asked(&[("b", Epoch::NONE, says)]);
    assert!(!whom.contains(&name("c")));
    with.promise_from("c", asked);
    assert_eq!(with.took(), None, "a spare has no vote");
    with.promise_from("b", asked);
    assert!(with.took().is_some());
}

/// b is gone for good: c is enlisted after the time that b has to come back, counts once it says
/// that it is ready, and is released when b is back and stays.
#[test]
fn an_owner_enlists_a_spare_and_releases_it() {
    let mut bench = bench(false);
    let spare = |word| {
        (
            "c",
            Epoch::NONE,
            beat(Role::Shadow, Some(Cause::Spare), word),
        )
    };
    let b = (
        "b",
        Epoch::NONE,
        beat(Role::Shadow, None, enlisted(0, 0, 0)),
    );
    let (asked, _) = bench.until_asked(&[b.clone(), spare(enlisted(0, 0, 0))]);
    bench.promise_from("w", asked);
    assert_eq!(bench.role(), Role::Active);
    let status = |bench: &Bench| bench.group.status(bench.now).redundancy.expect("it owns");
    bench.pass_with(
        Duration::from_secs(1),
        &[b.clone(), spare(enlisted(0, 0, 0))],
    );
    assert!(status(&bench).full && status(&bench).last.is_none());

    bench.pass_with(Duration::from_secs(9), &[spare(enlisted(0, 0, 0))]);
    let lost = status(&bench);
    assert!(!lost.full && lost.enlisted.is_empty());
    assert_eq!(
        lost.why.as_deref(),
        Some("0 of 1 shadows ready; b is missed (silence)")
    );
    bench.pass_with(Duration::from_secs(3), &[spare(enlisted(0, 0, 0))]);
    assert_eq!(status(&bench).enlisted, vec![name("c")]);
    assert!(!status(&bench).full, "it has not said that it is ready");
    let ready = |bench: &Bench| {
        let word = bench.group.policy.enlisted;
        (
            "c",
            bench.group.newest_epoch(),
            beat(Role::Shadow, None, word),
        )
    };
    let says = ready(&bench);
    bench.pass_with(HEARTBEAT * 3, &[says]);
    let full = status(&bench);
    let last = full.last.expect("it was restored");
    assert!(full.full && last.by == RestoredBy::Spare && last.host == name("c"));

    let says = [ready(&bench), b.clone()];
    bench.pass_with(Duration::from_secs(59), &says);
    assert_eq!(status(&bench).enlisted.len(), 1);
    bench.pass_with(Duration::from_secs(2), &says);
    assert!(status(&bench).enlisted.is_empty() && status(&bench).full);
}

/// Who takes over goes on with the word of the owner before, and a spare that owns counts.
#[test]
fn an_enlistment_goes_over_to_the_next_owner() {
    let mut bench = bench(false);
    let word = enlisted(4, 2, 1);
    let says = [("b", epoch(4, 2), beat(Role::Active, None, word))];
    bench.pass_with(SUSPECT * 20, &says);
    let (asked, _) = bench.until_asked(&[]);
    bench.promise_from("w", asked);
    assert_eq!(bench.took(), Some(asked));
    assert_eq!(bench.group.policy.enlisted, enlisted(asked.counter, 0, 1));
    // Remembered over a restart, and what is said on by others is not older than that.
    let memory = bench.group.remembered(bench.now);
    let mut next = self::bench(false);
    next.group.restore(memory, Duration::ZERO, next.now);
    assert_eq!(next.group.policy.enlisted, enlisted(asked.counter, 0, 1));
    next.hear_from(
        "b",
        epoch(9, 2),
        beat(Role::Shadow, None, enlisted(2, 9, 0)),
    );
    assert_eq!(next.group.policy.enlisted.spares, 1);
}

#[test]
fn a_provider_changes_nothing_by_its_word() {
    let mut bench = bench(false);
    let b = (
        "b",
        Epoch::NONE,
        beat(Role::Shadow, None, enlisted(0, 0, 0)),
    );
    let (asked, _) = bench.until_asked(&[b]);
    bench.promise_from("w", asked);
    bench.pass_with(PATIENCE, &[]);
    let before = bench.group.policy.enlisted;
    for host in ["c", "b", "nobody"] {
        bench.done(Done::Provided {
            host: name(host),
            attempt: 1,
            answer: ProviderAnswer {
                state: ProviderState::Ready,
                detail: String::new(),
            },
        });
    }
    assert_eq!(bench.group.policy.enlisted, before);
    let status = bench.group.status(bench.now).redundancy.expect("it owns");
    assert!(!status.full && status.enlisted.is_empty());
}
