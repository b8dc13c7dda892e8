//! `cargo xtask setup`: finds what is missing and installs it, saying what and why.
//!
//! `needs` is the table, `machine` answers questions about this machine, `plan` decides what to do
//! about what is missing, `install` does it. Running it again changes nothing.

mod install;
mod machine;
mod needs;
mod plan;

use anyhow::{Result, bail};

use machine::{Here, Machine};
pub use needs::Part;
use needs::{NEEDS, Need};
use plan::Plan;

/// What `cargo xtask setup` accepts.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct Args {
    /// Only report; exit with 1 when something is missing
    #[arg(long)]
    pub check: bool,
}

/// Reports every need and, without `--check`, installs what is missing.
///
/// # Errors
/// Something is missing under `--check`, cannot be installed, or is still missing afterwards.
pub fn run(args: Args) -> Result<()> {
    println!("{}", table(&Here, NEEDS.iter()));
    let missing = missing(&Here, &Part::ALL);
    if missing.is_empty() {
        println!("nothing is missing");
        return Ok(());
    }
    let plan = Plan::make(&Here, &missing);
    if args.check {
        println!("{plan}");
        bail!(
            "{} of {} needs are missing; `cargo xtask setup` installs them",
            missing.len(),
            NEEDS.len()
        );
    }
    meet(&plan, &Part::ALL)
}

/// Installs what these parts need; silent and quick when nothing is missing.
///
/// # Errors
/// Something cannot be installed, or is still missing afterwards.
pub fn ensure(parts: &[Part]) -> Result<()> {
    let missing = missing(&Here, parts);
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: this command needs what is missing here:");
    println!("{}", table(&Here, missing.iter().copied()));
    meet(&Plan::make(&Here, &missing), parts)
}

fn meet(plan: &Plan, parts: &[Part]) -> Result<()> {
    println!("{plan}");
    install::carry_out(plan)?;
    let left = missing(&Here, parts);
    if let Some(first) = left.first() {
        bail!(
            "still missing after the installation: {} ({}); see the steps above",
            first.what,
            first.why
        );
    }
    println!("setup: complete");
    Ok(())
}

fn missing(machine: &dyn Machine, parts: &[Part]) -> Vec<&'static Need> {
    NEEDS
        .iter()
        .filter(|need| parts.contains(&need.part) && need.detect.found(machine).is_none())
        .collect()
}

fn table<'a>(machine: &dyn Machine, needs: impl Iterator<Item = &'a Need>) -> String {
    let mut lines = vec![format!("{:<8} {:<16} {:<44} why", "for", "need", "found")];
    for need in needs {
        let found = need
            .detect
            .found(machine)
            .unwrap_or_else(|| "MISSING".to_owned());
        let part = need.part.name();
        lines.push(format!(
            "{part:<8} {:<16} {found:<44} {}",
            need.what, need.why
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::machine::fake::Fake;
    use super::*;

    #[test]
    fn only_the_asked_parts_are_looked_at() {
        let nothing = Fake::default();
        assert_eq!(missing(&nothing, &Part::ALL).len(), NEEDS.len());
        let lint: Vec<_> = missing(&nothing, &[Part::Lint])
            .iter()
            .map(|need| need.what)
            .collect();
        assert_eq!(lint, ["rustfmt", "clippy"]);
        let with_rustfmt = nothing.path("/bin/cargo-fmt");
        let lint: Vec<_> = missing(&with_rustfmt, &[Part::Lint])
            .iter()
            .map(|need| need.what)
            .collect();
        assert_eq!(lint, ["clippy"]);
    }

    #[test]
    fn the_table_says_what_is_missing_and_why() {
        let text = table(&Fake::default().path("/bin/gcc"), NEEDS.iter());
        let line = |word: &str| {
            text.lines()
                .find(|line| line.contains(word))
                .map(str::to_owned)
        };
        assert!(line("C compiler").is_some_and(|line| line.contains("/bin/gcc")));
        assert!(line("wrk").is_some_and(|line| line.contains("MISSING") && line.contains("load")));
    }
}
