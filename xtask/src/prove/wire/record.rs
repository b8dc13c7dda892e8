//! Ownership as the daemons' own events tell it.

use serde_json::Value;

use crate::lab::GROUP;

/// A host's ownership began, or ended, in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When, on `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The number of the host.
    pub host: u8,
    /// The epoch's counter.
    pub epoch: u64,
}

/// An owner's lease ran out, until a majority answered again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// The number of the host.
    pub host: u8,
    /// The deadline, or up to a tenth of a millisecond later: that is how exactly events tell it.
    pub from_ns: u64,
    /// When a majority answered again; none until then.
    pub until_ns: Option<u64>,
}

/// All that the events of all hosts say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Ownerships that began, by host and time.
    pub claims: Vec<Mark>,
    /// Ownerships that the owner itself ended.
    pub releases: Vec<Mark>,
    /// Times in which owners had no lease.
    pub lapses: Vec<Lapse>,
}

impl Record {
    /// Adds events of one host, oldest first.
    pub fn add(&mut self, host: u8, events: &[Value]) {
        for event in events.iter().filter(|event| event["group"] == GROUP) {
            let (Some(at_ns), Some(epoch)) = (event["boot_ns"].as_u64(), event["epoch"].as_u64())
            else {
                continue;
            };
            let mark = Mark { at_ns, host, epoch };
            match event["kind"].as_str().unwrap_or_default() {
                "claimed" => {
                    self.regain(host, at_ns);
                    self.claims.push(mark);
                }
                "released" => self.releases.push(mark),
                "lease_held" => self.regain(host, at_ns),
                "lease_lapsed" => self.lapses.push(Lapse {
                    host,
                    from_ns: at_ns.saturating_sub(lasted_ns(event)),
                    until_ns: None,
                }),
                _ => {}
            }
        }
    }

    fn regain(&mut self, host: u8, at_ns: u64) {
        let of_host = self
            .lapses
            .iter_mut()
            .rev()
            .find(|lapse| lapse.host == host);
        if let Some(lapse) = of_host {
            lapse.until_ns.get_or_insert(at_ns);
        }
    }
}

/// How long before the event the lease ran out: "no majority since 12.3 ms", rounded down.
fn lasted_ns(event: &Value) -> u64 {
    let detail = event["detail"].as_str().unwrap_or_default();
    let mut words = detail
        .split(' ')
        .filter_map(|word| word.parse::<f64>().ok());
    let ms = words.next_back().unwrap_or_default();
    ((ms - 0.05).max(0.0) * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, ms: u64, epoch: u64, detail: &str) -> Value {
        let at = ms * 1_000_000;
        json!({"kind": kind, "group": GROUP, "boot_ns": at, "epoch": epoch, "detail": detail})
    }

    #[test]
    fn events_become_marks_and_lapses() {
        let mut record = Record::default();
        record.add(
            0,
            &[
                event("claimed", 10, 3, "epoch 3"),
                event("lease_lapsed", 50, 3, "no majority since 20.0 ms"),
                event("lease_held", 60, 3, ""),
                event("released", 90, 3, "epoch 3"),
                json!({"kind": "claimed", "group": "other", "boot_ns": 1, "epoch": 9}),
            ],
        );
        let claim = Mark {
            at_ns: 10_000_000,
            host: 0,
            epoch: 3,
        };
        assert_eq!(record.claims, [claim]);
        assert_eq!(record.releases.len(), 1);
        let lapse = Lapse {
            host: 0,
            from_ns: 30_050_000,
            until_ns: Some(60_000_000),
        };
        assert_eq!(record.lapses, [lapse]);
    }
}
