//! The programs that change what is no file: packages, units, kernel parameters.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{ActError, files};
use crate::facts::{UnitProfile, is_word};

/// Kernel parameters that were set, for the next boot (sysctl.d(5)).
pub(super) const PARAMETERS: &str = "/etc/sysctl.d/90-shadowd.conf";
/// Says whether services may be started by a package (invoke-rc.d(8)): shadowd starts them itself.
const START_POLICY: &str = "/usr/sbin/policy-rc.d";
/// What shadowd writes there while it installs: no service may start.
pub(super) const NO_STARTS: &[u8] =
    b"#!/bin/sh\n# shadowd installs a package: it starts what is to run itself.\nexit 101\n";
/// What a tool printed last is kept to so many characters.
const SAID: usize = 300;

/// A package as its manager is told of it. A sign at its end is an order to apt-get(8): `app-` goes.
fn named(package: &str, version: Option<&str>, between: &str) -> Result<String, ActError> {
    let (last, text) = match version {
        Some(version) => (version, format!("{package}{between}{version}")),
        None => (package, package.to_owned()),
    };
    let sound = is_word(package) && is_word(last) && !last.ends_with(['-', '+']);
    match sound {
        true => Ok(text),
        false => Err(ActError::Package { name: text }),
    }
}

/// Installs a package in a version, or in the one that is offered.
pub(super) fn install(package: &str, version: Option<&str>) -> Result<(), ActError> {
    if !Path::new("/usr/bin/apt-get").exists() {
        let named = named(package, version, "-")?;
        return run("dnf", &["install", "--assumeyes", "--quiet", "--", &named]);
    }
    let named = named(package, version, "=")?;
    let arguments = [
        "install",
        "--yes",
        "--quiet",
        "--allow-downgrades",
        // What it would remove is on no record, and could not be brought back.
        "--no-remove",
        "--no-install-recommends",
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
        "--",
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

/// Removes a package, not its configuration. One that others need by now stays: apt-get(8) and dnf(8)
/// would remove those as well.
pub(super) fn remove(package: &str) -> Result<(), ActError> {
    // These take no sign at the end of a name for an order: there is a `g++`.
    if !is_word(package) {
        let name = package.to_owned();
        return Err(ActError::Package { name });
    }
    match Path::new("/usr/bin/dpkg").exists() {
        true => run("dpkg", &["--remove", "--", package]),
        false => run("rpm", &["--erase", "--", package]),
    }
}

/// A package that starts its service on a shadow would take the place of a cold unit. A policy that
/// is there already stays.
fn without_starts(install: impl FnOnce() -> Result<(), ActError>) -> Result<(), ActError> {
    let policy = Path::new(START_POLICY);
    clear(policy)?;
    let ours = !policy.exists();
    if ours {
        files::write(policy, NO_STARTS, (0, 0), 0o755)?;
    }
    let installed = install();
    if ours {
        fs::remove_file(policy).map_err(|source| files::failed(policy, source))?;
    }
    installed
}

/// Takes away the policy that a run left which was killed: services would never start again.
pub(super) fn clear_start_policy() -> Result<(), ActError> {
    clear(Path::new(START_POLICY))
}

pub(super) fn clear(policy: &Path) -> Result<(), ActError> {
    match fs::read(policy) {
        Ok(text) if text == NO_STARTS => {
            fs::remove_file(policy).map_err(|source| files::failed(policy, source))
        }
        Ok(_) | Err(_) => Ok(()),
    }
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

/// Has systemd read its files again, if `path` is one of them.
pub(super) fn heed(path: &str) -> Result<(), ActError> {
    match path.contains("/systemd/system/") {
        true => systemctl(&["daemon-reload"]),
        false => Ok(()),
    }
}

/// The drop-in of a unit with the limits that shadowd set.
pub(super) fn limits_file(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}.d/{}", UnitProfile::LIMITS_FILE)
}

/// Sets a limit of a unit, for processes that start from now on. Not by `systemctl set-property`,
/// which knows limits of control groups only.
pub(super) fn limit(unit: &str, name: &str, value: &str) -> Result<(), ActError> {
    let setting = setting(name, value).ok_or_else(|| ActError::Limit {
        setting: format!("{name}={value}"),
    })?;
    let path = limits_file(unit);
    let at = Path::new(&path);
    if let Some(folder) = at.parent() {
        fs::create_dir_all(folder).map_err(|source| files::failed(folder, source))?;
    }
    let kept = match fs::read_to_string(at) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(files::failed(at, error)),
    };
    let text = with_setting(&kept, &setting);
    files::write(at, text.as_bytes(), (0, 0), 0o644)?;
    heed(&path)
}

/// The line of a unit file for a limit as systemd tells it; none for what is no limit, which could
/// be anything, a command among it. A quota is told in microseconds a second and written in percent.
fn setting(name: &str, value: &str) -> Option<String> {
    let number: Option<u64> = value.parse().ok();
    if !UnitProfile::LIMITS.contains(&name) || (number.is_none() && value != "infinity") {
        return None;
    }
    Some(match (name, number) {
        ("CPUQuotaPerSecUSec", Some(micros)) => match (micros / 10_000, micros % 10_000 / 100) {
            (percent, 0) => format!("CPUQuota={percent}%"),
            (percent, hundredths) => format!("CPUQuota={percent}.{hundredths:02}%"),
        },
        ("CPUQuotaPerSecUSec", None) => "CPUQuota=".to_owned(),
        _ => format!("{name}={value}"),
    })
}

/// The drop-in with one setting replaced or added.
fn with_setting(kept: &str, setting: &str) -> String {
    let name = setting.split('=').next().unwrap_or_default();
    let others = kept.lines().filter(|line| {
        let own = line.split('=').next() == Some(name);
        !own && *line != "[Service]" && !line.is_empty()
    });
    let lines = others.map(|line| format!("{line}\n"));
    format!("[Service]\n{}{setting}\n", lines.collect::<String>())
}

pub(super) fn systemctl(arguments: &[&str]) -> Result<(), ActError> {
    run("systemctl", arguments)
}

/// Runs a program with nothing of this one's environment; its end is in the error.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<(), ActError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_replaced_and_the_others_stay() {
        let set = |kept: &str, name, value| with_setting(kept, &setting(name, value).unwrap());
        let one = set("", "LimitNOFILE", "1024");
        assert_eq!(one, "[Service]\nLimitNOFILE=1024\n");
        let two = set(&one, "CPUQuotaPerSecUSec", "1500000");
        assert_eq!(two, "[Service]\nLimitNOFILE=1024\nCPUQuota=150%\n");
        let three = set(&two, "LimitNOFILE", "infinity");
        assert_eq!(three, "[Service]\nCPUQuota=150%\nLimitNOFILE=infinity\n");
        let none = set(&three, "CPUQuotaPerSecUSec", "infinity");
        assert_eq!(none, "[Service]\nLimitNOFILE=infinity\nCPUQuota=\n");
        let part = set("", "CPUQuotaPerSecUSec", "125500");
        assert_eq!(part, "[Service]\nCPUQuota=12.55%\n");
    }

    #[test]
    fn what_is_no_limit_is_no_setting() {
        for (name, value) in [
            ("ExecStartPre", "reboot"),
            ("User", "0"),
            ("LimitNOFILE", "1\nUser=root"),
            ("LimitNOFILE", ""),
            ("LimitNOFILE", "-1"),
            ("LimitNOFILE", "1h"),
            ("MemoryMax", "[not set]"),
            ("CPUQuotaPerSecUSec", "1h 30min"),
            ("", "1"),
        ] {
            assert_eq!(setting(name, value), None, "{name}={value}");
        }
        for name in UnitProfile::LIMITS {
            assert!(setting(name, "infinity").is_some() && setting(name, "0").is_some());
        }
    }

    #[test]
    fn a_name_that_a_package_manager_takes_for_an_order_is_refused() {
        for (package, version) in [
            ("app", Some("1.0-")),
            ("app", Some("1.0+")),
            ("app-", None),
            ("--root=x", Some("1")),
            ("app", Some("")),
            ("a/b", Some("1")),
        ] {
            let said = install(package, version).unwrap_err().to_string();
            assert!(said.contains("no package"), "{package} {version:?}: {said}");
        }
        let said = remove("--all").unwrap_err().to_string();
        assert!(said.contains("no package"), "{said}");
        for (package, version) in [
            ("libstdc++6", "12.2.0-14"),
            ("g++", "4:12.2.0-3"),
            ("app", "1:2.3~rc1+b1"),
            ("libc6:amd64", "2.36-9+deb12u10"),
            ("app_x", "0:1.2^git3-4.fc40"),
        ] {
            assert!(named(package, Some(version), "=").is_ok(), "{package}");
        }
    }
}
