//! One host: its files before it boots, and the process that becomes its container.
//!
//! The root file system is an overlay, mounted in a mount namespace that only the host's processes
//! are in: when they end, it is gone, and the machine's own mounts never change.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::cgroup;
use super::interrupt;
use super::state::{Host, State};

/// Units of the distribution that a test host has no use for; without them it boots in seconds.
const MASKED: &[&str] = &[
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-logind.service",
    "systemd-pstore.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
];

const NGINX: &str = "\
worker_processes 1;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
events { worker_connections 4096; }
http {
    log_format bytes '$remote_addr $server_addr $request_length $bytes_sent $body_bytes_sent';
    access_log /var/log/nginx/access.log bytes;
    keepalive_timeout 5;
    server {
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        root /var/www/html;
        add_header X-Host $hostname always;
        location /stats { access_log off; return 204; }
    }
}
";

/// A unit that holds nothing: it shows where a cold unit runs.
const COLD: &str = "\
[Unit]
Description=Cold unit of the lab's group

[Service]
ExecStart=/bin/sleep infinity
";

/// Writes what makes this host differ from the base, before it boots.
///
/// # Errors
/// A file cannot be written.
pub fn prepare(state: &State, host: &Host) -> Result<()> {
    for name in ["upper", "work", "root"] {
        let path = host.directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let upper = host.directory.join("upper");
    place(&upper, "etc/hostname", &format!("{}\n", host.name))?;
    place(
        &upper,
        "etc/machine-id",
        &format!("{:032x}\n", machine_id(&state.id, &host.name)),
    )?;
    let mut names = String::from("127.0.0.1 localhost\n::1 localhost\n");
    for other in &state.hosts {
        names.push_str(&format!("{} {}\n", other.v4, other.name));
    }
    place(&upper, "etc/hosts", &names)?;
    place(
        &upper,
        "etc/systemd/journald.conf.d/lab.conf",
        "[Journal]\nStorage=volatile\n",
    )?;
    place(&upper, "etc/nginx/nginx.conf", NGINX)?;
    place(
        &upper,
        "var/www/html/index.html",
        &format!("host {}\n", host.name),
    )?;
    place(&upper, "etc/systemd/system/lab-cold.service", COLD)?;
    let units = upper.join("etc/systemd/system");
    symlink(
        "/lib/systemd/system/multi-user.target",
        units.join("default.target"),
    )?;
    for unit in MASKED {
        symlink("/dev/null", units.join(unit))?;
    }
    Ok(())
}

/// Writes a file below the host's upper directory.
///
/// # Errors
/// The file cannot be written.
pub fn place(upper: &Path, path: &str, text: &str) -> Result<()> {
    let path = upper.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn machine_id(lab: &str, host: &str) -> u128 {
    let bytes = lab.bytes().chain(host.bytes());
    // Bits of a version 4 UUID, as machine-id(5) wants them.
    let id = bytes.fold(0x5ead_0000u128, |id, byte| {
        (id ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    id & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 2 << 62
}

/// Turns this process into the host's container. Comes back only with an error.
///
/// # Errors
/// A mount fails or `systemd-nspawn` cannot be started.
pub fn become_container(state: &State, host: &Host) -> Result<()> {
    cgroup::enter(&host.cgroup)?;
    if let Some(group) = &host.cpu_cgroup {
        cgroup::enter(group)?;
    }
    mount_privately(state, host)?;
    interrupt::let_through()?;
    let error = Command::new("systemd-nspawn")
        .arg("--quiet")
        .args([
            "--register=no",
            "--keep-unit",
            "--boot",
            "--capability=all",
            "--kill-signal=RTMIN+3",
        ])
        .args([
            "--system-call-filter=bpf perf_event_open",
            "--bind=/sys/fs/bpf",
        ])
        .args([
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
            "--console=read-only",
        ])
        .arg(format!("--machine={}", host.name))
        .arg(format!(
            "--network-namespace-path=/run/netns/{}",
            host.namespace
        ))
        .arg("--directory")
        .arg(host.directory.join("root"))
        .exec();
    Err(error).context("cannot start systemd-nspawn (`cargo xtask setup` installs it)")
}

/// Mounts what the host needs where nobody else sees it.
fn mount_privately(state: &State, host: &Host) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot unshare the mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make the mounts private")?;
    let root = host.directory.join("root");
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        state.base.display(),
        host.directory.join("upper").display(),
        host.directory.join("work").display(),
    );
    mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(layers.as_str()),
    )
    .with_context(|| format!("cannot mount the overlay at {}", root.display()))?;
    mount(
        Some("cgroup2"),
        "/sys/fs/cgroup",
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )
    .context("cannot mount cgroup2")?;
    fs::create_dir_all("/run/systemd")?;
    mount(
        Some("tmpfs"),
        "/run/systemd",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("cannot mount a tmpfs on /run/systemd")?;
    // A mount of its own: what the host pins is gone with it.
    mount(
        Some("bpf"),
        "/sys/fs/bpf",
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=700"),
    )
    .context("cannot mount bpffs")?;
    Ok(())
}

/// The process that is the host's PID 1, as this machine numbers it; none while it boots.
pub fn init(host: &Host) -> Option<i32> {
    let payload = host.cgroup.join("payload");
    let groups = [payload.join("init.scope"), payload, host.cgroup.clone()];
    let mut pids = groups.iter().flat_map(|group| cgroup::processes(group));
    pids.find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.is_some_and(|numbers| {
            let numbers: Vec<&str> = numbers.split_whitespace().collect();
            numbers.len() > 1 && numbers.last() == Some(&"1")
        })
    })
}

/// All processes of a unit in the host, as this machine numbers them.
pub fn processes(host: &Host, unit: &str) -> Vec<i32> {
    cgroup::processes(&host.cgroup.join("payload/system.slice").join(unit))
}

/// The main process of a unit in the host, as this machine numbers it.
///
/// It is the one whose parent is the host's PID 1; its workers are children of it.
pub fn main_process(host: &Host, unit: &str) -> Option<i32> {
    let init = init(host)?.to_string();
    processes(host, unit).into_iter().find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in brackets, may hold anything; after it come the state and the parent.
        let after = stat.rsplit_once(')').map(|(_, after)| after);
        after.and_then(|after| after.split_whitespace().nth(1)) == Some(init.as_str())
    })
}

/// The last lines a host wrote to its console.
pub fn console_tail(host: &Host) -> String {
    let bytes = fs::read(host.directory.join("console.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_ids_of_their_own_in_the_form_systemd_wants() {
        let (a, b) = (machine_id("123abc", "a"), machine_id("123abc", "b"));
        assert_ne!(a, b);
        assert_eq!(a >> 76 & 0xf, 4);
        assert_eq!(a >> 62 & 0x3, 2);
    }
}
