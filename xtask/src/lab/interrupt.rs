//! Turns SIGINT, SIGTERM and SIGHUP into a flag that is looked at between steps.
//!
//! What was made must be removed by the code that made it; so the signal never ends the process
//! by itself. A second signal does not either: clean-up has its own deadlines.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static INSTALLED: Once = Once::new();

fn signals() -> SigSet {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGHUP);
    set
}

/// Begins to catch the signals. Call it before any other thread starts: threads inherit the mask.
///
/// # Errors
/// The signal mask cannot be set.
pub fn install() -> Result<()> {
    signals().thread_block().context("cannot block signals")?;
    INSTALLED.call_once(|| {
        std::thread::spawn(|| {
            while signals().wait().is_ok() {
                if !REQUESTED.swap(true, Ordering::SeqCst) {
                    eprintln!("interrupted: cleaning up");
                }
            }
        });
    });
    Ok(())
}

/// Lets the signals through again, in a process that is about to become another program.
///
/// # Errors
/// The signal mask cannot be set.
pub fn let_through() -> Result<()> {
    signals().thread_unblock().context("cannot unblock signals")
}

/// Whether the user asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// An error once the user asked to stop.
///
/// # Errors
/// The user asked to stop.
pub fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
