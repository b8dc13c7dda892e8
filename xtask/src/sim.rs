//! `cargo xtask sim`: seeded runs of the failover core on a simulated network, as many as wanted.

use anyhow::{Result, bail};

use crate::command::{cargo, run, run_watching, target};
use crate::setup;
use crate::test::closing::{self, Tally};

/// Seeds that `cargo xtask test` runs.
pub const TEST_SEEDS: u64 = 20_000;

/// Runs seeded clusters and checks every invariant after every step
///
/// A failure names its seed; `--seed` tells that run step by step. The same seed gives the same run
/// on any machine.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// How many seeds
    #[arg(long, default_value_t = TEST_SEEDS, value_name = "N")]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub first: u64,
    /// Tell one seed's run step by step instead
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "first"])]
    pub seed: Option<u64>,
    /// Exceed the bound on clocks, and measure for how long two hosts answer: `drift` or `pause`
    #[arg(long, value_name = "HOW")]
    pub beyond: Option<String>,
    /// Break a rule on purpose, or `all` in turn, and count the seeds that find it
    #[arg(long, value_name = "RULE")]
    pub broken: Option<String>,
    /// Of the broken rule take the plans in which it matters
    #[arg(long, requires_all = ["broken", "seed"])]
    pub direct: bool,
}

/// Runs what was asked for.
///
/// # Errors
/// An invariant was broken; the output names the seeds.
pub fn start(args: &Args) -> Result<()> {
    setup::ensure(&[setup::Part::Build])?;
    let mut arguments = match (args.seed, &args.broken) {
        (Some(seed), _) => vec!["--seed".to_owned(), seed.to_string()],
        (None, Some(_)) => vec![args.seeds.to_string()],
        (None, None) => vec![args.seeds.to_string(), args.first.to_string()],
    };
    let options = [("--beyond", &args.beyond), ("--broken", &args.broken)];
    for (option, value) in options {
        arguments.extend(
            value
                .iter()
                .flat_map(|value| [option.to_owned(), value.clone()]),
        );
    }
    arguments.extend(args.direct.then(|| "--direct".to_owned()));
    simulate(&arguments, &mut Tally::default())
}

/// Runs `seeds` seeds from `first` on.
///
/// # Errors
/// An invariant was broken.
pub fn many(seeds: u64, first: u64, tally: &mut Tally) -> Result<()> {
    simulate(&[seeds.to_string(), first.to_string()], tally)
}

fn simulate(arguments: &[String], tally: &mut Tally) -> Result<()> {
    // The whole workspace, because a choice of packages would resolve other features and compile
    // the dependencies again.
    let build = ["build", "--release", "--workspace", "--bin", "simulate"];
    run(cargo().args(build))?;
    let program = target().join("release/simulate");
    if !program.exists() {
        bail!("{} was not built", program.display());
    }
    let mut command = std::process::Command::new(program);
    run_watching(command.args(arguments), |line| {
        if let Some(found) = closing::parse(line) {
            tally.add(found);
        }
    })
}
