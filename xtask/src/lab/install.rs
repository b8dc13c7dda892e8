//! Puts shadowd into the hosts of a lab: binaries, unit file, identities, configuration.
//!
//! It does what an operator does by hand, in the same order, with the same commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::Lab;
use super::state::{Host, State, VIP_V4, VIP_V6, target, workspace};

/// The group of the lab's hosts.
pub const GROUP: &str = "web";
/// Where the configuration lives in a host.
pub const CONFIG: &str = "/etc/shadowd/shadowd.toml";

/// The newest built binaries.
///
/// # Errors
/// None was built.
pub fn binaries() -> Result<PathBuf> {
    let built = |profile: &str| -> Option<(SystemTime, PathBuf)> {
        let directory = target().join(profile);
        let time = |name| {
            fs::metadata(directory.join(name))
                .and_then(|file| file.modified())
                .ok()
        };
        Some((time("shadowd")?.max(time("shadowctl")?), directory))
    };
    let newest = ["release", "debug"].into_iter().filter_map(built).max();
    let (_, path) =
        newest.context("shadowd is not built: run `cargo build --release -p shadowd` first")?;
    Ok(path)
}

/// Copies what is needed into a host's files before it boots.
///
/// # Errors
/// A file cannot be copied.
pub fn place(host: &Host, binaries: &Path) -> Result<()> {
    let packaging = workspace().join("packaging");
    let files = [
        (binaries.join("shadowd"), "usr/sbin/shadowd"),
        (binaries.join("shadowctl"), "usr/bin/shadowctl"),
        (
            packaging.join("shadowd.service"),
            "etc/systemd/system/shadowd.service",
        ),
        (
            packaging.join("shadowd.sysusers"),
            "usr/lib/sysusers.d/shadowd.conf",
        ),
    ];
    for (from, to) in files {
        let to = host.directory.join("upper").join(to);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    // For machines in a host: the base has none.
    let nspawn = Path::new("/usr/bin/systemd-nspawn");
    if nspawn.exists() {
        fs::copy(nspawn, host.directory.join("upper/usr/bin/systemd-nspawn"))
            .context("cannot copy systemd-nspawn")?;
    }
    Ok(())
}

/// Creates identities, writes and checks the configuration, starts the daemon on every host.
///
/// # Errors
/// A step fails, with what the program said.
pub fn configure(lab: &Lab) -> Result<()> {
    let hosts = &lab.state().hosts;
    let mut ids = Vec::new();
    for host in hosts {
        lab.run(
            &host.name,
            &["systemd-sysusers", "/usr/lib/sysusers.d/shadowd.conf"],
        )?;
        let said = lab.run(&host.name, &["/usr/sbin/shadowd", "--create-identity"])?;
        let id = said
            .split_whitespace()
            .next_back()
            .unwrap_or_default()
            .to_owned();
        if id.len() < 52 {
            bail!(
                "host {}: `shadowd --create-identity` printed no identity: {said:?}",
                host.name
            );
        }
        ids.push(id);
    }
    for host in hosts {
        let text = configuration(lab.state(), host, &ids);
        lab.write_file(&host.name, CONFIG, &text)?;
        lab.run(
            &host.name,
            &["/usr/sbin/shadowd", "--config", CONFIG, "--check"],
        )?;
        lab.run(
            &host.name,
            &["systemctl", "enable", "--quiet", "shadowd.service"],
        )?;
    }
    for host in hosts {
        lab.run(
            &host.name,
            &["systemctl", "start", "--no-block", "shadowd.service"],
        )?;
    }
    for host in hosts {
        lab.wait(Duration::from_secs(40), "shadowd to start", || {
            Ok(lab.unit_state(&host.name, "shadowd.service")? == "active")
        })
        .with_context(|| {
            let journal = [
                "journalctl",
                "--no-pager",
                "-n",
                "30",
                "-u",
                "shadowd.service",
            ];
            let said = lab.run(&host.name, &journal).unwrap_or_default();
            format!("shadowd does not start on host {}:\n{said}", host.name)
        })?;
    }
    Ok(())
}

/// The configuration of one host.
pub fn configuration(state: &State, own: &Host, ids: &[String]) -> String {
    let mut text = format!(
        "[host]\nname = \"{}\"\nlisten = \"{}:7373\"\n\n",
        own.name, own.v4
    );
    for (host, id) in state.hosts.iter().zip(ids) {
        if host.name != own.name {
            let (name, address) = (&host.name, host.v4);
            text.push_str(&format!(
                "[[peer]]\nname = \"{name}\"\nid = \"{id}\"\naddress = \"{address}:7373\"\n\n"
            ));
        }
    }
    let names = |witness: bool, spare: bool| -> String {
        let hosts = state.hosts.iter();
        let hosts = hosts.filter(|host| (host.witness, host.spare) == (witness, spare));
        let names: Vec<String> = hosts.map(|host| format!("\"{}\"", host.name)).collect();
        names.join(", ")
    };
    let witnesses = names(true, false);
    let protection = if witnesses.is_empty() {
        "protection = \"none\"".to_owned()
    } else {
        let guard = match state.unguarded {
            true => "\nguard = false",
            false => "",
        };
        format!("witnesses = [{witnesses}]\nprotection = \"lease\"{guard}")
    };
    let place = state
        .hosts
        .iter()
        .position(|host| host.name == own.name)
        .unwrap_or_default();
    // Hosts die here every few seconds: the flap budget would hold them all back.
    text.push_str(&format!(
        "[[group]]\nname = \"{GROUP}\"\nmembers = [{}]\nspares = [{}]\n{protection}\npriority = {}\n\
         flap = {{ suppress = 0 }}\nheartbeat = \"10ms\"\nsuspect_after = \"27ms\"\ninterface = \"eth0\"\n\
         vips = [\"{VIP_V4}/24\", \"{VIP_V6}/64\"]\n\n\
         [[group.unit]]\nname = \"nginx.service\"\nmode = \"warm\"\n\n\
         [[group.unit]]\nname = \"lab-cold.service\"\nmode = \"cold\"\n",
        names(false, false),
        names(false, true),
        100 - 10 * place.min(9),
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_every_peer_and_not_itself() {
        let state =
            State::plan(3, false, false, false, PathBuf::new()).expect("three hosts are allowed");
        let ids: Vec<String> = ["IDA", "IDB", "IDC"].map(str::to_owned).to_vec();
        let text = configuration(&state, &state.hosts[1], &ids);
        assert!(
            text.contains("IDA") && text.contains("IDC") && !text.contains("IDB"),
            "{text}"
        );
        assert!(text.contains("listen = \"192.0.2.2:7373\"") && text.contains("priority = 90"));
    }
}
