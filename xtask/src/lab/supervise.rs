//! The process that owns a lab's hosts: it starts their containers, and again after a reboot.
//!
//! There is one for each lab, in a session of its own, with its log in the lab's directory. It
//! ends the lab as soon as the process that made it is gone, however that came about: that process
//! holds the other end of its standard input. Once it was told to stay, it does not.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::state::{Host, State};
use super::{cgroup, network, remove_all};

/// systemd-nspawn's exit status when the container asked to be started again.
const REBOOT: i32 = 133;
/// More reboots than this in one lab are a loop.
const MOST_REBOOTS: u32 = 1000;

/// What tells the supervisor that the lab outlives the process that made it.
const STAY: &[u8] = b"stay";

/// Starts the supervisor of a lab. Whoever drops the child's standard input ends the lab.
///
/// # Errors
/// The program cannot be started.
pub fn start(state: &State) -> Result<Child> {
    let log = log(&state.directory.join("supervisor.log"))?;
    Command::new(std::env::current_exe().context("cannot tell the path of this program")?)
        .args(["lab", "supervise"])
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the lab's supervisor")
}

/// Tells the supervisor that the lab shall outlive this process.
///
/// # Errors
/// The supervisor has ended.
pub fn stay(supervisor: &mut Child) -> Result<()> {
    let mut pipe = supervisor
        .stdin
        .take()
        .context("the supervisor was told before")?;
    pipe.write_all(STAY)
        .context("the lab's supervisor has ended")
}

/// Runs the supervisor until the lab ends.
///
/// # Errors
/// The lab is not known, or cannot be ended.
pub fn run() -> Result<()> {
    let state = State::load()?.context("no lab to supervise")?;
    nix::unistd::setsid().context("cannot begin a session")?;
    cgroup::enter(&state.supervisor_cgroup())?;
    let hosts: Vec<_> = state
        .hosts
        .iter()
        .map(|host| {
            let host = host.clone();
            std::thread::spawn(move || match keep(&host) {
                Ok(()) => eprintln!("host {} ended", host.name),
                Err(error) => eprintln!("host {}: {error:#}", host.name),
            })
        })
        .collect();
    let mut told = Vec::new();
    let _ = std::io::stdin().take(64).read_to_end(&mut told);
    if told != STAY {
        eprintln!("the process that made the lab is gone: ending it");
        // Out of the groups that are about to be ended.
        cgroup::enter(&cgroup::tree()?)?;
        return remove_all(&state);
    }
    for host in hosts {
        let _ = host.join();
    }
    Ok(())
}

/// Runs a host's container until it ends for good.
fn keep(host: &Host) -> Result<()> {
    for _ in 0..MOST_REBOOTS {
        let console = log(&host.directory.join("console.log"))?;
        let status = Command::new("/proc/self/exe")
            .args(["lab", "become-host", &host.name])
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .status()
            .context("cannot start the container")?;
        eprintln!("host {}: {status}", host.name);
        if status.code() != Some(REBOOT) || status.signal().is_some() {
            return Ok(());
        }
        // A machine that reboots loses its addresses; the namespace outlives the container.
        network::reset_addresses(host)?;
    }
    Ok(())
}

fn log(path: &std::path::Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}
