//! What bounds the failover of a group, as lines of `status`.

use super::super::human::{clean, span};
use super::super::table::{Paint, Tone};
use crate::facts::{BootTime, Cause, GroupStatus, LoanPhase, OrderStatus, PolicyStatus};

/// Nothing where nothing does.
pub(super) fn policy(group: &GroupStatus, now: BootTime, paint: Paint) -> String {
    let policy = &group.policy;
    let mut lines: Vec<(Tone, String)> = Vec::new();
    if !group.eligible {
        let why = why_not(policy.reason);
        let code = policy
            .reason
            .map_or_else(String::new, |why| format!(" ({why})"));
        let line = format!("this host could not take over now: {why}{code}");
        lines.push((Tone::Bad, line));
    }
    if let Some(order) = &policy.maintenance {
        let line = format!("this host is in maintenance {}", until(order, now));
        lines.push((Tone::Warning, line));
    }
    if let Some(order) = &policy.frozen {
        let line = format!("FROZEN: nobody takes the group over {}", until(order, now));
        lines.push((Tone::Warning, line));
    }
    if let Some(held) = policy.held_until {
        let (penalty, left) = (policy.flap_penalty, span(held.since(now)));
        let line = format!("flap penalty {penalty:.0}: holds this host back for {left} more");
        lines.push((Tone::Warning, line));
    } else if policy.flap_penalty >= 1.0 {
        let line = format!("flap penalty {:.0}", policy.flap_penalty);
        lines.push((Tone::Plain, line));
    }
    if let Some(failback) = &policy.failback {
        let when = match (
            failback.not_before.since(now).is_zero(),
            failback.window_open,
        ) {
            (_, false) => "when its window opens".to_owned(),
            (true, true) => "now".to_owned(),
            (false, true) => format!("in {}", span(failback.not_before.since(now))),
        };
        let line = format!("goes back to {} {when}, if it stays ready", failback.to);
        lines.push((Tone::Plain, line));
    }
    lines.extend(live_drill(policy, now));
    for other in &policy.differs_from {
        let line = format!(
            "definition differs from {other}: its configuration has other virtual IPs or members"
        );
        lines.push((Tone::Bad, line));
    }
    lines
        .into_iter()
        .map(|(tone, line)| format!("{}\n", paint.apply(tone, &format!("  {line}"))))
        .collect()
}

/// The group is lent for a live drill, or was lent by this host.
fn live_drill(policy: &PolicyStatus, now: BootTime) -> Vec<(Tone, String)> {
    let mut lines = Vec::new();
    if let Some(borrowed) = &policy.borrowed {
        let when = if borrowed.back { "now" } else { "after it" };
        let line = format!(
            "LIVE DRILL: the group goes back to {} {when}",
            borrowed.from
        );
        lines.push((Tone::Warning, line));
    }
    if let Some(loan) = &policy.loan {
        let (to, phase) = (&loan.to, &loan.phase);
        let line = match phase {
            LoanPhase::Handing => Some(format!("live drill: {to} is to take the group")),
            LoanPhase::Out { until } => {
                let left = span(until.since(now));
                Some(format!("live drill: {to} owns the group for {left} more"))
            }
            LoanPhase::Asking { until } => {
                let left = span(until.since(now));
                Some(format!(
                    "live drill: {to} is asked for the group, for {left} more"
                ))
            }
            LoanPhase::Ended(_) => None,
        };
        lines.extend(line.map(|line| (Tone::Plain, line)));
    }
    lines
}

fn until(order: &OrderStatus, now: BootTime) -> String {
    let mut text = match order.until {
        Some(until) => format!("for {} more", span(until.since(now))),
        None => "until that is ended".to_owned(),
    };
    if !order.reason.is_empty() {
        text.push_str(&format!(": {}", clean(&order.reason)));
    }
    text
}

/// Why a host could not own a group, in words.
const fn why_not(reason: Option<Cause>) -> &'static str {
    match reason {
        Some(Cause::LinkLost) => "the link is down, or not known yet",
        Some(Cause::UnitDied) => "a unit is down, or not known yet",
        Some(Cause::StepFailed) => "a step failed here a moment ago",
        Some(Cause::Maintenance) => "it is in maintenance",
        Some(Cause::Flapping) => "the group left it too often, and others can have it",
        Some(Cause::DefinitionDiffers) => "the other members have another group of this name",
        Some(Cause::NotReady) => "it lacks something: see `shadowctl ready` there",
        Some(Cause::Spare) => "it is a spare that is not enlisted",
        Some(_) | None => "a unit or the link is down",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{BorrowedStatus, FailbackStatus, LoanStatus};

    #[test]
    fn orders_penalty_and_differences_are_told_with_their_ends() {
        let now = BootTime::from_nanos(1_000_000_000);
        let later = |seconds: u64| BootTime::from_nanos((seconds + 1) * 1_000_000_000);
        let order = |until, reason: &str| {
            let reason = reason.to_owned();
            Some(OrderStatus { until, reason })
        };
        let mut group: GroupStatus = serde_json::from_value(serde_json::json!({
            "group": "web", "role": "shadow", "since": 0, "deadline": null, "active": "b",
            "epoch": crate::facts::Epoch::NONE, "protection": "none", "eligible": true,
            "members": [], "vips": [], "units": [],
        }))
        .unwrap();
        assert_eq!(policy(&group, now, Paint(false)), "");
        group.eligible = false;
        group.policy = PolicyStatus {
            reason: Some(Cause::Maintenance),
            maintenance: order(None, "new disk"),
            frozen: order(Some(later(90)), ""),
            flap_penalty: 3_000.0,
            held_until: Some(later(600)),
            failback: Some(FailbackStatus {
                to: "b".parse().unwrap(),
                not_before: later(30),
                window_open: true,
            }),
            differs_from: vec!["c".parse().unwrap()],
            loan: Some(LoanStatus {
                tag: 1,
                to: "b".parse().unwrap(),
                phase: LoanPhase::Asking { until: later(30) },
                gap_ns: None,
                disturbed: false,
            }),
            borrowed: Some(BorrowedStatus {
                from: "c".parse().unwrap(),
                back: false,
            }),
        };
        let text = policy(&group, now, Paint(false));
        for wanted in [
            "could not take over now: it is in maintenance (maintenance)\n",
            "in maintenance until that is ended: new disk\n",
            "FROZEN: nobody takes the group over for 1m 30s more\n",
            "flap penalty 3000: holds this host back for 10m 00s more\n",
            "goes back to b in 30.0 s, if it stays ready\n",
            "definition differs from c: ",
            "LIVE DRILL: the group goes back to c after it\n",
            "live drill: b is asked for the group, for 30.0 s more\n",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }
}
