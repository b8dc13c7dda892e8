//! Whether units that clients wait for answer them: alive is not the same as serving.
//!
//! A unit is unanswered from the first interval in which somebody waits and nobody is answered, to
//! the first in which somebody is, or nobody waits any more. Waiting is a connection that is not
//! accepted, or one over which something arrived and nothing was sent. Services that only listen
//! never answer, so a unit is watched only if it is told for how long is too long.
//!
//! Pure: it looks at one observation after the other, and what was not observed proves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::facts::{BootTime, Direction, Observation};

/// The watched units.
#[derive(Debug)]
pub struct Serving {
    /// How long is too long, by unit.
    patience: BTreeMap<String, Duration>,
    /// Since when somebody waits and nobody is answered, and whether that was told.
    unanswered: BTreeMap<String, (BootTime, bool)>,
}

/// What one interval says of a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Interval {
    /// Connections wait to be accepted, or something arrived.
    asked: bool,
    /// Something was sent to a client.
    answered: bool,
    /// Clients are connected.
    open: bool,
}

impl Serving {
    /// Watches these units, each with the time after which it counts as not serving.
    pub fn new(patience: impl IntoIterator<Item = (String, Duration)>) -> Self {
        Self {
            patience: patience.into_iter().collect(),
            unanswered: BTreeMap::new(),
        }
    }

    /// Which units are found not to serve by this observation, or to serve again.
    pub fn look(&mut self, observation: &Observation) -> Vec<(String, bool)> {
        let mut found = Vec::new();
        for (unit, patience) in &self.patience {
            let interval = Interval::of(unit, observation);
            let began = observation.at.as_nanos();
            let began = BootTime::from_nanos(began.saturating_sub(observation.interval_ns));
            let known = self.unanswered.get(unit).copied();
            let waits = interval.asked || (known.is_some() && interval.open);
            if interval.answered || !waits {
                if let Some((_, true)) = self.unanswered.remove(unit) {
                    found.push((unit.clone(), true));
                }
                continue;
            }
            let (since, told) = known.unwrap_or((began, false));
            let late = observation.at.since(since) >= *patience;
            if late && !told {
                found.push((unit.clone(), false));
            }
            self.unanswered.insert(unit.clone(), (since, told || late));
        }
        found
    }
}

impl Interval {
    fn of(unit: &str, observation: &Observation) -> Self {
        let mut interval = Self::default();
        for listener in observation.listeners.iter().filter(|one| one.unit == unit) {
            interval.asked |= listener.backlog > 0 || listener.overflows > 0;
            interval.open |= listener.backlog > 0;
        }
        let inbound = |direction| direction == Direction::Inbound;
        let flows = observation.flows.iter();
        for flow in flows.filter(|flow| flow.unit == unit && inbound(flow.direction)) {
            interval.asked |= flow.interval.rx_bytes > 0;
            interval.answered |= flow.interval.tx_bytes > 0;
            interval.open |= flow.open > 0;
        }
        interval
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::facts::{Flow, FlowCounts, Listener, Protocol};

    const UNIT: &str = "web.service";

    fn flow(direction: Direction, rx_bytes: u64, tx_bytes: u64, open: u64) -> Flow {
        Flow {
            unit: UNIT.to_owned(),
            pid: 7,
            command: "web".to_owned(),
            protocol: Protocol::Tcp,
            direction,
            local: Ipv4Addr::LOCALHOST.into(),
            local_port: 80,
            remote: Ipv4Addr::LOCALHOST.into(),
            remote_port: 0,
            remote_name: None,
            open,
            total: FlowCounts::default(),
            interval: FlowCounts {
                rx_bytes,
                tx_bytes,
                ..FlowCounts::default()
            },
            first_seen: BootTime::default(),
            last_seen: BootTime::default(),
        }
    }

    fn listener(backlog: u32) -> Listener {
        Listener {
            unit: UNIT.to_owned(),
            pid: 7,
            command: "web".to_owned(),
            local: Ipv4Addr::LOCALHOST.into(),
            local_port: 80,
            backlog,
            backlog_max: 128,
            overflows: 0,
            overflows_total: 0,
        }
    }

    /// What is found second by second.
    fn run(seconds: &[(Vec<Flow>, u32)]) -> Vec<Option<bool>> {
        let mut serving = Serving::new([(UNIT.to_owned(), Duration::from_secs(3))]);
        let mut at = 10_000_000_000;
        let mut found = Vec::new();
        for (flows, backlog) in seconds {
            at += 1_000_000_000;
            let found_now = serving.look(&Observation {
                at: BootTime::from_nanos(at),
                interval_ns: 1_000_000_000,
                flows: flows.clone(),
                listeners: vec![listener(*backlog)],
                ..Observation::default()
            });
            assert!(found_now.iter().all(|(unit, _)| unit == UNIT));
            found.push(found_now.first().map(|(_, serves)| *serves));
        }
        found
    }

    fn inbound(rx: u64, tx: u64, open: u64) -> Vec<Flow> {
        vec![flow(Direction::Inbound, rx, tx, open)]
    }

    #[test]
    fn who_is_asked_and_does_not_answer_is_found_once_and_so_is_the_end_of_it() {
        let asked = (inbound(100, 0, 1), 0);
        let waiting = (inbound(0, 0, 1), 0);
        let found = run(&[
            asked,
            waiting.clone(),
            waiting.clone(),
            waiting,
            (inbound(0, 9, 1), 0),
            (inbound(0, 0, 1), 0),
        ]);
        assert_eq!(found, [None, None, Some(false), None, Some(true), None]);
    }

    #[test]
    fn connections_that_nobody_accepts_are_waiting() {
        let full = (Vec::new(), 5);
        let found = run(&[full.clone(), full.clone(), full, (Vec::new(), 0)]);
        assert_eq!(found, [None, None, Some(false), Some(true)]);
    }

    #[test]
    fn a_busy_or_an_idle_service_serves() {
        let busy = (inbound(100, 900, 4), 7);
        let idle = (inbound(0, 0, 4), 0);
        let given_up = [(inbound(100, 0, 1), 0), (inbound(0, 0, 0), 0)];
        assert_eq!(
            run(&[busy.clone(), busy.clone(), busy.clone(), busy]),
            [None; 4]
        );
        assert_eq!(
            run(&[idle.clone(), idle.clone(), idle.clone(), idle]),
            [None; 4]
        );
        assert_eq!(
            run(&[&given_up[..], &given_up, &given_up].concat()),
            [None; 6]
        );
    }

    #[test]
    fn what_it_asks_others_is_no_service() {
        let client = vec![flow(Direction::Outbound, 100, 0, 1)];
        let second = (client, 0);
        assert_eq!(run(&[second.clone(), second.clone(), second]), [None; 3]);
    }
}
