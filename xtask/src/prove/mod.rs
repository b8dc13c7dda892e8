//! `cargo xtask prove`: what the project promises, shown on real hosts from outside.
//!
//! A proof counts what it saw, fails on missing data, and has a way of running in which it must
//! find what it looks for.

mod crew;
pub mod ready;
pub mod wire;

use anyhow::Result;
use clap::Subcommand;

/// Arguments of `cargo xtask prove`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// No two hosts answer for a virtual IP at the same instant, through random faults
    Wire(wire::Args),
    /// No healthy state of a shadow is called broken, over an hour of load
    Ready(ready::Args),
}

/// Runs one proof.
///
/// # Errors
/// What is to be shown does not hold, or data is missing.
pub fn run(arguments: &Args) -> Result<()> {
    match &arguments.what {
        What::Wire(arguments) => wire::run(arguments),
        What::Ready(arguments) => ready::run(arguments),
    }
}
