//! Whether a group has the shadows that it wants, for people.

use std::time::Duration;

use super::super::human::{clean, span};
use super::super::table::{Paint, Tone};
use crate::facts::{BootTime, GroupStatus, RedundancyStatus, RestoreStep};

/// A line or two; nothing on a host that is not active.
pub(super) fn redundancy(group: &GroupStatus, now: BootTime, paint: Paint) -> String {
    let Some(status) = &group.redundancy else {
        return String::new();
    };
    let age = span(now.since(status.since));
    let count = format!("{} of {} shadows ready", status.ready, status.wanted);
    let mut text = if status.full {
        format!("  redundancy full for {age}: {count}")
    } else {
        let why = status.why.as_deref().map_or(count, clean);
        let line = format!("  redundancy LOST for {age}: {why}{}", done(status, now));
        paint.apply(Tone::Bad, &line)
    };
    if !status.enlisted.is_empty() {
        let spares: Vec<&str> = status.enlisted.iter().map(|spare| spare.as_str()).collect();
        text.push_str(&format!("; enlisted: {}", spares.join(", ")));
    }
    text.push('\n');
    if let Some(last) = &status.last {
        text.push_str(&format!(
            "  last restored {} ago after {} by {} ({})\n",
            span(now.since(last.at)),
            span(Duration::from_nanos(last.took_ns)),
            last.host,
            last.by,
        ));
    }
    text
}

/// What is done about it.
fn done(status: &RedundancyStatus, now: BootTime) -> String {
    let left = |until: &BootTime| span(until.since(now));
    match &status.step {
        None => String::new(),
        Some(RestoreStep::Rejoin { until }) => {
            format!("; members have {} more to come back", left(until))
        }
        Some(RestoreStep::Spare { host }) => format!("; enlisted {host}, which is to be ready"),
        Some(RestoreStep::Provider { host, attempt }) => {
            format!("; the provider creates {host} (attempt {attempt})")
        }
        Some(RestoreStep::Coming { host, attempt }) => {
            format!("; {host} is to be heard (attempt {attempt})")
        }
        Some(RestoreStep::Again { at }) => {
            format!("; the provider failed, again in {}", left(at))
        }
        Some(RestoreStep::Exhausted) => "; no spare is there and none can be provided".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Restoration, RestoredBy};

    #[test]
    fn a_loss_and_its_end_are_told_with_who_and_how_long() {
        let at = |seconds: u64| BootTime::from_nanos(seconds * 1_000_000_000);
        let mut group: GroupStatus = serde_json::from_value(serde_json::json!({
            "group": "web", "role": "active", "since": 0, "deadline": null, "active": "a",
            "epoch": crate::facts::Epoch::NONE, "protection": "none", "eligible": true,
            "members": [], "vips": [], "units": [],
        }))
        .expect("a status");
        let shown = |group: &GroupStatus| redundancy(group, at(100), Paint(false));
        assert_eq!(shown(&group), "", "a shadow does not know");
        let mut status = RedundancyStatus {
            wanted: 1,
            ready: 0,
            full: false,
            since: at(90),
            why: Some("0 of 1 shadows ready; b is missed (silence)".to_owned()),
            step: Some(RestoreStep::Rejoin { until: at(120) }),
            enlisted: Vec::new(),
            last: None,
        };
        group.redundancy = Some(status.clone());
        assert_eq!(
            shown(&group),
            "  redundancy LOST for 10.0 s: 0 of 1 shadows ready; b is missed (silence); members \
             have 20.0 s more to come back\n"
        );
        let host = "c".parse().expect("a name");
        status.full = true;
        status.ready = 1;
        status.enlisted = vec![host];
        status.last = Some(Restoration {
            by: RestoredBy::Spare,
            host: "c".parse().expect("a name"),
            took_ns: 43_200_000_000,
            at: at(95),
        });
        group.redundancy = Some(status);
        let shown = shown(&group);
        assert!(
            shown.contains("full for 10.0 s: 1 of 1 shadows ready; enlisted: c\n"),
            "{shown}"
        );
        assert!(
            shown.contains("restored 5.0 s ago after 43.2 s by c (spare)"),
            "{shown}"
        );
    }
}
