//! Maintenance and freeze, from the command line and over the socket.

use serde_json::Value;
use shadowd::facts::{Name, PolicyOrder};
use shadowd::serve::protocol::{Code, OrderDone, Refusal};

use super::daemon::Daemon;
use super::shadowctl::{code, command, parsed, shown, words};

/// What becomes of an order: this host owns the group, and nobody else could.
pub fn order(group: Name, order: &PolicyOrder) -> Result<OrderDone, Refusal> {
    let kept = match order {
        PolicyOrder::MaintenanceOn { force: false, .. } => {
            let message = "no other member could own the group now";
            return Err(Refusal::new(Code::NotEligible, message, "say --force"));
        }
        PolicyOrder::MaintenanceOn { .. } => true,
        PolicyOrder::MaintenanceOff
        | PolicyOrder::Freeze { .. }
        | PolicyOrder::Unfreeze
        | PolicyOrder::Lend { .. }
        | PolicyOrder::Recall => false,
    };
    let handed_to = None;
    Ok(OrderDone {
        group,
        handed_to,
        kept,
    })
}

#[test]
fn orders_say_what_came_of_them() {
    let daemon = Daemon::start();
    for (line, wanted) in [
        (
            "maintenance web on --force",
            "group web: in maintenance, but this host owns it until another member can\n",
        ),
        ("maintenance --all off", "group web: not in maintenance\n"),
        ("freeze web --for 30m", "group web: frozen for 30m 00s\n"),
        (
            "freeze web --reason upgrade",
            "group web: frozen for 1h 00m\n",
        ),
        ("unfreeze web", "group web: not frozen\n"),
    ] {
        assert_eq!(shown(&daemon, &format!("failover {line}")), wanted);
    }
    let done: Value = parsed(&daemon, "failover maintenance web on --force");
    assert_eq!(done["kept"], true);
}

#[test]
fn maintenance_that_would_leave_nobody_is_refused_with_what_to_do() {
    let daemon = Daemon::start();
    let output = command(&daemon.socket, "failover maintenance --all on")
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    let wanted = "shadowctl: no other member could own the group now\n  try: say --force\n";
    assert_eq!(words(&output), wanted);
}

#[test]
fn orders_out_of_range_are_refused() {
    let daemon = Daemon::start();
    let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(201));
    for (path, body) in [
        ("maintenance", "{}"),
        ("maintenance", r#"{"on":"yes"}"#),
        ("maintenance", r#"{"on":true,"force":true,"for_s":0}"#),
        ("freeze", r#"{"for_s":2592001}"#),
        ("freeze", r#"{"reason":"two\nlines"}"#),
        ("freeze", long.as_str()),
        ("unfreeze", r#"{"now":true}"#),
    ] {
        let answer = daemon.post(&format!("/v1/groups/web/{path}"), body);
        let text = format!("{answer:?}");
        assert!(text.contains("bad_request"), "{path} {body}: {text}");
    }
}
