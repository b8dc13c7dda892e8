//! The measuring client, running where the lab's client is.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::lab::{Lab, VIP_V4, VIP_V6, interrupt};
use crate::probe::Report;

/// A window of measurement. Ends when dropped.
pub struct Meter {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    answering: BTreeMap<String, String>,
    ready: bool,
}

impl Meter {
    /// Begins to ask both virtual IPs, 500 times a second each; comes back once both answered.
    ///
    /// # Errors
    /// The client cannot be started, or does not get answers within 20 seconds.
    pub fn start(lab: &Lab) -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell the path of this program")?;
        let program = program
            .to_str()
            .context("the path of this program is not UTF-8")?;
        let targets = targets();
        // Ahead of what it measures, on a machine that has little to share.
        let mut arguments = vec![
            "nice",
            "-n",
            "-10",
            program,
            "probe",
            "--rate",
            "500",
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
            // An answer longer than this is none of ours.
            for line in BufReader::new(output.take(1 << 20))
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
        meter.follow(
            Duration::from_secs(20),
            "both virtual IPs to answer",
            |meter| meter.ready,
        )?;
        Ok(meter)
    }

    /// Waits until a host answers at both virtual IPs.
    ///
    /// # Errors
    /// It does not within `deadline`, or the client ended.
    pub fn wait_for(&mut self, host: &str, deadline: Duration) -> Result<()> {
        let what = format!("the client to be answered by host {host}");
        self.follow(deadline, &what, |meter| {
            targets()
                .iter()
                .all(|target| meter.answering.get(target).is_some_and(|now| now == host))
        })
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

    fn follow(
        &mut self,
        deadline: Duration,
        what: &str,
        holds: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + deadline;
        while !holds(self) {
            interrupt::check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {deadline:?} in vain for {what}");
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
        Ok(())
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
