//! The part with real systemd hosts: starts the lab, runs the tests on it, always ends the lab.

use anyhow::{Context as _, Result, bail};

use super::closing::Tally;
use super::rust::cargo_test;
use crate::build;
use crate::lab::{Lab, Options};

/// Builds what the hosts run, boots them, tests them, and takes them down.
///
/// # Errors
/// The build, the lab or a test fails, or the lab leaves something behind.
pub fn run(tally: &mut Tally) -> Result<()> {
    build::run(build::Args { release: true })?;
    // Tied to this process: however it ends, the hosts end with it.
    let options = Options {
        spare: true,
        ..Options::witnessed()?
    };
    let lab = Lab::up(&options).context("the lab does not start")?;
    let arguments = ["--features", "shadowd-tests/hosts", "--test", "hosts"].map(str::to_owned);
    // One test at a time: each injects faults into the same hosts.
    let tested = cargo_test(&arguments, &["--test-threads=1"], tally);
    let left = lab.down().context("the lab does not end")?;
    tested?;
    if !left.is_empty() {
        bail!("the lab left behind: {}", left.join(", "));
    }
    if tally.passed == 0 {
        bail!("the hosts ran no test");
    }
    Ok(())
}
