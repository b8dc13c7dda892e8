//! Whose turn it is, and what happens when a run fails.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::case::Case;
use super::results::{Lost, Results};
use super::run::{Bench, Endured, Run};
use super::system::{System, member_names};
use super::{Args, spoken};
use crate::lab::interrupt;

/// Stretches of starvation or loss are no longer than this, so that both systems meet the same
/// moods of the machine.
const LONGEST_STRETCH_MIN: f64 = 2.5;
/// A case in which more runs than this, of both systems, give no result is not worth going on with;
/// of many runs it is [`LOST_SHARE`], for on a machine that stands still now and then keepalived moves
/// by itself again and again, which says something about it and nothing against the bench.
const MOST_LOST: u32 = 5;
/// One run in so many may give no result.
const LOST_SHARE: u32 = 5;
/// A system that does not come up well after so many beginnings cannot be measured.
const MOST_BEGINNINGS: u32 = 3;

/// How much is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What, in order.
    pub cases: Vec<Case>,
    /// Share of a processor that a starved host gets, in percent.
    pub starve_percent: u8,
    runs: u32,
    handovers: u32,
    minutes: f64,
    /// keepalived takes each so many-th stretch only.
    peer_each: u32,
}

impl Plan {
    /// What the arguments ask for.
    pub fn new(arguments: &Args) -> Self {
        let (runs, handovers, minutes) = match arguments.quick {
            true => (2, 5, 0.5),
            false => (30, 100, 10.0),
        };
        let all = Case::ALL.into_iter();
        let wanted = |case: &Case| arguments.only.is_empty() || arguments.only.contains(case);
        Self {
            cases: all.filter(wanted).collect(),
            starve_percent: arguments.starve_percent.unwrap_or(5),
            runs: arguments.runs.unwrap_or(runs),
            handovers: arguments.handovers.unwrap_or(handovers),
            minutes: arguments.minutes.unwrap_or(minutes),
            peer_each: arguments.peer_each.unwrap_or(1),
        }
    }

    /// Runs, or stretches, of each system.
    fn count(&self, case: Case) -> u32 {
        match case {
            Case::Handover => self.handovers,
            _ if case.is_endured() => (self.minutes / LONGEST_STRETCH_MIN).ceil() as u32,
            _ => self.runs,
        }
    }

    /// How many runs of a case may give no result.
    fn most_lost(&self, case: Case) -> usize {
        (self.count(case) / LOST_SHARE).max(MOST_LOST) as usize
    }

    /// Whether `system` takes this turn.
    fn takes(&self, case: Case, system: System, turn: u32) -> bool {
        system == System::Shadowd || !case.is_endured() || turn.is_multiple_of(self.peer_each)
    }

    fn stretch(&self, case: Case) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0 / f64::from(self.count(case)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.cases.iter().map(|case| match case.is_endured() {
            true => format!("{} {} min", case.name(), self.minutes),
            false => format!("{} {} times", case.name(), self.count(*case)),
        });
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// Takes turns.
pub struct Turns<'a> {
    bench: Bench<'a>,
    running: System,
    begin: Instant,
}

impl<'a> Turns<'a> {
    /// Begins with a system that runs already.
    pub fn new(bench: Bench<'a>, running: System) -> Self {
        Self {
            bench,
            running,
            begin: Instant::now(),
        }
    }

    /// Measures one case, with all its runs.
    ///
    /// # Errors
    /// The user interrupts, or too many runs fail.
    pub fn measure(&mut self, case: Case, plan: &Plan, results: &mut Results) -> Result<()> {
        let count = plan.count(case);
        let mut first = 0;
        let lost = results.lost.len();
        while first < count {
            let next = (first + case.runs_a_turn()).min(count);
            let taking = System::BOTH.into_iter();
            for system in taking.filter(|system| plan.takes(case, *system, first)) {
                self.switch_to(system)?;
                for number in first..next {
                    let what = format!("{} {}/{count} {}", case.name(), number + 1, system.name());
                    let said = self
                        .one(case, system, plan, results)
                        .with_context(|| what.clone());
                    match said {
                        Ok(said) => self.tell(&what, &said),
                        Err(error) => self.recover(case, system, &error, results)?,
                    }
                    let most = plan.most_lost(case);
                    if results.lost.len() - lost > most {
                        bail!("{}: more than {most} runs gave no result", case.name());
                    }
                }
            }
            first = next;
        }
        Ok(())
    }

    fn one(
        &mut self,
        case: Case,
        system: System,
        plan: &Plan,
        results: &mut Results,
    ) -> Result<String> {
        if case.is_endured() {
            let endured = self.bench.endure(system, case, plan.stretch(case))?;
            let said = told_endured(&endured);
            results.add_endured(case, system, endured);
            Ok(said)
        } else {
            let run = self.bench.run(system, case)?;
            let said = told_run(&run);
            results.add_run(case, system, run);
            Ok(said)
        }
    }

    fn tell(&self, what: &str, said: &str) {
        let time = spoken(self.begin.elapsed());
        println!("{time:>10}  {what:<36} {said}");
    }

    fn switch_to(&mut self, system: System) -> Result<()> {
        if self.running != system {
            self.running.end(self.bench.lab)?;
            self.running = system;
            self.begin()?;
        }
        Ok(())
    }

    /// Starts the system whose turn it is; more than once, should it not come up well.
    fn begin(&self) -> Result<()> {
        let lab = self.bench.lab;
        for attempt in 1..=MOST_BEGINNINGS {
            match self.running.begin(lab) {
                Ok(_) => return Ok(()),
                Err(error) if attempt == MOST_BEGINNINGS => return Err(error),
                Err(error) => {
                    interrupt::check()?;
                    println!("{} begins anew: {error:#}", self.running.name());
                    self.running.end(lab)?;
                }
            }
        }
        Ok(())
    }

    /// A run failed: it is written down, and both hosts begin anew.
    fn recover(
        &mut self,
        case: Case,
        system: System,
        error: &anyhow::Error,
        results: &mut Results,
    ) -> Result<()> {
        interrupt::check()?;
        let why = format!("{error:#}");
        println!("no result: {why}");
        let lab = self.bench.lab;
        let newest = |host: &String| lab.ask(host, &["events", "--limit", "30"]).ok();
        let events = match system {
            System::Shadowd => member_names(lab).iter().filter_map(newest).collect(),
            System::Keepalived => Vec::new(),
        };
        results.lost.push(Lost {
            case,
            system,
            why,
            events,
        });
        for host in member_names(lab) {
            system.heal(lab, &host)?;
        }
        system.end(lab)?;
        self.begin()
    }
}

fn told_run(run: &Run) -> String {
    let mut said = format!(
        "from {}: outage {:.1} ms, IPv6 {:.1} ms",
        run.from, run.outage_ms, run.outage_v6_ms
    );
    if run.dark {
        said.push_str(", nobody took over");
    }
    if run.held > 0 {
        said.push_str(&format!(
            "; {} failed, {} late, {} of {} held connections broken",
            run.failed, run.late, run.broken, run.held
        ));
    }
    if run.is_disturbed() {
        said.push_str(&format!(
            "; the client stood still for {:.0} ms",
            run.client_stall_ms
        ));
    }
    said
}

fn told_endured(endured: &Endured) -> String {
    format!(
        "{:.1} min: {} false promotions, {} times given up and taken again, two owners for {:.1} s, longest outage {:.1} ms",
        endured.minutes,
        endured.promotions.len(),
        endured.regains,
        endured.two_holders_ms / 1e3,
        endured.outage_ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_stretches_are_cut_into_equal_parts() {
        let plan = Plan::new(&Args {
            minutes: Some(6.0),
            ..Args::default()
        });
        assert_eq!(plan.count(Case::Loss), 3);
        assert_eq!(plan.stretch(Case::Loss), Duration::from_secs(120));
        let sparing = Plan::new(&Args {
            peer_each: Some(2),
            ..Args::default()
        });
        let takes = |case, system| {
            (0..4)
                .filter(|turn| sparing.takes(case, system, *turn))
                .count()
        };
        assert_eq!(takes(Case::Loss, System::Keepalived), 2);
        assert_eq!(takes(Case::Loss, System::Shadowd), 4);
        assert_eq!(takes(Case::HostCrash, System::Keepalived), 4);
        assert_eq!(plan.most_lost(Case::Loss), 5);
        let many = Plan::new(&Args {
            runs: Some(100),
            ..Args::default()
        });
        assert_eq!(many.most_lost(Case::HostCrash), 20);
        let quick = Plan::new(&Args {
            quick: true,
            only: vec![Case::Loss, Case::HostCrash],
            ..Args::default()
        });
        assert_eq!(quick.stretch(Case::Loss), Duration::from_secs(30));
        assert_eq!(quick.to_string(), "host_crash 2 times, loss 0.5 min");
    }
}
