//! One round: a group that is well, a fault at a random moment, its end, and a group that is well.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::answer::Vip;
use super::capture::Capture;
use super::fault::{self, Parts};
use super::judge::{Verdict, judge};
use super::plan::Step;
use super::record::Record;
use crate::lab::{Lab, VIP_V4, VIP_V6, boot_ns, interrupt};

/// How long the group may take until all is well, on a busy machine.
const TO_SETTLE: Duration = Duration::from_secs(90);
/// A takeover that takes longer is none.
const TO_TAKE_OVER: Duration = Duration::from_secs(8);
/// How often frames and clocks are looked at while waiting.
const LOOK: Duration = Duration::from_millis(3);
/// Events that one question gives.
const EVENTS: usize = 1000;

/// What one round gave.
#[derive(Clone, Debug)]
pub struct Round {
    /// What was done.
    pub step: Step,
    /// Who was active, by name and number.
    pub active: (String, u8),
    /// The moment before the fault.
    pub at_ns: u64,
    /// Whether another host answered for both addresses before the fault was undone.
    pub taken: bool,
    /// Whether the kernel of the host that was stopped had both addresses beside its successor's;
    /// only of faults that leave them there.
    pub both_held: Option<bool>,
    /// How often everybody was asked for the IPv4 address between the successor's first answer and
    /// the end of the fault.
    pub asked_beside: usize,
    /// Why the fault did not happen.
    pub refused: Option<String>,
}

/// The lab under observation, and what was recorded so far.
pub struct Rounds<'a> {
    lab: &'a Lab,
    capture: &'a Capture,
    /// What the daemons said.
    pub record: Record,
    /// All events as (time, host, event).
    pub events: Vec<(u64, String, Value)>,
    newest: Vec<u64>,
}

impl<'a> Rounds<'a> {
    /// Waits until the group is well, and learns who owns it. Frames before this do not count.
    ///
    /// # Errors
    /// The group does not become well.
    pub fn start(lab: &'a Lab, capture: &'a Capture) -> Result<Self> {
        let mut rounds = Self {
            lab,
            capture,
            record: Record::default(),
            events: Vec::new(),
            newest: vec![0; lab.state().hosts.len()],
        };
        lab.converge(TO_SETTLE)?;
        rounds.collect()?;
        let mut seen = capture.seen();
        seen.answers.clear();
        seen.questions.clear();
        drop(seen);
        Ok(rounds)
    }

    /// Does one step; gives what happened and what the frames since the last step show.
    ///
    /// # Errors
    /// The group does not become well again, or the capture ended.
    pub fn run(&mut self, step: Step) -> Result<(Round, Verdict)> {
        let first = self.capture.seen().answers.len();
        let parts = self.parts()?;
        let active = (parts.active.clone(), self.number(&parts.active));
        std::thread::sleep(step.phase);
        let mut round = Round {
            step,
            active,
            at_ns: boot_ns()?,
            taken: false,
            both_held: None,
            asked_beside: 0,
            refused: None,
        };
        let mut touched = vec![parts.host(step.kind).to_owned()];
        match fault::begin(self.lab, step.kind, &parts) {
            Ok(at_ns) => {
                round.at_ns = at_ns;
                self.endure(&mut round, &parts, &mut touched)?;
            }
            Err(error) => {
                interrupt::check()?;
                round.refused = Some(format!("{error:#}"));
            }
        }
        touched.dedup();
        for host in &touched {
            self.lab.lift(host)?;
        }
        let lifted_ns = boot_ns()?;
        for host in &touched {
            self.lab.heal(host)?;
        }
        self.lab.converge(TO_SETTLE)?;
        self.collect()?;
        self.capture.sync()?;
        let seen = self.capture.seen();
        let answers = seen.answers[first.min(seen.answers.len())..].to_vec();
        let shadow = self.number(&parts.shadow);
        let taken_ns = answers
            .iter()
            .find(|answer| answer.host == shadow && answer.at_ns > round.at_ns)
            .map_or(lifted_ns, |answer| answer.at_ns);
        let asked = seen.questions.iter().rev();
        round.asked_beside = asked
            .skip_while(|at| **at >= lifted_ns)
            .take_while(|at| **at > taken_ns)
            .count();
        drop(seen);
        Ok((round, judge(&answers, &self.record)))
    }

    /// Lets the fault last, and begins the second one.
    fn endure(&self, round: &mut Round, parts: &Parts, touched: &mut Vec<String>) -> Result<()> {
        if let Some((kind, apart)) = round.step.second {
            std::thread::sleep(apart);
            touched.push(parts.host(kind).to_owned());
            // What is broken already by the first fault cannot break again.
            if fault::begin(self.lab, kind, parts).is_err() {
                interrupt::check()?;
            }
        }
        if round.step.until_takeover() {
            let shadow = self.number(&parts.shadow);
            let end = Instant::now() + TO_TAKE_OVER;
            while !round.taken && Instant::now() < end {
                interrupt::check()?;
                std::thread::sleep(LOOK);
                round.taken = self.answers_since(shadow, round.at_ns);
            }
            if round.taken && round.step.kind.leaves_addresses() {
                round.both_held = Some(self.both_hold(parts)?);
            }
        }
        std::thread::sleep(round.step.lasts);
        Ok(())
    }

    fn answers_since(&self, host: u8, at_ns: u64) -> bool {
        let seen = self.capture.seen();
        [Vip::V4, Vip::V6].into_iter().all(|vip| {
            let newest = seen.last(vip);
            newest.is_some_and(|newest| newest.host == host && newest.at_ns > at_ns)
        })
    }

    fn both_hold(&self, parts: &Parts) -> Result<bool> {
        for vip in [VIP_V4.into(), VIP_V6.into()] {
            let holders = self.lab.holders(vip)?;
            if !holders.contains(&parts.active) || !holders.contains(&parts.shadow) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn parts(&self) -> Result<Parts> {
        let active = self.lab.converge(TO_SETTLE)?;
        let mut members = self.lab.state().members();
        let shadow = members.find(|host| host.name != active);
        let witness = self.lab.state().hosts.iter().find(|host| host.witness);
        Ok(Parts {
            shadow: shadow.context("the lab has two members")?.name.clone(),
            witness: witness.context("the lab has a witness")?.name.clone(),
            active,
        })
    }

    fn number(&self, name: &str) -> u8 {
        let mut hosts = self.lab.state().hosts.iter();
        let place = hosts.position(|host| host.name == name);
        place.map_or(u8::MAX, |place| place as u8)
    }

    /// Takes what the daemons recorded since the last time.
    fn collect(&mut self) -> Result<()> {
        for (number, host) in self.lab.state().hosts.iter().enumerate() {
            loop {
                let events = self.lab.events(&host.name, self.newest[number])?;
                self.record.add(number as u8, &events);
                let newest = events.last().and_then(|event| event["seq"].as_u64());
                self.newest[number] = newest.unwrap_or(self.newest[number]);
                let count = events.len();
                for event in events {
                    let at_ns = event["boot_ns"].as_u64().unwrap_or_default();
                    self.events.push((at_ns, host.name.clone(), event));
                }
                if count < EVENTS {
                    break;
                }
            }
        }
        Ok(())
    }
}
