//! The journal: replayed, told, damaged; and what would happen if a host died.

use super::lease;
use super::*;
use crate::decide::cluster::journal::{Journaled, Window};
use crate::decide::cluster::{Prospect, explain, replay, simulate};

/// A shadow that loses `b`, the owner, to silence.
fn silenced() -> (Window, BootTime) {
    let bench = Bench::shadow(false);
    let mut now = bench.now;
    let mut core = Journaled::new(bench.group, now);
    for beat in 1..400 {
        now = now.after(HEARTBEAT);
        // Numbers of datagrams, not times: `b` has a clock of its own.
        let sent = BootTime::from_nanos(1_000_000_000 * beat);
        let message = GroupMessage {
            group: name("web"),
            epoch: epoch(1, 2),
            body: active(),
        };
        core.on_message(&name("b"), sent, &message, None, now);
        core.on_timer(now);
        while core.poll_action().is_some() {}
    }
    assert!(
        core.take_decision(now, true).is_none(),
        "nothing was decided"
    );
    for _ in 0..100 {
        now = core
            .next_deadline()
            .max(now.after(Duration::from_micros(1)));
        core.on_timer(now);
        while let Some(action) = core.poll_action() {
            if let Action::TakeVips { epoch, .. } = action {
                now = now.after(Duration::from_micros(400));
                core.on_done(Done::VipsTaken { epoch }, now);
            }
        }
        if let Some(window) = core.take_decision(now, false) {
            return (window, now);
        }
    }
    panic!("nothing was decided");
}

#[test]
fn a_takeover_is_kept_once_it_has_settled_and_replays_to_the_same_from_its_bytes() {
    let (window, now) = silenced();
    let decision = window.decision.clone();
    assert_eq!(decision.kind, EventKind::Claimed);
    assert_eq!((decision.epoch, decision.cause), (2, Some(Cause::Silence)));
    assert!(now.since(decision.at) >= Duration::from_millis(500));
    let bytes = window.to_bytes().unwrap();
    let read = Window::from_bytes(decision, &bytes).unwrap();
    let replayed = replay(&read).unwrap();
    assert_eq!(replayed.difference, None);
    assert!(replayed.decided);
    assert!(replayed.inputs > 800 && replayed.actions > 400);
}

#[test]
fn a_core_that_is_not_the_same_is_found() {
    let (mut window, _) = silenced();
    window.checkpoint.settings.priority = 7;
    let difference = replay(&window).unwrap().difference.unwrap();
    assert_ne!(difference.recorded, difference.replayed);
    let (mut window, _) = silenced();
    // The last input is missing: what it led to was recorded, and is not wanted.
    window.checkpoint.settings.suspect_after = SUSPECT * 4;
    assert!(replay(&window).unwrap().difference.is_some());
}

#[test]
fn a_takeover_is_told_in_sentences() {
    let (window, _) = silenced();
    let told = explain(&window).unwrap();
    assert!(
        told.summary.starts_with(
            "a claimed epoch 2 because of silence; before, b owned the group in epoch 1; b silent \
             for 30.0 ms, 30.0 ms are allowed; its kernel was asked 8 times: no answer"
        ),
        "{}",
        told.summary
    );
    let at = window.decision.at.as_nanos();
    let said: Vec<(i64, &str)> = told
        .lines
        .iter()
        .map(|line| {
            let after = line.at.as_nanos().cast_signed() - at.cast_signed();
            (after / 100_000, line.text.as_str())
        })
        .collect();
    for wanted in [
        (-300, "the last word of b before the decision arrived"),
        (0, "claimed epoch 2 because of silence"),
        (0, "role shadow -> active because of silence"),
        (4, "the virtual IPs were there and announced"),
    ] {
        assert!(said.contains(&wanted), "{wanted:?} in {said:#?}");
    }
}

/// Whatever is changed in the bytes: an error, or a replay that ends.
#[test]
fn damaged_bytes_are_an_error_or_a_difference_and_never_a_crash() {
    let (window, _) = silenced();
    let decision = window.decision.clone();
    let bytes = window.to_bytes().unwrap();
    let (mut read, mut differed) = (0, 0);
    // All of the checkpoint, and some of the log: its last part alone is replayed for long.
    let places = (0..600).chain((600..bytes.len()).step_by(4_999));
    for place in places {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[place] ^= flip;
            let Ok(window) = Window::from_bytes(decision.clone(), &damaged) else {
                continue;
            };
            read += 1;
            let _ = explain(&window);
            if replay(&window).is_ok_and(|replayed| replayed.difference.is_some()) {
                differed += 1;
            }
        }
    }
    assert!(
        read > 100 && differed > 5,
        "{read} read, {differed} differed"
    );
    for length in 0..200 {
        let _ = Window::from_bytes(decision.clone(), &bytes[..length]);
    }
    let long = vec![0; 5 << 20];
    assert!(Window::from_bytes(decision, &long).is_err());
}

fn prospect(bench: &Bench, dead: &str) -> Prospect {
    simulate(&bench.group, bench.now, &name(dead)).unwrap()
}

#[test]
fn the_death_of_an_unprotected_owner_is_noticed_by_silence() {
    let bench = Bench::shadow(false);
    let said = prospect(&bench, "b");
    assert_eq!(said.owner, Some(name("b")));
    let takeover = said.takeover.unwrap();
    assert_eq!(takeover.by, name("a"));
    assert_eq!(takeover.cause, Some(Cause::Silence));
    let after = Duration::from_nanos(takeover.after_ns);
    assert!((SUSPECT..SUSPECT * 2).contains(&after), "{after:?}");
    // The other way round nothing happens.
    assert_eq!(prospect(&bench, "a").takeover, None);
    assert!(simulate(&bench.group, bench.now, &name("x")).is_err());
}

#[test]
fn the_death_of_the_owner_itself_is_seen_with_the_eyes_of_the_others() {
    let bench = Bench::active(false);
    let takeover = prospect(&bench, "a").takeover.unwrap();
    assert_eq!(takeover.by, name("b"));
    let mut bench = Bench::new(false);
    bench.pass(JOIN, Some((Epoch::NONE, shadow(false))));
    let alone = prospect(&bench, "a");
    assert_eq!(alone.takeover, None, "b is not eligible");
}

#[test]
fn an_owner_keeps_the_group_with_a_majority_and_loses_its_lease_without() {
    let bench = lease::owner();
    // `b` was never heard: `w` alone makes the majority.
    let said = prospect(&bench, "b");
    assert_eq!((said.takeover, said.owner), (None, Some(name("a"))));
    let said = prospect(&bench, "w");
    assert_eq!(said.takeover, None);
    assert!(said.lapses_after_ns.is_some(), "{said:?}");
}
