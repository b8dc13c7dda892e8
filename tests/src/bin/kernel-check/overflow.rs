//! What a full table refuses is counted, and logged once.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use shadowd::observe::{Capture, Limits};
use tracing_subscriber::util::SubscriberInitExt;

use super::fence::Fence;
use super::{dropped, run_role, workload};

/// The ring buffer's smallest size holds some 14 new control groups.
const EVENTS_BYTES: u32 = 4_096;
const GROUPS: u32 = 40;
const ROUNDS: u64 = 3;

/// Overflows a capture of its own: its tables are as small as they can be.
pub fn is_counted_and_logged_once(_: &mut Capture) -> Result<()> {
    let lines = Lines::default();
    let writer = lines.clone();
    let guard = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish()
        .set_default();
    let limits = Limits {
        syscalls: 1,
        events_bytes: EVENTS_BYTES,
        ..Limits::default()
    };
    // What others do on this machine fills nothing here.
    let fence = Fence::new("overflow")?;
    let _inside = fence.enter()?;
    let mut capture = fence.watch_with(limits);
    let before = dropped(&capture.tick(), "syscalls");
    for _ in 0..ROUNDS {
        run_role(&mut capture, &["syscalls"])?;
    }
    let dropped = dropped(&capture.tick(), "syscalls") - before;
    // The one entry is taken before the workload starts.
    let made = ROUNDS * (workload::GETPPIDS + workload::FAILING_OPENS);
    ensure!(dropped >= made, "{made} calls, dropped {dropped}");

    for _ in 0..ROUNDS {
        make_groups()?;
        capture.tick();
    }
    drop(guard);
    for full in [
        "the table of system calls is full",
        "the ring buffer of events is full",
    ] {
        let times = lines.count(full)?;
        ensure!(times == 1, "{full:?} {times} times in {lines:?}");
    }
    let others = lines.count("is full")? - 2;
    ensure!(others == 0, "{lines:?}");
    Ok(())
}

/// Makes and removes groups while nobody reads the ring buffer.
fn make_groups() -> Result<()> {
    let mount = workload::cgroup_mount()?;
    for number in 0..GROUPS {
        let name = format!("kernel-check-{}-{number}", std::process::id());
        let group = mount.join(name);
        fs::create_dir(&group).context("no control group can be made")?;
        workload::remove_group(&group)?;
    }
    Ok(())
}

/// Collects what is logged.
#[derive(Clone, Debug, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn count(&self, text: &str) -> Result<usize> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::str::from_utf8(&bytes)?.matches(text).count())
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
