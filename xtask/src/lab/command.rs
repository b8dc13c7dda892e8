//! Runs programs with a deadline, and stops early when the user interrupts.
//!
//! Every child gets a process group of its own, so that an interrupt at the terminal reaches this
//! process first and what it made is removed in order. Nothing here goes through a shell.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::interrupt;

/// The deadline of a command that should take milliseconds.
pub const SHORT: Duration = Duration::from_secs(20);

/// Builds a command from a program and its arguments.
pub fn command<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs to the end and gives the output, whatever the exit status.
///
/// # Errors
/// The program cannot be started, the deadline passes (its process group is killed), or the user
/// interrupts (likewise).
pub fn output(command: Command, input: Option<&[u8]>, deadline: Duration) -> Result<Output> {
    output_unless(command, input, deadline, interrupt::requested)
}

/// As [`output`], but not stopped by an interrupt: for the steps that clean up.
///
/// # Errors
/// The program cannot be started or the deadline passes.
pub fn output_always(command: Command, deadline: Duration) -> Result<Output> {
    output_unless(command, None, deadline, || false)
}

fn output_unless(
    mut command: Command,
    input: Option<&[u8]>,
    deadline: Duration,
    stop: impl Fn() -> bool,
) -> Result<Output> {
    let named = describe(&command);
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{named}`"))?;
    let group = Pid::from_raw(i32::try_from(child.id()).context("process id")?);
    if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that ends without reading says more by its exit status than by this error.
        let _ = pipe.write_all(bytes);
    }
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match receiver.recv_timeout(left.min(Duration::from_millis(100))) {
            Ok(output) => return output.with_context(|| format!("cannot wait for `{named}`")),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("lost `{named}`"),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        if stop() {
            let _ = killpg(group, Signal::SIGKILL);
            bail!("interrupted during `{named}`");
        }
        if left.is_zero() {
            let _ = killpg(group, Signal::SIGKILL);
            bail!("`{named}` did not end within {deadline:?}");
        }
    }
}

/// Runs to the end, expects success, gives standard output as text.
///
/// # Errors
/// As [`output`], or an exit status other than 0, with what the program wrote.
pub fn run(command: Command, input: Option<&[u8]>, deadline: Duration) -> Result<String> {
    let named = describe(&command);
    checked(&named, output(command, input, deadline)?)
}

/// Turns an exit status other than 0 into an error that quotes what was written.
///
/// # Errors
/// The exit status is not 0.
pub fn checked(named: &str, output: Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{named}` failed ({}): {}{}",
            output.status,
            text,
            complaint.trim_end()
        );
    }
    Ok(text)
}

/// The command line, for messages.
pub fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    if text.len() > 200 {
        text.truncate(text.floor_char_boundary(200));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed_at_its_deadline() {
        let begin = Instant::now();
        let result = output(command("sleep", &["60"]), None, Duration::from_millis(50));
        assert!(result.is_err_and(|error| error.to_string().contains("did not end")));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_failure_quotes_the_program() {
        let result = run(command("cat", &["/nonexistent"]), None, SHORT);
        assert!(result.is_err_and(|error| error.to_string().contains("No such file")));
        assert_eq!(
            run(command::<&str>("cat", &[]), Some(b"in"), SHORT)
                .ok()
                .as_deref(),
            Some("in")
        );
    }
}
