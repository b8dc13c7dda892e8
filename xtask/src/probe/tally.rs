//! What one target's answers add up to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::held::HeldReport;
use super::request::{Ended, Outcome};

/// A connection that took so long had to say its first word a second time.
const LATE_NS: u64 = 500_000_000;

/// What the probe saw in its window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The longest time in which the probe itself did not get to run: a gap that is no longer than
    /// this may be the probe's own.
    pub stall_ms: f64,
    /// In the order the targets were given.
    pub targets: Vec<TargetReport>,
}

/// What the probe saw of one target in its window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetReport {
    /// Its address.
    pub target: SocketAddr,
    /// Requests sent.
    pub requests: u64,
    /// Requests without a complete good answer in time; those that began in the last second of
    /// the window are not counted.
    pub failed: u64,
    /// Those of them that got no answer at all, not even a refusal.
    pub unanswered: u64,
    /// Good answers that came later than half a second: the connection was asked for again.
    pub late: u64,
    /// The largest time from one good answer to the next, or to the end of the window.
    pub outage_ms: f64,
    /// The good answer before it, on `CLOCK_BOOTTIME`.
    pub last_good_ns: u64,
    /// The good answer after it; none when the window ended first.
    pub first_good_ns: Option<u64>,
    /// Good answers by the host that gave them.
    pub hosts: BTreeMap<String, u64>,
    /// The connections that were held open.
    pub held: HeldReport,
}

impl fmt::Display for TargetReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} requests, {} failed, outage {:.1} ms, answers by host {:?}",
            self.target, self.requests, self.failed, self.outage_ms, self.hosts
        )?;
        if self.first_good_ns.is_none() {
            f.write_str(", dark at the end")?;
        }
        Ok(())
    }
}

/// Counts of one target.
#[derive(Debug)]
pub struct Tally {
    target: SocketAddr,
    requests: u64,
    failed: u64,
    unanswered: u64,
    late: u64,
    last_good: Option<u64>,
    /// Length, last good before, first good after.
    largest: (u64, u64, u64),
    hosts: BTreeMap<String, u64>,
    host: String,
    told: String,
}

impl Tally {
    /// Nothing seen yet.
    pub fn new(target: SocketAddr) -> Self {
        Self {
            target,
            requests: 0,
            failed: 0,
            unanswered: 0,
            late: 0,
            last_good: None,
            largest: (0, 0, 0),
            hosts: BTreeMap::new(),
            host: String::new(),
            told: String::new(),
        }
    }

    /// A request was sent.
    pub fn asked(&mut self) {
        self.requests += 1;
    }

    /// A request failed at once.
    pub fn refused(&mut self) {
        self.failed += 1;
    }

    /// A request ended.
    pub fn note(&mut self, ended: Ended, now: u64) {
        let host = match ended.outcome {
            Outcome::Good(host) => host,
            Outcome::Failed => {
                self.failed += 1;
                return;
            }
            Outcome::Unanswered => {
                self.failed += 1;
                self.unanswered += 1;
                return;
            }
        };
        self.late += u64::from(now.saturating_sub(ended.began_ns) > LATE_NS);
        if let Some(before) = self.last_good {
            let gap = now.saturating_sub(before);
            if gap > self.largest.0 {
                self.largest = (gap, before, now);
            }
        }
        self.last_good = Some(now);
        if let Some(count) = self.hosts.get_mut(&host) {
            *count += 1;
        } else if self.hosts.len() < 16 {
            self.hosts.insert(host.clone(), 1);
        }
        self.host = host;
    }

    /// Whether it ever answered.
    pub fn answered(&self) -> bool {
        self.last_good.is_some()
    }

    /// Begins the window: what was seen before (the first address resolution) does not count.
    pub fn begin(&mut self, now: u64) {
        let host = std::mem::take(&mut self.host);
        *self = Self {
            last_good: Some(now),
            host,
            ..Self::new(self.target)
        };
    }

    /// A line that names the host that answers now, if it is another than before.
    pub fn news(&mut self) -> Option<String> {
        if self.host == self.told {
            return None;
        }
        self.told.clone_from(&self.host);
        Some(format!("host {} {}", self.target, self.host))
    }

    /// Ends the window.
    pub fn report(self, held: HeldReport, now: u64) -> TargetReport {
        let (mut gap, mut before, mut after) =
            (self.largest.0, self.largest.1, Some(self.largest.2));
        if let Some(last) = self.last_good
            && now.saturating_sub(last) > gap
        {
            (gap, before, after) = (now - last, last, None);
        }
        TargetReport {
            target: self.target,
            requests: self.requests,
            failed: self.failed,
            unanswered: self.unanswered,
            late: self.late,
            outage_ms: gap as f64 / 1e6,
            last_good_ns: before,
            first_good_ns: after,
            hosts: self.hosts,
            held,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(host: &str, began_ns: u64) -> Ended {
        Ended {
            target: 0,
            began_ns,
            outcome: Outcome::Good(host.into()),
        }
    }

    fn tally(good_at: &[u64]) -> Tally {
        let mut tally = Tally::new(SocketAddr::from(([192, 0, 2, 10], 80)));
        tally.begin(0);
        for at in good_at {
            tally.asked();
            tally.note(good("a", *at), *at);
        }
        tally
    }

    #[test]
    fn an_outage_lasts_from_the_last_good_to_the_first_good_answer() {
        let mut tally = tally(&[1_000_000, 3_000_000]);
        tally.refused();
        tally.note(good("b", 42_000_000), 43_000_000);
        let report = tally.report(HeldReport::default(), 44_000_000);
        assert_eq!((report.outage_ms, report.failed), (40.0, 1));
        assert_eq!(
            (report.last_good_ns, report.first_good_ns),
            (3_000_000, Some(43_000_000))
        );
        assert_eq!(report.hosts.len(), 2);
    }

    #[test]
    fn an_outage_that_does_not_end_lasts_to_the_end_of_the_window() {
        let report = tally(&[1_000_000]).report(HeldReport::default(), 7_801_000_000);
        assert_eq!((report.outage_ms, report.first_good_ns), (7800.0, None));
    }

    #[test]
    fn silence_and_a_late_answer_are_told_from_a_refusal() {
        let mut tally = tally(&[]);
        tally.refused();
        tally.note(
            Ended {
                outcome: Outcome::Unanswered,
                ..good("a", 0)
            },
            1_000_000_000,
        );
        tally.note(good("a", 0), 1_004_000_000);
        let report = tally.report(HeldReport::default(), 1_005_000_000);
        assert_eq!((report.failed, report.unanswered, report.late), (2, 1, 1));
    }
}
