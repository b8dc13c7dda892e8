//! `cargo xtask fuzz`: damaged bytes for every decoder, for as long as wanted.
//!
//! The driver is a test of `shadowd` (`shadowd/src/fuzz`), which every `cargo xtask test unit` runs
//! with few inputs; here it runs longer, or one input again. Works with the stable compiler.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::command::{cargo, run};
use crate::setup::{self, Part};

/// Throws damaged bytes at every decoder of bytes that this host did not make itself
///
/// A target that does not exist prints the list of targets. An input that fails is kept under
/// target/fuzz and printed with the command that runs it again.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// The decoder; all, one after the other, when none is named
    pub target: Option<String>,
    /// How long for each decoder
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub seconds: u64,
    /// Other inputs than those of seed 1
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Run this input once instead
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["seconds", "seed"])]
    pub input: Option<PathBuf>,
}

/// Runs what was asked for.
///
/// # Errors
/// A decoder failed; the output names the input.
pub fn start(args: &Args) -> Result<()> {
    setup::ensure(&[Part::Build])?;
    let mut command = cargo();
    // The whole workspace, because a choice of packages would resolve other features and compile
    // the dependencies again.
    command.args([
        "test",
        "--workspace",
        "--lib",
        "--",
        "--exact",
        "--nocapture",
    ]);
    command.arg("fuzz::drive::every_decoder_takes_any_bytes");
    command.env("SHADOWD_FUZZ_SECONDS", args.seconds.to_string());
    command.env("SHADOWD_FUZZ_SEED", args.seed.to_string());
    if let Some(target) = &args.target {
        command.env("SHADOWD_FUZZ_TARGET", target);
    }
    if let Some(input) = &args.input {
        let input = input
            .canonicalize()
            .with_context(|| format!("no input {}", input.display()))?;
        command.env("SHADOWD_FUZZ_INPUT", input);
    }
    run(&mut command)
}
