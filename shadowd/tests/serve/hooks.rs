//! Hooks and alerts, through the socket and `shadowctl`.

use shadowd::facts::{LastNotice, Name, ReceiverCounts, ReceiverKind, ReceiverStatus, Topic};
use shadowd::serve::protocol::{Code, Hooks, Refusal};

use super::daemon::{Daemon, RECORDED_MS, name};
use super::shadowctl::{code, command, parsed, shown, words};

fn last(ok: bool, result: &str) -> LastNotice {
    LastNotice {
        event: Topic::Active,
        group: Some(name("web")),
        epoch: 5,
        wall_ms: RECORDED_MS.unsigned_abs(),
        took_ms: 12,
        ok,
        result: result.to_owned(),
    }
}

/// What the fixed daemon says.
pub fn receivers() -> Vec<ReceiverStatus> {
    let hook = ReceiverStatus {
        name: name("dns"),
        kind: ReceiverKind::Hook,
        events: vec![Topic::Active, Topic::Shadow],
        groups: vec![name("web")],
        running: Some(Topic::Shadow),
        waiting: 1,
        counts: ReceiverCounts {
            delivered: 7,
            skipped: 2,
            ..ReceiverCounts::default()
        },
        last: Some(last(true, "exit 0")),
    };
    let ops = ReceiverStatus {
        name: name("ops"),
        kind: ReceiverKind::Webhook,
        running: None,
        waiting: 0,
        counts: ReceiverCounts {
            delivered: 1,
            failed: 1,
            timed_out: 2,
            given_up: 3,
            ..ReceiverCounts::default()
        },
        last: Some(last(false, "the server answered 404\x1b Not Found")),
        ..hook.clone()
    };
    vec![hook, ops]
}

/// What becomes of a test.
pub fn test(receiver: &Name) -> Result<LastNotice, Refusal> {
    match receiver.as_str() {
        "dns" => Ok(last(true, "exit 0")),
        "ops" => Ok(last(false, "exit 3")),
        _ => Err(Refusal::new(Code::UnknownReceiver, "there is none", "look")),
    }
}

const SHOWN: &str = "\
NAME  KIND     STATE           OK  FAILED  SKIPPED  LAST    AT                            TOOK  RESULT
dns   hook     telling shadow   7       0        2  active  2026-11-20T12:00:00.000Z  12.00 ms  exit 0
ops   webhook  idle             1       6        0  active  2026-11-20T12:00:00.000Z  12.00 ms  the server answered 404\u{FFFD} Not Found
";

#[test]
fn hooks_shows_how_each_receiver_does() {
    let daemon = Daemon::start();
    assert_eq!(shown(&daemon, "hooks"), SHOWN);
    assert_eq!(parsed::<Hooks>(&daemon, "hooks").receivers, receivers());
}

#[test]
fn a_test_tells_what_became_of_it() {
    let daemon = Daemon::start();
    assert_eq!(
        shown(&daemon, "hooks test dns"),
        "dns: ok after 12.00 ms: exit 0\n"
    );
    let failed = command(&daemon.socket, "--json hooks test ops")
        .output()
        .unwrap();
    let last: LastNotice = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((code(&failed), Ok(last)), (1, test(&name("ops"))));
    let refused = command(&daemon.socket, "hooks test nobody")
        .output()
        .unwrap();
    assert_eq!(code(&refused), 1);
    assert!(
        words(&refused).contains("there is none"),
        "{}",
        words(&refused)
    );
}
