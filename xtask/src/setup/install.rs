//! Carries out a plan of `setup`: the only part of it that changes the machine.
//!
//! Package lists are fetched at most once, and only when an installation from the lists at hand is
//! not possible. Downloads are tried three times. Nothing is removed or upgraded for its own sake.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::machine::{Here, Machine};
use super::needs::{BPF_LINKER_SERIES, LLVM_PREFIX};
use super::plan::{Plan, Step};
use crate::command::{cargo, run, with_retries};

/// Carries out every step; the first that fails ends it.
///
/// # Errors
/// Names the step and what a person can do about it.
pub fn carry_out(plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        println!("setup: {step}");
        match step {
            Step::Apt(packages) => apt(packages)?,
            Step::ByHand(text) => bail!(
                "this tool installs packages only with apt-get; please install by hand: {text}"
            ),
            Step::RustupComponent(name) => rustup(&["component", "add", name])?,
            Step::RustupNightly => {
                let install = ["toolchain", "install", "nightly", "--profile", "minimal"];
                rustup(&[&install[..], &["--component", "rust-src"]].concat())?;
            }
            Step::BpfLinker => bpf_linker()?,
        }
    }
    Ok(())
}

fn apt(packages: &[&str]) -> Result<()> {
    if packages.iter().any(|package| !has_candidate(package)) {
        update()?;
        return install(packages);
    }
    // The lists at hand may name versions that the mirror has replaced; fetch them then.
    install(packages).or_else(|_| {
        update()?;
        install(packages)
    })
}

fn has_candidate(package: &str) -> bool {
    Here.output("apt-cache", &["policy", package])
        .is_some_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
}

fn update() -> Result<()> {
    with_retries("apt-get update", || run(as_root("apt-get")?.arg("update")))
        .context("cannot fetch package lists; check the network and /etc/apt/sources.list")
}

fn install(packages: &[&str]) -> Result<()> {
    let plain = || run(as_root("apt-get")?.args(install_arguments(packages)));
    with_retries("apt-get install", plain)
        .or_else(|error| {
            // An image may carry a newer qemu-utils than its sources offer for QEMU itself. The
            // release's own version fits, so let apt step back to it.
            match release_codename() {
                Some(codename) if packages.contains(&"qemu-system-x86") => {
                    println!("setup: trying once more with this release's own qemu-utils");
                    let utils = format!("qemu-utils/{codename}");
                    run(as_root("apt-get")?
                        .args(install_arguments(packages))
                        .args(["--allow-downgrades", &utils]))
                }
                _ => Err(error),
            }
        })
        .with_context(|| format!("cannot install {}", packages.join(" ")))
}

fn install_arguments<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    arguments
}

fn release_codename() -> Option<String> {
    let release = std::fs::read_to_string("/etc/os-release").ok()?;
    codename(&release)
}

fn codename(os_release: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_owned()).filter(|name| !name.is_empty())
}

/// The program itself for root, through sudo for others.
fn as_root(program: &str) -> Result<Command> {
    // A package's script that asks a question would wait for ever.
    const QUIET: &str = "DEBIAN_FRONTEND=noninteractive";
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new("env")
    } else if Here.program("sudo").is_some() {
        let mut command = Command::new("sudo");
        command.arg("env");
        command
    } else {
        bail!("installing packages needs root: run `cargo xtask setup` as root, or install sudo");
    };
    command.args([QUIET, program]);
    Ok(command)
}

fn rustup(arguments: &[&str]) -> Result<()> {
    if Here.program("rustup").is_none() {
        bail!(
            "`rustup {}` is needed, but there is no rustup here: https://rustup.rs",
            arguments.join(" ")
        );
    }
    with_retries("rustup", || run(Command::new("rustup").args(arguments)))
        .with_context(|| format!("`rustup {}` did not work", arguments.join(" ")))
}

fn bpf_linker() -> Result<()> {
    let requirement = format!("^{BPF_LINKER_SERIES}");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::iter::once(format!("{LLVM_PREFIX}/bin").into()).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(folders).context("the PATH of this shell is not usable")?;
    with_retries("cargo install bpf-linker", || {
        // From outside the workspace, whose settings are none of the linker's.
        run(cargo()
            .current_dir("/")
            .env("LLVM_PREFIX", LLVM_PREFIX)
            .env("PATH", &path)
            .env_remove("CARGO_TARGET_DIR")
            .args([
                "install",
                "bpf-linker",
                "--force",
                "--version",
                &requirement,
            ])
            .args(["--no-default-features", "--features", "llvm-22"]))
    })
    .with_context(|| format!("bpf-linker needs LLVM 22 under {LLVM_PREFIX} and crates.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codename_of_the_release_is_read_with_or_without_quotes() {
        assert_eq!(
            codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(),
            Some("bookworm")
        );
        assert_eq!(
            codename("VERSION_CODENAME=\"noble\"").as_deref(),
            Some("noble")
        );
        assert_eq!(codename("ID=arch\nVERSION_CODENAME=\n"), None);
        assert_eq!(codename("ID=arch\n"), None);
    }

    #[test]
    fn packages_are_never_asked_about() {
        assert!(install_arguments(&["gcc"]).contains(&"--yes"));
    }
}
