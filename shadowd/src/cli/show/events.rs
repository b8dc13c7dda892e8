//! `events`: one line each, so that a following reader and `grep` both work.

use super::super::human::{clean, wall};
use super::super::table::{Paint, Tone};
use crate::facts::{Event, EventKind};

/// The events, oldest first, a line each.
pub(in super::super) fn events(events: &[Event], paint: Paint) -> String {
    events.iter().map(|event| line(event, paint)).collect()
}

fn line(event: &Event, paint: Paint) -> String {
    // Padded before it is coloured: escape codes have no width.
    let kind = paint.apply(tone(event.kind), &format!("{:<15}", name(event.kind)));
    let mut line = format!("{:>6}  {}  {kind}", event.seq, wall(event.wall_ms));
    if let Some(group) = &event.group {
        line.push_str(&format!("  group={group}"));
    }
    if let Some(epoch) = event.epoch {
        line.push_str(&format!("  epoch={epoch}"));
    }
    if let Some(cause) = event.cause {
        line.push_str(&format!("  cause={cause}"));
    }
    if !event.detail.is_empty() {
        line.push_str(&format!("  {}", clean(&event.detail)));
    }
    let mut line = line.trim_end().to_owned();
    line.push('\n');
    line
}

const fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::DaemonStarted => "daemon_started",
        EventKind::DaemonStopped => "daemon_stopped",
        EventKind::RoleChanged => "role_changed",
        EventKind::PeerSuspected => "peer_suspected",
        EventKind::PeerHeard => "peer_heard",
        EventKind::Claimed => "claimed",
        EventKind::VipAdded => "vip_added",
        EventKind::Announced => "announced",
        EventKind::VipRemoved => "vip_removed",
        EventKind::Released => "released",
        EventKind::UnitUp => "unit_up",
        EventKind::UnitDown => "unit_down",
        EventKind::UnitAction => "unit_action",
        EventKind::LinkChanged => "link_changed",
        EventKind::Handover => "handover",
        EventKind::Failure => "failure",
        EventKind::LeaseLapsed => "lease_lapsed",
        EventKind::LeaseHeld => "lease_held",
        EventKind::VipClaimed => "vip_claimed",
        EventKind::Serving => "serving",
        EventKind::Drained => "drained",
        EventKind::Voted => "voted",
        EventKind::Notified => "notified",
        EventKind::NoticeFailed => "notice_failed",
        EventKind::Maintenance => "maintenance",
        EventKind::Freeze => "freeze",
        EventKind::FlapPenalty => "flap_penalty",
        EventKind::Paused => "paused",
        EventKind::Resumed => "resumed",
        EventKind::Drill => "drill",
        EventKind::DrillPassed => "drill_passed",
        EventKind::DrillFailed => "drill_failed",
        EventKind::Redundancy => "redundancy",
        EventKind::PathLost => "path_lost",
        EventKind::PathBack => "path_back",
        EventKind::Starved => "starved",
        EventKind::ProfileVersion => "profile_version",
        EventKind::Deviation => "deviation",
        EventKind::NotReady => "not_ready",
        EventKind::Provisioned => "provisioned",
        EventKind::Repository => "repository",
        EventKind::Ready => "ready",
    }
}

const fn tone(kind: EventKind) -> Tone {
    match kind {
        EventKind::Failure
        | EventKind::DrillFailed
        | EventKind::LeaseLapsed
        | EventKind::VipClaimed
        | EventKind::NoticeFailed => Tone::Bad,
        EventKind::PeerSuspected
        | EventKind::UnitDown
        | EventKind::LinkChanged
        | EventKind::PathLost
        | EventKind::Starved
        | EventKind::NotReady
        | EventKind::Deviation
        | EventKind::Serving
        | EventKind::FlapPenalty
        | EventKind::Redundancy
        | EventKind::Maintenance
        | EventKind::Freeze => Tone::Warning,
        EventKind::Claimed | EventKind::RoleChanged | EventKind::Released => Tone::Heading,
        EventKind::UnitUp
        | EventKind::PeerHeard
        | EventKind::PathBack
        | EventKind::LeaseHeld
        | EventKind::Ready
        | EventKind::DrillPassed => Tone::Good,
        EventKind::DaemonStarted
        | EventKind::DaemonStopped
        | EventKind::VipAdded
        | EventKind::Announced
        | EventKind::VipRemoved
        | EventKind::UnitAction
        | EventKind::Drained
        | EventKind::Voted
        | EventKind::Notified
        | EventKind::Paused
        | EventKind::Resumed
        | EventKind::Drill
        | EventKind::ProfileVersion
        | EventKind::Provisioned
        | EventKind::Repository
        | EventKind::Handover => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BootTime, Cause};

    #[test]
    fn a_line_carries_all_of_the_event_and_only_one_line() {
        let event = Event {
            seq: 7,
            boot_ns: BootTime::from_nanos(1),
            wall_ms: 1_700_000_000_123,
            kind: EventKind::Claimed,
            group: Some("web".parse().unwrap()),
            epoch: Some(4),
            cause: Some(Cause::Silence),
            detail: "42 ms\nforged line".to_owned(),
        };
        let wanted = "     7  2023-11-14T22:13:20.123Z  claimed          group=web  epoch=4  \
                      cause=silence  42 ms\u{FFFD}forged line\n";
        assert_eq!(line(&event, Paint(false)), wanted);
    }

    #[test]
    fn kinds_are_named_as_in_json() {
        for kind in [
            EventKind::DaemonStarted,
            EventKind::PeerSuspected,
            EventKind::Failure,
        ] {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json.as_str(), Some(name(kind)));
        }
    }
}
