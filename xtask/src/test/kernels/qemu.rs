//! Boots a kernel under QEMU and reads the test program's report from the serial console.
//!
//! Emulated, not virtualised: it works on every machine, also inside a virtual one. The machine is
//! ended on every path, also when this program is killed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::{shown, spawn};
use crate::test::closing::{self, Tally};

/// The checks start capture a dozen times, each of which takes up to 15 s on two busy cores.
const DEADLINE: Duration = Duration::from_secs(420);
/// After its closing line the program only powers off.
const POWER_OFF: Duration = Duration::from_secs(10);
/// The console's end that an error quotes.
const TAIL_LINES: usize = 25;
/// Boots of one kernel while only the emulator fails, see [`Report::emulator_failed`].
const BOOTS: usize = 3;
/// Lines that wait to be read; a console that is faster blocks, it loses nothing.
const QUEUED_LINES: usize = 1024;

/// Boots and returns what the closing line of the program says. The console is kept in `log`.
/// Boots again, and says so, when it was the emulator that failed.
///
/// # Errors
/// QEMU cannot start, or the console ends or the deadline passes without a closing line; the
/// error quotes the console's end.
pub fn boot(kernel: &Path, initramfs: &Path, log: &Path) -> Result<Tally> {
    for _ in 1..BOOTS {
        let (report, end) = run(kernel, initramfs, log)?;
        if !report.emulator_failed {
            return report.conclude(end, log);
        }
        println!(
            "the kernel met a breakpoint of its own that was gone already, as it may under emulation: \
             booting again"
        );
    }
    let (report, end) = run(kernel, initramfs, log)?;
    report.conclude(end, log)
}

fn run(kernel: &Path, initramfs: &Path, log: &Path) -> Result<(Report, End)> {
    let mut command = qemu(kernel, initramfs);
    println!("$ {}", shown(&command));
    let mut machine = Machine {
        child: spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?,
    };
    let console = machine.child.stdout.take().context("QEMU has no console")?;
    let mut log_file =
        File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let mut report = Report::default();
    let ended = listen(&lines(console), Instant::now() + DEADLINE, |line| {
        // The log is a help for people; a full disk must not fail the test.
        let _ = writeln!(log_file, "{line}");
        report.read(line)
    });
    drop(machine);
    Ok((report, ended))
}

/// `setpriv` makes the kernel end QEMU when this program dies without a chance to do it.
fn qemu(kernel: &Path, initramfs: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-cpu",
            "max",
        ])
        .args([
            "-m",
            "2048M",
            "-smp",
            "2",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ])
        // On a busy machine the emulated timer fails the kernel's check of it, which is a panic.
        .args(["-append", "console=ttyS0 panic=-1 quiet no_timer_check"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs);
    command
}

/// A running QEMU, ended when it goes out of scope.
struct Machine {
    child: Child,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have powered off already; then there is nothing to end, only to collect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(console: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = sync_channel(QUEUED_LINES);
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n') {
            let Ok(line) = line else { return };
            let text = plain(&String::from_utf8_lossy(&line));
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Without the sequences by which the firmware clears the screen, right before the first line.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(next) = characters.next() {
        if next != '\x1b' {
            if !next.is_control() {
                text.push(next);
            }
            continue;
        }
        // "ESC [ numbers letter", or ESC and one letter.
        if characters.next() == Some('[') {
            while characters
                .next_if(|next| !next.is_ascii_alphabetic())
                .is_some()
            {}
            characters.next();
        }
    }
    text
}

/// Why nothing more is read from the console.
#[derive(Debug, PartialEq, Eq)]
enum End {
    PowerOff,
    Deadline,
}

/// Hands over line after line. Once `read` has said that the report is complete, only the power
/// off is waited for.
fn listen(lines: &Receiver<String>, deadline: Instant, mut read: impl FnMut(&str) -> bool) -> End {
    let mut deadline = deadline;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if read(&line) => deadline = deadline.min(Instant::now() + POWER_OFF),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return End::Deadline,
            Err(RecvTimeoutError::Disconnected) => return End::PowerOff,
        }
    }
}

/// What the console said so far.
#[derive(Default)]
struct Report {
    tally: Option<Tally>,
    tail: VecDeque<String>,
    fails: bool,
    /// A kernel changes its own code behind a breakpoint and takes that away when all processors
    /// know. An emulated processor may still run it afterwards, which no kernel survives; reported
    /// for QEMU 8.0 on the kernel's mailing list in July 2023, seen here with 7.2.
    emulator_failed: bool,
}

impl Report {
    /// Takes one line, shows it when it is about a test, a hook or a failure; true when it was the
    /// closing one.
    fn read(&mut self, line: &str) -> bool {
        self.fails |= line == "failures:";
        self.emulator_failed |= self.tally.is_none() && line.contains("int3: 0000 [#");
        if self.fails || line.starts_with("test ") || line.starts_with("hook ") {
            println!("{line}");
        }
        if self.tail.len() == TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
        let closing = closing::parse(line);
        self.tally = self.tally.or(closing);
        closing.is_some()
    }

    fn conclude(self, end: End, log: &Path) -> Result<Tally> {
        if let Some(tally) = self.tally {
            return Ok(tally);
        }
        let how = match end {
            End::PowerOff => "the machine ended without a closing line".to_owned(),
            End::Deadline => format!("no closing line within {} s", DEADLINE.as_secs()),
        };
        let tail: Vec<String> = self.tail.into();
        bail!(
            "the console is in {}: {how}; its last words:\n{}",
            log.display(),
            tail.join("\n")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str], end: End) -> Result<Tally> {
        let mut report = Report::default();
        for line in lines {
            report.read(line);
        }
        report.conclude(end, Path::new("console.log"))
    }

    #[test]
    fn the_closing_line_counts_however_the_machine_ends() {
        let lines = [
            "[ 0.1] booting",
            "test exec ... ok",
            "test result: ok. 1 passed; 0 failed;",
        ];
        for end in [End::PowerOff, End::Deadline] {
            assert_eq!(report(&lines, end).expect("it closed").passed, 1);
        }
    }

    #[test]
    fn a_breakpoint_that_was_gone_is_the_emulators() {
        let mut report = Report::default();
        report.read("[  122.711309] ---[ end trace 0000000000000000 ]---");
        assert!(!report.emulator_failed);
        report.read("[  122.711333] Oops: int3: 0000 [#2] PREEMPT SMP NOPTI");
        assert!(report.emulator_failed);
    }

    #[test]
    fn a_console_without_a_closing_line_is_quoted() {
        let error = report(
            &["test exec ... ok", "Kernel panic - not syncing"],
            End::PowerOff,
        )
        .expect_err("nothing closed it");
        assert!(error.to_string().contains("Kernel panic"), "{error}");
        assert!(report(&[], End::Deadline).is_err());
    }

    #[test]
    fn the_firmwares_sequences_are_removed() {
        let line = "\x1bc\x1b[?7l\x1b[2J\x1b[0mtest exec ... ok\r";
        assert_eq!(plain(line), "test exec ... ok");
        for cut_off in ["\x1b", "\x1b[", "\x1b[2"] {
            assert_eq!(plain(cut_off), "");
        }
    }

    #[test]
    fn listening_stops_at_the_deadline_and_at_the_end() {
        let (sender, receiver) = sync_channel(4);
        let soon = Instant::now() + Duration::from_millis(20);
        assert_eq!(listen(&receiver, soon, |_| false), End::Deadline);
        sender.send("a line".to_owned()).expect("somebody listens");
        drop(sender);
        let mut seen = 0;
        let far = Instant::now() + DEADLINE;
        let end = listen(&receiver, far, |_| {
            seen += 1;
            false
        });
        assert_eq!((end, seen), (End::PowerOff, 1));
    }
}
