//! Everything that capture said of flows, added up for one process.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use shadowd::facts::{Direction, FlowCounts, FlowDelta, Protocol, Sample};
use shadowd::observe::Capture;

use crate::PATIENCE;

/// What was said.
#[derive(Debug, Default)]
pub struct Ledger {
    /// All of it.
    pub flows: Vec<FlowDelta>,
}

impl Ledger {
    /// Forgets what was before; returns an empty ledger.
    pub fn open(capture: &mut Capture) -> Self {
        capture.tick();
        Self::default()
    }

    /// Takes a sample and returns it without its flows.
    pub fn tick(&mut self, capture: &mut Capture) -> Sample {
        let mut sample = capture.tick();
        self.flows.append(&mut sample.flows);
        sample
    }

    /// Takes samples until they say enough. What is missing then is found by the check itself.
    pub fn until(&mut self, capture: &mut Capture, enough: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tick(capture);
            if enough(self) || Instant::now() > deadline {
                return;
            }
            capture.wait(Duration::from_millis(20));
        }
    }

    /// The sum of one process in one direction.
    pub fn of(&self, pid: u32, protocol: Protocol, direction: Direction) -> FlowCounts {
        let mut sum = FlowCounts::default();
        let flows = self
            .flows
            .iter()
            .filter(|flow| (flow.pid, flow.protocol, flow.direction) == (pid, protocol, direction));
        flows.for_each(|flow| sum.add(&flow.counts));
        sum
    }

    /// Connections of these processes that ended.
    pub fn closed(&self, pids: &[u32]) -> u64 {
        let flows = self.flows.iter().filter(|flow| pids.contains(&flow.pid));
        flows
            .map(|flow| flow.counts.closed + flow.counts.failed)
            .sum()
    }

    /// No flow at `port` belongs to anybody else.
    pub fn only(&self, port: u16, owners: &[(u32, Direction)]) -> Result<()> {
        for flow in &self.flows {
            let at_port = match flow.direction {
                Direction::Outbound => flow.remote.port(),
                Direction::Inbound => flow.local.port(),
            } == port;
            let ours = owners.contains(&(flow.pid, flow.direction));
            let said = flow.counts != FlowCounts::default();
            ensure!(
                !(at_port && said) || ours,
                "{flow:?} is of none of {owners:?}"
            );
            ensure!(
                !(at_port && said) || flow.cgroup != 0,
                "{flow:?} has no control group"
            );
        }
        Ok(())
    }
}
