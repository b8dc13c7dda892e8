//! What shadowd is compared with: programs of our own in other designs, and bpftrace.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{spawn, target};

/// Until bpftrace has compiled and attached its script, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Calls, times and errors by process. The last probe is attached last, so what it prints tells
/// that all are.
const SCRIPT: &str = "\
tracepoint:raw_syscalls:sys_enter { @start[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@start[tid]/ {
  @calls[pid] = count();
  @times[pid] = hist(nsecs - @start[tid]);
  if (args->ret < 0) { @errors[pid, args->ret] = count(); }
  delete(@start[tid]);
}
interval:ms:200 { printf(\"attached\\n\"); }
";

/// Where bpftrace looks for tracepoints, in a mount namespace of its own.
const MOUNT: &str = "mount -t debugfs debugfs /sys/kernel/debug && \
    { mountpoint -q /sys/kernel/debug/tracing || \
      mount -t tracefs tracefs /sys/kernel/debug/tracing; } && \
    exec bpftrace -e \"$1\"";

/// A pair of programs of the `bench` object; they end when it goes out of scope.
pub struct Probes {
    child: Child,
}

impl Probes {
    /// Attaches `PREFIX_enter` and `PREFIX_exit`.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn start(prefix: &str) -> Result<Self> {
        let child = spawn(
            Command::new(target().join("release/bench-probes"))
                .arg(target().join("bpf/bpfel-unknown-none/release/bench"))
                .arg(prefix)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        )?;
        let mut probes = Self { child };
        let output = probes.child.stdout.take().context("there is a pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "attached", "the programs {prefix} are off");
        Ok(probes)
    }

    /// Measures while they are attached.
    ///
    /// # Errors
    /// They ended before.
    pub fn during(mut self, measure: fn() -> f64) -> Result<f64> {
        let time = measure();
        ensure!(self.child.try_wait()?.is_none(), "the programs ended");
        Ok(time)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A running script; it ends when it goes out of scope.
pub struct Bpftrace {
    child: Child,
}

impl Bpftrace {
    /// Starts it and waits until all of its probes are attached.
    ///
    /// # Errors
    /// bpftrace ends or is not ready in time.
    pub fn start() -> Result<Self> {
        let folder = target().join("bench");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(format!("bpftrace-{}", std::process::id()));
        let output = std::fs::File::create(&path)?;
        let child = spawn(
            Command::new("unshare")
                .args(["--mount", "sh", "-c", MOUNT, "sh", SCRIPT])
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output),
        )?;
        let mut script = Self { child };
        let result = script.wait(&path);
        // It stays open where it is written; nobody reads it again.
        let _ = std::fs::remove_file(&path);
        result.map(|()| script)
    }

    fn wait(&mut self, output: &std::path::Path) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read_to_string(output)?;
            if said.lines().any(|line| line == "attached") {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("bpftrace ended with {status}: {said}");
            }
            ensure!(Instant::now() < deadline, "bpftrace is not ready: {said}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Measures while it runs.
    ///
    /// # Errors
    /// It ended before.
    pub fn during(mut self, measure: fn() -> f64) -> Result<f64> {
        let time = measure();
        ensure!(self.child.try_wait()?.is_none(), "bpftrace ended");
        Ok(time)
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself; what is left then is to collect it.
    let _ = child.kill();
    let _ = child.wait();
}
