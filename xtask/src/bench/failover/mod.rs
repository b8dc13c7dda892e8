//! Failover beside keepalived: the same hosts, the same intervals, in turns, faults at random
//! moments, and one client that asks at a constant rate.
//!
//! Only one of the two systems runs at a time. A run that gives no result is told, never left out.

mod case;
mod figures;
mod keepalived;
mod results;
mod run;
mod schedule;
mod stages;
mod system;
mod table;
mod watch;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::Outcome;
use crate::build;
use crate::lab::{Lab, Options, boot_ns, interrupt, target};
use crate::random::Random;
use crate::setup::{self, Part};
use case::Case;
use results::Results;
use run::Bench;
use schedule::Plan;
use system::System;
use watch::Watch;

/// What `bench failover` accepts beside what every bench does.
#[derive(clap::Args, Debug, Clone, Default, PartialEq)]
#[group(id = "failover")]
pub struct Args {
    /// Runs of each fault and system [default: 30, or 2 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: Option<u32>,
    /// Planned handovers of each system [default: 100, or 5 with --quick]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    handovers: Option<u32>,
    /// Minutes of starvation and of loss for each system [default: 10, or 0.5 with --quick]
    #[arg(long, value_parser = minutes)]
    minutes: Option<f64>,
    /// Of the stretches of starvation and loss keepalived takes each Nth only [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    peer_each: Option<u32>,
    /// Share of a processor that a starved host gets, in percent [default: 5]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
    starve_percent: Option<u8>,
    /// Measure this only; may be given more than once
    #[arg(long, value_name = "CASE")]
    only: Vec<Case>,
    /// Seed of the random moments; without it one is taken from the clock and printed
    #[arg(long)]
    seed: Option<u64>,
    /// A few runs of everything: shows that it works, its figures mean little
    #[arg(long)]
    quick: bool,
    /// Take the binaries that are there
    #[arg(long)]
    no_build: bool,
}

impl Args {
    /// Whether nothing is said but how long it may take; other benches take that as well.
    pub fn is_short(&self) -> bool {
        let short = Self {
            runs: self.runs,
            quick: self.quick,
            no_build: self.no_build,
            ..Self::default()
        };
        *self == short
    }

    /// One of two, the second when it is to be quick.
    pub fn pick(&self, usual: u32, quick: u32) -> u32 {
        if self.quick { quick } else { usual }
    }

    /// How often something is measured.
    pub fn runs(&self, usual: u32, quick: u32) -> u32 {
        self.runs.unwrap_or_else(|| self.pick(usual, quick))
    }

    /// Whether the binaries that are there are taken.
    pub fn is_built(&self) -> bool {
        self.no_build
    }
}

/// What `--help` adds.
pub const HELP: &str = "\
`promotion` takes --runs, --quick and --no-build, `profile` --quick, all others --json alone.

A bench needs root. `failover` boots two hosts, a witness and a client in namespaces of their own and takes
about two hours with its defaults; the longest parts are starvation and loss (an hour), and what was
measured is printed also when it is interrupted.

  cargo xtask bench failover --quick                            does it work here? some 5 minutes
  cargo xtask bench failover --only host_crash --runs 100       one fault, a p99 worth the name
  cargo xtask bench failover --only handover --seed 7           the same random moments again
  cargo xtask bench failover --json failover.json               everything, with each single run";

/// Measures both systems.
///
/// # Errors
/// The lab does not start, or leaves something behind. What stopped the measurement is part of the
/// outcome, so that nothing measured before is lost.
pub fn run(arguments: &Args) -> Result<Outcome> {
    setup::ensure(&[Part::Build, Part::Hosts])?;
    if !arguments.no_build {
        build::run(build::Args { release: true })?;
    }
    interrupt::install()?;
    let seed = arguments.seed.map_or_else(boot_ns, Ok)?;
    let plan = Plan::new(arguments);
    let begin = Instant::now();
    // The witness is a host of its own: keepalived has none, and its members are the first two.
    let lab = Lab::up(&Options {
        binaries: Some(target().join("release")),
        ..Options::witnessed()?
    })?;
    println!(
        "lab {} is up after {:.1} s",
        lab.state().id,
        begin.elapsed().as_secs_f64()
    );
    let version = keepalived::install(&lab)?;
    println!("keepalived {version} and shadowd in turns, seed {seed}: {plan}");
    let mut results = Results::default();
    let before = conditions();
    let measured = measure(&lab, &plan, seed, &mut results);
    let after = conditions();
    let down = lab.down();
    println!("\nkeepalived {version}, adverts and heartbeats of 10 ms, seed {seed}");
    println!("the machine: {before}; at the end: {after}\n");
    println!("{}", table::tables(&results));
    for bound in results.bounds() {
        println!("{bound}");
    }
    // Also this is part of the outcome, after what was measured.
    let ended = down.and_then(|left| match left.is_empty() {
        true => Ok(()),
        false => bail!("left behind: {}", left.join(", ")),
    });
    Ok(Outcome {
        metrics: results.metrics(),
        details: json!({
            "seed": seed,
            "keepalived": version,
            "machine": {"before": before, "after": after},
            "results": results.json(),
        }),
        stopped: ended.err().or(measured.err()),
    })
}

fn measure(lab: &Lab, plan: &Plan, seed: u64, results: &mut Results) -> Result<()> {
    let watch = Watch::start(lab)?;
    let bench = Bench {
        lab,
        watch: &watch,
        random: Random::new(seed),
        starve_percent: plan.starve_percent,
    };
    // The lab starts shadowd, as it does for everybody.
    let mut turns = schedule::Turns::new(bench, System::Shadowd);
    for case in &plan.cases {
        turns.measure(*case, plan, results)?;
    }
    Ok(())
}

/// What this machine is and how busy: figures of a busy one say less.
fn conditions() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let load: Vec<String> = read("/proc/loadavg")
        .split(' ')
        .take(3)
        .map(str::to_owned)
        .collect();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{processors} processors, kernel {}, load {}",
        read("/proc/sys/kernel/osrelease").trim(),
        load.join(" ")
    )
}

fn minutes(text: &str) -> Result<f64> {
    let minutes: f64 = text
        .parse()
        .context("a number of minutes, such as 10 or 0.5")?;
    if !(0.1..=1440.0).contains(&minutes) {
        bail!("from 0.1 to 1440 minutes");
    }
    Ok(minutes)
}

/// A time as people say it.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}
