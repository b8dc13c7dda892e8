//! Programs whose system calls are known.

use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};
use nix::sys::signal::kill;
use nix::unistd::{Pid, getppid};

const THREADS: u64 = 4;
const EACH: u64 = 500;
const MAIN: u64 = 1_000;
const AFTER: u64 = 77;
const OPENS: u64 = 100;
const RMDIRS: u64 = 100;
const KILLS: u64 = 25;
const MKDIRS: u64 = 10;
/// getppid calls between two moves.
pub const STEP: u64 = 250;
/// getppid calls of `gated`.
pub const GATED: u64 = 4_000;
/// How long each call of `block` waits.
pub const PAUSE: Duration = Duration::from_millis(50);
const PAUSES: u64 = 3;

/// Calls of one number.
pub struct Made {
    /// Which.
    pub number: libc::c_long,
    /// How often.
    pub calls: u64,
    /// Failed calls: errno and how often.
    pub errors: Vec<(i32, u64)>,
    /// How often there is what a program that does nothing makes of them.
    pub idle: u64,
}

/// What `mix` does more than a program that does nothing.
pub fn mix() -> Vec<Made> {
    let made = |number, calls, errors| Made {
        number,
        calls,
        errors,
        idle: 1,
    };
    vec![
        // No call that loading a program makes too: how often it does depends on the machine.
        made(libc::SYS_rmdir, RMDIRS, vec![(libc::ENOENT, RMDIRS)]),
        made(libc::SYS_getppid, MAIN + THREADS * EACH + AFTER, Vec::new()),
        made(libc::SYS_kill, KILLS, vec![(libc::ESRCH, KILLS)]),
        made(libc::SYS_mkdir, MKDIRS, vec![(libc::EEXIST, MKDIRS)]),
        made(libc::SYS_execve, 1, Vec::new()),
        // The last thread begins a program and does not leave.
        made(libc::SYS_exit, THREADS, Vec::new()),
        made(libc::SYS_exit_group, 0, Vec::new()),
    ]
}

/// What `block` waits in.
pub fn block() -> Vec<(libc::c_long, u64)> {
    vec![
        (libc::SYS_clock_nanosleep, PAUSES),
        (libc::SYS_poll, PAUSES),
        (libc::SYS_read, 1),
        (libc::SYS_futex, 1),
    ]
}

/// Plays a role; `None` when it is none of these.
pub fn run(role: &str) -> Option<Result<()>> {
    Some(match role {
        "mix" => make_mix(),
        "mix-after" => {
            call_getppid(AFTER);
            Ok(())
        }
        "block" => wait_everywhere(),
        "steps" => steps(),
        "gated" => gated(),
        _ => return None,
    })
}

fn call_getppid(times: u64) {
    for _ in 0..times {
        getppid();
    }
}

fn make_mix() -> Result<()> {
    call_getppid(MAIN);
    for _ in 0..RMDIRS {
        ensure!(std::fs::remove_dir("/nonexistent/kernel-check").is_err());
    }
    for _ in 0..KILLS {
        // No pid is that large.
        ensure!(kill(Pid::from_raw(i32::MAX), None) == Err(Errno::ESRCH));
    }
    for _ in 0..MKDIRS {
        ensure!(std::fs::create_dir("/").is_err());
    }
    let threads: Vec<_> = (0..THREADS)
        .map(|_| std::thread::spawn(|| call_getppid(EACH)))
        .collect();
    for thread in threads {
        thread.join().ok().context("a thread counts")?;
    }
    // A thread that is not the first one takes over its id.
    let error = std::thread::spawn(|| Command::new("/proc/self/exe").arg("mix-after").exec());
    let error = error.join().ok().context("a thread begins a program")?;
    Err(error).context("the program does not begin")
}

fn wait_everywhere() -> Result<()> {
    for _ in 0..PAUSES {
        std::thread::sleep(PAUSE);
        let patience = PollTimeout::try_from(PAUSE)?;
        ensure!(poll(&mut [], patience) == Ok(0));
    }
    // Twice as long: the waiting begins a moment after the other thread does.
    let (mut reader, mut writer) = std::io::pipe()?;
    let thread = std::thread::spawn(move || {
        wait_without_sleep(2 * PAUSE);
        writer.write_all(b"x")
    });
    reader.read_exact(&mut [0])?;
    thread.join().ok().context("a thread writes")??;
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        wait_without_sleep(2 * PAUSE);
        sender.send(())
    });
    receiver.recv()?;
    thread.join().ok().context("a thread sends")??;
    Ok(())
}

/// In a call that is not among those that are counted.
fn wait_without_sleep(time: Duration) {
    let until = nix::sys::time::TimeSpec::from(time);
    // A signal would end it early; nobody sends one.
    let _ = nix::poll::ppoll(&mut [], Some(until), None);
}

/// Some calls for each line, until there are no more.
fn steps() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        line?;
        call_getppid(STEP);
        println!("done");
    }
    Ok(())
}

/// Waits for the end of its input, then makes calls of several numbers.
fn gated() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    call_getppid(GATED);
    for _ in 0..OPENS {
        ensure!(std::fs::File::open("/nonexistent/kernel-check").is_err());
        ensure!(std::fs::create_dir("/").is_err());
        ensure!(kill(Pid::from_raw(i32::MAX), None) == Err(Errno::ESRCH));
    }
    Ok(())
}
