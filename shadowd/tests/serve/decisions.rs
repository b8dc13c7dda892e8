//! Explain, replay and simulate, from the command line and over the socket.

use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;
use shadowd::config::settings::{GroupSettings, PolicySettings, RedundancySettings};
use shadowd::decide::cluster::{Group, Journaled, Peer, Window};
use shadowd::facts::{
    Body, BootTime, Decision, Epoch, GroupMessage, HostId, Name, PolicyWord, Protection, Role,
};
use shadowd::serve::protocol::{Code, CoreNow, Decisions, RecordedDecision, Refusal};

use super::daemon::{Daemon, name};
use super::shadowctl::{code, command, parsed, shown, words};

const HEARTBEAT: Duration = Duration::from_millis(10);

/// The core of a daemon on host `a`, which follows `b`.
fn follower() -> (Journaled, BootTime) {
    let settings = GroupSettings {
        name: name("web"),
        members: vec![name("b")],
        priority: 100,
        protection: Protection::None,
        heartbeat: HEARTBEAT,
        suspect_after: HEARTBEAT * 3,
        join_wait: HEARTBEAT * 30,
        interface: "eth0".to_owned(),
        vips: vec!["192.0.2.10/24".parse().unwrap()],
        units: Vec::new(),
        witnesses: Vec::new(),
        lease: HEARTBEAT * 3,
        guard: false,
        drain: Duration::ZERO,
        unanswered_after: None,
        promote_unready: true,
        policy: PolicySettings::default(),
        spares: Vec::new(),
        spare: false,
        redundancy: RedundancySettings::of(1),
    };
    let peer = |text: &str, number| Peer {
        name: name(text),
        id: HostId::from_bytes([number; 32]),
    };
    let (me, other) = (peer("a", 1), peer("b", 2));
    let owned = Epoch {
        counter: 7,
        owner: other.id,
    };
    let mut now = BootTime::from_nanos(5_000_000_000);
    let core = Group::new(settings, me, vec![other], &[], Epoch::NONE, now);
    let mut core = Journaled::new(core, now);
    core.on_carrier(true, now);
    let beat = GroupMessage {
        group: name("web"),
        epoch: owned,
        body: Body::Beat {
            role: Role::Active,
            priority: 90,
            eligible: true,
            lease: Duration::ZERO,
            electorate: 0,
            policy: PolicyWord::default(),
        },
    };
    for _ in 0..100 {
        now = now.after(HEARTBEAT);
        core.on_message(&name("b"), now, &beat, None, now);
        core.on_timer(now);
        while core.poll_action().is_some() {}
    }
    // What it decided until now is another window.
    drop(core.take_decision(now, true));
    (core, now)
}

/// What it kept of its takeover.
fn window() -> Window {
    let (mut core, mut now) = follower();
    loop {
        now = core
            .next_deadline()
            .max(now.after(Duration::from_micros(1)));
        core.on_timer(now);
        while core.poll_action().is_some() {}
        if let Some(window) = core.take_decision(now, false) {
            return window;
        }
    }
}

fn decision(number: u64) -> Decision {
    Decision {
        number,
        wall_ms: 1_700_000_000_000,
        ..window().decision
    }
}

pub fn list(group: &Name) -> Result<Decisions, Refusal> {
    match group.as_str() {
        "empty" => Ok(Decisions::default()),
        "web" | "spoilt" => Ok(Decisions {
            decisions: vec![decision(3)],
            dropped: 0,
        }),
        _ => Err(unknown(group)),
    }
}

pub fn one(group: &Name, number: u64) -> Result<RecordedDecision, Refusal> {
    let mut window = window();
    if group.as_str() == "spoilt" {
        window.log.pop();
    }
    Ok(RecordedDecision {
        decision: decision(number),
        window: BASE64.encode(&window.to_bytes().unwrap()),
    })
}

pub fn core(group: &Name) -> Result<CoreNow, Refusal> {
    if group.as_str() != "web" {
        return Err(unknown(group));
    }
    let (core, now) = follower();
    let window = Window {
        checkpoint: core.checkpoint(),
        log: Vec::new(),
        ..window()
    };
    Ok(CoreNow {
        now,
        core: BASE64.encode(&window.to_bytes().unwrap()),
    })
}

fn unknown(group: &Name) -> Refusal {
    Refusal::new(Code::UnknownGroup, format!("no group {group}"), "")
}

#[test]
fn a_takeover_is_explained_with_times() {
    let daemon = Daemon::start();
    let text = shown(&daemon, "failover explain");
    let first = "2023-11-14T22:13:20.000Z  decision 3: a claimed epoch 8 because of silence; \
                 before, b owned the group in epoch 7; b silent for 30.0 ms, 30.0 ms are allowed";
    assert!(text.starts_with(first), "{text}");
    for line in [
        "        -30.0 ms  the last word of b before the decision arrived\n",
        "         +0.0 ms  claimed epoch 8 because of silence\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let told: Value = parsed(&daemon, "failover explain web --epoch 8");
    assert_eq!(told["decision"]["epoch"], 8);
    assert!(
        told["lines"]
            .as_array()
            .is_some_and(|lines| lines.len() > 3)
    );
}

#[test]
fn a_replay_says_same_or_what_is_not() {
    let daemon = Daemon::start();
    for line in ["replay", "replay web --epoch 8", "replay --all"] {
        let text = shown(&daemon, &format!("failover {line}"));
        let first = "decision 3, epoch 8, claimed: same (";
        assert!(text.starts_with(first), "{text}");
    }
    let output = command(&daemon.socket, "failover replay spoilt")
        .output()
        .unwrap();
    assert_eq!(code(&output), 1, "{}", words(&output));
}

#[test]
fn what_is_not_there_is_said() {
    let daemon = Daemon::start();
    for (line, wanted) in [
        ("explain nowhere", "shadowctl: no group nowhere"),
        (
            "explain empty",
            "shadowctl: no decision of group empty is kept yet",
        ),
        (
            "replay web --epoch 5",
            "shadowctl: no decision of group web in epoch 5",
        ),
        (
            "simulate x",
            "shadowctl: x is neither a member nor a witness",
        ),
    ] {
        let output = command(&daemon.socket, &format!("failover {line}"))
            .output()
            .unwrap();
        assert_eq!(code(&output), 1);
        assert!(words(&output).starts_with(wanted), "{}", words(&output));
    }
    for path in ["/v1/groups/a%2Fb/decisions", "/v1/groups/web/decisions/x"] {
        let (status, body) = daemon.get(path);
        assert!(
            status == 400 && body.contains("bad_request"),
            "{status} {body}"
        );
    }
}

#[test]
fn a_death_is_looked_ahead_to() {
    let daemon = Daemon::start();
    let text = shown(&daemon, "failover simulate b --group web");
    assert!(
        text.starts_with("if b died now, a would own group web after about "),
        "{text}"
    );
    let said: Value = parsed(&daemon, "failover simulate b");
    assert_eq!(said["takeover"]["by"], "a");
}
