//! `cargo xtask test`: unit, sim, hosts, kernels, each in turn, and one table at the end.
//!
//! A part that fails does not stop the later ones. The last line is always "N passed, N failed",
//! summed over what the runners themselves reported.

pub mod closing;
mod hosts;
mod kernels;
mod rust;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{lab::interrupt, setup};
use closing::Tally;

/// What `cargo xtask test` accepts.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The parts to run; all of them, in this order, when none is named
    #[arg(value_enum)]
    pub parts: Vec<Part>,
    /// Only these kernel series, such as 6.12 (repeatable; see `test kernels --list-kernels`)
    #[arg(long = "kernel", value_name = "SERIES")]
    pub kernels: Vec<String>,
    /// Print the kernel series that are known, and do nothing else
    #[arg(long)]
    pub list_kernels: bool,
}

/// A part of the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Part {
    /// Unit, integration and documentation tests of all packages
    Unit,
    /// Thousands of seeded runs of the failover core on a simulated network
    Sim,
    /// Real systemd hosts in namespaces, with faults
    Hosts,
    /// The kernel side on this kernel, and on others under QEMU
    Kernels,
}

impl Part {
    const ALL: [Self; 4] = [Self::Unit, Self::Sim, Self::Hosts, Self::Kernels];

    const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Sim => "sim",
            Self::Hosts => "hosts",
            Self::Kernels => "kernels",
        }
    }

    const fn needs(self) -> &'static [setup::Part] {
        match self {
            Self::Unit | Self::Sim => &[setup::Part::Build],
            Self::Hosts => &[setup::Part::Build, setup::Part::Hosts],
            Self::Kernels => &[setup::Part::Build, setup::Part::Kernels],
        }
    }
}

struct Outcome {
    part: Part,
    tally: Tally,
    failure: Option<anyhow::Error>,
    took: Duration,
}

/// Runs the parts that were asked for.
///
/// # Errors
/// At least one part failed; the table names it.
pub fn run(args: Args) -> Result<()> {
    if args.list_kernels {
        println!("{}", kernels::known());
        return Ok(());
    }
    kernels::validate(&args.kernels)?;
    // What a part started is ended by that part, so an interrupt only stops the later ones.
    interrupt::install()?;
    let mut outcomes = Vec::new();
    for part in chosen(&args.parts) {
        if interrupt::requested() {
            println!(
                "\ninterrupted: `{}` and what follows is not run",
                part.name()
            );
            break;
        }
        println!("\n== test: {}", part.name());
        let started = Instant::now();
        let mut tally = Tally::default();
        let failure = run_part(part, &args, &mut tally).err();
        if let Some(error) = &failure {
            eprintln!("error: {error:#}");
        }
        outcomes.push(Outcome {
            part,
            tally,
            failure,
            took: started.elapsed(),
        });
    }
    println!("\n{}", summary(&outcomes));
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.failure.is_some())
        .map(|outcome| outcome.part.name())
        .collect();
    println!("{}", total(&outcomes));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    // A run that was cut short has not passed, whatever it got to.
    interrupt::check()
}

fn chosen(asked: &[Part]) -> Vec<Part> {
    let mut parts = if asked.is_empty() {
        Part::ALL.to_vec()
    } else {
        asked.to_vec()
    };
    parts.sort_unstable();
    parts.dedup();
    parts
}

fn run_part(part: Part, args: &Args, tally: &mut Tally) -> Result<()> {
    setup::ensure(part.needs())?;
    match part {
        Part::Unit => rust::unit(tally),
        Part::Sim => rust::simulation(tally),
        Part::Hosts => hosts::run(tally),
        Part::Kernels => kernels::run(&args.kernels, tally),
    }
}

fn summary(outcomes: &[Outcome]) -> String {
    let mut lines = vec![format!(
        "{:<8} {:<7} {:>7} {:>7} {:>8} {:>8}",
        "part", "result", "passed", "failed", "ignored", "time"
    )];
    for outcome in outcomes {
        let result = if outcome.failure.is_some() {
            "FAILED"
        } else {
            "ok"
        };
        let tally = counted(outcome);
        lines.push(format!(
            "{:<8} {result:<7} {:>7} {:>7} {:>8} {:>7.1}s",
            outcome.part.name(),
            tally.passed,
            tally.failed,
            tally.ignored,
            outcome.took.as_secs_f64()
        ));
        if let Some(error) = &outcome.failure {
            lines.push(format!("         {error:#}"));
        }
    }
    lines.join("\n")
}

/// A part that failed without a failing test, as when it does not compile, counts as one failure:
/// "0 failed" must never close a run that failed.
fn counted(outcome: &Outcome) -> Tally {
    let mut tally = outcome.tally;
    if outcome.failure.is_some() {
        tally.failed = tally.failed.max(1);
    }
    tally
}

fn total(outcomes: &[Outcome]) -> String {
    let sum = |count: fn(Tally) -> u64| -> u64 { outcomes.iter().map(counted).map(count).sum() };
    format!(
        "{} passed, {} failed",
        sum(|tally| tally.passed),
        sum(|tally| tally.failed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(part: Part, passed: u64, failed: u64, failure: Option<&'static str>) -> Outcome {
        Outcome {
            part,
            tally: Tally {
                passed,
                failed,
                ignored: 0,
            },
            failure: failure.map(anyhow::Error::msg),
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn no_part_means_all_and_order_is_fixed() {
        assert_eq!(chosen(&[]), Part::ALL);
        assert_eq!(
            chosen(&[Part::Kernels, Part::Unit, Part::Unit]),
            [Part::Unit, Part::Kernels]
        );
    }

    #[test]
    fn a_part_that_broke_before_its_tests_is_a_failure_in_the_last_line() {
        let outcomes = [
            outcome(Part::Unit, 10, 0, None),
            outcome(Part::Sim, 0, 0, Some("does not compile")),
            outcome(Part::Hosts, 3, 2, Some("tests failed")),
        ];
        assert_eq!(total(&outcomes), "13 passed, 3 failed");
        let text = summary(&outcomes);
        assert!(
            text.contains("does not compile") && text.contains("1.5s"),
            "{text}"
        );
    }
}
