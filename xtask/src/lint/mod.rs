//! `cargo xtask lint`: format, clippy, and the rules of this project that no other tool knows.
//!
//! All checks run, also after one has failed, so that one run shows everything there is to mend.

mod edges;
mod files;
mod paths;
mod source;
mod tokens;
mod tree;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{capture, cargo, root, run as run_command};
use crate::setup::{self, Part};
use source::{Finding, SourceFile};

type Check = fn() -> Result<()>;

/// The quick ones first.
const CHECKS: &[(&str, Check)] = &[("rules", rules), ("format", format), ("clippy", clippy)];

/// Runs every check.
///
/// # Errors
/// A check found something, or could not run.
pub fn run() -> Result<()> {
    setup::ensure(&[Part::Build, Part::Lint])?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        println!("== lint: {name}");
        if let Err(error) = check() {
            eprintln!("error: {error:#}");
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    println!("lint: nothing to mend");
    Ok(())
}

fn format() -> Result<()> {
    run_command(cargo().args(["fmt", "--all", "--check"]))?;
    let kernel_side = root().join("shadowd-ebpf/Cargo.toml");
    if kernel_side.is_file() {
        // It is no member of the workspace, so `--all` does not reach it.
        let manifest = [
            "fmt",
            "--manifest-path",
            "shadowd-ebpf/Cargo.toml",
            "--check",
        ];
        run_command(cargo().args(manifest))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features"];
    run_command(cargo().args(clippy).args(["--", "-D", "warnings"]))
}

fn rules() -> Result<()> {
    let root = root();
    let paths = listed_files(&root)?;
    let findings = check_all(&root, &paths)?;
    for finding in &findings {
        println!("{finding}");
    }
    let errors = findings
        .iter()
        .filter(|finding| !finding.is_warning)
        .count();
    println!(
        "{} files, {errors} errors, {} warnings",
        paths.len(),
        findings.len() - errors
    );
    if errors > 0 {
        bail!("{errors} rules are broken");
    }
    Ok(())
}

/// Tracked files and new ones that are not ignored: what a commit could contain.
fn listed_files(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]);
    let list = capture(&mut git).context("the rules look at what git tracks")?;
    let mut paths: Vec<String> = list
        .split('\0')
        .filter(|path| !path.is_empty() && root.join(path).is_file())
        .map(str::to_owned)
        .collect();
    paths.sort_unstable();
    paths.dedup();
    Ok(paths)
}

fn check_all(root: &Path, paths: &[String]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in paths {
        let bytes =
            std::fs::read(root.join(path)).with_context(|| format!("cannot read {path}"))?;
        // What is not text has no rules here.
        let Ok(text) = String::from_utf8(bytes) else {
            continue;
        };
        findings.extend(files::machine_paths(path, &text));
        if path.ends_with(".rs") {
            let file = SourceFile::new(path, &text);
            findings.extend(files::check(&file));
            findings.extend(edges::check(&file));
        }
        if path == tree::PAGE {
            findings.extend(tree::check(&text, paths));
        }
    }
    if !paths.iter().any(|path| path == tree::PAGE) {
        bail!("{} is missing", tree::PAGE);
    }
    Ok(findings)
}
