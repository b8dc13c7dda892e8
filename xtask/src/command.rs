//! Runs child processes the same way everywhere: the command line is shown, a failure names it.
//!
//! Standard input is closed for every child, so that none can wait for a person who is not there.
//! Never builds a shell string: arguments go to the program as they are.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::SigSet;

use crate::lab::interrupt;

pub use crate::lab::{target, workspace as root};

/// The cargo that started this program, run at the workspace root.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A folder for downloads that outlive `cargo clean`: `$XDG_CACHE_HOME/NAME` or `~/.cache/NAME`.
#[must_use]
pub fn cache_dir(name: &str) -> PathBuf {
    let variable = |key| std::env::var_os(key).filter(|value| !value.is_empty());
    variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join(name)
}

/// The command as a person would type it.
#[must_use]
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Starts a child that an interrupt can end.
///
/// This program may hold signals back to clean up after itself; a child inherits that, and would
/// be deaf to them for ever.
///
/// # Errors
/// The program cannot be started.
pub fn spawn(command: &mut Command) -> Result<Child> {
    let held_back = SigSet::thread_get_mask().context("cannot read the signal mask")?;
    interrupt::let_through()?;
    let child = command.spawn();
    held_back
        .thread_set_mask()
        .context("cannot restore the signal mask")?;
    child.with_context(|| format!("cannot start `{}`", shown(command)))
}

/// Shows the command, runs it with the terminal's output, and fails unless it exits with 0.
///
/// # Errors
/// The program cannot be started, or its exit status is not 0.
pub fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let mut child = spawn(command.stdin(Stdio::null()))?;
    let status = child.wait().context("cannot wait for the child")?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs the command like [`run`], handing each line of its standard output to `line` after
/// printing it.
///
/// # Errors
/// The program cannot be started or read, or its exit status is not 0.
pub fn run_watching(command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    println!("$ {}", shown(command));
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let output = child.stdout.take().context("the child has no output")?;
    for bytes in BufReader::new(output).split(b'\n') {
        let bytes = bytes.with_context(|| format!("cannot read from `{}`", shown(command)))?;
        let text = String::from_utf8_lossy(&bytes);
        println!("{text}");
        line(&text);
    }
    let status = child.wait().context("cannot wait for the child")?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs the command silently and returns its standard output.
///
/// # Errors
/// The program cannot be started, or its exit status is not 0; the error quotes its last words.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let last = complaint.trim_end().lines().next_back().unwrap_or_default();
        bail!("`{}` ended with {}: {last}", shown(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Tries `attempt` up to three times, because downloads fail for reasons that pass.
///
/// # Errors
/// The error of the last attempt.
pub fn with_retries<T>(what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    retrying(what, Duration::from_secs(2), attempt)
}

fn retrying<T>(what: &str, pause: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    const ATTEMPTS: u32 = 3;
    for number in 1..ATTEMPTS {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if interrupt::requested() => return Err(error),
            Err(error) => {
                println!("{what}: attempt {number} of {ATTEMPTS} failed ({error:#}); trying again");
                std::thread::sleep(pause * number);
            }
        }
    }
    attempt().with_context(|| format!("{what} failed {ATTEMPTS} times"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn a_failure_names_the_command_and_quotes_its_last_words() {
        let error =
            capture(Command::new("sh").args(["-c", "echo first >&2; echo why >&2; exit 3"]))
                .expect_err("exit 3 is a failure");
        let text = format!("{error:#}");
        assert!(text.contains("`sh -c") && text.contains("3: why"), "{text}");
    }

    #[test]
    fn output_is_handed_over_line_by_line_also_without_a_last_newline() {
        let mut seen = Vec::new();
        run_watching(Command::new("printf").arg("a\nb"), |line| {
            seen.push(line.to_owned())
        })
        .expect("printf works");
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn retries_stop_at_the_first_success_and_after_three_failures() {
        let mut calls = 0;
        let second = retrying("a download", Duration::ZERO, || {
            calls += 1;
            if calls < 2 {
                bail!("not yet")
            } else {
                Ok(calls)
            }
        });
        assert_eq!(second.expect("the second attempt works"), 2);

        let mut calls = 0;
        let never: Result<()> = retrying("a download", Duration::ZERO, || {
            calls += 1;
            bail!("no network")
        });
        assert!(never.is_err());
        assert_eq!(calls, 3);
    }

    #[test]
    fn a_child_hears_the_signals_that_this_program_holds_back() {
        let mut held_back = SigSet::empty();
        held_back.add(Signal::SIGTERM);
        held_back
            .thread_block()
            .expect("this thread's mask can be set");
        let mut child = spawn(Command::new("cat").stdin(Stdio::piped())).expect("cat is there");
        let pid = Pid::from_raw(child.id().try_into().expect("a pid fits"));
        kill(pid, Signal::SIGTERM).expect("the child is there");
        let status = child.wait().expect("it is our child");
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
        assert!(SigSet::thread_get_mask().is_ok_and(|mask| mask.contains(Signal::SIGTERM)));
    }

    #[test]
    fn the_root_is_the_workspace() {
        assert!(root().join("docs/ARCHITECTURE.md").is_file());
    }
}
