//! Where the time of a takeover went, from the events of both daemons.
//!
//! All hosts share one kernel and its boot clock, so readings of different hosts compare.

use serde::Serialize;
use serde_json::Value;

/// The parts of an outage, one after the other, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stages {
    /// From the fault, or the operator's command, to the first word of it in either record.
    pub detect_ms: f64,
    /// From there to the new owner's claim; the old owner's leaving is in it, if it could leave.
    pub decide_ms: f64,
    /// From the claim to the kernel's acknowledgement of the addresses.
    pub address_ms: f64,
    /// From there to the first announcement.
    pub announce_ms: f64,
    /// From there to the first good answer; none when the outage lay elsewhere.
    pub service_ms: Option<f64>,
}

/// What in the old owner's record, and in the new one's, shows that something is to be done.
const SIGNS_OLD: &[&str] = &["unit_down", "link_changed", "handover"];
const SIGNS_NEW: &[&str] = &["peer_suspected"];

impl Stages {
    /// Of a takeover that began at `at_ns`; none while the record is not complete. `gap` is the
    /// longest time without a good answer; with a fast takeover it may be another than this one's.
    pub fn of(at_ns: u64, old: &[Value], new: &[Value], gap: Option<(u64, u64)>) -> Option<Self> {
        let claimed = first(new, &["claimed"], at_ns)?;
        let added = first(new, &["vip_added"], claimed)?;
        let announced = first(new, &["announced"], added)?;
        let signs = [first(old, SIGNS_OLD, at_ns), first(new, SIGNS_NEW, at_ns)];
        let detected = signs.into_iter().flatten().min().unwrap_or(claimed);
        let detected = detected.min(claimed);
        let service = gap.filter(|(from, to)| *from <= announced && announced <= *to);
        Some(Self {
            detect_ms: span_ms(at_ns, detected),
            decide_ms: span_ms(detected, claimed),
            address_ms: span_ms(claimed, added),
            announce_ms: span_ms(added, announced),
            service_ms: service.map(|(_, good)| span_ms(announced, good)),
        })
    }

    /// Names and values, in order.
    pub fn named(&self) -> [(&'static str, Option<f64>); 5] {
        [
            ("detect", Some(self.detect_ms)),
            ("decide", Some(self.decide_ms)),
            ("address", Some(self.address_ms)),
            ("announce", Some(self.announce_ms)),
            ("service", self.service_ms),
        ]
    }
}

/// Milliseconds from one reading of the clock, in nanoseconds, to another.
pub fn span_ms(from_ns: u64, to_ns: u64) -> f64 {
    (to_ns as f64 - from_ns as f64) / 1e6
}

/// When the first event of one of these kinds happened, not before `since_ns`.
fn first(events: &[Value], kinds: &[&str], since_ns: u64) -> Option<u64> {
    let matching = events
        .iter()
        .filter(|event| kinds.iter().any(|kind| event["kind"] == *kind));
    let times = matching.filter_map(|event| event["boot_ns"].as_u64());
    times.filter(|time| *time >= since_ns).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn events(list: &[(&str, u64)]) -> Vec<Value> {
        list.iter()
            .map(|(kind, ms)| json!({"kind": kind, "boot_ns": ms * 1_000_000}))
            .collect()
    }

    const NEW: &[(&str, u64)] = &[
        ("claimed", 5), // an earlier takeover
        ("peer_suspected", 40),
        ("claimed", 41),
        ("vip_added", 43),
        ("vip_added", 43),
        ("announced", 46),
    ];

    #[test]
    fn silence_is_detected_by_the_new_owner() {
        let stages = Stages::of(10_000_000, &[], &events(NEW), Some((9_000_000, 48_000_000)));
        let expected = Stages {
            detect_ms: 30.0,
            decide_ms: 1.0,
            address_ms: 2.0,
            announce_ms: 3.0,
            service_ms: Some(2.0),
        };
        assert_eq!(stages, Some(expected));
    }

    #[test]
    fn a_dead_unit_is_detected_by_the_old_owner() {
        let old = events(&[("unit_down", 2), ("unit_down", 12)]);
        let later = Some((80_000_000, 88_000_000));
        let stages = Stages::of(10_000_000, &old, &events(NEW), later).expect("complete");
        assert_eq!((stages.detect_ms, stages.decide_ms), (2.0, 29.0));
        assert_eq!(stages.service_ms, None);
    }

    #[test]
    fn an_incomplete_record_has_no_stages() {
        assert_eq!(Stages::of(10_000_000, &[], &events(&NEW[..4]), None), None);
        assert_eq!(Stages::of(42_000_000, &[], &events(NEW), None), None);
    }
}
