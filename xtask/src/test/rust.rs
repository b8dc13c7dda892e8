//! The parts that are plain `cargo test`: `unit` and `sim`.
//!
//! Every call names the whole workspace, because a choice of packages would resolve other features
//! and compile the dependencies again.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::closing::{self, Tally};
use crate::command::{capture, cargo, run_watching};
use crate::sim;

/// The package whose integration tests are the other parts.
const END_TO_END: &str = "shadowd-tests";

/// Library, program, integration and documentation tests; not those of the end-to-end package.
///
/// # Errors
/// A test fails or does not compile.
pub fn unit(tally: &mut Tally) -> Result<()> {
    let metadata = capture(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let mut arguments = vec!["--lib".to_owned(), "--bins".to_owned()];
    for test in integration_tests(&metadata)? {
        arguments.extend(["--test".to_owned(), test]);
    }
    let code = cargo_test(&arguments, &[], tally);
    // Documentation tests cannot share a call with the others; run them in any case.
    let documentation = cargo_test(&["--doc".to_owned()], &[], tally);
    code.and(documentation)
}

/// The simulated network; its test prints the number of runs and the seed.
///
/// # Errors
/// An invariant breaks, the test does not compile, or it ran nothing.
pub fn simulation(tally: &mut Tally) -> Result<()> {
    let test = ["--test", "simulation"].map(str::to_owned);
    cargo_test(&test, &["--nocapture"], tally)?;
    if tally.passed == 0 {
        bail!("the simulation ran no test");
    }
    sim::many(sim::TEST_SEEDS, 0, tally)
}

/// `cargo test --workspace ARGUMENTS -- RUNNER_ARGUMENTS`, adding up what the runners report.
///
/// # Errors
/// A test fails or does not compile.
pub fn cargo_test(arguments: &[String], runner: &[&str], tally: &mut Tally) -> Result<()> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(arguments);
    if let Ok(program) = std::env::current_exe() {
        command.env(crate::probe::PROGRAM, program);
    }
    if !runner.is_empty() {
        command.arg("--").args(runner);
    }
    run_watching(&mut command, |line| {
        if let Some(found) = closing::parse(line) {
            tally.add(found);
        }
    })
}

/// Names of the integration tests of all packages but the end-to-end one.
fn integration_tests(metadata: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata has no packages")?;
    let targets = packages
        .iter()
        .filter(|package| package["name"] != END_TO_END)
        .filter_map(|package| package["targets"].as_array())
        .flatten();
    let tests = targets.filter(|target| {
        target["kind"]
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    });
    let mut names: Vec<String> = tests
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_of_the_end_to_end_package_are_left_to_their_parts() {
        let metadata = r#"{"packages": [
            {"name": "shadowd", "targets": [
                {"name": "shadowd", "kind": ["lib"]}, {"name": "pair", "kind": ["test"]}]},
            {"name": "shadowd-tests", "targets": [{"name": "hosts", "kind": ["test"]}]}]}"#;
        assert_eq!(
            integration_tests(metadata).expect("it is metadata"),
            ["pair"]
        );
        assert!(integration_tests("{}").is_err());
        assert!(integration_tests("no json").is_err());
    }
}
