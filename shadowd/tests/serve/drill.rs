//! Drills, through the socket and `shadowctl`.

use shadowd::facts::{DrillReport, DrillState, DrillStep, LiveDrill, Name};
use shadowd::serve::protocol::{Code, Drills, LiveRequest, OrderDone, Refusal};

use super::daemon::{Daemon, name};
use super::shadowctl::{code, command, shown, words};

/// One that has ended; a live one always has, at once.
fn report(live: Option<LiveDrill>) -> DrillReport {
    let step = |what: &str, ok, said: &str| DrillStep {
        what: what.to_owned(),
        ok,
        took_ms: 40,
        said: said.to_owned(),
    };
    DrillReport {
        group: name("web"),
        state: DrillState::Failed,
        scheduled: live.is_none(),
        began_ms: 1_700_000_000_000,
        took_ms: 1_500,
        why: "check http: 500".to_owned(),
        steps: vec![
            step("handover", true, "b owns the group"),
            step("check http", false, "500\x1b[31m"),
        ],
        last_passed_ms: None,
        live,
    }
}

fn live(to: Option<Name>, for_s: u64) -> DrillReport {
    report(Some(LiveDrill {
        to: to.unwrap_or_else(|| name("b")),
        for_ms: for_s * 1_000,
        moved_ms: None,
        gap_ns: None,
        rounds: 1,
        returned_ms: None,
    }))
}

/// What comes of the wish for one.
pub fn begin(group: &Name, wanted: Option<LiveRequest>) -> Result<DrillReport, Refusal> {
    let Some(wanted) = wanted else {
        let message = format!("no drill of {group}: this host is active");
        return Err(Refusal::new(Code::NotEligible, message, "run it on b"));
    };
    Ok(live(wanted.to, wanted.for_s))
}

/// What comes of the wish to end one.
pub fn end(group: Name) -> Result<OrderDone, Refusal> {
    let handed_to = Some(name("b"));
    Ok(OrderDone {
        group,
        handed_to,
        kept: false,
    })
}

/// What came of them.
pub fn all() -> Drills {
    let mut before = report(None);
    (before.state, before.why) = (DrillState::Passed, String::new());
    Drills {
        drills: vec![live(None, 600)],
        earlier: vec![before],
    }
}

#[test]
fn a_live_drill_shows_its_steps_and_ends_with_what_came_of_it() {
    let daemon = Daemon::start();
    let line = "failover drill web --live --for 10m --to b";
    let output = command(&daemon.socket, line).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(code(&output), 1);
    for wanted in [
        "handover",
        "b owns the group",
        "failed",
        "drill failed after 1.5 s",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    assert!(!text.contains('\x1b'), "what a check said is cleaned");
    let wanted = "the drill of web failed: check http: 500";
    assert!(words(&output).contains(wanted), "{}", words(&output));
    let ended = shown(&daemon, "failover drill web --end");
    assert_eq!(ended, "group web: handed back to b\n");
}

#[test]
fn earlier_drills_are_lines_and_the_last_one_has_its_steps() {
    let daemon = Daemon::start();
    let text = shown(&daemon, "failover drills");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    let (passed, failed) = (
        "group web by schedule: drill passed at 2023-11-14",
        "group web: drill live on b failed at 2023-11-14",
    );
    assert!(lines[0].starts_with(passed), "{text}");
    assert!(lines[1].starts_with(failed), "{text}");
    assert!(
        lines[2].contains("handover") && lines[3].contains("check http"),
        "{text}"
    );
}

#[test]
fn a_live_drill_out_of_range_or_without_a_time_is_refused() {
    let daemon = Daemon::start();
    for body in [
        r#"{"live":{}}"#,
        r#"{"live":{"for_s":4}}"#,
        r#"{"live":{"for_s":86401}}"#,
        r#"{"live":{"for_s":60,"now":true}}"#,
    ] {
        let text = format!("{:?}", daemon.post("/v1/groups/web/drill", body));
        assert!(text.contains("bad_request"), "{body}: {text}");
    }
    for line in ["--live", "--for 10m", "--to b", "--end --live --for 10m"] {
        let line = format!("failover drill web {line}");
        let output = command(&daemon.socket, &line).output().unwrap();
        assert_eq!(code(&output), 2, "{line}");
    }
    let output = command(&daemon.socket, "failover drill web")
        .output()
        .unwrap();
    assert!(words(&output).contains("run it on b"), "{}", words(&output));
}
