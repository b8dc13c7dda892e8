//! What all probes cost a real server: requests a second that nginx answers to wrk, with the daemon
//! and without it, in turns.
//!
//! nginx runs from the test hosts' root file system, on loopback, one worker on the first
//! processor; wrk on the second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::daemon::Daemon;
use super::report::Metric;
use crate::build;
use crate::command::{capture as output_of, spawn, target};
use crate::lab::rootfs;

/// Pairs of turns.
const ROUNDS: usize = 9;
/// Length of a turn.
const TURN: &str = "3s";
/// From attached probes to the first request: a start is not what is measured.
const SETTLE: Duration = Duration::from_secs(2);
/// The port of the bench's nginx.
const PORT: u16 = 18_080;
/// Bytes of the file that is served.
const BODY_BYTES: usize = 4_096;
const PATIENCE: Duration = Duration::from_secs(10);

/// Throughput with capture divided by throughput without; kept connections and new ones.
///
/// # Errors
/// nginx or wrk does not run, or the daemon does not.
pub fn run() -> Result<Vec<Metric>> {
    build::run(build::Args { release: true })?;
    let nginx = Nginx::start()?;
    let kept = compare("nginx_kept_connections", &[])?;
    let new = compare("nginx_new_connections", &["-H", "Connection: close"])?;
    drop(nginx);
    Ok(vec![kept, new])
}

fn compare(name: &'static str, headers: &[&str]) -> Result<Metric> {
    // The first turn fills caches and is thrown away.
    wrk(headers)?;
    let mut pairs = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let with = || {
            // The kernel's own measurement of programs costs more than the programs.
            let daemon = Daemon::start("cost = \"off\"")?;
            std::thread::sleep(SETTLE);
            let rate = wrk(headers)?;
            daemon.stop()?;
            Ok::<f64, anyhow::Error>(rate)
        };
        pairs.push(if round % 2 == 0 {
            let with = with()?;
            (with, wrk(headers)?)
        } else {
            let without = wrk(headers)?;
            (with()?, without)
        });
    }
    let mut rates: Vec<f64> = pairs.iter().map(|(with, _)| *with).collect();
    let mut ratios: Vec<f64> = pairs.iter().map(|(with, without)| with / without).collect();
    rates.sort_by(f64::total_cmp);
    ratios.sort_by(f64::total_cmp);
    let quartiles = ratios[ROUNDS * 3 / 4] - ratios[ROUNDS / 4];
    Ok(Metric {
        name,
        value: rates[ROUNDS / 2],
        unit: "req/s",
        peer: "no daemon",
        ratio: ratios[ROUNDS / 2],
        spread: quartiles / ratios[ROUNDS / 2],
    })
}

/// Requests a second.
fn wrk(headers: &[&str]) -> Result<f64> {
    let text = output_of(
        Command::new("taskset")
            .args(["-c", "1", "wrk", "-t1", "-c32", "-d", TURN])
            .args(headers)
            .arg(format!("http://127.0.0.1:{PORT}/body")),
    )
    .context("wrk does not run (`cargo xtask setup` installs it)")?;
    ensure!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "wrk met errors: {text}"
    );
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate = line.and_then(|line| line.trim().parse().ok());
    rate.with_context(|| format!("wrk printed no rate: {text}"))
}

/// A running nginx and its folder; both end when it goes out of scope.
struct Nginx {
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    fn start() -> Result<Self> {
        let root = rootfs::base()?;
        let folder = target()
            .join("bench")
            .join(format!("nginx-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("body"), "x".repeat(BODY_BYTES))?;
        fs::write(folder.join("nginx.conf"), configuration(&folder))?;
        let loader = root.join("lib64/ld-linux-x86-64.so.2");
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
            .map(|folder| root.join(folder).display().to_string())
            .join(":");
        // Its own libraries, but this machine's files: no chroot, so the paths are those above.
        let child = spawn(
            Command::new("taskset")
                .args(["-c", "0"])
                .arg(loader)
                .args(["--library-path", &libraries])
                .arg(root.join("usr/sbin/nginx"))
                .arg("-p")
                .arg(&folder)
                .arg("-c")
                .arg(folder.join("nginx.conf"))
                .stdin(Stdio::null()),
        )?;
        let mut nginx = Self { child, folder };
        nginx.wait()?;
        Ok(nginx)
    }

    fn wait(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("nginx ended with {status}");
            }
            ensure!(Instant::now() < deadline, "nginx does not listen on {PORT}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGQUIT lets the master end its worker; it has no other children.
        if let Ok(pid) = self.child.id().try_into() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n\
         user root;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; keepalive_requests 100000000; sendfile on;\n\
         client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;\n\
         fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
         server {{ listen 127.0.0.1:{PORT}; root {folder}; }} }}\n"
    )
}
