//! What capture costs the programs of a host: a system call with the daemon and without it.
//!
//! The daemon runs as a process of its own with a configuration without groups, on loopback, with
//! all its files in a scratch folder. It changes nothing on the machine and is ended on every path.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use serde_json::Value;

use super::measure::{Plan, Side, compare, timed};
use super::report::Metric;
use crate::build;
use crate::command::{capture as output_of, spawn, target};

/// Daemons started and ended; each start takes about a second.
const ROUNDS: usize = 7;
/// Calls of a turn: about a quarter of a second.
const CALLS: u32 = 2_000_000;
/// From start to attached probes, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// From SIGTERM to the end.
const STOP: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// `getppid`, the shortest system call, with capture attached; the peer is the bare kernel.
///
/// # Errors
/// The build fails, this is not root, or the kernel refuses the probe.
pub fn run() -> Result<Vec<Metric>> {
    if !nix::unistd::geteuid().is_root() {
        bail!("loading probes needs root");
    }
    build::run(build::Args { release: true })?;
    let mut with_capture = |calls| {
        let daemon = Daemon::start()?;
        let took = call_getppid(calls);
        daemon.stop()?;
        Ok(took)
    };
    let mut bare = |calls| Ok(call_getppid(calls));
    let metric = compare(
        "getppid",
        Plan {
            rounds: ROUNDS,
            calls: CALLS,
        },
        Side {
            name: "capture",
            turn: &mut with_capture,
        },
        Side {
            name: "no daemon",
            turn: &mut bare,
        },
    )?;
    Ok(vec![metric])
}

fn call_getppid(calls: u32) -> Duration {
    timed(calls, || {
        std::hint::black_box(getppid());
    })
}

/// A running daemon and its scratch folder; both end when it goes out of scope.
struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    /// Starts it and waits until the system call probe is attached.
    fn start() -> Result<Self> {
        let folder = target()
            .join("bench")
            .join(format!("capture-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let file = folder.join("shadowd.toml");
        std::fs::write(&file, configuration(&folder, free_port()?))?;
        let log = std::fs::File::create(folder.join("log"))?;
        let child = spawn(
            Command::new(target().join("release/shadowd"))
                .arg("--config")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log),
        )?;
        let mut daemon = Self { child, folder };
        daemon.wait_for_probe()?;
        Ok(daemon)
    }

    fn wait_for_probe(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let mut status = Command::new(target().join("release/shadowctl"));
            status
                .arg("--socket")
                .arg(self.folder.join("socket"))
                .args(["--json", "status"]);
            // Until the socket is there the client fails, and that is no news.
            if let Ok(text) = output_of(&mut status)
                && counts_system_calls(&text)?
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("shadowd ended with {status}: {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "capture is not attached after {START:?}: {}",
                    self.last_words()
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into().context("a pid fits")?);
        kill(pid, Signal::SIGTERM).context("cannot ask shadowd to stop")?;
        let deadline = Instant::now() + STOP;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("shadowd does not stop: {}", self.last_words());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        log.lines()
            .next_back()
            .unwrap_or("(it said nothing)")
            .to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has usually ended already; what is left then is to collect it and its files.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn configuration(folder: &std::path::Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "[host]\nname = \"bench\"\nlisten = \"127.0.0.1:{port}\"\n\
         state_dir = \"{folder}/state\"\nsocket = \"{folder}/socket\"\n\
         [capture]\ntick = \"1s\"\nebpf = true\n"
    )
}

/// A port that is free for both protocols at this moment.
fn free_port() -> Result<u16> {
    const ATTEMPTS: usize = 32;
    for _ in 0..ATTEMPTS {
        let stream = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let port = stream.local_addr()?.port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port is free for TCP and UDP alike")
}

/// Whether the probe is attached; an error when the kernel refused it.
fn counts_system_calls(status: &str) -> Result<bool> {
    let status: Value = serde_json::from_str(status).context("shadowctl status is no JSON")?;
    let probes = status["capture"]["probes"].as_array();
    let probe = probes
        .into_iter()
        .flatten()
        .find(|probe| probe["name"] == "syscalls");
    let Some(probe) = probe else { return Ok(false) };
    match (&probe["hook"], probe["degraded"].as_str()) {
        (Value::String(_), _) => Ok(true),
        (_, Some(why)) => bail!("the system call probe is off: {why}"),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attached_probe_is_told_from_a_refused_and_a_late_one() {
        let status = |probes: &str| format!(r#"{{"capture": {{"probes": [{probes}]}}}}"#);
        let attached = r#"{"name": "syscalls", "hook": "raw_tp sys_exit", "degraded": null}"#;
        assert!(counts_system_calls(&status(attached)).expect("it is attached"));
        assert!(!counts_system_calls(&status("")).expect("it is late"));
        let refused = r#"{"name": "syscalls", "hook": null, "degraded": "EPERM"}"#;
        let error = counts_system_calls(&status(refused)).expect_err("it is refused");
        assert!(error.to_string().contains("EPERM"));
        assert!(counts_system_calls("nothing").is_err());
    }
}
