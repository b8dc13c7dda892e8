//! The programs that change what is no file: packages, units, kernel parameters.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{ActError, files};

/// Kernel parameters that were set, for the next boot (sysctl.d(5)).
pub(super) const PARAMETERS: &str = "/etc/sysctl.d/90-shadowd.conf";
/// Says whether services may be started by a package (invoke-rc.d(8)): shadowd starts them itself.
const START_POLICY: &str = "/usr/sbin/policy-rc.d";
/// What a tool printed last is kept to so many characters.
const SAID: usize = 300;

/// Installs a package in a version, or in the one that is offered.
pub(super) fn install(package: &str, version: Option<&str>) -> Result<(), ActError> {
    if !Path::new("/usr/bin/apt-get").exists() {
        let named = version.map_or_else(
            || package.to_owned(),
            |version| format!("{package}-{version}"),
        );
        return run("dnf", &["install", "--assumeyes", "--quiet", &named]);
    }
    let named = version.map_or_else(
        || package.to_owned(),
        |version| format!("{package}={version}"),
    );
    let arguments = [
        "install",
        "--yes",
        "--quiet",
        "--allow-downgrades",
        "--no-install-recommends",
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        &named,
    ];
    without_starts(|| match run("apt-get", &arguments) {
        // It may know only versions that were offered long ago, or none at all.
        Err(ActError::Tool { .. }) => {
            run("apt-get", &["update", "--quiet"])?;
            run("apt-get", &arguments)
        }
        done => done,
    })
}

/// Removes a package, not its configuration.
pub(super) fn remove(package: &str) -> Result<(), ActError> {
    match Path::new("/usr/bin/apt-get").exists() {
        true => run("apt-get", &["remove", "--yes", "--quiet", package]),
        false => run("dnf", &["remove", "--assumeyes", "--quiet", package]),
    }
}

/// A package that starts its service on a shadow would take the place of a cold unit. A policy that
/// is there already stays.
fn without_starts(install: impl FnOnce() -> Result<(), ActError>) -> Result<(), ActError> {
    let policy = Path::new(START_POLICY);
    let ours = !policy.exists();
    if ours {
        files::write(policy, b"#!/bin/sh\nexit 101\n", (0, 0), 0o755)?;
    }
    let installed = install();
    if ours {
        fs::remove_file(policy).map_err(|source| files::failed(policy, source))?;
    }
    installed
}

/// The file of a kernel parameter.
pub(super) fn parameter_file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// Sets a kernel parameter, now and for the next boot.
pub(super) fn parameter(name: &str, value: &str) -> Result<(), ActError> {
    let now = parameter_file(name);
    fs::write(&now, value).map_err(|source| files::failed(Path::new(&now), source))?;
    let kept = fs::read_to_string(PARAMETERS).unwrap_or_default();
    let others = kept.lines().filter(|line| {
        let set = line.split_once('=').map(|(name, _)| name.trim());
        set != Some(name)
    });
    let mut text: String = others.map(|line| format!("{line}\n")).collect();
    text.push_str(&format!("{name} = {value}\n"));
    files::write(Path::new(PARAMETERS), text.as_bytes(), (0, 0), 0o644)
}

pub(super) fn systemctl(arguments: &[&str]) -> Result<(), ActError> {
    run("systemctl", arguments)
}

/// Runs a program with nothing of this one's environment; its end is in the error.
fn run(program: &str, arguments: &[&str]) -> Result<(), ActError> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = output(program, arguments).map_err(|error| ActError::Tool {
        command: command(),
        said: error.to_string(),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().chars().rev().take(SAID).collect::<Vec<char>>();
    Err(ActError::Tool {
        command: command(),
        said: last.into_iter().rev().collect(),
    })
}

/// What a program prints.
pub(super) fn output(program: &str, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .stdin(Stdio::null())
        .output()
}
