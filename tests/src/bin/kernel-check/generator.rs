//! The other side of the load: starts a role in a process of its own and asks it what it did.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shadowd_tests::load::tcp::Ready;
use shadowd_tests::load::{REFUSED, Report};

use crate::{Skipped, workload};

/// How long a role may take to say something: emulated processors are slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// A role that runs; killed when it goes out of scope.
pub struct Generator {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Generator {
    /// Starts a role.
    pub fn start(role: &str, plan: &impl Serialize) -> Result<Self> {
        Self::spawn(Command::new("/proc/self/exe"), role, plan)
    }

    /// Starts a role in a network namespace that has a name (ip-netns(8)).
    pub fn start_in(namespace: &str, role: &str, plan: &impl Serialize) -> Result<Self> {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", namespace])
            .arg(std::env::current_exe()?);
        Self::spawn(command, role, plan)
    }

    fn spawn(mut command: Command, role: &str, plan: &impl Serialize) -> Result<Self> {
        command
            .args(["load", role, &serde_json::to_string(plan)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("the load does not start")?;
        let output = child.stdout.take().context("it has an output")?;
        Ok(Self {
            input: child.stdin.take(),
            output: BufReader::new(output),
            child,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says next.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        if self.output.buffer().is_empty() {
            let mut waits = [PollFd::new(
                self.output.get_ref().as_fd(),
                PollFlags::POLLIN,
            )];
            let patience = PollTimeout::try_from(PATIENCE)?;
            ensure!(poll(&mut waits, patience)? == 1, "a role says nothing");
        }
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(self.failure());
        }
        serde_json::from_str(&line).with_context(|| line.trim().to_owned())
    }

    /// Why it ended before its time.
    fn failure(&mut self) -> anyhow::Error {
        let mut text = String::new();
        if let Some(errors) = &mut self.child.stderr {
            // What was read until an error is quoted all the same.
            let _ = errors.read_to_string(&mut text);
        }
        match text.split_once(REFUSED) {
            Some((_, what)) => Skipped(what.trim().to_owned()).into(),
            None => anyhow::anyhow!("the load failed: {}", text.trim()),
        }
    }

    /// The port on which it listens.
    pub fn port(&mut self) -> Result<u16> {
        Ok(self.read::<Ready>()?.port)
    }

    /// What it did until now.
    pub fn report(&mut self) -> Result<Report> {
        self.ask()
    }

    /// As [`Generator::report`], of a role with a report of its own kind.
    pub fn ask<T: DeserializeOwned>(&mut self) -> Result<T> {
        let input = self.input.as_mut().context("it was told to close")?;
        // A role that has ended says why on the other line.
        let _ = writeln!(input, "report");
        self.read()
    }

    /// Ends its input: it closes what is open.
    pub fn hang_up(&mut self) {
        self.input = None;
    }

    /// Lets it close everything and end.
    pub fn close(mut self) -> Result<()> {
        self.hang_up();
        let status = self.child.wait()?;
        if status.code() != Some(i32::from(workload::STATUS)) {
            bail!("{status}: {:#}", self.failure());
        }
        Ok(())
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
