//! The daemon as the benches run it: a process of its own, without groups, all files in a folder
//! that goes with it.
//!
//! It listens on loopback only, changes nothing on the machine and is ended on every path.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{capture as output_of, spawn, target};

/// From start to attached probes, on a busy machine.
const START: Duration = Duration::from_secs(30);
/// From SIGTERM to the end.
const STOP: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running daemon and its scratch folder; both end when it goes out of scope.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
}

impl Daemon {
    /// Starts it with these lines in `[capture]` and waits until its probes are attached.
    ///
    /// # Errors
    /// It ends, is not ready in time, or the kernel refuses the system call probe.
    pub fn start(capture: &str) -> Result<Self> {
        let folder = target()
            .join("bench")
            .join(format!("daemon-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let file = folder.join("shadowd.toml");
        std::fs::write(&file, configuration(&folder, free_port()?, capture))?;
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

    /// Asks it as a user would, with `shadowctl --json`.
    ///
    /// # Errors
    /// It does not answer, or not with JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(target().join("release/shadowctl"));
        command
            .arg("--socket")
            .arg(self.folder.join("socket"))
            .arg("--json")
            .args(arguments);
        serde_json::from_str(&output_of(&mut command)?).context("shadowctl printed no JSON")
    }

    /// Processor time that all its threads have used (/proc/PID/task/TID/schedstat).
    ///
    /// # Errors
    /// procfs cannot be read.
    pub fn cpu(&self) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut nanos = 0_u64;
        for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            // A thread may end between the two reads.
            let text = std::fs::read_to_string(task?.path().join("schedstat"));
            let used = text
                .ok()
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
            nanos += used.unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Its resident memory, bytes.
    ///
    /// # Errors
    /// procfs cannot be read.
    pub fn rss_bytes(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.context("/proc/PID/status has no VmRSS")? * 1024)
    }

    /// Ends it as systemd would.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> Result<()> {
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

    fn wait_for_probe(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            // Until the socket is there the client fails, and that is no news.
            if let Ok(status) = self.ask(&["status"])
                && counts_system_calls(&status)?
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

fn configuration(folder: &Path, port: u16, capture: &str) -> String {
    let folder = folder.display();
    format!(
        "[host]\nname = \"bench\"\nlisten = \"127.0.0.1:{port}\"\n\
         state_dir = \"{folder}/state\"\nsocket = \"{folder}/socket\"\n\
         [capture]\ntick = \"1s\"\nebpf = true\n{capture}\n"
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
fn counts_system_calls(status: &Value) -> Result<bool> {
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
        let status = |probes: &str| -> Value {
            let text = format!(r#"{{"capture": {{"probes": [{probes}]}}}}"#);
            serde_json::from_str(&text).expect("it is JSON")
        };
        let attached = r#"{"name": "syscalls", "hook": "raw_tp sys_exit", "degraded": null}"#;
        assert!(counts_system_calls(&status(attached)).expect("it is attached"));
        assert!(!counts_system_calls(&status("")).expect("it is late"));
        let refused = r#"{"name": "syscalls", "hook": null, "degraded": "EPERM"}"#;
        let error = counts_system_calls(&status(refused)).expect_err("it is refused");
        assert!(error.to_string().contains("EPERM"));
    }
}
