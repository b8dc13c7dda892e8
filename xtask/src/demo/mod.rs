//! `cargo xtask demo`: capture and failover on two real hosts, measured by a real client.
//!
//! It boots a lab, shows what capture sees of real traffic and checks it against what the client
//! counted, then breaks the active in several ways and measures how long the client was without
//! an answer. It ends with an error when a bound is broken or something is left on the machine.

mod capture;
mod report;
mod scenario;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::lab::{Lab, Options, interrupt, target};
pub use capture::compare;
use report::Results;
use scenario::Scenario;

/// Arguments of `cargo xtask demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Writes the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs of each scenario; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Runs this scenario only.
    #[arg(long)]
    only: Option<Scenario>,
    /// Takes the binaries that are there.
    #[arg(long)]
    no_build: bool,
}

/// Runs the demo.
///
/// # Errors
/// A step fails, a bound is broken, capture and client disagree, or something is left behind.
pub fn run(arguments: Args) -> Result<()> {
    if !arguments.no_build {
        build::run(build::Args { release: true })?;
    }
    interrupt::install()?;
    let begin = Instant::now();
    let binaries = Some(target().join("release"));
    let lab = Lab::up(&Options {
        hosts: 2,
        witness: false,
        spare: false,
        client: true,
        tied: true,
        unguarded: false,
        binaries,
    })?;
    println!(
        "lab {} is up after {:.1} s",
        lab.state().id,
        begin.elapsed().as_secs_f64()
    );
    let active = lab.converge(Duration::from_secs(30))?;
    println!("host {active} is active");
    let mut results = Results::default();
    if arguments.only.is_none() {
        capture::show(&lab)?;
    }
    for scenario in Scenario::ALL {
        if arguments.only.is_none_or(|only| only == scenario) {
            for number in 1..=arguments.runs {
                let run = scenario::run(&lab, scenario, number)
                    .with_context(|| format!("{} run {number}", scenario.name()))?;
                results.add(scenario, run);
            }
        }
    }
    let left = lab.down()?;
    println!("\n{}", results.table());
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&results.json())?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let broken = results.broken();
    for line in &broken {
        println!("{line}");
    }
    if left.is_empty() {
        println!("nothing left behind: no namespace, mount, process, control group, pinned object");
    } else {
        bail!("left behind: {}", left.join(", "));
    }
    if !broken.is_empty() {
        bail!("{} bounds are broken", broken.len());
    }
    println!("every bound is kept");
    Ok(())
}
