//! The measuring client, running where the lab's client is.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Report;
use crate::lab::{Lab, VIP_V4, VIP_V6, interrupt};

/// Tells tests, which are other programs, where this one is.
pub const PROGRAM: &str = "SHADOWD_XTASK";
/// Output beyond this is not read: enough for a change of hosts every millisecond for half an hour.
const MOST_OUTPUT: u64 = 64 << 20;

/// How a window is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// New connections a second to each virtual IP.
    pub rate: u32,
    /// Connections to each that are held open.
    pub held: u32,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            rate: 500,
            held: 0,
            timeout: Duration::from_secs(1),
        }
    }
}

/// A window of measurement. Ends when dropped.
pub struct Meter {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    answering: BTreeMap<String, String>,
    ready: bool,
}

impl Meter {
    /// Begins to ask both virtual IPs; comes back once both answered.
    ///
    /// # Errors
    /// The client cannot be started, or does not get answers within 20 seconds.
    pub fn start(lab: &Lab, window: Window) -> Result<Self> {
        let program = match std::env::var_os(PROGRAM) {
            Some(program) => program.into(),
            None => std::env::current_exe().context("cannot tell the path of this program")?,
        };
        let program = program
            .to_str()
            .context("the path of this program is not UTF-8")?;
        let targets = targets();
        let [rate, held] = [window.rate, window.held].map(|number| number.to_string());
        let timeout_ms = window.timeout.as_millis().to_string();
        // Ahead of what it measures, in whatever control group: on a machine that has little to
        // share it would else measure how long it waited itself.
        let mut arguments = vec![
            "chrt",
            "--rr",
            "1",
            program,
            "probe",
            "--rate",
            &rate,
            "--held",
            &held,
            "--timeout-ms",
            &timeout_ms,
            "--until-stdin-closes",
            "--json",
        ];
        for target in &targets {
            arguments.extend(["--target", target]);
        }
        let mut command = lab.client_command(&arguments)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .context("cannot start the measuring client")?;
        let output = child
            .stdout
            .take()
            .context("the client's output is piped")?;
        let input = child.stdin.take();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output.take(MOST_OUTPUT))
                .lines()
                .map_while(Result::ok)
            {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut meter = Self {
            child,
            input,
            lines,
            answering: BTreeMap::new(),
            ready: false,
        };
        let patience = Duration::from_secs(20);
        if !meter.follow(patience, |meter| meter.ready)? {
            bail!("waited {patience:?} in vain for both virtual IPs to answer");
        }
        Ok(meter)
    }

    /// Waits until a host answers at both virtual IPs.
    ///
    /// # Errors
    /// It does not within `deadline`, or the client ended.
    pub fn wait_for(&mut self, host: &str, deadline: Duration) -> Result<()> {
        if !self.answered_by(host, deadline)? {
            bail!("waited {deadline:?} in vain for the client to be answered by host {host}");
        }
        Ok(())
    }

    /// Whether a host answers at both virtual IPs before `deadline` has passed.
    ///
    /// # Errors
    /// The client ended, or the user interrupts.
    pub fn answered_by(&mut self, host: &str, deadline: Duration) -> Result<bool> {
        self.follow(deadline, |meter| {
            targets()
                .iter()
                .all(|target| meter.answering.get(target).is_some_and(|now| now == host))
        })
    }

    /// Goes on measuring for so long.
    ///
    /// # Errors
    /// The client ended, or the user interrupts.
    pub fn measure_for(&mut self, time: Duration) -> Result<()> {
        self.follow(time, |_| false).map(drop)
    }

    /// Ends the window; gives the report: IPv4's target, then IPv6's.
    ///
    /// # Errors
    /// The client does not end properly.
    pub fn finish(mut self) -> Result<Report> {
        drop(self.input.take());
        let end = Instant::now() + Duration::from_secs(10);
        while let Ok(line) = self
            .lines
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if line.starts_with('{') {
                let report: Report = serde_json::from_str(&line)?;
                if report.targets.len() != targets().len() {
                    bail!("the client reports other targets");
                }
                return Ok(report);
            }
        }
        bail!("the measuring client gave no report")
    }

    fn follow(&mut self, deadline: Duration, holds: impl Fn(&Self) -> bool) -> Result<bool> {
        let end = Instant::now() + deadline;
        while !holds(self) {
            interrupt::check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            match self
                .lines
                .recv_timeout(left.min(Duration::from_millis(100)))
            {
                Ok(line) => self.note(&line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the measuring client ended"),
            }
        }
        Ok(true)
    }

    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ready"] => self.ready = true,
            ["host", target, host] => {
                self.answering.insert(target.to_owned(), host.to_owned());
            }
            _ => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn targets() -> [String; 2] {
    [format!("{VIP_V4}:80"), format!("[{VIP_V6}]:80")]
}
