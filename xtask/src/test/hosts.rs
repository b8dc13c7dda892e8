//! The part with real systemd hosts: starts the lab, runs the tests on it, always ends the lab.
//!
//! The lab is driven by its own commands, as a person would, so that what the tests use and what
//! a person uses cannot drift apart.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::closing::Tally;
use super::rust::cargo_test;
use crate::build;
use crate::command::run as run_command;

/// Builds what the hosts run, boots them, tests them, and takes them down.
///
/// # Errors
/// The build, the lab or a test fails.
pub fn run(tally: &mut Tally) -> Result<()> {
    build::run(build::Args { release: true })?;
    let lab = Lab::up()?;
    let arguments = ["--features", "shadowd-tests/hosts", "--test", "hosts"].map(str::to_owned);
    // One test at a time: each injects faults into the same hosts.
    let tested = cargo_test(&arguments, &["--test-threads=1", "--nocapture"], tally);
    let ended = lab.down();
    tested.and(ended)?;
    if tally.passed == 0 {
        bail!("the hosts ran no test");
    }
    Ok(())
}

struct Lab {
    is_up: bool,
}

impl Lab {
    fn up() -> Result<Self> {
        // Made before the hosts are, so that a lab that fails half-way is ended too.
        let lab = Self { is_up: true };
        lab_command("up")?;
        Ok(lab)
    }

    fn down(mut self) -> Result<()> {
        self.is_up = false;
        lab_command("down")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.is_up
            && let Err(error) = lab_command("down")
        {
            eprintln!("error: the lab could not be ended: {error:#}");
        }
    }
}

fn lab_command(verb: &str) -> Result<()> {
    let this = std::env::current_exe().context("this program does not know its own path")?;
    run_command(Command::new(this).args(["lab", verb]))
}
